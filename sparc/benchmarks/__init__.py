"""Time and memory of a training step, the loader and an evaluation, on the user's own machine.

Each measurement returns plain numbers, which `sparc bench` prints; `docs/performance.md` lists ours.
"""
