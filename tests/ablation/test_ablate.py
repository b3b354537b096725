"""An ablation: the cells of its grid, its parallel runs, its results, and how it resumes."""

import contextlib
import csv
import io
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from multiprocessing.reduction import ForkingPickler
from statistics import mean

import numpy as np
import pytest
from rich.console import Console

from sparc.ablation.folder import AblationFolder
from sparc.ablation.grid import AXES, cells, checked_grid, parse_axes
from sparc.ablation.metrics import METRICS
from sparc.ablation.plots import draw
from sparc.ablation.pool import needed_bytes
from sparc.ablation.results import Results, Spread
from sparc.cli.tables.ablation import ablation_tables
from sparc.config import RunConfig, SpaceConfig, validated
from sparc.errors import MisalignedStreams, WeightsUnavailable
from sparc.storage.run import Run
from tests.interchange.test_import_features import imported, write
from tests.test_cli import assert_fails, folder, start, wait_for

SMALL = ("--recipe", "paper", "--n-latents", 32, "--batch-size", 32, "--lr", 0.01)
PHOTOS = (
    "--recipe",
    "paper",
    "--stream",
    "hog",
    "--stream",
    "char-ngrams",
    "--n-latents",
    32,
    "--batch-size",
    16,
    "--lr",
    0.01,
)


@pytest.fixture
def base():
    return validated(RunConfig, {"dataset": "any", "n-latents": 32, "k": 4, "lr": 0.01})


@pytest.fixture
def features(tmp_path):
    """Imported features of 300 samples in two streams that share five causes."""
    generator = np.random.default_rng(0)
    causes, ids = generator.random((300, 5)), [str(number) for number in range(300)]
    rows = {name: causes @ generator.random((5, width)) for name, width in (("one", 12), ("two", 7))}
    imported(tmp_path / "mine", {name: write(tmp_path / f"{name}.npz", rows[name], ids) for name in rows})
    return ("--features", tmp_path / "mine")


def test_cells_are_all_combinations_named_by_their_values(base):
    grid = checked_grid(parse_axes(["lambda=0, 1.0,2.5e-1", "k=8,16"]))
    assert list(grid.items()) == [("k", [8, 16]), ("lambda", [0.0, 1.0, 0.25])]
    found = cells(base, grid)
    assert [cell.name for cell in found] == [
        "k=8,lambda=0",
        "k=8,lambda=1",
        "k=8,lambda=0.25",
        "k=16,lambda=0",
        "k=16,lambda=1",
        "k=16,lambda=0.25",
    ]
    assert [(cell.config.k, cell.config.lambda_) for cell in found][2:4] == [(8, 0.25), (16, 0.0)]
    assert {(cell.config.n_latents, cell.config.lr) for cell in found} == {(32, 0.01)}


