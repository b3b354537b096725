"""Options that nobody set fit the number of training samples."""

import pytest

import sparc
from sparc.config import RunConfig, validated
from sparc.config.fitting import FITTED, described, fitted
from sparc.errors import InvalidConfig
from sparc.plugins.registry import discover

PAPER = [8192, 64, 50, 1e-4, 256_000]


def values(config):
    return [getattr(config, name) for name in FITTED]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (80, [32, 4, 300, 1e-3, 2_400]),
        (300, [128, 8, 300, 1e-3, 9_000]),
        (1_147, [512, 16, 75, 1e-3, 8_602]),
        (20_000, [8192, 64, 50, 5.1e-4, 100_000]),
        (1_700_000, PAPER),
    ],
)
def test_a_rule_from_few_samples_to_the_papers_number_gives_the_papers_values_there(samples, expected):
    assert values(fitted(RunConfig(), samples)) == expected


def test_the_demo_needs_no_more_than_the_rule():
    defaults = validated(RunConfig, discover().dataset("openmoji").defaults)
    found = fitted(RunConfig(), 1_147)
    assert [getattr(found, name) for name in ("n_latents", "k", "epochs", "lr")] == [
        getattr(defaults, name) for name in ("n_latents", "k", "epochs", "lr")
    ]


def test_the_papers_recipe_and_what_was_set_stay():
    assert values(fitted(RunConfig(recipe="paper"), 80)) == PAPER
    given = RunConfig(n_latents=100, lr=0.5, dead_after=7)
    assert values(fitted(given, 80)) == [100, 7, 300, 0.5, 7]
    assert fitted(RunConfig(k=64), 80).n_latents == 256  # kept ones are a quarter at most


def test_an_option_that_is_set_fits_those_that_are_not():
    assert RunConfig(n_latents=32).checked()  # k fits it
    assert RunConfig(k=100).checked()
    with pytest.raises(InvalidConfig, match="k: expected at most n_latents, 32, found 64"):
        RunConfig(n_latents=32, recipe="paper").checked()
    with pytest.raises(InvalidConfig, match="k: expected at most n_latents, 4, found 5"):
        RunConfig(n_latents=4, k=5).checked()


def test_one_line_says_samples_steps_latents_and_why():
    config = RunConfig(k=4)
    assert described(config, fitted(config, 300), 300) == (
        "300 training samples, 300 steps of 256 (300 epochs), 128 latents, 4 kept, learning rate 0.001; "
        "n-latents, epochs, lr, dead-after fit the number of samples"
    )
    paper = RunConfig(recipe="paper")
    assert described(paper, fitted(paper, 300), 300).endswith("options that were not set are the paper's")


def test_a_run_on_few_imported_features_is_sound_without_any_option(tmp_path, monkeypatch, sparc_here, quick_pool):
    """300 samples: the paper's 8,192 latents would be rebuilt worse than by the mean."""
    import numpy as np

    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((300, 6))
    for name, width in (("one", 24), ("two", 16)):
        rows = hidden @ generator.standard_normal((6, width)) + 0.1 * generator.standard_normal((300, width))
        np.savez(tmp_path / f"{name}.npz", features=rows.astype("float32"), ids=[f"{n:03}" for n in range(300)])
    sources = ("--stream", "one=one.npz", "--stream", "two=two.npz")
    assert sparc_here("import", "features", *sources, "--out", "imp").returncode == 0
    done = sparc_here("train", "--features", "imp", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "236 training samples, 300 steps of 236 (300 epochs), 64 latents, 6 kept" in done.stdout
    assert "worse than by the mean" not in done.stdout
    monkeypatch.chdir(tmp_path)
    space = sparc.load("run")
    assert (space.n_latents, space.k) == (64, 6)
    bad = sparc_here("train", "--features", "imp", "--out", "bad", "--recipe", "paper", "--epochs", 2)
    assert "8,192 latents are dead on held-out samples: --n-latents" in bad.stdout, bad.stdout
    grid = ("--grid", "n-latents=32,64", "--seeds", 1, "--epochs", 3)
    ablated = sparc_here("ablate", "--features", "imp", *grid, "--out", "ab")
    assert ablated.returncode == 0, ablated.stderr
    kept = [sparc.load(f"ab/runs/n-latents={n}/seed-0").k for n in (32, 64)]
    assert kept == [4, 6]
