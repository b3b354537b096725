"""Finding plugins: ours and a stranger's on one path, and no plugin can break the others."""

import functools
import subprocess
import sys
import types
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules

import pytest
from PIL import Image
from pydantic import Field

import sparc
import sparc_plugins
from sparc.config import SpaceConfig, reference
from sparc.errors import PluginError, UnknownName
from sparc.plugins import hookimpl
from sparc.plugins.contracts import BackboneSpec, Params
from sparc.plugins.hookspecs import CONTRACT, GROUP
from sparc.plugins.registry import checked_params, discover
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.runs import provenance


def plugin(monkeypatch, name, **hooks):
    """A module that exists only in this test, as an entry point would find it."""
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, function)
    monkeypatch.setitem(sys.modules, name, module)
    return EntryPoint(name.replace("_", "-"), name, GROUP)


def offering(*names):
    @hookimpl
    def sparc_backbones():
        return [BackboneSpec(name, "image", load=lambda params, device, dtype: None) for name in names]

    return sparc_backbones


def test_sparc_backbones_of_every_plugin_are_indexed_by_name(monkeypatch):
    points = [plugin(monkeypatch, f"plugin_{name}", sparc_backbones=offering(name)) for name in ("b", "a")]
    registry = discover(points)
    assert list(registry.backbones) == ["a", "b"]
    assert registry.backbone("a").modality == "image"


def test_sparc_datasets_of_the_installed_plugins_are_indexed():
    assert {"openmoji", "image-folder"} <= set(discover().datasets)


def test_a_plugin_that_fails_to_import_is_kept_with_its_error_and_the_others_work(monkeypatch):
    good = plugin(monkeypatch, "good", sparc_backbones=offering("fine"))
    registry = discover([EntryPoint("bad", "no_such_module_at_all", GROUP), good])
    assert list(registry.backbones) == ["fine"]
    assert isinstance(registry.broken["bad"], ModuleNotFoundError)
    with pytest.raises(UnknownName) as error:
        registry.backbone("fin")
    assert "did you mean 'fine'?" in error.value.hint
    assert "plugin 'bad' did not load: No module named 'no_such_module_at_all'" in error.value.hint


@pytest.mark.parametrize(("contract", "advice"), [(CONTRACT + 1, "upgrade sparc"), (CONTRACT - 1, "upgrade it")])
def test_a_plugin_for_another_contract_is_kept_with_what_to_upgrade_and_the_others_work(contract, advice, monkeypatch):
    other = plugin(monkeypatch, "other", sparc_backbones=offering("vit"), SPARC_CONTRACT=contract)
    good = plugin(monkeypatch, "good", sparc_backbones=offering("fine"), SPARC_CONTRACT=CONTRACT)
    registry = discover([other, good])
    assert list(registry.backbones) == ["fine"]
    assert f"written for contract {contract} of plugins, this sparc has {CONTRACT}: {advice}" in str(
        registry.broken["other"]
    )


@pytest.mark.filterwarnings("default::sparc.SparcDeprecationWarning")
def test_installed_packages_for_an_older_contract_work_with_one_warning_each(sparc_here, monkeypatch):
    """The example packages are written for contract 1."""
    monkeypatch.setattr("sparc.plugins.CONTRACT", 2)
    done = sparc_here("plugins", "list")
    assert done.returncode == 0
    assert "hog" in done.stdout
    said = (
        "was written for contract 1 of plugins, this sparc has 2 and a later one will leave it out: upgrade that plugin"
    )
    lines = done.stderr.splitlines()
    assert [lines.count(f"warning: the plugin sparc-{name} 0.1.0 {said}") for name in ("classic", "digits")] == [1, 1]
    monkeypatch.setattr("sparc.plugins.OLDEST", 2)
    done = sparc_here("plugins", "list")
    assert done.stderr == ""
    assert "hog" not in done.stdout
    assert "did not load: PluginError: it was written for contract 1" in " ".join(done.stdout.split())


@pytest.mark.parametrize("contract", ["1", None, 1.5])
def test_a_contract_that_is_no_number_is_another_one(contract, monkeypatch):
    assert "other" in discover([plugin(monkeypatch, "other", SPARC_CONTRACT=contract)]).broken


class Renamed(Params):
    side: int = 64
    size: int | None = Field(None, deprecated="say side=... instead")


def test_a_parameter_that_its_plugin_calls_deprecated_warns_who_says_it(sparc_here, monkeypatch):
    spec = BackboneSpec("vit", "image", load=None, params=Renamed, summary="a transformer")
    with pytest.warns(sparc.SparcDeprecationWarning) as warned:
        assert checked_params(spec, reference("vit[size=32]")).model_dump() == {"side": 64, "size": 32}
    assert [str(one.message) for one in warned] == ["'vit': the parameter 'size' will go: say side=... instead"]
    assert checked_params(spec, reference("vit[side=32]")).side == 32  # a warning would be an error here
    assert listed(sparc_here, monkeypatch, spec)["[side=64]"] == ["[side=64]"]


def test_two_plugins_that_offer_one_name_are_both_named(monkeypatch):
    points = [plugin(monkeypatch, name, sparc_backbones=offering("vit")) for name in ("lab_one", "lab_two")]
    with pytest.raises(PluginError, match="the stream 'vit' is offered twice, by lab_one and by lab_two"):
        discover(points)


def test_two_plugins_of_one_name_are_an_error(monkeypatch):
    one = plugin(monkeypatch, "lab_one", sparc_backbones=offering("a"))
    two = plugin(monkeypatch, "lab_two", sparc_backbones=offering("b"))
    with pytest.raises(PluginError, match="both named 'lab-one'"):
        discover([one, EntryPoint("lab-one", two.value, GROUP)])


