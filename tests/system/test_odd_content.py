"""Content that no parser takes: nested too deep, endless numbers, names with a NUL, links that lead to themselves."""

import pytest
import torch
from safetensors.torch import save_file

from sparc import RunConfig
from sparc.config import PluginRef
from sparc.errors import CorruptFile, InvalidConfig, SparcError
from sparc.evaluation.report import EvaluationFile
from sparc.interchange.feature_files import open_source
from sparc.plugins import read_taxonomy
from sparc.plugins.datasets import find_taxonomy
from sparc.plugins.registry import checked_params, discover
from sparc.session import read_options
from sparc.storage.checkpoint import load
from sparc.storage.manifest import how_to_remake, read_manifest
from sparc.storage.provenance import read_provenance
from sparc.storage.run import Run
from sparc.system.files import read_json
from sparc.system.locks import Owner
from sparc.system.refusals import reading
from sparc.training.state import Progress, best_state, load_state, save_state

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"k = {DEEP}", "nested too deep"),
        ("k = " + "{a = " * 5_000, "nested too deep"),
        ("k." * 5_000 + "x = 1", "nested too deep"),
        ("[" + "k." * 5_000 + "x]", "nested too deep"),
        ("k = " + "9" * 5_000, "limit .* digits"),
    ],
    ids=["arrays", "inline tables", "dotted key", "dotted table", "digits"],
)
def test_a_config_file_that_no_parser_takes_is_refused(tmp_path, content, message):
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(InvalidConfig, match=rf"run\.toml is not valid TOML: .*{message}"):
        read_options(path)


def test_json_nested_too_deep_is_a_damaged_file(tmp_path):
    for name in ("manifest.json", "config.json", "taxonomy.json"):
        (tmp_path / name).write_text(DEEP)
    with pytest.raises(CorruptFile, match="nested too deep"):
        read_json(tmp_path / "config.json", what="x")
    with pytest.raises(CorruptFile, match="nested too deep"):
        read_manifest(tmp_path)
    assert "extract it again" in how_to_remake(tmp_path / "x-0123456789ab")
    with pytest.raises(CorruptFile, match="nested too deep"):
        load(tmp_path)
    with pytest.raises(SparcError, match="is not a taxonomy"):
        read_taxonomy(tmp_path / "taxonomy.json", ["a"])


@pytest.mark.parametrize("dataset", ["image-folder", "coco", "open-images", "webdataset", "hf"])
def test_a_path_with_a_nul_is_refused_where_it_is_given(dataset):
    registry = discover()
    ref = PluginRef(name=dataset, alias=dataset, params={"root": "a\0b"})
    with pytest.raises(InvalidConfig, match="expected a text without a NUL character"):
        checked_params(registry.dataset(dataset), ref)
    with pytest.raises(InvalidConfig, match="expected a text without a NUL character"):
        RunConfig(dataset=ref)
    with pytest.raises(FileNotFoundError), reading("a\0b"), open("a\0b", encoding="utf-8"):
        pass


def test_a_taxonomy_that_leads_to_itself_is_not_left_out_silently(tmp_path):
    (tmp_path / "taxonomy.json").symlink_to(tmp_path / "taxonomy.json")
    found = find_taxonomy(tmp_path)
    assert found == tmp_path / "taxonomy.json"
    with pytest.raises((SparcError, FileNotFoundError)):
        read_taxonomy(found, [])


def test_text_in_a_header_or_a_lock_that_is_nested_too_deep_is_damage(tmp_path):
    run = Run(tmp_path)
    ones = {"space.x": torch.ones(2)}
    for step in (3, 6):
        save_state(run, ones, Progress(step, step, 0.5), keep=2)
    save_file(ones, run.state(6), metadata={"state": DEEP, "sha256": "0" * 64})
    assert best_state(run.states())[1].step == 3
    with pytest.warns(UserWarning, match="a checkpoint is damaged"):
        assert load_state(run, lambda tensors, progress: None, lambda path, progress: None).step == 3
    (tmp_path / ".sparc.lock").write_text(DEEP)
    assert str(Owner.read(tmp_path / ".sparc.lock")) == "another process"
    save_file({"features": torch.ones(2, 3)}, tmp_path / "x.safetensors", metadata={"ids": '["a", "b"]', "more": DEEP})
    assert open_source(tmp_path / "x.safetensors").ids == ["a", "b"]


@pytest.mark.parametrize("name", ["evaluation.json", "provenance.json", "manifest.json"])
def test_a_key_that_utf8_cannot_hold_is_a_damaged_file(tmp_path, name):
    (tmp_path / name).write_text('{"report": {"\\ud800": 1}, "\\ud800": 2}')
    readers = {"evaluation.json": EvaluationFile.read, "provenance.json": read_provenance}
    read = readers.get(name, lambda path: read_manifest(path.parent))
    with pytest.raises(CorruptFile, match=name):
        read(tmp_path / name)
