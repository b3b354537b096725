"""`python -m sparc` is `sparc`."""

from sparc.cli import main

main()