def test_a_grid_may_vary_every_option_that_does_not_change_the_features():
    assert AXES == (
        "n-latents",
        "k",
        "selection",
        "normalization",
        "lambda",
        "aux-weight",
        "k-aux",
        "dead-after",
        "epochs",
        "batch-size",
        "lr",
        "pre-bias",
        "completion",
        "stream-dropout",
        "input-dropout",
        "encoder-product",
        "adam-state",
    )


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ((), "expected a grid of at least one key, found none", "--grid KEY=VALUE,VALUE"),
        (("--grid", "kk=1"), "--grid: unknown key 'kk'", "did you mean 'k'?"),
        (("--grid", "k=4,many"), "grid: k: expected a whole number from 1, found 'many'", "as in k = 64"),
        (
            ("--grid", "selection=global,both"),
            "grid: selection: expected global or local, found 'both'",
            "as in selection = ",
        ),
        (("--grid", "k=4,,8"), "expected values after the key, found 'k=4,,8'", "k=8,16"),
        (("--grid", "k"), "expected values after the key, found 'k'", "k=8,16"),
        (("--grid", "lambda=1,1.0"), "expected distinct values of lambda, found 1.0 twice", "remove one"),
        (("--grid", "k=4", "--grid", "k=8"), "expected each key once, found 'k' twice", "k=8,16"),
        (("--grid", "store-dtype=float16"), "a grid cannot vary 'store-dtype'", "run sparc ablate again"),
        (("--grid", "seed=0,1"), "a grid cannot vary 'seed'", "--seeds N"),
        (("--grid", "k=4,8", "--k", 4), "--grid varies k, found --k too", "remove one of them"),
        (
            ("--grid", "n-latents=64,32", "--grid", "k=8,48"),
            "in the cell n-latents=32,k=48: k: expected at most",
            "lower k to 32 or less, as in k = 8",
        ),
        (("--grid", "lr=0.1,-1"), "grid: lr: expected a number above 0, found -1", "as in lr = 0.0001"),
    ],
)
def test_an_invalid_grid_is_refused_before_anything_is_written(sparc_here, photos, tmp_path, arguments, message, hint):
    assert_fails(sparc_here("ablate", "--stream", "hog", *folder(photos), *arguments), message, hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[grid]\nk = 4", "grid: expected a list of values of k, found 4"),
        ("[grid]\nk = []", "grid: expected a list of values of k, found []"),
        ("grid = 3", "expected a grid of at least one key, found 3"),
        ("seeds = 0\n[grid]\nk = [4]", "seeds: expected a number, 1 or more, found 0"),
        ("epoch = 0\n[grid]\nk = [4]", "unknown key 'epoch'"),
    ],
)
def test_a_file_with_an_invalid_grid_is_refused(sparc_here, tmp_path, content, message):
    (tmp_path / "grid.toml").write_text(content)
    assert_fails(sparc_here("ablate", "--config", "grid.toml"), message, "")


@pytest.mark.parametrize("content", ["seeds = 2", "[grid]\nk = [4, 8]"])
def test_train_and_extract_refuse_the_file_of_an_ablation(sparc_here, tmp_path, content):
    (tmp_path / "grid.toml").write_text(content)
    for command in ("train", "extract"):
        done = sparc_here(command, "--config", "grid.toml")
        assert_fails(done, "in grid.toml is for sparc ablate", "sparc ablate --config grid.toml")


def test_the_memory_of_a_training_is_parameters_with_two_moments_counters_samples_and_overhead():
    """Computed by hand: two tables of 8192 x 1000, two biases; four bytes each and two moments; counters of 8 bytes."""
    shape = SpaceConfig(streams={"a": 600, "b": 400}, n_latents=8192)
    numbers = 2 * 8192 * 1000 + 2 * 8192 + 1000
    rest = 8 * 2 * 8192 + 4 * 50 * 1000 + 900_000_000
    assert needed_bytes(shape, "float32", held_out=50) == 12 * numbers + rest
    assert needed_bytes(shape, "bfloat16", held_out=50) == 8 * numbers + rest


def test_an_ablation_does_not_resume_on_other_features(tmp_path):
    ablation, what = AblationFolder(tmp_path / "out"), {"grid": {"k": [4]}, "seeds": [0], "options": {}}
    ablation.describe(what, {"train": {"one": ["a digest"]}})
    ablation.describe(what, {"train": {"one": ["a digest"]}})
    with pytest.raises(MisalignedStreams, match=r"not the ones that .*out was started on"):
        ablation.describe(what, {"train": {"one": ["another"]}})


def test_an_error_keeps_its_message_and_hint_between_processes():
    """Errors are pickled, and the constructor of this one takes other arguments than a message and a hint."""
    error = WeightsUnavailable("some", "some.safetensors", "no network")
    found = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert (type(found), found.message, found.hint) == (WeightsUnavailable, error.message, error.hint)


