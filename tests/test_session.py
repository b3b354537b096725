"""The verbs as functions: the same options, runs and warnings as the commands."""

import os
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import sparc
from sparc.errors import InvalidConfig, MissingData, StorageError, UnknownName
from sparc.evaluation import Report
from sparc.session.data import common, missing
from sparc.storage.run import Run
from sparc.storage.store import FeatureStore
from sparc.system.files import read_json

STREAMS = ["tiny-image", "char-ngrams"]
pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_latent": 8}, InvalidConfig, "unknown parameter 'n_latent'"),
        ({"k": 64, "n_latents": 32}, InvalidConfig, "expected at most n_latents, 32, found 64"),
        ({"lambda_": -1}, InvalidConfig, "lambda_: expected a number from 0, found -1"),
        ({"batch_size": "many"}, InvalidConfig, "batch_size: expected a whole number from 1, found 'many'"),
        ({"stream": ["tiny"]}, UnknownName, "no plugin offers a stream named 'tiny'"),
        ({"device": "gpu"}, InvalidConfig, "'gpu' is not available"),
    ],
)
def test_mistakes_are_errors_before_any_work(options, error, message, use_example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        sparc.train(**{"dataset": "digits", "stream": STREAMS, "store": tmp_path / "store", **options})
    assert not list(tmp_path.iterdir())


def test_a_mistyped_option_is_named_as_python_spells_it():
    with pytest.raises(InvalidConfig) as error:
        sparc.train(n_latent=64)
    assert error.value.hint.startswith("did you mean 'n_latents'? known: stream, dataset, data_root, ")


def test_a_run_made_by_a_program_works_with_the_commands(photos, extracted_once, use_example, sparc_here, monkeypatch):
    options = {"dataset": "image-folder", "data_root": "photos", "stream": STREAMS, "store": "store"}
    monkeypatch.chdir(photos.parent)
    shutil.copytree(extracted_once / "store", "store")
    shape = {"n_latents": 32, "k": 4, "batch_size": 16, "epochs": 2, "seed": 3}
    with pytest.warns(UserWarning, match="tiny-image: 95% of the features' squared norm is the same for all samples"):
        fitted = sparc.train(**options, **shape, lambda_=0.5)
    assert str(fitted.path) == "runs/image-folder"
    assert Report.from_json(read_json(Run(fitted.path).evaluation, what="it")["report"]) == fitted.report
    chosen = Run(fitted.path).provenance().options
    assert (chosen.lambda_, chosen.k, chosen.seed, chosen.data_root) == (0.5, 4, 3, photos)
    assert "image-folder test" in sparc_here("info", fitted.path).stdout

    extracted = sparc.extract(**options)
    train, test = extracted.train, extracted.test
    assert fitted.report.samples == len(test)
    assert not set(train.ids) & set(test.ids)
    assert len(train) + len(test) == 60
    assert fitted.space.streams == train.widths == {"tiny-image": 192, "char-ngrams": 256}

    done = sparc_here(
        *("train", "--dataset", "image-folder", "--data-root", "photos", "--store", "store", "--lambda", 0.5),
        *("--stream", STREAMS[0], "--stream", STREAMS[1], "--out", "by-command"),
        *(word for name, value in shape.items() for word in (f"--{name.replace('_', '-')}", value)),
    )
    assert done.returncode == 0, done.stderr
    theirs = sparc.load("by-command").state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in fitted.space.state_dict().items())
    with pytest.raises(InvalidConfig, match="a run is never overwritten"):
        sparc.train(**options, out=fitted.path)


def test_a_stream_that_no_sample_has_is_refused():
    shards = {"a": [torch.ones(3, 2)], "b": [torch.zeros(3, 2)]}
    rows = {name: torch.arange(3) for name in shards}
    with pytest.raises(MissingData, match="no sample has the stream 'b'"):
        missing(FeatureStore(shards, rows, ("1", "2", "3"), {}))
    shards["b"][0][1] = 1
    assert missing(FeatureStore(shards, rows, ("1", "2", "3"), {})) == {"a": 0, "b": 2}


