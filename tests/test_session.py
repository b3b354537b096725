"""What programs call instead of the command: the same options, the same runs."""

import pytest
import torch

import sparc
from sparc.errors import InvalidConfig, MissingData, UnknownName
from sparc.evaluation import Report
from sparc.session import common, missing
from sparc.storage.run import Run
from sparc.storage.store import FeatureStore
from sparc.system.files import read_json

STREAMS = ["tiny-image", "char-ngrams"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_latent": 8}, InvalidConfig, "unknown parameter 'n_latent'"),
        ({"k": 64, "n_latents": 32}, InvalidConfig, "expected at most n-latents, 32, found 64"),
        ({"lambda_": -1}, InvalidConfig, "lambda: input should be greater"),
        ({"batch_size": "many"}, InvalidConfig, "batch-size: input should be a valid integer"),
        ({"stream": ["tiny"]}, UnknownName, "no plugin offers a stream named 'tiny'"),
        ({"device": "gpu"}, InvalidConfig, "'gpu' is not there"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(options, error, message, use_example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        sparc.fit(**{"dataset": "digits", "stream": STREAMS, "store": tmp_path / "store", **options})
    assert not list(tmp_path.iterdir())


def test_a_mistyped_option_is_told_as_python_spells_it():
    with pytest.raises(InvalidConfig) as error:
        sparc.fit(n_latent=64)
    assert error.value.hint.startswith("did you mean 'n_latents'? known: stream, dataset, data_root, ")


def test_a_run_made_by_a_program_is_one_that_the_commands_know(
    photos, environment, use_example, sparc_here, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])  # of the process that extracts
    options = {"dataset": "image-folder", "data_root": "photos", "stream": STREAMS, "store": "store"}
    monkeypatch.chdir(photos.parent)
    shape = {"n_latents": 32, "k": 4, "batch_size": 16, "epochs": 2, "seed": 3}
    fitted = sparc.fit(**options, **shape, lambda_=0.5)
    assert str(fitted.path) == "runs/image-folder"
    assert Report.from_json(read_json(Run(fitted.path).evaluation, what="it")["report"]) == fitted.report
    said = Run(fitted.path).provenance().options.model_dump(mode="json", by_alias=True)
    assert (said["lambda"], said["k"], said["seed"], said["data-root"]) == (0.5, 4, 3, str(photos))
    assert "image-folder test" in sparc_here("info", fitted.path).stdout

    train, test = sparc.features(**options)
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
        sparc.fit(**options, out=fitted.path)


def test_a_stream_that_no_sample_has_is_refused():
    shards = {"a": [torch.ones(3, 2)], "b": [torch.zeros(3, 2)]}
    rows = {name: torch.arange(3) for name in shards}
    with pytest.raises(MissingData, match="no sample has the stream 'b'"):
        missing(FeatureStore(shards, rows, ("1", "2", "3"), {}))
    shards["b"][0][1] = 1
    assert missing(FeatureStore(shards, rows, ("1", "2", "3"), {})) == {"a": 0, "b": 2}


def test_what_the_samples_of_a_stream_have_in_common_is_the_squared_norm_of_their_mean():
    """By hand: (3, 4) and (4, 3) have the mean (3.5, 3.5) / 5 on unit norm, whatever the scale of either."""
    shards = {"near": [torch.tensor([[3.0, 4], [0, 0]]), torch.tensor([[400.0, 300]])], "far": [torch.eye(3)]}
    rows = {name: torch.arange(3) for name in shards}
    found = common(FeatureStore(shards, rows, ("1", "2", "3"), {}))
    assert found == {"near": pytest.approx(0.98), "far": pytest.approx(1 / 3)}
