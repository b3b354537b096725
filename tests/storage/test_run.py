"""A run's provenance comes back as it was written, and a file that is none is named."""

import json

import pytest

from sparc.config import RunConfig, SpaceConfig, TrainingConfig
from sparc.errors import CorruptFile, IncompatibleFormat, InvalidConfig, MissingData
from sparc.storage.provenance import provenance_of
from sparc.storage.run import Run
from sparc.storage.space_config import config_content, read_config
from sparc.storage.store import open_streams
from sparc.system.files import write_json
from tests.runs import provenance
from tests.storage.test_store import ids, stream  # noqa: F401


def test_the_provenance_of_a_run_names_its_data_its_plugins_and_its_options(stream, tmp_path):  # noqa: F811
    run = Run.create(tmp_path / "run")
    config = RunConfig.model_validate({"dataset": "toy", "stream": ["photo"], "n-latents": 32, "seed": 7})
    features = open_streams({"eye": stream})
    owners = {("stream", "photo"): "plugin-of-mine 1.2", ("dataset", "photo"): "another 3"}
    run.write_provenance(provenance_of(config, features, owners=owners, device="cpu", command=["sparc", "train"]))
    content = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert content["streams"] == {
        "eye": {"backbone": "photo", "params": {}, "weights": "sha256:1", "plugin": "plugin-of-mine 1.2"}
    }
    assert (content["samples"], content["seed"], content["device"]) == (10, 7, "cpu")
    assert content["features"] == {
        "eye": [features.manifests["eye"].samples_file_sha256, *(s.sha256 for s in features.manifests["eye"].shards)]
    }
    assert (content["options"]["n-latents"], content["options"]["lambda"]) == (32, 1.0)
    assert run.provenance().options == config
    assert run.provenance().command == ("sparc", "train")


def test_imported_features_come_from_no_plugin(stream, tmp_path):  # noqa: F811
    config = RunConfig.model_validate({"dataset": "imported", "features": str(tmp_path)})
    owners = {("stream", "photo"): "plugin-of-mine 1.2"}
    found = provenance_of(config, open_streams({"eye": stream}), owners=owners, device="cpu", command=[])
    assert found.streams["eye"].plugin is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:40], "is not valid JSON"),
        (lambda content: "[]", "is not the provenance of a run"),
        (
            lambda content: json.dumps({"name": "another tool"}),
            "provenance of a run: command: Field required",
        ),
        (lambda content: content.replace('"seed": 0', '"seed": "none"'), "is not the provenance of a run: seed: "),
        (lambda content: content.replace('"seed"', '"sead"', 1), "seed: Field required"),
    ],
)
def test_a_damaged_or_foreign_provenance_is_an_error_that_names_the_file(tmp_path, damage, message):
    run = Run.create(tmp_path / "run")
    run.write_provenance(provenance())
    path = tmp_path / "run" / "provenance.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(CorruptFile, match=message) as error:
        run.provenance()
    assert str(path) in error.value.message


def test_a_plugin_that_was_not_recorded_and_keys_of_a_newer_version_are_no_error(tmp_path):
    run = Run.create(tmp_path / "run")
    origin = {"backbone": "photo", "params": {}, "weights": ""}
    content = {**provenance().model_dump(mode="json", by_alias=True), "streams": {"eye": origin}, "later": 1}
    write_json(tmp_path / "run" / "provenance.json", content)
    assert run.provenance().streams["eye"].plugin is None


def test_a_run_without_provenance_is_no_run(tmp_path):
    with pytest.raises(MissingData, match=r"it has no provenance\.json"):
        Run.open(tmp_path)


def test_the_configuration_of_a_space_comes_back_and_its_training_is_named_as_the_format_says(tmp_path):
    space = SpaceConfig(streams={"b": 3, "a": 2}, n_latents=16, k=4)
    write_json(tmp_path / "config.json", config_content(space, TrainingConfig(lambda_=0.5)))
    assert read_config(tmp_path) == space
    content = json.loads((tmp_path / "config.json").read_text())
    assert list(content["space"]["streams"]) == ["b", "a"]
    assert content["training"]["cross_weight"] == 0.5
    assert "lambda_" not in content["training"]


def test_a_configuration_of_a_newer_format_or_without_one_is_refused(tmp_path):
    write_json(tmp_path / "config.json", {"format_version": 99, "space": {}})
    with pytest.raises(IncompatibleFormat, match="format version 99, this sparc reads up to 1"):
        read_config(tmp_path)
    write_json(tmp_path / "config.json", {"space": {}})
    with pytest.raises(CorruptFile, match=r"config.json has no format version"):
        read_config(tmp_path)


def test_a_process_killed_at_its_first_write_leaves_no_run_in_the_way(tmp_path):
    """The temporary file is the one that a kill leaves; anything else in the folder is somebody's."""
    (tmp_path / ".provenance.json.0123456789abcdef.tmp").write_text("{")
    Run.create(tmp_path).write_provenance(provenance())
    assert Run(tmp_path).begun
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".notes").write_text("mine")
    with pytest.raises(InvalidConfig, match="already exists, and a run is never overwritten"):
        Run.create(tmp_path / "other")
