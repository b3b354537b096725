"""Time and memory of a training step, the loader and an evaluation on the user's machine; recovery of planted data.

Each measurement returns plain numbers, which `sparc bench` prints; `docs/performance.md` lists ours.

    planted.py   what a space recovers of planted data (docs/how-to/planted-data.md)
    recovery.py  its scores of directions and supports
    pursuit.py   the oracle beside it
"""
