"""Kill commands of sparc, run them again, and compare every byte with a run that nobody killed.

python -m benchmarks.chaos [--only NAME] [--operations N] [--moments N] [--doubles N] [--jobs N] [--json FILE]

Kills come at operations on files (rename, fsync, open for writing, mkdir, unlink, ...: before and after each, N of them
spread evenly over the command) and at N random moments. Then a command recovers, as a user would. Two processes are
started N times together. Four things are counted: commands that fail after the kill (blocked), files whose bytes differ
(different), temporary files and locks that are left (left over), and trials that did not end (stuck).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

from benchmarks.chaos.children import Child, preload  # noqa: E402
from benchmarks.chaos.operations import Operations  # noqa: E402
from benchmarks.chaos.scenarios import DONE, Scenario, scenarios, write_sources  # noqa: E402

FAULTS = ("blocked", "different", "left over", "stuck")


class Trials:
    """All trials of one scenario."""

    def __init__(self, scenario: Scenario, sources: Path, room: Path) -> None:
        """Run the scenario once without a kill, and count its operations."""
        self.scenario, self.room, self.counts = scenario, room, Counter[str]()
        self.faults: list[str] = []
        self.number = 0
        self.start = room / "start"
        shutil.copytree(sources, self.start)
        for command in scenario.needs:
            self._succeed(command, self.start)
        whole = self._folder()
        operations = Operations(str(whole))
        began = time.monotonic()
        child = self._succeed(scenario.command, whole, operations)
        self.seconds = time.monotonic() - began
        self.operations = child.operations()
        self.expected = self._digests(whole)
        shutil.rmtree(whole)

    def _succeed(self, command: object, folder: Path, operations: Operations | None = None) -> Child:
        child = Child(list(command), folder, operations)  # type: ignore[call-overload]
        if (code := child.wait()) != 0:
            sys.exit(f"{' '.join(command)} ended with {code}:\n{child.output()}")  # type: ignore[arg-type]
        return child

    def _folder(self) -> Path:
        """Copy the starting point: each trial has the same paths, because paths are written into some files."""
        folder = self.room / "trial"
        shutil.copytree(self.start, folder)
        return folder

    def _digests(self, folder: Path) -> dict[str, str]:
        paths = sorted({path for pattern in self.scenario.compared for path in folder.glob(pattern)})
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
            if path.is_file()
        }

    def kill_at(self, place: int, *, after: bool) -> None:
        """Kill the command at an operation, and recover."""
        folder = self._folder()
        Child(self.scenario.command, folder, Operations(str(folder), place, after=after)).wait()
        self._recover(folder, f"killed {'after' if after else 'before'} operation {place}")

    def kill_after(self, seconds: float) -> None:
        """Kill the command with all its processes after a time, and recover."""
        folder = self._folder()
        child = Child(self.scenario.command, folder)
        time.sleep(seconds)
        child.kill()
        child.wait()
        self._recover(folder, f"killed after {seconds:.3f} s")

    def start_twice(self, apart: float) -> None:
        """Start the command twice, a moment apart, and check that one owns the work and the other says so."""
        folder = self._folder()
        first = Child(self.scenario.command, folder)
        time.sleep(apart)
        second = Child(self.scenario.command, folder)
        what = f"started twice, {apart:.3f} s apart"
        codes = first.wait(), second.wait()
        self.counts["double starts"] += 1
        if None in codes:
            self._fault("stuck", what, f"{first.output()}\n{second.output()}")
        if 0 not in codes:
            self._fault("blocked", what, f"{first.output()}\n{second.output()}")
        for code, child in zip(codes, (first, second), strict=True):
            said = child.output()
            if code not in (0, None) and not any(text in said for text in self.scenario.twice):
                self._fault("blocked", what, said)
        self._compare(folder, what)

    def _recover(self, folder: Path, what: str) -> None:
        self.counts["kills"] += 1
        command = self.scenario.recover(folder)
        child = Child(command, folder)
        code = child.wait()
        done = any(text in child.output() for text in DONE)
        if code is None:
            self._fault("stuck", what, child.output())
        elif code != 0 and not (done and self._digests(folder) == self.expected):
            self._fault("blocked", what, f"{' '.join(command)}: {child.output()[-600:]}")
        self._compare(folder, what)

    def _compare(self, folder: Path, what: str) -> None:
        found = self._digests(folder)
        if found != self.expected:
            names = [name for name in {*found, *self.expected} if found.get(name) != self.expected.get(name)]
            self._fault("different", what, ", ".join(sorted(names)[:6]))
        if left := [path.relative_to(folder).as_posix() for path in _left(folder)]:
            self._fault("left over", what, ", ".join(left[:6]))
        shutil.rmtree(folder)

    def _fault(self, kind: str, what: str, detail: str) -> None:
        self.counts[kind] += 1
        self.faults.append(f"{self.scenario.name} {what}: {kind}: {detail}")
        print(self.faults[-1], flush=True)


def _left(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        name = path.name
        begins = name.startswith((".sparc.lock", "importing-"))
        if begins or name.startswith("part-") or name.endswith(".tmp") or name in ("state", "importing.json"):
            yield path


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` numbers below `count`, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(number * (count - 1) / max(1, most - 1)) for number in range(most)})


def campaign(scenario: Scenario, folder: Path, options: argparse.Namespace) -> dict[str, int]:
    """Run all trials of a scenario, print a line, and return what was counted."""
    room = folder / scenario.name
    room.mkdir()
    trials = Trials(scenario, folder / "sources", room)
    draw = random.Random(f"{options.seed} {scenario.name}")
    for place in spread(2 * trials.operations, options.operations):
        trials.kill_at(place // 2, after=bool(place % 2))
    for _ in range(options.moments):
        trials.kill_after(draw.uniform(0, trials.seconds))
    for _ in range(options.doubles):
        trials.start_twice(draw.choice((0.0, draw.uniform(0, trials.seconds))))
    counts = ", ".join(f"{trials.counts[kind]} {kind}" for kind in ("kills", "double starts", *FAULTS))
    print(f"{scenario.name:10} {trials.operations} operations, {trials.seconds:.1f} s; {counts}", flush=True)
    return {"operations": trials.operations, **trials.counts}


def side_by_side(chosen: list[Scenario], folder: Path, options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Run the scenarios in forked processes, some at a time. Exits if one of them could not begin."""
    running: dict[int, Scenario] = {}
    waiting, failed = list(chosen), False
    while waiting or running:
        while waiting and len(running) < options.jobs:
            scenario = waiting.pop(0)
            if (pid := os.fork()) == 0:
                code = 1
                try:
                    found = campaign(scenario, folder, options)
                    (folder / f"{scenario.name}.json").write_text(json.dumps(found))
                    code = 0
                except SystemExit as error:
                    print(error.code, flush=True)
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(code)
            running[pid] = scenario
        pid, status = os.wait()
        failed |= status != 0
        del running[pid]
    if failed:
        sys.exit("a scenario could not be tried")
    return {one.name: json.loads((folder / f"{one.name}.json").read_text()) for one in chosen}


def main() -> None:
    """Run the campaign, print a table, and exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", help="name of a scenario; repeat for more")
    parser.add_argument("--operations", type=int, default=24, help="kills at operations, per scenario")
    parser.add_argument("--moments", type=int, default=8, help="kills at random moments, per scenario")
    parser.add_argument("--doubles", type=int, default=6, help="double starts, per scenario")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="scenarios at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    preload()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sources").mkdir()
        write_sources(folder / "sources")
        chosen = [one for one in scenarios() if not options.only or one.name in options.only]
        table = side_by_side(chosen, folder, options)
    print(f"{time.monotonic() - began:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    sys.exit(any(counts.get(kind) for counts in table.values() for kind in FAULTS))


if __name__ == "__main__":
    main()
