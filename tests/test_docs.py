"""The documentation is true: its Python runs, its commands parse, its links have targets."""

import re
import shlex
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import sparc
from sparc.ablation.grid import cells, checked_grid
from sparc.cli.app import app
from sparc.config import RunConfig, SpaceConfig, names, validated
from sparc.plugins.checks import check_backbone, check_dataset
from sparc.plugins.registry import checked_params, discover
from sparc.session import read_options
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.runs import provenance

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def blocks(language):
    """Return all code blocks of a language as parameters of a test."""
    found = []
    for page in PAGES:
        for text in re.findall(
            rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}:{text.splitlines()[0][:40]}"))
    return found


@pytest.fixture
def demo_run(tmp_path, monkeypatch):
    """Save an untrained space of the demo's shape where the documentation has the demo's run."""
    monkeypatch.chdir(tmp_path)
    widths = {"effnet-lite0": 1280, "effnet-lite2": 1280, "minilm": 384}
    SharedLatentSpace(SpaceConfig(streams=widths, n_latents=512, k=16)).save_pretrained("runs/openmoji")
    Run(Path("runs/openmoji")).write_provenance(provenance(options={"dataset": "openmoji", "stream": list(widths)}))
    Image.new("RGB", (60, 40), "red").save("photo.jpg")


TRAINS, EXTRACTS, ENCODES, SEARCHES = "sparc.train(", "sparc.extract(", "sparc.encode(", "sparc.search("
"""A block with one of these calls needs data: it has a test of its own, the last two in test_encode_and_search.py."""


def needs_data(block):
    return any(call in block.values[0] for call in (TRAINS, EXTRACTS, ENCODES, SEARCHES))


@pytest.mark.parametrize("code", [block for block in blocks("python") if not needs_data(block)])
def test_python_in_the_documentation_runs(code, demo_run, capsys):
    scope = {}
    exec(code, scope)
    printed = capsys.readouterr().out
    for line in re.findall(r"print\(.*?\)  # (.*)", code):
        assert line in printed
    if "y" in scope:
        assert scope["y"].shape == (8, 384)
        assert isinstance(scope["codes"].indices, torch.Tensor)


@pytest.fixture
def run_on_photos(extracted, environment, use_example, monkeypatch):
    """Run a block as written, except that both streams get features of the example package, which the store has."""

    def run(block):
        code = block.values[0].replace('"effnet-lite0", "minilm"]', '"effnet-lite0=hog", "minilm=char-ngrams"]')
        monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
        monkeypatch.chdir(extracted.parent)
        scope = {}
        exec(code, scope)
        return scope

    return run


def test_the_example_that_trains_finds_captions_as_often_as_its_report_says(run_on_photos, capsys):
    (block,) = [block for block in blocks("python") if f"{TRAINS}**data" in block.values[0]]
    scope = run_on_photos(block)
    found = [line.split(" → ") for line in capsys.readouterr().out.splitlines()]
    assert [image for image, _ in found] == list(scope["held_out"].ids)
    (reported,) = (pair for pair in scope["trained"].report.retrieval if pair.query == "effnet-lite0")
    right = sum(image == caption for image, caption in found)
    assert right / len(found) == pytest.approx(reported.cross.r1)
    assert right > 1
    assert sparc.load(scope["trained"].path).streams == scope["trained"].space.streams


def test_the_example_that_trains_on_arrays_runs_as_written(tmp_path, monkeypatch, capsys):
    (block,) = [block for block in blocks("python") if f"{TRAINS}features=" in block.values[0]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 4, 200)
    np.save("kinds.npy", kinds)
    for name, width in (("dino", 12), ("clip", 8)):
        np.save(
            f"{name}.npy", np.eye(4)[kinds] @ generator.standard_normal((4, width)) + generator.random((200, width))
        )
    scope = {}
    exec(block.values[0], scope)
    assert float(capsys.readouterr().out) > 2 / 40  # of 40 held-out samples; by chance 1 / 40
    assert scope["trained"].report.concepts is not None


