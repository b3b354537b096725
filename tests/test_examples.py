"""The example packages as a stranger installs them, and the example scripts, which print what they claim."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(*command, environment, folder):
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_installed_packages_pass_their_own_tests_outside_of_the_source_tree(environment, tmp_path):
    tests = [shutil.copy(path, tmp_path) for path in sorted(EXAMPLES.glob("*/test_*.py"))]
    assert len(tests) == 2
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, environment=environment, folder=tmp_path)
    assert "8 passed" in printed


def test_a_strangers_dataset_is_checked_by_the_command(sparc_here, use_example):
    done = sparc_here("plugins", "check", "digits")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok      labels are multi-hot" in done.stdout


SCRIPTS = (
    "train_three_streams.py",
    "load_and_translate.py runs/digits",
    "ablation.py",
    "localisation.py runs/digits",
    "attach_stream.py runs/digits",
)
RUN_ALL = """
import runpy, sys
_, folder, *scripts = sys.argv
for script in scripts:
    sys.argv[:] = script.split()
    print(f"== {script}")
    runpy.run_path(f"{folder}/{sys.argv[0]}", run_name="__main__")
"""


@pytest.fixture
def printed(environment, tmp_path):
    """Run the example scripts in one process, so that libraries load once, and return the lines that each printed."""
    lines = run("-c", RUN_ALL, EXAMPLES, *SCRIPTS, environment=environment, folder=tmp_path)
    return [part.splitlines()[1:] for part in lines.split("== ")[1:]]


def percent(line):
    """Return the last two percentages of a line, found and by chance."""
    return [int(number) for number in re.findall(r"(\d+)%", line)][-2:]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_scripts_print_what_they_claim(printed, sparc_here, tmp_path):
    """One test for all scripts, since they share features and a run."""
    lines, translation, ablation, localisation, attached = printed
    assert lines[-1] == f"saved in {Path('runs', 'digits')}"
    assert len(lines) == 8
    for line in lines[1:7]:
        found, chance = percent(line)
        assert found >= 80 > 15 >= chance, line
    check_the_command_on_the_same_features(sparc_here)
    check_translation(translation)
    check_ablation(ablation)
    check_localisation(localisation, tmp_path)
    check_attached(attached)


def check_the_command_on_the_same_features(sparc_here):
    streams = ("--stream", "hog", "--stream", "char-ngrams")
    done = sparc_here("train", *streams, "--dataset", "digits", "--epochs", 1, "--n-latents", 32, "--out", "small")
    assert (done.returncode, done.stderr) == (0, "")
    assert "features: 4 of 4 are in the store" in done.stdout
    assert "digits test  390 held-out samples, 32 latents" in done.stdout


def check_translation(lines):
    error, baseline = map(float, re.search(r"NMSE ([\d.]+) .* has ([\d.]+)", lines[0]).groups())
    assert error < 0.8 * baseline
    right, chance = percent(lines[-1])
    assert (right > 80, chance) == (True, 10)


def check_ablation(lines):
    rows = {tuple(line.split()[:2]): [float(word) for word in line.split()[2:]] for line in lines[1:5]}
    chance = float(lines[5].split()[-1])
    assert list(rows) == [("global", "1"), ("global", "0"), ("local", "1"), ("local", "0")]
    best = rows["global", "1"]
    assert best[0] == min(row[0] for row in rows.values())
    assert best[2] == max(row[2] for row in rows.values()) > 5 * chance
    for joint, solo, _ in (rows["local", "1"], rows["local", "0"]):
        assert joint == solo  # with local selection a stream selects for itself, encoded alone or not


def check_localisation(lines, folder):
    right, asked, chance = map(int, re.findall(r"\d+", lines[0]))
    assert (asked, right > 5 * chance) == (100, True)
    assert (folder / "seven.png").stat().st_size > 10_000


def check_attached(lines):
    assert lines[:2] == [f"{name} alone: codes that changed: 0 of 390" for name in ("hog", "char-ngrams")]
    assert len(lines) == 7
    for line in lines[2:6]:
        attached, together = map(float, re.findall(r"\d\.\d+", line))
        assert attached > 0.9 * together > 0.75, line
    assert int(re.search(r"(\d+)%", lines[6])[1]) >= 95
