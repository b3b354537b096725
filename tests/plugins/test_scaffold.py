"""The package of a new plugin works as written."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sparc.errors import InvalidConfig
from sparc.plugins import registry
from sparc.plugins.registry import discover
from sparc.plugins.scaffold import new_plugin

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["backbone", "dataset"])
def test_a_new_package_is_found(kind, tmp_path, monkeypatch):
    folder = new_plugin("night-sky2", kind, tmp_path)
    assert folder == tmp_path / "sparc-night-sky2"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["sparc.plugins"]
    assert project["optional-dependencies"] == {"dev": ["pytest"]}
    assert (project["name"], points) == ("sparc-night-sky2", {"night-sky2": "sparc_night_sky2"})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "sparc_night_sky2", raising=False)
    registry = discover([EntryPoint(name, value, "sparc.plugins") for name, value in points.items()])
    assert list(registry.backbones if kind == "backbone" else registry.datasets) == ["night-sky2"]


def test_new_packages_pass_their_own_tests(tmp_path):
    folders = [str(new_plugin(f"night-{kind}", kind, tmp_path)) for kind in ("backbone", "dataset")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("kind", ["backbone", "dataset"])
def test_its_code_is_as_clean_as_ours(kind, tmp_path):
    folder = new_plugin("sky", kind, tmp_path)
    ours = ["--config", str(ROOT / "pyproject.toml")]
    ours += ["--config", "lint.per-file-ignores = {'*' = ['PLC0415', 'D', 'I001']}"]
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, *ours, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\$\w|\$\{", "".join(path.read_text() for path in folder.iterdir()))


@pytest.mark.parametrize("name", ["My Model", "1st", "a/b", "", "class", "a--b"])
def test_a_name_that_no_package_can_have_is_refused(name, tmp_path):
    with pytest.raises(InvalidConfig, match=f"found '{name}'") as error:
        new_plugin(name, "backbone", tmp_path)
    assert error.value.hint == "such as my-model"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "kind"), [("clip-img", "backbone"), ("coco", "dataset")])
def test_a_name_that_is_taken_is_refused(sparc_here, name, kind, tmp_path):
    done = sparc_here("plugins", "new", name, "--kind", kind)
    assert done.stderr.startswith(f"error: '{name}' is already offered by sparc-sae"), done.stdout
    assert not list(tmp_path.glob("sparc-*"))


def test_a_misspelled_dataset_is_known_to_the_check(sparc_here):
    done = sparc_here("plugins", "check", "image-foldr")
    assert "error: no plugin offers a stream or dataset named 'image-foldr'" in done.stderr
    assert "did you mean 'image-folder'?" in done.stderr


def test_what_is_there_is_not_overwritten(tmp_path):
    folder = new_plugin("sky", "backbone", tmp_path)
    (folder / "sparc_sky.py").write_text("mine")
    with pytest.raises(InvalidConfig, match=r"sparc-sky already exists"):
        new_plugin("sky", "dataset", tmp_path)
    assert (folder / "sparc_sky.py").read_text() == "mine"
    with pytest.raises(InvalidConfig, match="expected backbone or dataset, found 'model'"):
        new_plugin("moon", "model", tmp_path)


def test_the_command_says_what_comes_next(sparc_here, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])  # somebody may have installed a plugin named sky
    done = sparc_here("plugins", "new", "sky", "--kind", "dataset")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "sparc-sky"
    assert [line.strip() for line in done.stdout.splitlines()[2:]] == [
        "pip install -e 'sparc-sky[dev]'",
        "sparc plugins check 'sky[root=FOLDER]'",
        "python -m pytest sparc-sky",
    ]
    assert (tmp_path / "sparc-sky" / "sparc_sky.py").is_file()