def test_streams_that_share_no_sample_are_refused_before_training():
    shards = {
        "a": [torch.tensor([[1.0, 2], [0, 0]]), torch.zeros(1, 2)],
        "b": [torch.tensor([[0.0, 0], [3, 4], [0, 0]])],
    }
    features = FeatureStore(shards, {name: torch.arange(3) for name in shards}, ("1", "2", "3"), {})
    with pytest.raises(MissingData, match=r"none of 3 samples has two streams, so no stream .* another: a 1, b 1"):
        missing(features)
    shards["b"][0][0] = 1
    assert missing(features) == {"a": 2, "b": 1}
    assert missing(FeatureStore({"a": shards["a"]}, {"a": torch.arange(3)}, ("1", "2", "3"), {})) == {"a": 2}


def test_common_is_the_squared_norm_of_the_mean_unit_vector_of_a_stream():
    """Computed by hand: (3, 4) and (4, 3) have the mean (3.5, 3.5) / 5 on unit norm, whatever the scale of either."""
    shards = {"near": [torch.tensor([[3.0, 4], [0, 0]]), torch.tensor([[400.0, 300]])], "far": [torch.eye(3)]}
    rows = {name: torch.arange(3) for name in shards}
    found = common(FeatureStore(shards, rows, ("1", "2", "3"), {}))
    assert found == {"near": pytest.approx(0.98), "far": pytest.approx(1 / 3)}


def files_of(run):
    """Return every file of a run by its path; the provenance without its time, command and directory."""
    content = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("provenance.json", "speed.jsonl")
    }
    provenance = read_json(run / "provenance.json", what="it")
    for key in ("started", "command"):
        del provenance[key]
    del provenance["options"]["out"]
    return {**content, "provenance": provenance}


def warned(lines):
    return [line for line in lines if "is the same for all samples" in line or "lack the stream" in line]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_pool")
