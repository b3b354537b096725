"""Discovery treats our plugins like a stranger's, and no plugin can break the others."""

import functools
import subprocess
import sys
import types
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules

import pytest
from PIL import Image

import sparc
import sparc_plugins
from sparc.config import SpaceConfig
from sparc.errors import PluginError, UnknownName
from sparc.plugins import hookimpl
from sparc.plugins import registry as registry_module
from sparc.plugins.contracts import BackboneSpec, Params
from sparc.plugins.hookspecs import CONTRACT, GROUP
from sparc.plugins.registry import discover
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.runs import provenance


def plugin(monkeypatch, name, **hooks):
    """Return the entry point of a module that exists only in this test."""
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, function)
    monkeypatch.setitem(sys.modules, name, module)
    return EntryPoint(name.replace("_", "-"), name, GROUP)


def offering(*names):
    @hookimpl
    def sparc_backbones():
        return [BackboneSpec(name, "image", load=lambda params, device: None) for name in names]

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


@pytest.mark.parametrize("contract", [CONTRACT + 1, CONTRACT - 1, str(CONTRACT), None])
def test_a_plugin_for_another_contract_is_shown_as_broken_and_the_others_work(contract, monkeypatch):
    other = plugin(monkeypatch, "other", sparc_backbones=offering("vit"), SPARC_CONTRACT=contract)
    good = plugin(monkeypatch, "good", sparc_backbones=offering("fine"), SPARC_CONTRACT=CONTRACT)
    registry = discover([other, good])
    assert list(registry.backbones) == ["fine"]
    error = registry.broken["other"]
    assert error.message == f"it was written for contract {contract} of plugins, this sparc has contract {CONTRACT}"
    assert error.hint == "upgrade that plugin or sparc-sae, whichever is older"


def test_a_plugin_that_names_no_contract_is_loaded(monkeypatch):
    registry = discover([plugin(monkeypatch, "silent", sparc_backbones=offering("vit"))])
    assert (list(registry.backbones), registry.broken) == (["vit"], {})


def test_the_listing_shows_a_plugin_for_another_contract_with_its_error(sparc_here, monkeypatch):
    other = plugin(monkeypatch, "other", sparc_backbones=offering("vit"), SPARC_CONTRACT=CONTRACT + 1)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [other])
    printed = " ".join(sparc_here("plugins", "list").stdout.split())
    assert f"other plugin - - - did not load: PluginError: it was written for contract {CONTRACT + 1} of" in printed


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
    points = [point for point in entry_points(group=GROUP) if point.value.startswith("sparc_plugins.")]
    declared = {point.value.removeprefix("sparc_plugins.") for point in points}
    assert declared == shipped, "declare it in pyproject.toml, then install again"
    assert discover(points).broken == {}


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
    """Run `sparc plugins list` with these streams, and return the words of each row by its first word."""

    @hookimpl
    def sparc_backbones():
        return specs

    point = plugin(monkeypatch, "lab", sparc_backbones=sparc_backbones)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
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
def test_a_run_whose_plugin_is_gone_names_its_package_and_the_streams_there_are(command, sparc_here, tmp_path):
    run = Run.create(tmp_path / "run")
    SharedLatentSpace(SpaceConfig(streams={"night": 4}, n_latents=8, k=2)).save_pretrained(run.path)
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
    assert hint.split(maxsplit=1)[1].startswith("it came from sparc-sky 1.2: install that; known streams: ")
    assert "hog" in hint


def test_the_public_names_are_all_there_and_sorted():
    assert sorted(sparc.__all__) == sparc.__all__
    for name in sparc.__all__:
        assert getattr(sparc, name) is not None
    assert sorted(sparc.plugins.__all__) == sparc.plugins.__all__
    for name in sparc.plugins.__all__:
        assert getattr(sparc.plugins, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sparc.nonsense


HEAVY = ("torch", "timm", "transformers", "open_clip", "scipy", "datasets", "webdataset")
OURS = """
from importlib.metadata import entry_points
from sparc.plugins.registry import checked_params, discover
ours = discover([one for one in entry_points(group="sparc.plugins") if one.value.startswith("sparc_plugins.")])
"""


def heavy_imports(code):
    """Run a program in a new process; return the heavy libraries that it imports, and the lines that it prints."""
    code = f"{code}\nimport sys\nprint('heavy:', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, heavy = done.stdout.splitlines()
    return heavy.split()[1:], lines


def test_the_test_of_heavy_imports_can_fail():
    assert heavy_imports("import scipy; print('loaded')") == (["scipy"], ["loaded"])


def test_naming_the_weights_of_the_default_models_imports_no_library_of_models():
    found, lines = heavy_imports(f"""{OURS}
from sparc.errors import WeightsUnavailable
for name, spec in ours.backbones.items():
    if spec.has_weights is not None:
        try:
            kind = spec.identify(spec.params()).split(":")[0]
        except WeightsUnavailable:
            kind = "hub"
        print(name, spec.has_weights() in (True, False), kind)
""")
    hub, packages = ("clip-img", "clip-txt", "dinov2", "dinov3", "sentence"), ("minilm", "effnet-lite0", "effnet-lite2")
    assert sorted(lines) == sorted(
        [*(f"{name} True hub" for name in hub), *(f"{name} True sha256" for name in packages), "synthetic True "]
    )
    assert found == []


WRONG = {
    "clip-img[weights=nowhere]": "weights: no file or folder at nowhere",
    "clip-img[model=RN50,weights=nowhere]": "weights: no file or folder at nowhere",
    "timm[model=resnet18,weights=nowhere]": "weights: no file or folder at nowhere",
    "hf-image[model=lab/model,weights=nowhere]": "weights: no file or folder at nowhere",
    "effnet-lite0[weights=nowhere]": "weights: no file or folder at nowhere",
    "dinov2[model=resnet18]": "'dinov2': expected a DINOv2 model, found 'resnet18'",
    "dinov3[model=resnet18]": "'dinov3': expected a DINOv3 model, found 'resnet18'",
    "minilm[model=x]": "'minilm': unknown parameter 'model'",
    "coco[root=nowhere]": "coco: no folder at nowhere",
    "hf[root=nowhere]": "hf: no folder at nowhere",
    "hf": "hf: expected path=REPOSITORY or --data-root FOLDER, found neither",
    "image-folder[root=nowhere]": "image-folder: no folder at nowhere",
    "open-images[root=nowhere]": "open-images: no folder at nowhere",
    "webdataset[root=nowhere]": "webdataset: no folder at nowhere",
    "openmoji[seed=1]": "'openmoji': unknown parameter 'seed'",
}


def test_wrong_parameters_are_answered_without_heavy_libraries():
    found, lines = heavy_imports(f"""{OURS}
from sparc.config import reference
from sparc.errors import SparcError
for one in {[*WRONG]}:
    ref = reference(one)
    spec = ours.either(ref.name)
    try:
        spec.identify(checked_params(spec, ref))
    except SparcError as error:
        print(error.message)
""")
    assert lines == [*WRONG.values()]
    assert found == []