def metric(report, name):
    """Compute some metrics from the JSON of a report."""
    nmse = report["solo"]["nmse"]
    match name:
        case "cross-nmse-solo":
            return mean([nmse["hog"]["char-ngrams"], nmse["char-ngrams"]["hog"]])
        case "self-nmse-joint":
            return mean(report["joint"]["nmse"][stream][stream] for stream in ("hog", "char-ngrams"))
        case "jaccard-solo" | "jaccard-solo-null":
            deepest = max(report["jaccard"], key=lambda row: row["depth"])
            return deepest[name.removeprefix("jaccard-").replace("-", "_")]["all"]
        case "recall-10":
            return mean(pair["latents"]["r10"] for pair in report["retrieval"])
        case "dead":
            return report["joint"]["dead"]


@pytest.mark.slow
def test_every_run_equals_that_of_sparc_train_and_the_results_are_means_over_seeds(
    sparc_here, quick_pool, extracted, tmp_path
):
    (tmp_path / "grid.toml").write_text('seeds = 2\nepochs = 20\n[grid]\nk = [4, 2]\nselection = ["global"]\n')
    asked = ("ablate", *PHOTOS, *folder(extracted), "--config", "grid.toml", "--grid", "k=2,4", "--out", "out")
    done = sparc_here(*asked, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "out"
    names = ("k=2,selection=global", "k=4,selection=global")
    runs = {(name, seed): out / "runs" / name / f"seed-{seed}" for name in names for seed in (0, 1)}
    same = ("--epochs", 20, "--k", 4, "--seed", 1, "--out", "alone")
    alone = sparc_here("train", *PHOTOS, *folder(extracted), *same)
    assert alone.returncode == 0, alone.stderr
    refused = sparc_here("info", "out")
    assert "error: out is an ablation, which holds many runs" in refused.stderr
    reports = {key: json.loads((run / "evaluation.json").read_text()) for key, run in runs.items()}
    results = json.loads((out / "results.json").read_text())
    nulls = [row["solo_null"]["all"] for row in reports[names[1], 0]["report"]["jaccard"]]
    assert len(set(nulls)) == 2  # else the depth would not show
    for name, cell in zip(names, results["cells"], strict=True):
        assert cell["name"] == name
        for key in ("cross-nmse-solo", "self-nmse-joint", "jaccard-solo", "jaccard-solo-null", "recall-10", "dead"):
            first, second = (metric(reports[name, seed]["report"], key) for seed in (0, 1))
            found = cell["metrics"][key]
            assert found["seeds"] == {"0": first, "1": second}
            assert found["mean"] == pytest.approx((first + second) / 2, rel=1e-12)
            assert found["sd"] == pytest.approx(abs(first - second) / 2**0.5, rel=1e-9, abs=1e-12)
    means = {name: results["cells"][place]["metrics"]["cross-nmse-solo"]["mean"] for place, name in enumerate(names)}
    best = min(means, key=means.get)
    assert results["metrics"]["cross-nmse-solo"] == {"title": "cross NMSE, solo", "better": "lower", "best": best}
    assert results["metrics"]["jaccard-solo-null"]["best"] is None
    assert f"best cross NMSE, solo: {best.replace('=', ' ').replace(',', ', ')}" in done.stdout
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["k"] for row in rows] == ["2", "4"]
    assert [float(row["cross-nmse-solo"]) for row in rows] == list(means.values())
    assert max(map(len, done.stdout.splitlines())) <= 100
    for axis in ("k", "selection"):
        assert (out / f"axis-{axis}.png").stat().st_size > 5000
        assert (out / f"axis-{axis}.svg").is_file()

    assert json.loads((tmp_path / "alone" / "evaluation.json").read_text()) == reports["k=4,selection=global", 1]
    shown = sparc_here("info", runs["k=2,selection=global", 0])
    assert "space: 32 latents, 2 kept, global selection" in shown.stdout
    assert "by: sparc ablate" in shown.stdout

    assert_fails(
        sparc_here(*asked, "--epochs", 50),
        "out holds another ablation: expected epochs = 20, found 50",
        "another --out",
    )
    other = (*asked, "--grid", "lambda=0,1")
    assert_fails(sparc_here(*other), "expected a grid of k, selection, found k, selection, lambda", "another --out")
    part = sparc_here(*asked[:-3], "k=4", "--seeds", 1, "--out", "out")
    assert "1 run: 1 cell, 1 seed; all are done" in part.stdout, part.stderr
    (fewer,) = json.loads((out / "results.json").read_text())["cells"]
    assert fewer["metrics"]["dead"]["seeds"] == {"0": results["cells"][1]["metrics"]["dead"]["seeds"]["0"]}
    assert_fails(sparc_here(*asked[:-1], "alone"), "alone already exists and is not an ablation", "another --out")