def test_the_command_a_program_and_an_ablation_make_the_same_run_with_the_same_warnings(
    photos, environment, use_example, sparc_here, monkeypatch, tmp_path
):
    """Compare every file of three runs of one configuration; one caption is empty, so that both warnings appear."""
    lines = (photos / "samples.csv").read_text().splitlines()
    name, _, labels = lines[1].split(",")
    (photos / "samples.csv").write_text("\n".join([lines[0], f"{name},,{labels}", *lines[2:]]))
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.chdir(tmp_path)
    chosen = {"dataset": "image-folder", "data_root": "photos", "store": "store", "skip_bad": True, "device": "cpu"}
    shape = {"n_latents": 32, "k": 4, "batch_size": 16, "epochs": 2, "aux_weight": 0.5, "dead_after": 16, "k_aux": 8}
    words = ["--stream", STREAMS[0], "--stream", STREAMS[1], "--dataset", "image-folder", "--data-root", "photos"]
    words += ["--store", "store", "--skip-bad", "--device", "cpu"]
    words += [word for name, value in shape.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = sparc_here("train", *words, "--out", "by-command")
    assert command.returncode == 0, command.stderr
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sparc.train(stream=STREAMS, **chosen, **shape, out="by-program")
    kept = words.index("--k")
    ablation = sparc_here("ablate", *words[:kept], *words[kept + 2 :], "--grid", "k=4", "--seeds", 1, "--out", "many")
    assert ablation.returncode == 0, ablation.stderr

    said = warned(str(one.message) for one in told)
    assert len(said) == 2
    assert warned(command.stdout.splitlines()) == said
    assert warned(ablation.stdout.splitlines()) == said
    runs = [tmp_path / "by-command", tmp_path / "by-program", tmp_path / "many" / "runs" / "k=4" / "seed-0"]
    files = [files_of(run) for run in runs]
    assert {"config.json", "model.safetensors", "metrics.jsonl", "evaluation.json", "provenance"} <= files[0].keys()
    assert files[0] == files[1] == files[2]


class Stopper(sparc.session.Listener):
    """Listener that sends SIGINT, as Ctrl-C does, after some steps."""

    def __init__(self, after):
        self.after = after

    def step(self, step):
        if step.number == self.after:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_program_that_is_interrupted_resumes_to_the_same_bits(extracted, environment, use_example, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    monkeypatch.chdir(extracted.parent)
    options = {"dataset": "image-folder", "data_root": "photos", "stream": ["hog", "char-ngrams"]}
    shape = {"n_latents": 32, "k": 4, "batch_size": 16, "epochs": 40}
    whole = sparc.train(**options, **shape, out="whole")
    with pytest.raises(sparc.Interrupted, match=r"sparc.train\(resume='stopped'\)") as stopped:
        sparc.train(**options, **shape, out="stopped", listener=Stopper(60))
    assert Run(stopped.value.path).states()
    with pytest.raises(InvalidConfig, match="--resume continues a run with its own options, found --k too"):
        sparc.train(resume="stopped", k=3)
    resumed = sparc.train(resume="stopped")
    assert (stopped.value.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert (stopped.value.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    assert resumed.report == whole.report
    assert sparc.train(resume="stopped").report == whole.report  # already trained and evaluated


def test_one_configuration_is_the_same_as_its_options(extracted, environment, use_example, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    monkeypatch.chdir(extracted.parent)
    options = {"dataset": "image-folder", "data_root": "photos", "stream": "hog"}
    shape = {"n_latents": 16, "k": 2, "epochs": 1}
    config = sparc.RunConfig(**options, **shape)
    one, other = sparc.train(config, out="one"), sparc.train(**options, **shape, out="other")
    assert one.path.name == "one"
    assert all(torch.equal(tensor, other.space.state_dict()[name]) for name, tensor in one.space.state_dict().items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sparc.train({"epochs": 0}), "expected a RunConfig or nothing before the options, found dict"),
        (lambda: sparc.ablate({"k": [8]}, grid={"k": [4]}), "expected a RunConfig or nothing"),
        (lambda: sparc.train(**{"lambda": 1, "lambda_": 0.5}), "found 'lambda' twice"),
        (lambda: sparc.train(k__=3), "unknown parameter 'k__'"),
        (lambda: sparc.train(out=""), "out: expected a path, found ''"),
        (lambda: sparc.extract(tokens="word"), "tokens: expected patch, found 'word'"),
        (lambda: sparc.ablate(grid=None), "expected a grid of at least one key, found none"),
        (lambda: sparc.ablate(grid={"n_latent": [8]}), "unknown key 'n-latent'"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_and_never_ignored(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfig, match=message):
        call()
    assert not list(tmp_path.iterdir())


def test_an_option_that_is_none_is_not_given(extracted, environment, use_example, monkeypatch):
    """A run keeps its own store and dataset; so it does when its data are gone and nothing is left to do."""
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    monkeypatch.chdir(extracted.parent)
    data = {"dataset": "image-folder", "data_root": "photos", "stream": "hog"}
    run = sparc.train(**data, n_latents=16, k=2, epochs=1, out="run", seed=None).path
    monkeypatch.setenv("SPARC_CACHE", str(extracted.parent / "elsewhere"))
    assert sparc.evaluate(run, store=None, data_root=None, device=None).evaluation.report.samples
    assert sparc.explore(run, store=None) == run / "explore" / "index.html"
    extracted.rename(extracted.parent / "moved")
    assert sparc.train(resume=run, store=None, epochs=None).path == run
    with pytest.raises(MissingData, match="no folder at"):
        sparc.evaluate(run)


SCRIPT = """
import sys
import sparc
print("SCRIPT RUNS", flush=True)
results = sparc.ablate(features="mine", grid={"n_latents": [16], "k": (2, 4)}, seeds=1, epochs=1, out="out")
print([cell.name for cell in results.cells])
"""


def test_a_script_without_a_guard_may_call_an_ablation(environment, tmp_path):
    """Its workers are processes of their own, which must not run the script again."""
    generator = torch.Generator().manual_seed(0)
    for name, width in (("one", 12), ("two", 7)):
        rows = torch.rand(60, width, generator=generator).numpy()
        np.savez(tmp_path / f"{name}.npz", features=rows, ids=[str(row) for row in range(60)])
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["--stream", "one=one.npz", "--stream", "two=two.npz", "--out", "mine"]
    for command in (["-m", "sparc", "import", "features", *words], ["script.py"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["SCRIPT RUNS", "['n-latents=16,k=2', 'n-latents=16,k=4']"]


def test_a_run_of_a_missing_plugin_names_the_package(extracted, sparc_here, monkeypatch):
    words = ["train", "--stream", "hog", "--dataset", "image-folder", "--data-root", "photos", "--out", "run"]
    assert sparc_here(*words, "--n-latents", 16, "--k", 2, "--epochs", 1).returncode == 0
    provenance = extracted.parent / "run" / "provenance.json"
    provenance.write_text(
        provenance.read_text()
        .replace('"name": "hog"', '"name": "gone"')
        .replace('"backbone": "hog"', '"backbone": "gone"')
    )
    done = sparc_here("evaluate", "run")
    assert "no plugin offers a stream named 'gone'" in done.stderr
    assert "it came from sparc-classic 0.1.0: install that" in done.stderr


def test_a_run_of_a_newer_sparc_asks_for_an_upgrade(extracted, sparc_here):
    words = ["train", "--stream", "hog", "--dataset", "image-folder", "--data-root", "photos", "--out", "run"]
    assert sparc_here(*words, "--n-latents", 16, "--k", 2, "--epochs", 1).returncode == 0
    provenance = extracted.parent / "run" / "provenance.json"
    provenance.write_text(provenance.read_text().replace('"epochs": 1', '"epochs": 1, "momentum": 0.9'))
    for words in (["info", "run"], ["evaluate", "run"]):
        done = sparc_here(*words)
        assert "has the option 'momentum', which this sparc does not know" in done.stderr
        assert "pip install -U sparc-sae" in done.stderr


def test_a_run_is_shown_in_any_encoding_and_an_evaluation_checks_first_that_it_can_be_written(
    extracted, sparc_here, sparc_command
):
    words = [
        "train",
        "--stream",
        "hog",
        "--stream",
        "char-ngrams",
        "--dataset",
        "image-folder",
        "--data-root",
        "photos",
    ]
    assert sparc_here(*words, "--out", "run", "--n-latents", 16, "--k", 2, "--epochs", 1).returncode == 0
    shown = sparc_command("info", "run", PYTHONIOENCODING="ascii")  # Windows gives a pipe cp1252
    assert shown.returncode == 0, shown.stderr
    assert "hog ? char-ngrams" in shown.stdout  # no arrow
    shutil.rmtree(extracted.parent / "run" / "evaluation")
    (extracted.parent / "run" / "evaluation").write_text("a file where a folder is expected")
    done = sparc_here("evaluate", "run")
    assert "error: cannot write run/evaluation" in done.stderr
    assert "parts" not in done.stdout


def test_a_training_that_cannot_be_written_says_how_to_resume(extracted, sparc_here, monkeypatch):
    words = ["train", "--stream", "hog", "--dataset", "image-folder", "--data-root", "photos", "--out", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", lambda *_: (_ for _ in ()).throw(StorageError("no space left to write x", hint="y")))
        done = sparc_here(*words, "--n-latents", 16, "--k", 2, "--epochs", 1)
    assert "error: no space left to write x" in done.stderr
    assert "sparc train --resume run" in done.stderr
    assert sparc_here("train", "--resume", "run").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("option", ["data_root", "features", "store", "out"])
def test_a_folder_whose_name_json_cannot_hold_is_refused_before_any_work(tmp_path, option, monkeypatch):
    folder = tmp_path / os.fsdecode(b"bad\xff")
    folder.mkdir()
    monkeypatch.chdir(folder)
    given = {"dataset": "synthetic"} if option in ("store", "out") else {}
    if option == "data_root":
        given = {"dataset": "image-folder"}
    with pytest.raises(InvalidConfig, match=rf"--{option.replace('_', '-')}: expected a path that is UTF-8") as error:
        sparc.train(**given, **{option: "here"})  # the name of the current folder counts
    assert "rename that folder" in error.value.hint