def test_a_misspelled_hook_is_an_error(monkeypatch):
    @hookimpl
    def sparc_backbone():
        return []

    with pytest.raises(PluginError, match="sparc_backbone") as error:
        discover([plugin(monkeypatch, "typo", sparc_backbone=sparc_backbone)])
    assert "sparc_backbones" in error.value.hint


def test_a_hook_that_raises_or_returns_no_specs_names_its_plugin(monkeypatch):
    @hookimpl(specname="sparc_backbones")
    def raises():
        raise RuntimeError("no luck")

    @hookimpl(specname="sparc_backbones")
    def returns_names():
        return ["vit"]

    with pytest.raises(PluginError, match="hook 'sparc_backbones' of plugin unlucky failed: no luck"):
        discover([plugin(monkeypatch, "unlucky", sparc_backbones=raises)])
    with pytest.raises(PluginError, match="plugin wrong returned str, expected BackboneSpec"):
        discover([plugin(monkeypatch, "wrong", sparc_backbones=returns_names)])


def test_the_order_of_installation_does_not_matter(monkeypatch):
    points = [plugin(monkeypatch, f"plugin_{name}", sparc_backbones=offering(name)) for name in "cab"]
    assert list(discover(points).backbones) == list(discover(points[::-1]).backbones)


def test_every_shipped_plugin_is_declared_and_loads():
    shipped = {module.name for module in iter_modules(sparc_plugins.__path__)}
    declared = {
        point.value.removeprefix("sparc_plugins.")
        for point in entry_points(group=GROUP)
        if point.value.startswith("sparc_plugins.")
    }
    assert declared == shipped, "declare it in pyproject.toml, then install again"
    assert discover().broken == {}


def test_installed_packages_of_strangers_are_found_like_our_own(installed_example, sparc_command):
    listed = sparc_command("plugins", "list")
    assert listed.returncode == 0
    for word in ("hog", "sparc-classic 0.1.0", "digits", "sparc-digits 0.1.0", "openmoji", "image-folder"):
        assert word in listed.stdout


class Sizes(Params):
    size: int
    crop: int = 7
    name: str | None = None


def listed(sparc_here, monkeypatch, *specs):
    """What `sparc plugins list` prints of a plugin with these streams: per stream its row, the words of it."""

    @hookimpl
    def sparc_backbones():
        return specs

    point = plugin(monkeypatch, "lab", sparc_backbones=sparc_backbones)
    monkeypatch.setattr("sparc.plugins.registry.entry_points", lambda group: [point])
    printed = sparc_here("plugins", "list")
    assert printed.returncode == 0
    return {row.split()[0]: row.split() for row in printed.stdout.splitlines()}


def test_the_listing_shows_width_and_whether_the_weights_are_here(sparc_here, monkeypatch):
    def fails():
        raise OSError("no such disk")

    spec = functools.partial(BackboneSpec, modality="text", load=None)
    rows = listed(
        sparc_here,
        monkeypatch,
        spec("asks"),
        spec("fails", width=8, has_weights=fails),
        spec("here", width=384, has_weights=lambda: True),
        spec("lacks", width=1024, has_weights=lambda: False),
    )
    assert rows["name"][:4] == ["name", "kind", "width", "weights"]
    assert rows["asks"][:5] == ["asks", "text", "stream", "-", "-"]
    assert rows["here"][:5] == ["here", "text", "stream", "384", "yes"]
    assert rows["lacks"][:5] == ["lacks", "text", "stream", "1024", "no"]
    assert rows["fails"][:8] == ["fails", "text", "stream", "8", "OSError:", "no", "such", "disk"]


def test_the_listing_shows_the_parameters_their_values_and_which_must_be_given(sparc_here, monkeypatch):
    spec = BackboneSpec("vit", "image", load=None, params=Sizes, summary="a [bracketed] summary")
    rows = listed(sparc_here, monkeypatch, spec)
    assert rows["a"] == ["a", "[bracketed]", "summary"]
    assert rows["[size=?,"] == ["[size=?,", "crop=7,", "name]"]


@pytest.mark.parametrize("command", [("evaluate",), ("localize", "--image", "photo.png", "--text", "bus")])
def test_a_run_whose_plugin_is_gone_says_which_package_to_install(command, sparc_here, tmp_path):
    run = Run.create(tmp_path / "run")
    SharedLatentSpace(SpaceConfig(streams={"sky": 4}, n_latents=8, k=2)).save_pretrained(run.path)
    run.write_provenance(
        provenance(
            streams={"night": {"backbone": "sky", "params": {}, "weights": "", "plugin": "sparc-sky 1.2"}},
            options={"dataset": "digits", "stream": [{"name": "sky", "alias": "night"}]},
        )
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    done = sparc_here(command[0], "run", *command[1:])
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error == "error: no plugin offers a stream named 'sky'"
    assert "it came from sparc-sky 1.2: install that; known streams: " in hint


def test_the_public_names_are_all_there_and_sorted():
    assert sorted(sparc.__all__) == sparc.__all__
    for name in sparc.__all__:
        assert getattr(sparc, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sparc.nonsense


def test_naming_the_weights_of_the_default_models_imports_no_library_of_models():
    code = """
import sys
from sparc_plugins import clip, timm_image
for module in (clip, timm_image):
    for spec in module.sparc_backbones():
        if spec.name in ("clip-img", "clip-txt", "dinov2", "dinov3"):
            assert spec.identify(spec.params()).startswith("hub:")
print(*{"timm", "open_clip", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
