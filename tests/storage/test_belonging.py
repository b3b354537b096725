"""Files of two runs are never read as those of one."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import sparc
from sparc.cli.following import lines
from sparc.core.completion import Completion
from sparc.errors import CorruptFile
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.report import EvaluationFile
from sparc.storage.belonging import doubt_about_log, weights_in
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.completion_file import write_completion
from sparc.storage.latent_names import read_latent_names
from sparc.storage.run import Run
from sparc.system.files import sha256
from tests.runs import provenance

MIXED = r"belongs to other weights than those of .*model\.safetensors: expected the digest [0-9a-f]{12}, found "
OTHER_RUN = r"provenance\.json is that of another run than config\.json beside it"
ORIGIN = {"backbone": "synthetic", "params": {}, "weights": "w"}
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
    run.write_provenance(provenance(streams={"a": ORIGIN, "c": ORIGIN}))
    with pytest.raises(CorruptFile, match=rf"{OTHER_RUN}: expected the streams a, b, found a, c") as error:
        run.provenance()
    assert error.value.hint == "copy all files of one run"


def trained(folder, *, digest="0", **options):
    """A finished run with a log, whose training features have a digest."""
    run, given = Run(folder), {"n-latents": 16, "k": 2, "lambda": 0.5, **options}
    origins = dict.fromkeys("ab", ORIGIN)
    run.path.mkdir()
    run.write_provenance(provenance(streams=origins, features={"a": [digest]}, options={"dataset": "toy", **given}))
    run.log({"step": 3, "loss": 0.25 + options.get("seed", 0)})
    config = run.provenance().options
    SharedLatentSpace(config.space({"a": 6, "b": 4})).save_pretrained(folder, training=config.training())
    run.provenance()
    return run


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 7}, "expected seed 0, found 7"),
        ({"lambda": 2.0}, "expected lambda 0.5, found 2.0"),
        ({"k": 3}, "expected k 2, found 3"),
        ({"digest": "1"}, "expected training features of the digest [0-9a-f]{12}, found"),
    ],
)
def test_the_provenance_of_another_run_of_the_same_streams_is_refused(changed, message, tmp_path):
    run = trained(tmp_path / "one")
    shutil.copyfile(trained(tmp_path / "other", **changed).path / "provenance.json", run.path / "provenance.json")
    with pytest.raises(CorruptFile, match=f"{OTHER_RUN}: {message}"):
        run.provenance()


def test_a_provenance_whose_data_have_moved_and_one_from_before_the_digests_are_read(tmp_path):
    run = trained(tmp_path / "one", **{"data-root": "photos"})
    content = json.loads((run.path / "provenance.json").read_text())
    content["options"]["data-root"] = "elsewhere"
    (run.path / "provenance.json").write_text(json.dumps(content))
    assert run.provenance().options.data_root == Path("elsewhere")
    config = json.loads((run.path / "config.json").read_text())
    for key in ("features", "metrics", "training"):
        del config[key]
    (run.path / "config.json").write_text(json.dumps(config))
    shutil.copyfile(
        trained(tmp_path / "other", digest="1", seed=7).path / "provenance.json", run.path / "provenance.json"
    )
    run.provenance()
    assert doubt_about_log(run.path) is None


def test_the_log_of_another_run_is_said(tmp_path):
    run, other = trained(tmp_path / "one"), trained(tmp_path / "other", seed=7)
    assert list(lines(run, 1)) == [
        "step 3  epoch 0 of 1  loss 0.2500",
        f"the training is finished: sparc info {run.path}",
    ]
    shutil.copyfile(other.metrics, run.metrics)
    warning = f"{run.metrics} is not the log of this training: it is that of another run, or was changed"
    assert f"warning: {warning}" in list(lines(run, 1))
    run.metrics.unlink()
    assert doubt_about_log(run.path) is None
