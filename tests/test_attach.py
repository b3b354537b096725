"""`sparc attach` and `sparc detach`: a stream more or less, in a new run, with the old one left as it is."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

import sparc
from sparc.errors import InvalidConfig, MisalignedStreams, MissingData, UnknownName
from sparc.storage.run import Run

DATA = {"dataset": "image-folder", "data_root": "photos", "stream": ["tiny-image", "char-ngrams"]}
SHAPE = {"n_latents": 32, "k": 4, "batch_size": 16, "epochs": 5, "normalization": "standard"}


@pytest.fixture
def here(extracted, environment, use_example, monkeypatch):
    """A folder with the photos, a store with their features, and the example's streams."""
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    monkeypatch.chdir(extracted.parent)
    return extracted.parent


@pytest.fixture
def two(here):
    """A run of two streams."""
    return sparc.train(**DATA, **SHAPE, out="two").path


def held_out(*streams):
    return sparc.extract(**{**DATA, "stream": list(streams)}).test.in_memory()


def content(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


class Stopper(sparc.session.Listener):
    """Listener that sends SIGINT, as Ctrl-C does, after some steps."""

    def step(self, step):
        if step.number == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stream_is_attached_to_a_copy_of_the_space_and_detached_again(here, two, sparc_here):
    before = content(two)
    made = sparc.attach(two, stream="hog")
    assert made.path.name == "two-hog"
    assert content(two) == before
    assert made.report.streams == ("tiny-image", "char-ngrams", "hog")
    old, new = sparc.load(two), sparc.load(made.path)
    x = held_out("tiny-image", "char-ngrams", "hog")
    for some in (("tiny-image",), ("char-ngrams",), ("tiny-image", "char-ngrams")):
        given = {name: x[name] for name in some}
        for name, codes in old.encode(given).items():
            found = new.encode(given)[name]
            assert torch.equal(codes.indices, found.indices)
            assert torch.equal(codes.values, found.values)
    assert len(new.encode({"hog": x["hog"]})["hog"]) == len(x["hog"])
    provenance = Run(made.path).provenance()
    assert [ref.alias for ref in provenance.options.streams] == ["tiny-image", "char-ngrams", "hog"]
    (change,) = provenance.changes
    assert (change.change, change.stream, change.run) == ("attached", "hog", str(here / "two"))
    assert not (made.path / "state").exists()
    assert "attached: hog, to the space of" in sparc_here("info", made.path).stdout

    done = sparc_here("detach", made.path, "hog")
    assert (done.returncode, done.stderr) == (0, "")
    again = here / "two-hog-without-hog"
    for name in ("model.safetensors", "completion.safetensors"):
        assert (again / name).read_bytes() == (two / name).read_bytes(), name
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (again, two))
    assert ours == {key: value for key, value in theirs.items() if key != "metrics"}  # the log is that of `two` alone
    assert sparc.train(resume=again).report == sparc.train(resume=two).report  # what is left to do is the evaluation

    left = sparc.detach(made.path, "tiny-image", out="others")
    assert sparc.load(left).streams == {"char-ngrams": 256, "hog": x["hog"].shape[1]}
    assert sparc.train(resume=left).report.streams == ("char-ngrams", "hog")
    with pytest.raises(
        InvalidConfig,
        match="char-ngrams is the only stream of others that was not attached, and hog was attached to it",
    ):
        sparc.detach(left, "char-ngrams")
    shutil.copytree(made.path, "bare", ignore=shutil.ignore_patterns("provenance.json"))
    assert not Run(sparc.detach("bare", "hog")).begun  # a space that is no run stays one


