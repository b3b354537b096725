"""`python -m sparc` is `sparc`."""

import sys

from sparc.system.processes import import_path

sys.path[:] = import_path()

from sparc.cli import main  # noqa: E402  # imported from a path without the current folder

main()
