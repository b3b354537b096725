"""Content that no parser takes: nested too deep, endless numbers, names with a NUL, links that lead to themselves."""

import pytest

from sparc import RunConfig
from sparc.config import PluginRef
from sparc.errors import CorruptFile, InvalidConfig, SparcError
from sparc.plugins import read_taxonomy
from sparc.plugins.datasets import find_taxonomy
from sparc.plugins.registry import checked_params, discover
from sparc.session import read_options
from sparc.storage.checkpoint import load
from sparc.storage.manifest import how_to_remake, read_manifest
from sparc.system.files import read_json
from sparc.system.refusals import reading

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