def test_an_interrupted_attachment_resumes_to_the_same_bits_without_the_other_run(two, sparc_here):
    whole = sparc.attach(two, stream="hog", out="whole")
    with pytest.raises(sparc.Interrupted, match=r"sparc.train\(resume='stopped'\)"):
        sparc.attach(two, stream="hog", out="stopped", listener=Stopper())
    two.rename("moved")
    assert sparc_here("train", "--resume", "stopped").returncode == 0
    resumed = sparc.train(resume="stopped")
    for name in ("model.safetensors", "completion.safetensors", "metrics.jsonl"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert resumed.report == whole.report
    assert not (resumed.path / "state").exists()


def test_streams_are_attached_one_after_the_other(two):
    three = sparc.attach(two, stream="hog").path
    four = sparc.attach(three, stream="other=hog", out="four")
    assert four.space.config.attached == ("hog", "other")
    assert [change.stream for change in Run(four.path).provenance().changes] == ["hog", "other"]
    x = held_out("hog")["hog"]
    with torch.inference_mode():
        before, later = (sparc.load(path).encode({"hog": x})["hog"] for path in (three, four.path))
    assert torch.equal(before.indices, later.indices)
    assert torch.equal(before.values, later.values)


def test_mistakes_are_errors_before_any_work(two, here):
    taken = here / "taken"
    taken.mkdir()
    (taken / "file").touch()
    (here / "many").mkdir()
    (here / "many" / "ablation.json").write_text("{}")
    shutil.copytree(two, "unfinished", ignore=shutil.ignore_patterns("model.safetensors"))
    before = content(here)
    mistakes = [
        (lambda: sparc.attach(two), InvalidConfig, "--stream: expected one stream, found none"),
        (lambda: sparc.attach(two, stream=["hog", "x=hog"]), InvalidConfig, "expected one stream, found hog, x"),
        (lambda: sparc.attach(two, stream="tiny-image"), InvalidConfig, "has a stream named 'tiny-image' already"),
        (lambda: sparc.attach(two, stream="Tiny-Image=hog"), InvalidConfig, "found 'tiny-image' and 'Tiny-Image'"),
        (lambda: sparc.attach(two, stream="pig"), UnknownName, "no plugin offers a stream named 'pig'"),
        (
            lambda: sparc.attach(two, stream="hog[size=x]"),
            InvalidConfig,
            "'hog': size: expected a whole number",
        ),
        (lambda: sparc.attach(two, stream="hog", out="taken"), InvalidConfig, "taken already exists"),
        (lambda: sparc.attach(two, stream="hog", epochs=3), InvalidConfig, "unknown parameter 'epochs'"),
        (lambda: sparc.attach("nowhere", stream="hog"), MissingData, "no run at nowhere"),
        (lambda: sparc.attach("many", stream="hog"), MissingData, "many is an ablation"),
        (lambda: sparc.attach("unfinished", stream="hog"), MissingData, "unfinished is not finished"),
        (lambda: sparc.detach(two, "hog"), UnknownName, "no stream named 'hog'"),
        (lambda: sparc.detach(two, "tiny-image", out="taken"), InvalidConfig, "taken already exists"),
        (lambda: sparc.detach("unfinished", "tiny-image"), MissingData, "unfinished is not finished"),
        (lambda: sparc.detach("nowhere", "tiny-image"), MissingData, "nowhere"),
    ]
    for call, error, message in mistakes:
        with pytest.raises(error, match=message):
            call()
    assert content(here) == before


def saved(path, rows, ids):
    np.savez(path, features=rows, ids=ids)


def test_a_stream_of_imported_features_is_attached_from_a_folder_that_has_it_too(here, sparc_here):
    generator = torch.Generator().manual_seed(0)
    ids = [f"sample {number}" for number in range(80)]
    for name, width in (("one", 12), ("two", 7), ("three", 5)):
        saved(f"{name}.npz", torch.rand(80, width, generator=generator).numpy(), ids)
    saved("fewer.npz", torch.rand(40, 5, generator=generator).numpy(), ids[:40])
    saved("strange.npz", torch.rand(90, 5, generator=generator).numpy(), [*ids, *(f"new {n}" for n in range(10))])
    pair = ("--stream", "one=one.npz", "--stream", "two=two.npz")
    for out, more in (("pair", None), ("all", "three"), ("some", "fewer"), ("more", "strange")):
        words = () if more is None else ("--stream", f"three={more}.npz")
        assert sparc_here("import", "features", *pair, *words, "--out", out).returncode == 0
    run = sparc.train(features="pair", n_latents=16, k=2, epochs=2, out="run").path
    with pytest.raises(UnknownName, match="no stream named 'three' was imported"):
        sparc.attach(run, stream="three")
    with pytest.raises(MisalignedStreams, match="these samples are not the ones that run was trained on"):
        sparc.attach(run, stream="three", features="more")
    done = sparc_here("attach", "run", "--stream", "three", "--features", "all")
    assert done.returncode == 0, done.stderr
    assert set(sparc.load("run-three").streams) == {"one", "two", "three"}
    with pytest.warns(UserWarning, match="samples lack the stream three"):
        half = sparc.attach(run, stream="three", features="some", out="half")
    assert half.report.streams == ("one", "two", "three")
    with pytest.raises(MissingData, match="no run at all: it has no"):
        sparc.attach("all", stream="three")
    with pytest.raises(InvalidConfig, match="stream 'three': expected the name of imported features, found parameters"):
        sparc.attach(run, stream="three[model=x]", features="all", out="no")
    renamed = sparc.train(features="all", stream=["a=three", "one"], n_latents=16, k=2, epochs=1, out="renamed")
    assert renamed.space.streams == {"a": 5, "one": 12}


def test_a_stream_that_shares_no_sample_with_the_others_is_refused_before_a_run_is_begun(here, sparc_here):
    generator = torch.Generator().manual_seed(0)
    ids = [f"sample {number}" for number in range(80)]
    both, alone = ids[:60], ids[60:]
    saved("one.npz", torch.rand(60, 6, generator=generator).numpy(), both)
    saved("two.npz", torch.rand(60, 5, generator=generator).numpy(), both)
    saved("rest.npz", torch.rand(20, 4, generator=generator).numpy(), alone)
    saved("new.npz", torch.rand(20, 5, generator=generator).numpy(), alone)
    streams = [f"{name}={name}.npz" for name in ("one", "two", "rest", "new")]
    words = [word for stream in streams for word in ("--stream", stream)]
    assert sparc_here("import", "features", *words, "--out", "all").returncode == 0
    words = ("--stream", "one", "--stream", "two", "--n-latents", 16, "--k", 2, "--epochs", 2, "--out", "run")
    assert sparc_here("train", "--features", "all", *words).returncode == 0
    done = sparc_here("attach", "run", "--stream", "new")
    assert "error: no sample has both the stream new and one of one, two, the streams of run" in done.stderr
    assert not (here / "run-new").exists()
