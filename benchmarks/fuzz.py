"""Fuzz every parser: mutate valid small files, and assert that only a SparcError comes out, in bounded time and memory.

    python benchmarks/fuzz.py                         # 200 inputs for each of the formats
    python benchmarks/fuzz.py --count 1000 --seed 7 --only npz --only coco
    python benchmarks/fuzz.py --only npz --at 314     # one input again, whose files are kept

An input is a number: the same seed and number give the same bytes. Each format runs in a process of its own, so that a
crash in a library is a finding too, and names its input. Valid files are written in fuzz_formats.py and
fuzz_datasets.py, and changed in fuzz_mutations.py.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from fuzz_formats import FORMATS
from fuzz_mutations import mutate

from sparc.errors import OutOfMemory, SparcError

SECONDS = 20
"""Longest time for an input."""
ROOM = 2 << 30
"""Bytes that an input may allocate beyond what the process has before."""


class TooLong(BaseException):
    """An input took longer than SECONDS. It is no Exception, so that no reader takes it for damage."""


def place_of(error: BaseException) -> str:
    """Return the last line of sparc, and the last line of all, in the traceback of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/sparc" in frame.filename and "benchmarks/fuzz" not in frame.filename]
    return " <- ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in (frames[-1:] + ours[-1:]))


def try_one(name: str, number: int, seed: int, folder: Path) -> str:
    """Return `read`, `refused`, or the description of a fault."""
    draw = random.Random(f"{seed} {name} {number}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folder.with_name(f"{folder.name}-seed"), folder)
    form = FORMATS[name]
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.match(form.mutated))
    for path in draw.sample(files, min(len(files), draw.choice((1, 1, 1, 2)))):
        form.mutate(path, draw) if form.mutate is not None and draw.random() < 0.7 else mutate(path, draw)
    signal.alarm(SECONDS)
    try:
        form.read(folder)
    except OutOfMemory as error:
        return f"memory: {error.message[:200]} at {place_of(error)}"
    except SparcError as error:
        wrong = [text for text in (error.message, error.hint) if not text or "\n" in text]
        return f"message of {type(error).__name__} is not one line: {wrong[0]!r}" if wrong else "refused"
    except TooLong as error:
        return f"time: more than {SECONDS} s at {place_of(error)}"
    except BaseException as error:  # what else escapes is what this program looks for
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} at {place_of(error)}"
    finally:
        signal.alarm(0)
    return "read"


def work(name: str, numbers: list[int], seed: int, folder: Path) -> None:
    """Try inputs in this process, and append a line for each to `outcomes`, the number before its outcome."""

    def too_long(number: int, frame: object) -> None:
        raise TooLong

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    beside = folder.with_name(f"{folder.name}-seed")
    if not beside.is_dir():
        beside.mkdir(parents=True)
        FORMATS[name].make(beside)
    shutil.copytree(beside, folder, dirs_exist_ok=True)
    FORMATS[name].read(folder)  # what is valid is read, and libraries are loaded
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with folder.with_suffix(".outcomes").open("a", encoding="utf-8") as outcomes:
        for number in numbers:
            outcomes.write(f"{number} ")
            outcomes.flush()
            outcomes.write(try_one(name, number, seed, folder).encode("ascii", "backslashreplace").decode() + "\n")
            outcomes.flush()


def wait_for(child: int, outcomes: Path) -> int:
    """Wait for a child process, and kill it if it writes no outcome for long: no signal ends a loop in C code."""
    written, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        size = outcomes.stat().st_size if outcomes.exists() else 0
        if size != written:
            written, since = size, time.monotonic()
        if time.monotonic() - since > 3 * SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)


def fuzz(name: str, numbers: list[int], seed: int, root: Path) -> Counter[str]:
    """Try inputs of a format in child processes, a new one after each crash. Prints what is found, each kind once."""
    counts: Counter[str] = Counter()
    folder, waiting, shown = root / name, numbers, set()
    while waiting:
        outcomes = folder.with_suffix(".outcomes")
        outcomes.unlink(missing_ok=True)
        if not (child := os.fork()):
            code = 1
            try:
                work(name, waiting, seed, folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        status = wait_for(child, outcomes)
        lines = outcomes.read_text(encoding="utf-8").splitlines() if outcomes.exists() else []
        found = dict(line.partition(" ")[::2] for line in lines)
        code = os.waitstatus_to_exitcode(status)
        if not found or (code and found[lines[-1].partition(" ")[0]]):
            raise SystemExit(f"{name}: the process of the fuzzer ended with {code}")
        if code:
            how = "hangs in a library" if code == -signal.SIGKILL else f"ends the process with {code}"
            found[lines[-1].partition(" ")[0]] = f"crash: it {how}"
        for number, outcome in found.items():
            kind = outcome if outcome in ("read", "refused") else "fault"
            counts[kind] += 1
            place = outcome.rpartition(" at ")[2]
            if kind == "fault" and place not in shown:
                shown.add(place)
                print(f"{name} {number}: {outcome}", flush=True)
        waiting = [number for number in waiting if str(number) not in found]
    return counts


def main() -> None:
    """Fuzz, and print the counts by format."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="inputs for each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[*FORMATS], help="this format; repeat for more")
    parser.add_argument("--at", type=int, help="this input alone")
    options = parser.parse_args()
    began, total = time.time(), Counter[str]()
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ["SPARC_CACHE"] = str(root / "cache")
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    for name in options.only or FORMATS:
        numbers = [options.at] if options.at is not None else list(range(options.count))
        counts = fuzz(name, numbers, options.seed, root)
        total += counts
        print(f"{name:20} {dict(counts)}  {time.time() - began:.0f} s", flush=True)
        if options.at is not None:
            print(f"its files are in {root / name}")
            continue
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.rmtree(root / "cache", ignore_errors=True)
    if options.at is None:
        shutil.rmtree(root)
    print(f"{sum(total.values())} inputs of {len(options.only or FORMATS)} formats: {dict(total)}")
    sys.exit(1 if total["fault"] else 0)


if __name__ == "__main__":
    main()
