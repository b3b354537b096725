"""`sparc evaluate --localization` as a user calls it."""

import json

import pytest

from sparc.checkpoint import SharedLatentSpace
from sparc.cli import evaluate
from sparc.config import SpaceConfig
from sparc.localization import cases


@pytest.fixture
def run_of(photos, tmp_path):
    """A finished run of streams with an untrained space: what is measured does not depend on what it learned."""

    def make(**widths):
        run = tmp_path / "run"
        SharedLatentSpace(SpaceConfig(streams=dict(widths), n_latents=32, k=4)).save_pretrained(run)
        streams = [
            {"name": "timm", "model": "test_vit", "weights": "random"} if name == "timm" else name for name in widths
        ]
        options = {"stream": streams, "dataset": "image-folder", "data-root": str(photos)}
        (run / "provenance.json").write_text(json.dumps({"options": options}))
        return run

    return make


def test_maps_are_measured_after_the_rest_and_what_was_found_is_written(run_of, sparc_here, monkeypatch):
    run = run_of(timm=64, **{"char-ngrams": 256})
    monkeypatch.setattr(cases, "CANVASES", 6)
    # The rest has tests of its own, and takes ten seconds.
    monkeypatch.setattr(evaluate, "evaluate_run", lambda *args, **kwargs: None)
    monkeypatch.setattr("sparc.evaluate.plots.draw", lambda report, folder: None)
    done = sparc_here("evaluate", run, "--localization")
    assert done.returncode == 0, done.stderr
    assert "Pointing with timm" in done.stdout
    assert "a blind guess is right 0.250" in done.stdout
    assert "timm: random weights (dry run)" in " ".join(done.stdout.split())
    found = json.loads((run / "localization.json").read_text())
    ways = {(way["target"], way["method"]) for way in found["report"]["ways"]}
    assert ways >= {("caption", "dense"), ("caption", "relevance"), ("caption", "grad-cam"), ("", "random")}
    assert (found["report"]["images"], found["split"], found["random_weights"]) == (6, "test", ["timm"])


def test_a_run_without_a_grid_is_refused_before_the_work(run_of, sparc_here):
    done = sparc_here("evaluate", run_of(hog=10), "--localization")
    assert done.returncode == 1
    # Not what the evaluation would say, that the store has no features.
    assert "error: no image stream of the run has a grid of patches\nhint:  train with" in done.stderr
