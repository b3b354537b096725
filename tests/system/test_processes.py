"""No code from the current folder runs in the processes that sparc starts, whatever lies there."""

import signal
import subprocess
import sys
import time

import pytest

from sparc.config import PluginRef
from sparc.errors import UnknownName
from sparc.extraction import Job, JobOptions
from sparc.extraction.supervise import extract
from sparc.system.processes import import_path, python_code, started

HOSTILE = "import pathlib; pathlib.Path(__file__).with_name('ran').touch(); raise SystemExit('ran')\n"
NAMES = ("PIL", "statistics", "struct", "pickle", "random", "multiprocessing", "pydantic", "torch", "sitecustomize")


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """A current folder with modules named as those that sparc imports, and with a folder named `sparc`."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "sparc").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_extraction_worker_imports_nothing_from_the_current_folder(downloaded):
    job = Job(
        dataset=PluginRef(name="no-such-dataset", alias="no-such-dataset"),
        split="train",
        stream=PluginRef(name="synthetic", alias="synthetic"),
        directory=downloaded / "store",
        weights="",
        options=JobOptions(),
    )
    with pytest.raises(UnknownName, match="no plugin offers a dataset named 'no-such-dataset'"):  # it started well
        extract([job])
    assert not (downloaded / "ran").exists()


def test_a_new_interpreter_has_the_import_path_of_this_one_without_the_current_folder(downloaded, monkeypatch):
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(downloaded / "own")])
    assert import_path() == sys.path[1:]
    monkeypatch.setattr(sys, "path", [str(downloaded), *sys.path[1:]])
    assert import_path() == sys.path[1:]
    command = python_code("import statistics, sparc, json; print(json.dumps([sys.path, sparc.__path__]))")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(downloaded / "own") in done.stdout
    assert str(downloaded / "sparc") not in done.stdout


def test_sparc_as_a_module_imports_nothing_more_from_the_current_folder(downloaded):
    for file in downloaded.glob("*.py"):
        if file.stem not in ("PIL", "pydantic", "torch"):  # Python itself imports those before sparc begins
            file.unlink()
    (downloaded / "sparc").rmdir()
    command = [sys.executable, "-m", "sparc", "plugins", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "image-folder" in done.stdout
    assert not (downloaded / "ran").exists()


def test_ctrl_c_does_not_reach_a_worker_while_it_imports(capfd):
    worker = started("sparc.extraction.worker")
    for _ in range(10):
        time.sleep(0.03)
        worker.send_signal(signal.SIGINT)
    alive = worker.poll() is None
    worker.kill()
    worker.communicate()
    assert alive
    assert "KeyboardInterrupt" not in capfd.readouterr().err
