"""Worker processes that start in a moment: forks of one that has imported PyTorch, which takes seconds.

They are for tests of what is done with features and runs. In `tests/extraction`, and wherever a test starts `sparc` in
a process of its own, workers start as a user's do.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import DupFd

from sparc.system.processes import import_path

LOADED = ("ablation.worker", "evaluation.alignment", "evaluation.concepts", "evaluation.probes", "evaluation.retrieval")
LOADED += ("extraction.estimate", "extraction.shards", "extraction.worker", "storage.checkpoint", "training.trainer")


def place():
    """Return where this process is: its variables, its folder and its cores, which a fork of another one lacks."""
    return dict(os.environ), os.getcwd(), os.sched_getaffinity(0)


def enter(variables, folder, cores):
    """Be where another process is."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    os.sched_setaffinity(0, cores)
    multiprocessing.set_start_method(None, force=True)  # processes that it starts start as in any new process


class Process(ForkServerProcess):
    """A fork that is where this process is."""

    def __init__(self, *, target, args=(), **options):
        super().__init__(target=placed, args=(place(), target, args), **options)


class Context(ForkServerContext):
    """What the standard library's pools start processes by."""

    Process = Process


CONTEXT = Context()
CONTEXT.set_forkserver_preload([f"sparc.{name}" for name in LOADED])


def placed(where, target, arguments):
    enter(*where)
    target(*arguments)


class Pools:
    """What `sparc.ablation.pool` uses of `multiprocessing`."""

    active_children = staticmethod(multiprocessing.active_children)

    @staticmethod
    def get_context(kind):
        return CONTEXT


class Handle:
    """A descriptor of an open file, the same file in the process that it is sent to."""

    def __init__(self, number):
        self.number = number

    def __getstate__(self):
        return DupFd(self.number)

    def __setstate__(self, sent):
        self.number = sent.detach()


class Worker:
    """What `sparc.system.processes.started` returns, as far as an extraction uses it."""

    def __init__(self, module):
        reads, orders = os.pipe()
        events, writes = os.pipe()
        handles = [Handle(number) for number in (reads, writes, 2)]
        self._process = CONTEXT.Process(target=serve, args=(module, import_path(), handles))
        self._process.start()
        os.close(reads)
        os.close(writes)
        self.stdin = os.fdopen(orders, "w", encoding="utf-8")
        self.stdout = os.fdopen(events, encoding="utf-8")

    @property
    def returncode(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("worker", timeout)
        return self.returncode

    def terminate(self):
        self._process.terminate()

    def kill(self):
        self._process.kill()


def serve(module, path, handles):
    """Run `main` of a module with an import path, and with files as standard input, output and errors."""
    sys.path[:] = path
    for number, handle in enumerate(handles):
        os.dup2(handle.number, number)
        os.close(handle.number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    importlib.import_module(module).main()