def test_the_example_that_extracts_returns_the_held_out_features(run_on_photos, capsys):
    (block,) = [block for block in blocks("python") if EXTRACTS in block.values[0] and TRAINS not in block.values[0]]
    held_out = run_on_photos(block)["held_out"]
    ids, shape = capsys.readouterr().out.splitlines()
    assert ids == str(held_out.ids[:3])
    assert shape.startswith(f"torch.Size([{len(held_out.ids)}, ")
    assert 5 <= len(held_out.ids) <= 20  # about a fifth of the 60 photos


@pytest.mark.parametrize("code", blocks("toml"))
def test_config_files_in_the_documentation_are_valid(code):
    options = tomllib.loads(code)
    if "grid" in options:
        assert checked_grid(options.pop("grid"))
        assert options.pop("seeds") > 0
    assert set(options) <= set(names(RunConfig))
    assert validated(RunConfig, options).stream


@pytest.mark.parametrize(
    ("name", "dataset", "dino", "clip"),
    [
        ("paper", {"name": "open-images", "missing": "skip"}, "vit_large_patch14_reg4_dinov2.lvd142m", "ViT-L-14"),
        ("paper-coco", {"name": "coco", "captions": "joined"}, "vit_base_patch14_reg4_dinov2.lvd142m", "ViT-B-16"),
    ],
)
def test_the_papers_grids_are_its_four_configurations_of_its_models(name, dataset, dino, clip):
    options = read_options(ROOT / "examples" / f"{name}.toml", ablation=True)
    assert options["dataset"] == dataset
    grid = checked_grid(options.pop("grid"))
    assert options.pop("seeds") == 3
    found = cells(validated(RunConfig, options), grid)
    assert [(cell.config.selection, cell.config.lambda_) for cell in found] == [
        ("global", 1),
        ("global", 0),
        ("local", 1),
        ("local", 0),
    ]
    config = found[0].config
    assert (config.n_latents, config.k, config.lr, config.epochs, config.batch_size) == (8192, 64, 1e-4, 50, 256)
    towers = {"model": clip, "pretrained": "datacomp_xl_s13b_b90k"}
    assert [(stream.name, stream.params) for stream in config.stream] == [
        ("dinov2", {"model": dino, "crop_pct": 0.875}),  # 224 / 0.875 = 256 pixels
        ("clip-img", towers),
        ("clip-txt", towers),
    ]
    registry = discover()
    assert checked_params(
        registry.dataset(config.source.name), validated(RunConfig, {**options, "data-root": "x"}).source
    )
    for stream in config.stream:
        assert checked_params(registry.backbone(stream.name), stream)

    import open_clip
    import timm

    assert dino in timm.list_pretrained()
    assert (clip, towers["pretrained"]) in open_clip.list_pretrained()


def sparc_commands():
    """Return the words of every `sparc` command in code blocks, and in the help of the commands."""
    lines = [line for block in blocks("(?:bash|console)") for line in block.values[0].splitlines()]
    for source in (ROOT / "sparc" / "cli").glob("*.py"):
        lines += [line for line in source.read_text().splitlines() if re.match(r" {4,8}sparc \w", line)]
    found = set()
    for line in lines:
        words = shlex.split(line, comments=True)
        if "sparc" in words[:6]:
            found.add(tuple(words[words.index("sparc") + 1 :]))
    return sorted(found)


def test_there_are_commands_to_check():
    assert ("train",) in sparc_commands()
    assert len(sparc_commands()) > 8


@pytest.mark.parametrize("arguments", sparc_commands(), ids=" ".join)
def test_commands_in_the_documentation_parse(arguments):
    command = typer.main.get_command(app)
    context = None
    words = list(arguments)
    while hasattr(command, "commands"):
        context = command.make_context(words[0], [], parent=context, resilient_parsing=True)
        command = command.commands[words.pop(0)]
    command.make_context(arguments[0], words, parent=context)


def commands_of(page):
    """Return the words of each `sparc` command of a page, in order."""
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith("sparc ")]


