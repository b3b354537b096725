"""Commands of sparc in forked processes: a fork has PyTorch loaded, so a trial takes a second instead of six."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.chaos.operations import Operations

MODULES = (
    *("cli.app", "ablation.plots", "ablation.pool", "ablation.results", "ablation.worker", "evaluation.alignment"),
    *("evaluation.plots", "evaluation.probes", "evaluation.retrieval", "extraction.features", "extraction.shards"),
    *("extraction.worker", "interchange.export_saelens", "interchange.import_features", "storage.checkpoint"),
    *("storage.detached", "training.attaching", "training.trainer", "index.page", "index.inverted", "explorer.site"),
    *("session.exploring", "session.searching", "session.completing", "storage.completion_file", "models.models"),
    *("session.localizing", "session.encoding", "localization.pipeline", "localization.picture", "index.sheet"),
    *("explorer.contact_sheet", "explorer.meanings", "extraction.feeding", "training.mixing"),
)
LIBRARIES = ("timm",)
"""Libraries of the backbones."""
LIMIT = 90.0
"""Seconds that a command may take."""


class Child:
    """A command of sparc in a process group of its own, with its output in a file."""

    def __init__(self, arguments: Sequence[str], folder: Path, operations: Operations | None = None) -> None:
        """Start it in `folder`."""
        self.log = folder.parent / f"{folder.name}.{os.getpid()}-{time.monotonic_ns()}.log"
        self.counted = self.log.with_suffix(".count")
        self.pid = os.fork()
        if self.pid == 0:
            _run(arguments, folder, self, operations)

    def kill(self) -> None:
        """Kill it with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int | None:
        """Return the exit code, negative for a signal; None if it was killed because it did not end."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.kill()  # whatever processes it leaves
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.kill()
        os.waitpid(self.pid, 0)
        return None

    def output(self) -> str:
        """Return what it printed."""
        return self.log.read_text(errors="replace")

    def operations(self) -> int:
        """Return the number of operations that it counted."""
        return int(self.counted.read_text())


def _run(arguments: Sequence[str], folder: Path, child: Child, operations: Operations | None) -> NoReturn:
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", encoding="utf-8") for number in (1, 2))
        sys.argv = ["sparc", *arguments]
        _hasten()
        if operations is not None:
            operations.install()
        try:
            importlib.import_module("sparc.cli").main(list(arguments))
        except SystemExit as ended:
            code = int(ended.code or 0)
        if operations is not None and operations.at is None:
            child.counted.write_text(str(operations.count))
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _hasten() -> None:
    """Fork the worker of an extraction and the workers of an ablation, and save a checkpoint after every step."""
    pool, supervise, trainer = (
        importlib.import_module(f"sparc.{name}")
        for name in ("ablation.pool", "extraction.supervise", "training.trainer")
    )
    supervise.started = _Worker
    context = multiprocessing.get_context("fork")
    pool.multiprocessing = _Multiprocessing(context)
    trainer.SAVE_SECONDS, trainer.SAVE_SHARE, trainer.LOG_EVERY = 0.0, float("inf"), 3


class _Multiprocessing:
    def __init__(self, context: Any) -> None:
        self._context = context

    def get_context(self, kind: str) -> Any:
        return self._context

    def active_children(self) -> Any:
        return multiprocessing.active_children()


class _Worker:
    """A forked process with the interface of Popen that `supervise` uses."""

    def __init__(self, module: str) -> None:
        order_read, order_write = os.pipe()
        event_read, event_write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(order_write)
            os.close(event_read)
            os.dup2(order_read, 0)
            os.dup2(event_write, 1)
            sys.stdin = os.fdopen(0, encoding="utf-8")
            sys.stdout = os.fdopen(1, "w", encoding="utf-8")
            code = 1
            try:
                importlib.import_module(module).main()
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        os.close(order_read)
        os.close(event_write)
        self.stdin = os.fdopen(order_write, "w")
        self.stdout = os.fdopen(event_read, "r")
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            else:
                time.sleep(0.005)
        return self.returncode

    def terminate(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def preload() -> None:
    """Import all that a command imports."""
    for name in (*(f"sparc.{module}" for module in MODULES), *LIBRARIES):
        importlib.import_module(name)
