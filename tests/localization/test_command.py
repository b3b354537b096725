"""`sparc evaluate --localization` as a user calls it."""

import json

from sparc.checkpoint import SharedLatentSpace
from sparc.config import SpaceConfig
from sparc.localization import cases

SMALL = ["--n-latents", "32", "--k", "4", "--epochs", "2", "--batch-size", "16"]


def test_a_run_is_measured_with_the_rest_and_what_was_found_is_written(
    sparc_command, sparc_here, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(cases, "CANVASES", 6)
    streams = ["--stream", "timm[model=test_vit,weights=random]", "--stream", "char-ngrams"]
    data = ["--dataset", "image-folder", "--data-root", photos]
    done = sparc_command("train", *streams, *data, *SMALL, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    done = sparc_here("evaluate", tmp_path / "run", "--localization")
    assert done.returncode == 0, done.stderr
    assert "Pointing with timm" in done.stdout
    assert "a blind guess is right 0.250" in done.stdout
    found = json.loads((tmp_path / "run" / "localization.json").read_text())
    ways = {(way["target"], way["method"]) for way in found["report"]["ways"]}
    assert ways >= {("caption", "dense"), ("caption", "relevance"), ("caption", "grad-cam"), ("", "random")}
    assert found["report"]["images"] == 6
    assert found["split"] == "test"


def test_a_run_without_a_grid_is_refused_before_the_work(sparc_here, photos, tmp_path):
    run = tmp_path / "run"
    SharedLatentSpace(SpaceConfig(streams={"hog": 10}, n_latents=8, k=2)).save_pretrained(run)
    options = {"stream": ["hog"], "dataset": "image-folder", "data-root": str(photos)}
    (run / "provenance.json").write_text(json.dumps({"options": options}))
    done = sparc_here("evaluate", run, "--localization")
    assert done.returncode == 1
    # Not what the evaluation would say, that the store has no features.
    assert "error: no image stream of the run has a grid of patches\nhint:  train with" in done.stderr
