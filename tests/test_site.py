"""The documentation site builds without a warning, has no dead link, and agrees with the code."""

import ast
import hashlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import sparc
import sparc.localization
import sparc.plugins
import sparc.plugins.checks
from sparc.config import (
    EncodeOptions,
    EvaluateOptions,
    ExploreOptions,
    ExtractOptions,
    LocalizeOptions,
    RunConfig,
    SearchOptions,
    TrainingConfig,
    option_name,
)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def tool(name):
    """Load a script of the documentation as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Page(HTMLParser):
    """Links of a page, the files that it loads, and the anchors that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        self.loads += [found[name] for name in ("src", "href") if found.get(name) and tag != "a"]


def dead_links(site):
    """Return links, scripts, styles and pictures of a built site that do not exist or load from another host."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    dead = []
    for path, page in pages.items():
        for target in [*page.links, *page.loads]:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                dead += [f"{path.name} loads {target}"] if target in page.loads and url.scheme != "data" else []
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            file = file / "index.html" if file.is_dir() else file
            lost = file in pages and url.fragment and unquote(url.fragment) not in pages[file].places
            if not file.exists() or lost:
                dead.append(f"{path.name} leads to {target}")
    return dead


def test_the_site_builds_strictly_and_no_link_in_it_is_dead(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    assert dead_links(site) == []
    concepts = (site / "concepts.html").read_text(encoding="utf-8")
    assert concepts.count('display="block"') >= 6  # formulas are drawn by the browser
    assert "arithmatex" not in concepts
    names = {place for path in (site / "reference").glob("*.html") for place in Page(path).places}
    assert {
        "sparc.load",
        "sparc.plugins.Backbone.forward",
        "sparc.localization.localize",
        "sparc.plugins.checks.check_dataset",
        "sparc.session.Trained.report",
        "sparc.FeatureStore.in_memory",
    } <= names


def test_a_dead_link_would_be_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"></p><a href="b.html#there"></a><a href="#here"></a>')
    (tmp_path / "b.html").write_text('<a href="c.html"></a><script src="https://example.org/x.js"></script>')
    assert dead_links(tmp_path) == [
        "a.html leads to b.html#there",
        "b.html leads to c.html",
        "b.html loads https://example.org/x.js",
    ]


def test_a_formula_that_cannot_be_drawn_stops_the_build():
    from mkdocs.exceptions import PluginError

    where = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    drawn = tool("formulas").on_page_content(r'<span class="arithmatex">\(h_s &lt; 1\)</span>', page=where)
    assert drawn.startswith("<math")
    assert "&lt;" in drawn or "&#x0003C;" in drawn
    with pytest.raises(PluginError, match=r"page\.md: .*undrawable"):
        tool("formulas").on_page_content(r'<div class="arithmatex">\[\undrawable{x}\]</div>', page=where)


def test_the_page_of_the_command_line_is_made_from_the_commands():
    written = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert written == tool("cli_reference").page(), "python docs/tools/cli_reference.py writes it anew"


def test_the_page_of_options_is_made_from_their_fields():
    written = (DOCS / "reference" / "options.md").read_text(encoding="utf-8")
    assert written == tool("options_reference").page(), "python docs/tools/options_reference.py writes it anew"


def test_the_page_of_options_has_a_row_for_every_field():
    """A model that the page's tool does not know would be missing from both sides of the comparison above."""
    rows = re.findall(r"^\| `--([\w-]+)` \| `(\w+)` \|", tool("options_reference").page(), re.MULTILINE)
    models = (RunConfig, ExtractOptions, EvaluateOptions, ExploreOptions, EncodeOptions, SearchOptions, LocalizeOptions)
    fields = {(option_name(field), field) for model in models for field in model.model_fields}
    assert set(rows) == fields
    assert ("lambda", "lambda_") in fields


def test_the_figures_are_what_sparc_computes():
    for name, draw in tool("figures").FIGURES.items():
        drawn = (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert drawn == draw().svg(), "python docs/tools/figures.py draws them anew"


def documented():
    """Return the names that have a section in the reference."""
    pages = [DOCS / "reference" / "python.md", DOCS / "reference" / "hooks.md"]
    return {name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)}


def test_every_public_name_has_a_section_in_the_reference():
    public = {f"sparc.{name}" for name in sparc.__all__} - {"sparc.__version__", "sparc.hookimpl"}
    public |= {f"sparc.localization.{name}" for name in sparc.localization.__all__}
    public |= {f"sparc.plugins.checks.{name}" for name in sparc.plugins.checks.__all__}
    public |= {f"sparc.plugins.{name}" for name in sparc.plugins.__all__ if name not in (*sparc.__all__, "hookimpl")}
    assert public - documented() == set()


def public_objects():
    """Public names and the public members of the classes among them: (name, object)."""
    for module in (sparc, sparc.localization, sparc.plugins, sparc.plugins.checks):
        for name in module.__all__:
            found = getattr(module, name)
            if not callable(found) or name == "hookimpl":
                continue
            yield f"{module.__name__}.{name}", found
            for below, member in inspect.getmembers(found) if inspect.isclass(found) else []:
                ours = isinstance(member, property) or (getattr(member, "__module__", "") or "").startswith("sparc")
                if ours and not below.startswith("_"):
                    yield f"{module.__name__}.{name}.{below}", member


