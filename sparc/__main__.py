"""`python -m sparc` is `sparc`."""

import os
import signal
import sys


def _leave(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted\nhint:  run the same command again\n")
    os._exit(130)


def main() -> None:
    """Run `sparc`. Ctrl-C while its modules load, or after it is done, prints two lines and no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from sparc.system.processes import import_path

    sys.path[:] = import_path()
    from sparc.cli import main as run  # imported from a path without the current folder

    run()


if __name__ == "__main__":
    main()
