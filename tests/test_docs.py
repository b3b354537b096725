"""What the documentation says is true: its Python runs, its commands parse, its links lead somewhere."""

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
from sparc.config import OPTION_NAMES, RunConfig, SpaceConfig, read_options, validated
from sparc.plugins.checks import check_backbone, check_dataset
from sparc.plugins.registry import discover
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.runs import provenance

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def blocks(language):
    """All code blocks of a language: (page, text)."""
    found = []
    for page in PAGES:
        for text in re.findall(
            rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}:{text.splitlines()[0][:40]}"))
    return found


@pytest.fixture
def demo_run(tmp_path, monkeypatch):
    """A space of the demo's shape where the README's is, untrained."""
    monkeypatch.chdir(tmp_path)
    widths = {"effnet-lite0": 1280, "effnet-lite2": 1280, "minilm": 384}
    SharedLatentSpace(SpaceConfig(streams=widths, n_latents=512, k=16)).save_pretrained("runs/openmoji")
    Run(Path("runs/openmoji")).write_provenance(provenance(options={"dataset": "openmoji", "stream": list(widths)}))
    Image.new("RGB", (60, 40), "red").save("photo.jpg")


TRAINS = "sparc.fit("
"""A block with this takes data and features: it has a test of its own."""


@pytest.mark.parametrize("code", [block for block in blocks("python") if TRAINS not in block.values[0]])
def test_python_in_the_documentation_runs(code, demo_run, capsys):
    names = {}
    exec(code, names)
    for printed in re.findall(r"print\(.*?\)  # (.*)", code):
        assert printed in capsys.readouterr().out
    if "y" in names:
        assert names["y"].shape == (8, 384)
        assert isinstance(names["codes"].indices, torch.Tensor)


def test_the_example_that_trains_finds_captions_as_often_as_its_report_says(
    extracted, environment, use_example, monkeypatch, capsys
):
    """As written, but that both streams get features of the example package, which are in the store."""
    (block,) = [block for block in blocks("python") if TRAINS in block.values[0]]
    code = block.values[0].replace('"effnet-lite0", "minilm"]', '"effnet-lite0=hog", "minilm=char-ngrams"]')
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    monkeypatch.chdir(extracted.parent)
    names = {}
    exec(code, names)
    found = [line.split(" → ") for line in capsys.readouterr().out.splitlines()]
    assert [picture for picture, _ in found] == list(names["held_out"].ids)
    (said,) = (pair for pair in names["fitted"].report.retrieval if pair.query == "effnet-lite0")
    right = sum(picture == caption for picture, caption in found)
    assert right / len(found) == pytest.approx(said.cross.r1)
    assert right > 1
    assert sparc.load(names["fitted"].path).streams == names["fitted"].space.streams


@pytest.mark.parametrize("code", blocks("toml"))
def test_config_files_in_the_documentation_are_valid(code):
    options = tomllib.loads(code)
    if "grid" in options:
        assert checked_grid(options.pop("grid"))
        assert options.pop("seeds") > 0
    assert set(options) <= set(OPTION_NAMES)
    assert validated(RunConfig, options).stream


def test_the_papers_grid_is_its_four_configurations():
    options = read_options(ROOT / "examples" / "paper.toml", ablation=True)
    grid = checked_grid(options.pop("grid"))
    assert options.pop("seeds") == 3
    found = cells(validated(RunConfig, {**options, "dataset": "open-images"}), grid)
    assert [(cell.options.selection, cell.options.lambda_) for cell in found] == [
        ("global", 1),
        ("global", 0),
        ("local", 1),
        ("local", 0),
    ]
    assert [stream.name for stream in found[0].options.stream] == ["dinov2", "clip-img", "clip-txt"]
    assert {(cell.options.n_latents, cell.options.k, cell.options.lr) for cell in found} == {(8192, 64, 1e-4)}


def sparc_commands():
    """Every line that calls `sparc`, in blocks and in the help of the commands themselves."""
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
    """The `sparc` commands of a page, in order, as words."""
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith("sparc ")]


def test_the_quickstart_on_a_folder_of_photos_runs(sparc_here, extracted):
    """As written, but that both streams get features of the example package, which take no weights to compute.

    The demo takes two minutes, and pointing needs a grid that these features lack: `tests/attribute` does that.
    """
    stands_for = {"effnet-lite0": "effnet-lite0=hog", "minilm": "minilm=char-ngrams"}
    commands = [words for words in commands_of(ROOT / "docs" / "quickstart.md") if "runs/photos" in words]
    assert [words[0] for words in commands] == ["train", "info", "evaluate", "explore", "localize"]
    for words in commands[:-1]:
        done = sparc_here(*[stands_for.get(word, word) for word in words])
        assert done.returncode == 0, done.stderr
    assert (extracted.parent / "runs" / "photos" / "latents.png").is_file()


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


def test_links_and_pictures_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_hook_is_tested_by_name():
    from sparc.plugins import hookspecs

    tests = (ROOT / "tests" / "plugins" / "test_registry.py").read_text()
    for hook in vars(hookspecs):
        if hook.startswith("sparc_"):
            assert f"test_{hook}" in tests
