"""Algorithms of the evaluation agree with the functions of libraries that the benchmark compares them with."""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ours_and_libraries.py"
SPEC = importlib.util.spec_from_file_location("ours_and_libraries", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


SAME = {name: one for name, one in benchmark.COMPARISONS.items() if one.tolerance is not None}
"""The others are slow, and their results differ on purpose."""


@pytest.mark.parametrize("one", SAME.values(), ids=SAME)
def test_both_ways_are_measured_and_agree(one):
    ours, library = (
        benchmark.measured(one, argparse.Namespace(**benchmark.SMALL, repeats=1, way=way))["result"]
        for way in ("ours", "library")
    )
    assert np.isfinite([*ours, *library]).all()
    assert len(ours) == len(library) > 0
    agreement, right = benchmark.compared(one, ours, library)
    assert right, agreement


def test_results_that_differ_more_than_allowed_are_reported():
    one = benchmark.COMPARISONS["ranks"]
    assert benchmark.compared(one, [1.0, 2.0], [1.0, 2.0])[1]
    assert benchmark.compared(one, [1.0, 2.0], [1.0, 5.0]) == ("differ by at most 3", False)
