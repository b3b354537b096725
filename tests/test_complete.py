"""`sparc complete`: a space without a completion gets one, and nothing else changes."""

import shutil

import pytest
import torch

import sparc
from sparc.storage.run import Run

WORDS = ["--stream", "hog", "--stream", "char-ngrams", "--dataset", "image-folder", "--data-root", "photos"]
SHAPE = ["--n-latents", 32, "--k", 4, "--batch-size", 16, "--epochs", 2, "--device", "cpu"]


@pytest.fixture
def paper_run(extracted, sparc_here, tmp_path):
    done = sparc_here("train", *WORDS, *SHAPE, "--recipe", "paper", "--out", "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_the_papers_recipe_has_no_completion_and_a_pre_bias_of_zeros_at_the_start(paper_run):
    assert not (paper_run / "completion.safetensors").exists()
    assert sparc.load(paper_run).completion is None
    options = Run(paper_run).provenance().options
    assert (options.recipe, options.pre_bias, options.completion) == ("paper", "zeros", "none")
    assert (options.stream_dropout, options.input_dropout) == (0, 0)


def test_a_run_is_completed_and_then_evaluated_both_ways(paper_run, sparc_here):
    before = {path.name: path.read_bytes() for path in paper_run.iterdir() if path.is_file()}
    done = sparc_here("complete", "run")
    assert done.returncode == 0, done.stderr
    assert "fitted to" in done.stdout
    assert "sparc evaluate run" in done.stdout
    after = {path.name: path.read_bytes() for path in paper_run.iterdir() if path.is_file()}
    assert after.pop("completion.safetensors")
    assert after == before
    evaluated = sparc_here("evaluate", "run")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Completion of missing streams, solo" in evaluated.stdout

    again = sparc_here("complete", "run")
    assert again.returncode == 1
    assert "has a completion already" in again.stderr


@pytest.mark.parametrize("kind", ["linear", "kernel"])
def test_the_completion_of_a_run_is_that_which_training_fits(kind, paper_run, sparc_here, tmp_path):
    trained = sparc_here("train", *WORDS, *SHAPE, "--recipe", "paper", "--completion", kind, "--out", "other")
    assert trained.returncode == 0, trained.stderr
    assert sparc_here("complete", "run", "--completion", kind).returncode == 0
    name = "completion.safetensors"
    assert (paper_run / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert bool(sparc.load(paper_run).completion.with_kernel) == (kind == "kernel")


def test_a_space_that_is_no_run_is_completed_with_the_features_that_are_named(paper_run, sparc_here, tmp_path):
    space = tmp_path / "imported"
    space.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(paper_run / name, space)
    unknown = sparc_here("complete", "imported")
    assert unknown.returncode == 1
    assert "no run, so its training features are not known" in unknown.stderr
    other = sparc_here("complete", "imported", *WORDS[2:])
    assert "expected the features of the space's streams, hog" in other.stderr
    done = sparc_here("complete", "imported", *WORDS)
    assert done.returncode == 0, done.stderr
    assert sparc_here("complete", "run").returncode == 0
    name = "completion.safetensors"
    assert (space / name).read_bytes() == (paper_run / name).read_bytes()


@pytest.mark.parametrize(
    ("streams", "selection", "message"),
    [({"a": 3}, "global", "has one stream, a, so none can be missing"), ({"a": 3, "b": 3}, "local", "selects locally")],
)
def test_a_space_that_cannot_use_a_completion_gets_none(streams, selection, message, tmp_path):
    config = sparc.SpaceConfig(streams=streams, n_latents=8, k=2, selection=selection)
    sparc.SharedLatentSpace(config).save_pretrained(tmp_path)
    with pytest.raises(sparc.InvalidConfig, match=message):
        sparc.complete(tmp_path)


def test_a_run_has_its_own_data(paper_run, sparc_here):
    done = sparc_here("complete", "run", "--stream", "hog")
    assert done.returncode == 1
    assert "is a run, which has its own data" in done.stderr


def test_the_encoding_of_all_streams_together_stays_the_same(paper_run, sparc_here):
    x = {name: torch.rand(5, width) for name, width in sparc.load(paper_run).streams.items()}
    before = sparc.load(paper_run).encode(x)
    assert sparc_here("complete", "run").returncode == 0
    after = sparc.load(paper_run).encode(x)
    for name in x:
        assert torch.equal(before[name].indices, after[name].indices)
        assert torch.equal(before[name].values, after[name].values)
