"""What a training step, the loader and an evaluation cost, on the user's own machine.

Each measurement returns plain numbers, for `sparc bench` to print; `docs/performance.md` holds ours.
"""
