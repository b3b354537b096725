"""The fuzzer gives the same bytes again, and reports what is no SparcError: errors, crashes, memory and time."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FAULTS = """
import os, signal, sys, time
sys.path.insert(0, sys.argv.pop(1))
import fuzz
from fuzz_datasets import Format
fuzz.SECONDS = 1

def make(folder):
    (folder / "x.json").write_text('{"a": [1, 2, {"b": "text"}]}')

def reader(fault):
    seen = []

    def read(folder):
        seen.append(folder)
        if len(seen) > 1:  # the first are the valid files
            fault()
    return Format(make, read)

def raises(): raise KeyError("a")
def hangs(): time.sleep(60)
def takes(): bytes(fuzz.ROOM * 2)
def crashes(): os.kill(os.getpid(), signal.SIGSEGV)

fuzz.FORMATS.clear()
fuzz.FORMATS.update({one.__name__: reader(one) for one in (raises, hangs, takes, crashes)})
fuzz.main()
"""


def test_a_fault_of_each_kind_is_reported_with_the_number_of_its_input(tmp_path):
    command = [sys.executable, "-c", FAULTS, BENCHMARKS, "--count", "2", "--seed", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    for line in (
        "raises 0: KeyError: 'a' at",
        "hangs 0: time: more than 1 s at",
        "takes 0: MemoryError:",
        "crashes 0: crash: it ends the process with -11",
        "8 inputs of 4 formats: {'fault': 8}",
    ):
        assert line in done.stdout, done.stdout


AGAIN = """
import pathlib, random, sys
sys.path.insert(0, sys.argv[1])
from fuzz_mutations import mutate
path = pathlib.Path(sys.argv[2])
for number in range(50):
    path.write_text('{"a": [1, 2, {"b": "text"}]}')
    mutate(path, random.Random(f"0 x {number}"))
    print(path.read_bytes()[:999])
"""


def test_the_same_number_gives_the_same_bytes_again(tmp_path):
    command = [sys.executable, "-c", AGAIN, BENCHMARKS, tmp_path / "x.json"]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == again
    assert len(set(first.splitlines())) > 40
