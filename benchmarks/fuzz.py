"""Fuzz every parser: mutate valid small files, and assert that only a SparcError comes out, in bounded time and memory.

    python benchmarks/fuzz.py                         # 200 inputs for each of the formats
    python benchmarks/fuzz.py --count 1000 --seed 7 --only npz --only coco
    python benchmarks/fuzz.py --only npz --at 314     # one input again, whose files are kept

An input is a number: the same seed and number give the same bytes. Each format runs in a process of its own, so that a
crash in a library is a finding too, and names its input. The seeds of the formats are in fuzz_formats.py.
"""

from __future__ import annotations

import argparse
import json
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

SECONDS = 20
"""Longest time for an input."""
ROOM = 2 << 30
"""Bytes that an input may allocate beyond what the process has before."""
NUMBERS = (0, 1, -1, 127, 255, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 10**30, -(2**63))
TEXTS = (
    "",
    "\0",
    "\x1b[31m",
    "../../x",
    "/etc/passwd",
    "=1+1",
    "\ud800",
    "NaN",
    "x" * 140_000,
    "[" * 9_000,
    "\u202e",
    "0",
)
VALUES = (None, True, [], {}, 0.5, 1e308, float("inf"), float("nan"), -0.0, *NUMBERS, *TEXTS, [[[]]], {"a": {"b": []}})


class TooLong(BaseException):
    """An input took longer than SECONDS. It is no Exception, so that no reader takes it for damage."""


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return bytes with one to four places changed."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        size = len(found)
        if not size:
            return bytes(draw.randbytes(draw.randrange(64)))
        place, length = draw.randrange(size), draw.choice((1, 2, 4, 8, 16, 64, 256))
        kind = draw.randrange(9)
        if kind <= 1:
            found[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            found[place : place + length] = draw.randbytes(length)
        elif kind == 3:
            found[place : place + length] = bytes([draw.choice((0, 255, 32, 48))]) * length
        elif kind == 4:
            del found[place : place + length]
        elif kind == 5:
            found[place:place] = found[(start := draw.randrange(size)) : start + length]
        elif kind == 6:
            del found[place:]
        else:
            width = draw.choice((2, 4, 8))
            number = draw.choice(NUMBERS) % (1 << 8 * width)
            found[place : place + width] = number.to_bytes(width, draw.choice(("little", "big")))
    return bytes(found)


def mutate_text(data: bytes, draw: random.Random) -> bytes:
    """Return a text with lines, numbers, or separators changed."""
    lines = data.split(b"\n")
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.randrange(len(lines))
        kind = draw.randrange(8)
        if kind == 0:
            lines.insert(place, draw.choice(lines))
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        elif kind == 2:
            lines[place] = mutate_bytes(lines[place], draw)
        elif kind == 3:
            for mark in draw.sample((b",", b'"', b"\t", b";", b"{", b"}", b"[", b"]", b":", b"'", b"\r", b"="), 2):
                lines[place] = lines[place].replace(mark, draw.choice((b"", mark * 2, b"\0", b"\xff")), 1)
        elif kind <= 5:
            words = lines[place].split(b",")
            words[draw.randrange(len(words))] = str(draw.choice((*NUMBERS, *TEXTS))).encode("utf-8", "surrogatepass")
            lines[place] = b",".join(words)
        elif kind == 6:
            lines[place] = lines[place] * draw.choice((2, 3000))
        else:
            draw.shuffle(lines)
    return b"\n".join(lines)


def mutate_json(content: object, draw: random.Random) -> object:
    """Return parsed JSON with one value, key or item changed, at a random depth."""
    if isinstance(content, dict) and content and draw.random() < 0.92:
        key = draw.choice(list(content))
        kind = draw.randrange(12)
        if kind == 0:
            return {name: one for name, one in content.items() if name != key}
        if kind == 1:
            return {**content, str(draw.choice(TEXTS)): draw.choice(VALUES)}
        if kind == 2:
            return {(str(draw.choice(TEXTS)) if name == key else name): one for name, one in content.items()}
        return {**content, key: mutate_json(content[key], draw)}
    if isinstance(content, list) and content and draw.random() < 0.9:
        place = draw.randrange(len(content))
        kind = draw.randrange(10)
        if kind == 0:
            return [*content[:place], *content[place + 1 :]]
        if kind == 1:
            return [*content, content[place]]
        if kind == 2:
            return content[::-1]
        return [*content[:place], mutate_json(content[place], draw), *content[place + 1 :]]
    return draw.choice(VALUES)


def mutate(path: Path, draw: random.Random) -> None:
    """Change a file in place: its bytes, or its text, or what is in it."""
    data, kind = path.read_bytes(), draw.random()
    if path.suffix in (".json", ".jsonl") and kind < 0.7:
        records = data.split(b"\n") if path.suffix == ".jsonl" else [data]
        place = draw.randrange(len(records))
        try:
            changed = mutate_json(json.loads(records[place]), draw)
        except ValueError:
            changed = draw.choice(VALUES)
        records[place] = json.dumps(changed).encode("utf-8", "surrogatepass")
        path.write_bytes(b"\n".join(records))
    elif path.suffix == ".safetensors" and kind < 0.5:
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(mutate_json(json.loads(data[8 : 8 + length]), draw)).encode("utf-8", "replace")
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    elif path.suffix in (".json", ".jsonl", ".csv", ".tsv", ".toml", ".txt") and kind < 0.9:
        path.write_bytes(mutate_text(data, draw))
    else:
        path.write_bytes(mutate_bytes(data, draw))


def place_of(error: BaseException) -> str:
    """Return the last line of sparc, and the last line of all, in the traceback of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/sparc" in frame.filename and "benchmarks/fuzz" not in frame.filename]
    return " <- ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in (frames[-1:] + ours[-1:]))


def try_one(name: str, number: int, seed: int, folder: Path) -> str:
    """Return `read`, `refused`, or the description of a fault."""
    from fuzz_formats import FORMATS

    from sparc.errors import OutOfMemory, SparcError

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
    from fuzz_formats import FORMATS

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
    sys.path.insert(0, str(Path(__file__).parent))
    from fuzz_formats import FORMATS

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
