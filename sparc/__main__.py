"""`python -m sparc` is `sparc`."""

import os
import signal
import sys


def _leave(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted\nhint:  run the same command again\n")
    os._exit(130)


def main() -> None:
    """Run `sparc`. Ctrl-C while its modules load, or after it is done, prints two lines and no traceback."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # A thread of GNU's OpenMP that waits spins 300,000 times. Where other processes use the cores too, that keeps a
        # core from the thread it waits for: a training beside two of them took more than three times as long.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from sparc.system.processes import import_path

    sys.path[:] = import_path()
    from sparc.cli import main as run  # imported from a path without the current folder

    run()


if __name__ == "__main__":
    main()