def test_the_quickstart_on_a_folder_of_photos_runs(sparc_here, extracted):
    """The commands as written, except that both streams get features of the example package, which need no weights.

    The demo takes minutes, and `localize` needs a grid, which these features lack: `tests/localization` covers it.
    """
    stands_for = {"effnet-lite0": "effnet-lite0=hog", "minilm": "minilm=char-ngrams"}
    commands = [words for words in commands_of(ROOT / "docs" / "quickstart.md") if "runs/photos" in words]
    assert [words[0] for words in commands] == ["train", "info", "evaluate", "explore", "localize"]
    for words in commands[:-1]:
        done = sparc_here(*[stands_for.get(word, word) for word in words])
        assert done.returncode == 0, done.stderr
    assert (extracted.parent / "runs" / "photos" / "explore" / "index.html").is_file()


def test_bringing_features_of_your_own_runs(sparc_here, tmp_path):
    import h5py

    ids = [f"photo-{number}" for number in range(40)]
    rows = np.random.default_rng(0).standard_normal((40, 12)).astype(np.float32)
    with h5py.File(tmp_path / "dino.h5", "w") as file:
        file["features"], file["ids"] = rows, ids
    np.savez(tmp_path / "clip.npz", features=rows[::-1, :8], ids=ids[::-1])
    commands = [words for words in commands_of(ROOT / "docs" / "data.md") if "imported" in words]
    assert [words[:2] for words in commands] == [["import", "features"], ["train", "--features"]]
    for words in commands:
        done = sparc_here(*words)
        assert done.returncode == 0, done.stderr
    assert sparc.load(tmp_path / "runs" / "imported").streams == {"dino": 12, "clip": 8}


@pytest.mark.parametrize(("page", "offers"), [("backbone", "letters"), ("dataset", "squares")])
def test_the_plugins_of_the_documentation_keep_the_contract(page, offers, tmp_path, monkeypatch):
    code = re.search(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "how-to" / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    (tmp_path / f"sparc_{offers}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = discover([EntryPoint(offers, f"sparc_{offers}", "sparc.plugins")])
    if page == "backbone":
        check_backbone(registry.backbone(offers))
    else:
        check_dataset(registry.dataset(offers))


def test_links_and_pictures_point_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_files_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    built = readme.split("## How it is built")[1]
    folder, tree = ROOT / "sparc", built.split("```")[1]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", built.split("```", 2)[2])
    listed = re.findall(r"^  ( *)([\w.]+/?)", tree, re.MULTILINE)
    assert len(named) > 15
    for name in named:
        rooms = [ROOT, folder, *folder.iterdir()]
        assert any((room / name).exists() for room in rooms), name
    parent = folder
    for indent, name in listed:
        parent = folder if not indent else parent
        assert (parent / name).exists(), name
        parent = folder / name if not indent else parent
    rooms = {path.name for path in folder.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= {name.rstrip("/") for _, name in listed}


def test_the_latent_of_the_readmes_slogan_is_the_only_one_that_it_names():
    named = re.findall(r"latent (\d+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(set(named)) == 1


def test_the_numbers_of_the_readme_are_in_the_demos_table():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:4] for line in readme.splitlines() if line.startswith("| ")][2:7]
    shown = [number for row in rows for number in re.findall(r"[\d.]+", " ".join(row))]
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    printed = re.findall(r"\d[\d.]*", page.split("## The demo's numbers")[1].split("```")[1].replace("±", " "))
    assert len(shown) == 14
    assert set(shown) <= set(printed)


def test_readme_and_quickstart_install_the_same():
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/quickstart.md")]
    for command in ("uv run --extra demo sparc train", "pip install -e '.[demo]'"):
        assert all(command in page for page in pages)
        assert all("pip install" not in page.replace("pip install -e '.[demo]'", "") for page in pages)


def test_every_hook_is_tested_by_name():
    from sparc.plugins import hookspecs

    tests = (ROOT / "tests" / "plugins" / "test_registry.py").read_text()
    for hook in vars(hookspecs):
        if hook.startswith("sparc_"):
            assert f"test_{hook}" in tests
