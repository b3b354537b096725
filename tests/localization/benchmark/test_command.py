"""`sparc evaluate --localization` as a user calls it."""

import io
import json

import pytest
from PIL import Image
from rich.console import Console

from sparc.cli.tables.localization import latents_table
from sparc.config import SpaceConfig
from sparc.localization.benchmark import LatentsReport, cases
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.runs import provenance


@pytest.fixture
def run_of(extracted, tmp_path):
    """A finished run of these streams with an untrained space, which suffices here."""

    def make(**widths):
        run = tmp_path / "run"
        SharedLatentSpace(SpaceConfig(streams=dict(widths), n_latents=32, k=4)).save_pretrained(run)
        streams = [
            {"name": "timm", "model": "test_vit", "weights": "random"} if name == "timm" else name for name in widths
        ]
        options = {"stream": streams, "dataset": "image-folder", "data-root": str(extracted), "exif": "apply"}
        Run(run).write_provenance(provenance(options=options))
        return run

    return make


@pytest.mark.slow
def test_maps_are_measured_after_the_rest_and_what_was_found_is_written(run_of, sparc_here, monkeypatch):
    run = run_of(timm=64, **{"char-ngrams": 256})
    monkeypatch.setattr(cases, "CANVASES", 6)
    # Plots have tests of their own, and take seconds.
    monkeypatch.setattr("sparc.evaluation.plots.draw", lambda report, folder: None)
    done = sparc_here("evaluate", run, "--localization", "--layers", 1)
    assert done.returncode == 0, done.stderr
    assert "Pointing with timm" in done.stdout
    assert "a blind guess is right 0.250" in done.stdout
    assert "timm: random weights (dry run)" in " ".join(done.stdout.split())
    found = json.loads((run / "localization.json").read_text())
    ways = {(way["target"], way["method"]) for way in found["report"]["ways"]}
    assert ways >= {("caption", "dense"), ("caption", "relevance"), ("caption", "grad-cam"), ("", "random")}
    assert "relevance  through the last layer only" in done.stdout
    assert [found[part]["layers"] for part in ("report", "parts")] == [1, 1]
    assert found["parts"]["what"].startswith("chimeras")
    assert "a blind guess is right 0.500" in done.stdout
    assert found["latents"] == []  # random weights see all images alike, so no latent belongs to one image only
    assert (found["report"]["images"], found["split"], found["random_weights"]) == (6, "test", ["timm"])


def test_pointing_by_latents_is_shown_by_how_often_they_fire():
    third = {"stream": "dinov2", "method": "dense", "queries": 5, "breadth": 0.2}
    reports = [
        LatentsReport(frequency=0.01, pointing=0.8, **third),
        LatentsReport(frequency=0.3, pointing=0.6, **third),
    ]
    console = Console(width=100, file=io.StringIO())
    console.print(latents_table(reports))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["dense", "0.010", "0.800", "0.200"] in lines
    assert ["dense", "0.300", "0.600", "0.200"] in lines


def test_layers_are_chosen_for_maps_only(run_of, sparc_here):
    done = sparc_here("evaluate", run_of(hog=10), "--layers", 2)
    assert done.returncode == 1
    assert "error: --layers: expected --localization too, found none\nhint:  add --localization" in done.stderr


def test_words_are_found_through_the_last_layers_of_a_backbone(run_of, sparc_here, tmp_path):
    run = run_of(timm=64, **{"char-ngrams": 256})
    Image.effect_noise((64, 48), 80).convert("RGB").save(tmp_path / "photo.png")
    words = ("localize", run, "--image", tmp_path / "photo.png", "--latent", 0, "--method", "relevance", "--layers")
    done = sparc_here(*words, 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "latent 0  timm: " in done.stdout
    refused = sparc_here(*words, 99)
    assert refused.returncode == 1
    assert "error: stream 'timm': expected at least the 99 layers of --layers, found " in refused.stderr


def test_a_run_without_a_grid_is_refused_before_the_work(run_of, sparc_here):
    done = sparc_here("evaluate", run_of(hog=10), "--localization")
    assert done.returncode == 1
    # Comes before the evaluation, which would report that the store has no features.
    assert "error: no image stream of the run has a grid of patches\nhint:  train with" in done.stderr