def raised(function):
    """Return the names of the errors that the body of a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    # A function that makes the error has a small letter; it states the error itself.
    return {call.id for call in calls if isinstance(call, ast.Name) and call.id[0].isupper()}


def test_every_public_name_has_a_docstring_that_names_the_errors_it_raises():
    silent = []
    for name, found in public_objects():
        text = inspect.getdoc(found) or ""
        errors = raised(found) if inspect.isfunction(found) or inspect.ismethod(found) else set()
        silent += [f"{name}: {error}" for error in errors if error not in text]
        silent += [] if text else [name]
    assert silent == []


def table_of(page, heading):
    """Return the rows of the first table below a heading, as lists of cells."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def digest_as_the_page_says(file):
    types = {"torch.float32": "F32"}
    found = hashlib.sha256()
    for key in sorted(file.metadata().keys() - {"sha256"}):
        found.update(f"{json.dumps([key, file.metadata()[key]])}\n".encode())
    for name in sorted(file.keys()):
        tensor = file.get_tensor(name)
        found.update(f"{json.dumps([name, types[str(tensor.dtype)], list(tensor.shape)])}\n".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def test_the_checkpoint_is_what_its_page_says(tmp_path):
    from safetensors import safe_open

    page = (DOCS / "reference" / "checkpoint-format.md").read_text(encoding="utf-8")
    config = sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=32, k=4, normalization="standard")
    sparc.SharedLatentSpace(config).save_pretrained(tmp_path, training=TrainingConfig())
    documented = set()
    for cell, _ in table_of(page, "`config.json`"):
        documented |= set(re.findall(r"`([\w.]+)`", cell))
    content = json.loads((tmp_path / "config.json").read_text())
    written = {f"{part}.{key}" for part in ("space", "training") for key in content[part]}
    optional = {"training", "space.attached", "weights", "completion", "features", "metrics"}
    assert documented - optional == written | {"format_version"}
    assert content["format_version"] == 1

    size = {"L": 32, "S": 2, "T": 10}
    shapes = {}
    for key, shape, _ in table_of(page, "`model.safetensors`"):
        names = re.findall(r"`([\w.]+)`", key.replace("encoders.S-1", "encoders.1"))
        for name in names:
            width = {"d_s": {"0": 6, "1": 4}.get(name[-1])}
            shapes[name] = [{**size, **width}[letter] for letter in re.findall(r"\w+", shape)]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        assert {key: part.get_shape() for key, part in found.items()} == shapes
        assert {part.get_dtype() for part in found.values()} == {"F32"}
        assert file.metadata()["format"] == "pt"
        assert file.metadata()["sha256"] == digest_as_the_page_says(file)


def test_a_missing_stream_is_guessed_from_the_file_as_its_page_says(tmp_path):
    from safetensors import safe_open

    from sparc.core.completion import Completion

    space = sparc.SharedLatentSpace(
        sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=32, k=4, normalization="none"), seed=1
    )
    drawn = torch.Generator().manual_seed(0)
    space.completion = Completion(
        space.streams, torch.randn(10, generator=drawn), torch.randn(3, 10, generator=drawn), 0.25
    )
    space.save_pretrained(tmp_path)
    with safe_open(tmp_path / "completion.safetensors", framework="pt") as file:
        m, factor, r = file.get_tensor("mean"), file.get_tensor("factor"), float(file.metadata()["ridge"])
    x, encoders, c = torch.randn(6, generator=drawn), [weight.detach() for weight in space.encoders], space.latent_bias
    known, missing, b = factor[:, :6], factor[:, 6:], space.pre_bias
    x_t = m[6:] + missing.T @ torch.linalg.inv(known @ known.T + r * torch.eye(3)) @ known @ (x - m[:6])
    own, guessed = encoders[0] @ (x - b[:6]) + c[0], encoders[1] @ (x_t - b[6:]) + c[1]
    kept = (own + guessed).topk(4).indices
    codes = sparc.load(tmp_path).encode({"a": x.unsqueeze(0)})["a"]
    assert codes.indices[0].tolist() == kept.tolist()
    torch.testing.assert_close(codes.values[0], own[kept].relu())
    torch.testing.assert_close(codes.values_for("b")[0], ((own + guessed)[kept] / 2).relu())


def test_a_feature_is_encoded_from_the_file_as_its_page_says(tmp_path):
    """Follow the page with numpy: normalise, multiply, sum, TopK, ReLU, decode."""
    config = sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=32, k=4, normalization="standard")
    space = sparc.SharedLatentSpace(config, seed=3)
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(50, width, generator=generator) + 1 for name, width in space.streams.items()}
    space.fit_normalization({name: [rows] for name, rows in features.items()})
    with torch.no_grad():
        space.pre_bias.copy_(torch.linspace(-0.2, 0.3, 10))
        space.latent_bias.copy_(torch.linspace(-0.1, 0.1, 64).reshape(2, 32))
    space.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    parts = {"a": slice(0, 6), "b": slice(6, 10)}
    logits = []
    for place, (name, part) in enumerate(parts.items()):
        x = (features[name].numpy() - file["center"][part]) / file["scale"][place]
        logits.append((x - file["pre_bias"][part]) @ file[f"encoders.{place}"].T + file["latent_bias"][place])
    kept = np.argsort(-(logits[0] + logits[1]), axis=1, kind="stable")[:, :4]
    code = np.zeros((50, 32), dtype=np.float32)
    np.put_along_axis(code, kept, np.maximum(0, np.take_along_axis(logits[0], kept, axis=1)), axis=1)
    rebuilt = code @ file["decoder"][:, parts["b"]] + file["pre_bias"][parts["b"]]
    codes = space.encode(features)["a"]
    np.testing.assert_allclose(codes.to_dense().detach().numpy(), code, atol=1e-5)
    np.testing.assert_allclose(space.decode(codes, stream="b").detach().numpy(), rebuilt, atol=1e-5)
