"""Correctness and speed on one GPU, in one run: `python -m benchmarks.gpu`."""
