"""Properties of the code as a whole: lint, types, layers, light start, no stream names in the engine."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "timm", "open_clip", "transformers", "scipy", "sklearn", "torchvision", "matplotlib"}
BIN = Path(sys.executable).parent


def check(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_is_linted_and_formatted():
    check(BIN / "ruff", "check", ".")
    check(BIN / "ruff", "format", "--check", ".")


@pytest.mark.slow
def test_types_are_strict_and_right():
    check(BIN / "mypy")


def test_imports_go_down_the_layers_only():
    check(BIN / "lint-imports")


def test_every_package_is_part_of_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    files = [*(ROOT / "sparc").rglob("__init__.py"), *(ROOT / "sparc_plugins").rglob("__init__.py")]
    assert sorted(listed) == sorted(str(file.parent.relative_to(ROOT)).replace(os.sep, ".") for file in files)


def imported_by(code):
    command = [sys.executable, "-c", f"{code}\nimport sys; print('MODULES', *sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.rpartition("MODULES")[2].split())


CALL = """
import importlib.metadata, sys
installed = importlib.metadata.entry_points
# Third-party plugins may import anything.
importlib.metadata.entry_points = lambda group: [one for one in installed(group=group) if one.dist.name == "sparc-sae"]
from sparc.cli import main
try:
    main({arguments!r})
except SystemExit as exit:
    assert not exit.code, exit.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import sparc",
        *(
            CALL.format(arguments=arguments)
            for arguments in (["--help"], ["train", "--help"], ["plugins", "list"], ["--version"])
        ),
    ],
    ids=["import sparc", "sparc --help", "sparc train --help", "sparc plugins list", "sparc --version"],
)
def test_a_light_start_imports_nothing_heavy(code):
    assert imported_by(code) == set()


def test_the_check_for_heavy_imports_can_fail():
    assert imported_by("import scipy.special") >= {"scipy"}


def test_no_stream_name_appears_in_sparc():
    """The engine names no backbone, so that a third-party one is as good as ours."""
    names = re.compile(
        r"(?<!np\.)\b(dino\w*|clip(-img|-txt)?(?!-retrieval)|openclip|minilm|effnet[\w-]*|resnet\w*|bert)\b",
        re.IGNORECASE,
    )
    allowed = re.compile(r"^\s*sparc (train|extract) |clip-img\[model=ViT-L-14\]|^\s*example=\"")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "sparc").rglob("*.py")
        for line in path.read_text().splitlines()
        if names.search(line) and not allowed.search(line)
    ]
    assert found == []