def found(values, axes, seeds=(0, 1)):
    """Return the results of a grid of `axes`; values are by metric, then by cell, then by seed."""
    options = validated(RunConfig, {"dataset": "any"})
    every = tuple(cells(options, checked_grid(parse_axes(axes))))
    metrics = tuple(one for one in METRICS if one.name in values)
    spreads = {
        (name, cell.name): Spread(numbers)
        for name, rows in values.items()
        for cell, numbers in zip(every, rows, strict=True)
        if numbers
    }
    return Results(every, seeds, metrics, spreads, {"dataset": "any", "split": "test", "random_weights": ["one"]})


def printed(results):
    console = Console(width=100, record=True, file=io.StringIO())
    for part in ablation_tables(results):
        console.print(part)
    return console.export_text()


def test_the_spread_is_the_sample_standard_deviation_and_the_best_mean_may_be_lowest_or_highest():
    """Computed by hand: 1, 2, 6 have the mean 3 and the variance (4 + 1 + 9) / 2."""
    values = {"cross-nmse-solo": [(1.0, 2.0, 6.0), (4.0, 4.0, 4.0)], "recall-10": [(0.5,) * 3, (0.25,) * 3]}
    results = found(values, ["k=4,8"], (0, 1, 2))
    cell = results.to_json()["cells"][0]["metrics"]["cross-nmse-solo"]
    assert cell == {"seeds": {"0": 1.0, "1": 2.0, "2": 6.0}, "mean": 3.0, "sd": pytest.approx(7**0.5)}
    best = {name: about["best"] for name, about in results.to_json()["metrics"].items()}
    assert best == {"cross-nmse-solo": "k=4", "recall-10": "k=4"}
    text = printed(results)
    assert "cross NMSE, solo  3.000±2.646  4.000±.000" in text
    assert "best R@10 by latents: k 4  (0.500±.000)" in text
    assert "one: random weights (dry run)" in text


def test_a_missing_metric_is_a_dash_and_one_seed_has_no_spread():
    results = found({"self-nmse-joint": [(0.5,), (0.25,)], "jaccard-solo": [(0.1,), ()]}, ["k=4,8"], (7,))
    text = printed(results)
    assert re.search(r"self NMSE, joint +0\.500 +0\.250\n", text)
    assert re.search(r"J, solo +0\.100 +-\n", text)
    assert "±" not in text
    assert results.to_json()["cells"][1]["metrics"].keys() == {"self-nmse-joint"}
    assert results.to_json()["cells"][1]["metrics"]["self-nmse-joint"]["sd"] is None


def test_many_cells_become_rows_within_100_columns_and_each_plot_has_a_line_per_combination(tmp_path):
    axes = ["n-latents=1024,2048,4096", "selection=global,local", "normalization=unit,standard"]
    names = [one.name for one in METRICS if one.headline]
    results = found({name: [(number / 100, number / 90) for number in range(12)] for name in names}, axes)
    lines = printed(results).splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line.split() for line in lines if re.match("1024|2048|4096", line)]
    assert [row[:3] for row in rows] == [
        [str(n_latents), selection, normalization]
        for n_latents in (1024, 2048, 4096)
        for selection in ("global", "local")
        for normalization in ("unit", "standard")
    ]
    assert {len(row) for row in rows} == {3 + len(names)}
    written = draw(results, checked_grid(parse_axes(axes)), tmp_path)
    assert [path.name for path in written[::2]] == [
        "axis-n-latents.png",
        "axis-selection.png",
        "axis-normalization.png",
    ]
    drawn = (tmp_path / "axis-n-latents.svg").read_text()
    for label in ("selection global, normalization unit", "selection local, normalization standard", "4096"):
        assert f">{label}</text>" in drawn


