"""The first command on data of one's own: what is wrong with them is said before anything slow begins."""

import pytest

from sparc.errors import InvalidConfig
from sparc.plugins.registry import discover
from sparc.session.options import resolved


def test_a_folder_that_a_dataset_recognizes_needs_no_dataset(photos, tmp_path):
    registry = discover()
    config = resolved({"data-root": str(photos), "stream": ["minilm"]}, registry)
    assert (config.source.name, config.source.params["root"]) == ("image-folder", str(photos))
    assert resolved({"data-root": str(photos)}, registry, {"dataset": "coco"}).source.name == "coco"
    with pytest.raises(InvalidConfig, match=r"--data-root: expected --dataset too, found .* alone") as raised:
        resolved({"data-root": str(tmp_path)}, registry)
    assert "image-folder" in raised.value.hint
    with pytest.raises(InvalidConfig, match="--data-root: no folder at"):
        resolved({"data-root": str(tmp_path / "nowhere")}, registry)


def test_bad_samples_are_listed_before_models_load_and_counted_while_extracting(photos, sparc_here):
    streams = ("--stream", "tiny-image", "--stream", "char-ngrams")
    (photos / "red-bar-0.png").unlink()
    (photos / "red-bar-1.png").write_bytes(b"")
    for name in ("blue-bar-0.png", "blue-bar-1.png"):
        (photos / name).write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    lines = (photos / "samples.csv").read_text().splitlines()
    where = {line[:9]: number for number, line in enumerate(lines, start=1)}
    done = sparc_here("train", *streams, "--data-root", photos, "--out", "run")
    assert done.returncode == 1
    assert f"line {where['red-bar-0']}: no image 'red-bar-0.png' in the folder; and 1 more problem" in done.stderr
    assert f"       line {where['red-bar-1']}: the image 'red-bar-1.png' is empty\nhint:" in done.stderr
    assert "loading" not in done.stdout
    plan = sparc_here("extract", "--plan", *streams, "--data-root", photos)
    assert (plan.returncode, "total: " in plan.stdout) == (0, True)
    assert "2 problems of the dataset, at which an extraction stops without --skip-bad:\n  line" in plan.stdout
    assert "that were tried cannot be read" in plan.stdout
    kept = [line for line in lines if not line.startswith(("red-bar-0", "red-bar-1"))]
    (photos / "samples.csv").write_text("\n".join(kept))
    done = sparc_here("train", *streams, "--data-root", photos, "--out", "run")
    assert done.returncode == 1
    assert "samples read so far cannot be read" in done.stderr
    assert "blue-bar-" in done.stderr
