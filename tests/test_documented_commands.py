"""The commands of the documentation, and those in the help of the commands, run as written.

Small data and models replace large ones: a tiny transformer and the text stream of the example package, under the names
of the demo's streams, on a folder of drawn photos. Commands that need more are listed here, with the test that runs
them instead.
"""

import re
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from sparc.localization.benchmark import cases
from tests.interchange.test_feature_parts import clip_retrieval
from tests.interchange.test_import_checkpoint import state, written
from tests.test_docs import sparc_commands

NOT_HERE = {
    r"dinov2|dinov3|clip-img|sentence": "weights from the hub; tests/test_cli.py trains on local files",
    r"siglip": "weights from the hub; tests/test_attach.py attaches a light stream",
    r"^(train|extract)( --stream hog.*)?$": "the demo: two minutes of two cores",
    r"^(info|evaluate|explore|localize) spaces/": "imported spaces; tests/test_other_data.py",
    r"--dataset coco": "the data of COCO; tests/test_other_data.py measures on another folder of images",
    r"--track": "an optional extra; tests/training/test_following.py",
    r"^complete": "runs of the paper's recipe, and imported spaces; tests/test_complete.py",
    r"^(encode|search) .*-$": "standard input; tests/test_encode_and_search.py",
    r"^explore .*--serve": "it serves until Ctrl-C; tests/explorer/test_explore_command.py",
    r"^ablate": "many trainings; tests/ablation",
    r"^plan": "a minute or two of measuring; tests/test_plan.py",
    r"^doctor": "it looks at this machine; tests/storage/test_verify.py",
    r"^bench": "minutes at these sizes; tests/benchmarks",
    r"my-model|^train --dataset digits": "an installation; tests/plugins/test_scaffold.py, tests/test_examples.py",
    r"^train .*--stream effnet-lite0": "the quickstart; tests/test_docs.py",
}
# A reader of the documentation may have installed a plugin named my-data.
STANDS_FOR = {"NAME": "minilm", "my-data": "data-of-this-test"}
STREAMS = ("--stream", "effnet-lite0=timm[model=test_vit,weights=random]", "--stream", "minilm=char-ngrams")
ON_A_RUN = ("info", "evaluate", "explore", "encode", "search", "localize", "export")
SHAPE = ("--n-latents", 128, "--k", 4, "--batch-size", 16, "--lr", 0.01, "--epochs", 20)


def commands(*verbs):
    found = [words for words in sparc_commands() if words[0] in verbs]
    return [words for words in found if not any(re.search(pattern, " ".join(words)) for pattern in NOT_HERE)]


@pytest.fixture
def run_all(sparc_here):
    """Return a function that runs commands one after the other."""

    def run(many):
        for words in many:
            done = sparc_here(*[STANDS_FOR.get(word, word) for word in words])
            assert done.returncode == 0, f"sparc {' '.join(words)}\n{done.stderr}"

    return run


def test_every_command_has_a_place_where_it_runs():
    """A command that is new in the documentation runs here, or is listed above with a reason."""
    here = commands(
        *(
            "train",
            "extract",
            "info",
            "evaluate",
            "explore",
            "encode",
            "search",
            "localize",
            "export",
            "plugins",
            "import",
        )
    )
    rest = [words for words in sparc_commands() if words not in here]
    assert len(here) > 25
    assert all(any(re.search(pattern, " ".join(words)) for pattern in NOT_HERE) for words in rest)


@pytest.mark.slow
def test_commands_on_a_run_run_as_written(sparc_here, run_all, extracted, monkeypatch):
    monkeypatch.setattr(cases, "CANVASES", 4)
    folder = extracted.parent
    for name in ("photo", "one", "two"):
        Image.new("RGB", (60, 40), "red").save(folder / f"{name}.jpg")
    options = ["effnet-lite0=timm[model=test_vit,weights=random]", "minilm=char-ngrams"]
    lines = [f"stream = {options}", 'dataset = "image-folder"', 'data-root = "photos"', "n-latents = 32", "k = 4"]
    (folder / "run.toml").write_text("\n".join([*lines, "epochs = 1"]))
    done = sparc_here(
        "train", *STREAMS, "--dataset", "image-folder", "--data-root", "photos", *SHAPE, "--out", "runs/photos"
    )
    assert done.returncode == 0, done.stderr
    for name in ("openmoji", "demo"):
        shutil.copytree(folder / "runs" / "photos", folder / "runs" / name)
    features = [words for words in commands("train") if "--features" in words]
    run_all([words for words in commands("train", "extract") if words not in features])
    run_all(commands(*ON_A_RUN))
    for path in (
        "runs/openmoji/localization.json",
        "runs/photos/explore/index.html",
        "latent-50.png",
        "bus.png",
        "sae/cfg.json",
    ):
        assert (folder / path).is_file()


def test_imports_run_as_written(run_all, photos):
    folder = photos.parent
    ids = [f"photo-{number}" for number in range(40)]
    rows = np.random.default_rng(0).standard_normal((40, 12)).astype(np.float32)
    for name in ("a", "dino"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"], file["ids"] = rows, ids
    for name in ("b", "clip"):
        np.savez(folder / f"{name}.npz", features=rows[::-1, :8], ids=ids[::-1])
    np.save(folder / "a.npy", rows)
    np.save(folder / "b.npy", rows[:, :8])
    (folder / "ids.txt").write_text("\n".join(ids))
    (folder / "labels.csv").write_text("id,labels\n" + "".join(f"{one},cat\n" for one in ids))
    (folder / "taxonomy.json").write_text('{"animal": [], "cat": ["animal"]}')
    for split in ("train", "test"):
        (folder / split).mkdir()
        for name in ("dino", "clip"):
            with h5py.File(folder / split / f"{name}.h5", "w") as file:
                file["features"], file["indices"] = rows, np.arange(40)
    for stream in ("img_emb", "text_emb"):
        clip_retrieval(folder / "clip", [30, 10], stream=stream)
    written(folder, state())
    for words in commands("import"):
        run_all([words])
        if "dino=dino.h5" not in words and "authors" not in words:
            shutil.rmtree(folder / words[-1])
    run_all([words for words in commands("train") if "--features" in words])
    run_all(commands("plugins"))