LONG = (*SMALL, "--grid", "k=4,8", "--seeds", 2, "--epochs", 40)


def files(out):
    return {name: (out / name).read_bytes() for name in ("results.json", "results.csv", "axis-k.svg")}


@contextlib.contextmanager
def kill_a_worker_after(path):
    """Kill a worker, a child of this process, once the file exists."""

    def kill():
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


@contextlib.contextmanager
def on_cores(number):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_an_ablation_resumes_after_an_error_a_kill_and_a_signal_to_the_same_results_on_any_number_of_cores(
    sparc_here, quick_pool, environment, features, tmp_path
):
    asked = ("ablate", *features, *LONG, "--out")
    out = tmp_path / "out"

    shard = tmp_path / "mine" / "test" / "one" / "shard-00000.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-9])
    with on_cores(1):
        assert_fails(
            sparc_here(*asked, "out"), "shard-00000.safetensors is truncated or altered", "import the features again"
        )
    assert not list(out.rglob("model.safetensors"))  # held-out samples are read before the training
    shard.write_bytes(content)

    with kill_a_worker_after(out / "runs" / "k=4" / "seed-1" / "metrics.jsonl"):
        assert_fails(sparc_here(*asked, "out"), "a training process was killed", "with the same --out")
    assert not multiprocessing.active_children()

    with on_cores(1):
        process = start(environment, tmp_path, *asked, "out")
    wait_for(out / "runs" / "k=8" / "seed-1" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == ""
    assert output.splitlines()[-1].startswith("stopped. Resume it with: ")
    assert output.strip().endswith("--out out")
    assert Run(out / "runs" / "k=8" / "seed-1").states()
    assert not (out / "results.json").exists()

    kept = {path: path.stat().st_mtime_ns for path in out.rglob("evaluation.json")}
    assert len(kept) == 3
    with on_cores(1):
        done = sparc_here(*asked, "out")
    assert done.returncode == 0, done.stderr
    assert "4 runs: 2 cells, 2 seeds; 3 already done; training 1 at a time, 1 thread each" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    whole = sparc_here(*asked, "whole")
    assert whole.returncode == 0, whole.stderr
    assert files(out) == files(tmp_path / "whole")
    (left := next(iter(kept)).parent / ".sparc.lock").write_text("{}")  # as a kill after the last write leaves it
    again = sparc_here(*asked, "out")
    assert again.returncode == 0, again.stderr
    assert "4 runs: 2 cells, 2 seeds; all are done" in again.stdout
    assert not left.exists()


@pytest.mark.slow
def test_a_run_that_diverges_is_named_and_the_others_are_kept(sparc_here, features, tmp_path):
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit")
    asked = ("ablate", *features, "--n-latents", 32, "--batch-size", 32, "--epochs", 8, "--k", 4, "--seeds", 2)
    with on_cores(1):  # the runs that go on do so in the process of the one that ended
        done = sparc_here(*asked, "--grid", "lr=1e30,0.01,0.02", "--out", "out")
    assert_fails(done, "lr=1e+30 with seed 0: the loss term 'self/one' is nan at step 2", "remove that value from")
    table = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [len(cell["metrics"]) > 3 for cell in table["cells"]] == [False, True, True]
    assert (tmp_path / "out" / "axis-lr.png").is_file()
    done = sparc_here(*asked, "--grid", "lr=0.01,0.02", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "all are done" in done.stdout
    with on_cores(1):
        alone = sparc_here(*asked, "--grid", "lr=1e30", "--out", "none")
    assert_fails(alone, "lr=1e+30 with seed 0", "remove that value")
