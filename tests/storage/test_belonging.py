"""Files of two runs are never read as those of one."""

import json
import shutil
import warnings

import pytest
import torch

import sparc
from sparc.core.completion import Completion
from sparc.errors import CorruptFile
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.report import EvaluationFile
from sparc.storage.belonging import weights_in
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.completion_file import write_completion
from sparc.storage.latent_names import read_latent_names
from sparc.storage.run import Run
from sparc.system.files import sha256
from tests.runs import provenance

MIXED = r"belongs to other weights than those of .*model\.safetensors: expected the digest [0-9a-f]{12}, found "
TABLE = "latent,samples a,name,depth,purity,lift,confirmed\n0,3,{},1,0.5,2.0,True\n"


def made(folder, seed):
    """A run of two streams, whose weights and completion depend on the seed."""
    space = SharedLatentSpace(sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=16, k=2), seed=seed)
    space.completion = Completion(space.streams, torch.full((10,), float(seed)), torch.ones(3, 10), 0.5)
    space.save_pretrained(folder)
    Run(folder).pictures.mkdir()
    (Run(folder).pictures / "latents.csv").write_text(TABLE.format(f"name {seed}"))
    features = {name: torch.randn(24, width) for name, width in space.streams.items()}
    report = evaluate(space, HeldOut(features, [str(number) for number in range(24)])).report
    file = EvaluationFile(
        dataset="toy",
        split="test",
        random_weights=(),
        report=report,
        weights=weights_in(folder),
        latents=sha256(Run(folder).pictures / "latents.csv"),
    )
    file.write(Run(folder).evaluation)
    return folder


@pytest.fixture
def runs(tmp_path):
    return made(tmp_path / "one", 1), made(tmp_path / "other", 2)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "completion.safetensors"])
def test_a_space_with_a_file_of_another_run_is_refused(name, runs):
    one, other = runs
    whole = sparc.load(one)
    shutil.copyfile(other / name, one / name)
    with pytest.raises(CorruptFile, match=MIXED) as error:
        sparc.load(one)
    assert "copy all files of one run" in error.value.hint
    sparc.load(other).save_pretrained(one)
    assert not torch.equal(sparc.load(one).decoder, whole.decoder)


def test_an_evaluation_of_other_weights_is_refused_and_names_of_another_table_are_said(runs):
    one, other = runs
    assert EvaluationFile.read(one / "evaluation.json").weights == weights_in(one)
    assert read_latent_names(one / "evaluation" / "latents.csv")[0].label == "name 1"
    shutil.copyfile(other / "evaluation" / "latents.csv", one / "evaluation" / "latents.csv")
    with pytest.warns(match="is not the table that was written with"):
        assert read_latent_names(one / "evaluation" / "latents.csv")[0].label == "name 2"
    shutil.copyfile(other / "evaluation.json", one / "evaluation.json")
    with pytest.raises(CorruptFile, match=MIXED) as error:
        EvaluationFile.read(one / "evaluation.json")
    assert error.value.hint == f"measure the run again: sparc evaluate {one}"


def test_a_completion_that_was_not_copied_is_said_and_one_that_was_never_there_is_not(runs):
    one, other = runs
    (one / "completion.safetensors").unlink()
    with pytest.warns(match=r"completion\.safetensors is missing, so the space guesses no missing streams"):
        found = sparc.load(one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.save_pretrained(one)
        assert sparc.load(one).completion is None
        write_completion(one, sparc.load(other).completion)
        assert sparc.load(one).completion is not None
    shutil.copyfile(one / "completion.safetensors", other / "completion.safetensors")
    with pytest.raises(CorruptFile, match=MIXED):
        sparc.load(other)


def test_files_from_before_the_digests_of_weights_are_read(runs):
    one, other = runs
    for name, keys in (("config.json", ("weights", "completion")), ("evaluation.json", ("weights", "latents"))):
        content = json.loads((other / name).read_text())
        (one / name).write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))
    sparc.load(one)
    assert EvaluationFile.read(one / "evaluation.json").weights is None


def test_the_provenance_of_other_streams_is_refused(runs):
    one, _ = runs
    run = Run(one)
    origin = {"backbone": "synthetic", "params": {}, "weights": "w"}
    run.write_provenance(provenance(streams={"a": origin, "c": origin}))
    with pytest.raises(
        CorruptFile,
        match=r"provenance\.json is that of another run: it has the streams a, c, and config\.json has a, b",
    ) as error:
        run.provenance()
    assert error.value.hint == "copy all files of one run"
