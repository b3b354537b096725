"""Which backend computes: the compiled one for large tables, loaded on first use; PyTorch where it is not usable."""

import os
import subprocess
import sys

import pytest
import torch

from sparc.core.kernels import kernels
from sparc.core.kernels.choose import WORTH_COMPILING
from sparc.core.kernels.plain import PLAIN

LOADED = """
import sys, torch
import sparc.core.step
from sparc.core.kernels import kernels
from sparc.core.kernels.choose import WORTH_COMPILING
print(sorted({"numba", "triton", "scipy", "pydantic"} & sys.modules.keys()))
for size in (WORTH_COMPILING - 1, WORTH_COMPILING):
    kernels(torch.empty(1, size))
    print("numba" in sys.modules)
from sparc.core.space import LatentSpace
with torch.device("meta"):  # as a space is made that is loaded
    LatentSpace({"a": 3}, n_latents=4, k=2)
print("torch._dynamo" in sys.modules)
"""


def run(code, path=None):
    search = os.pathsep.join(filter(None, (path and str(path), *sys.path)))
    environment = {**os.environ, "PYTHONPATH": search}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines(), done.stderr


def test_core_loads_a_compiler_only_for_the_first_table_that_is_worth_it_and_never_that_of_pytorch():
    pytest.importorskip("numba", reason="needs numba: pip install 'sparc-sae[fast]'")
    assert run(LOADED)[0] == ["[]", "False", "True", "False"]


def test_a_compiler_that_does_not_work_is_reported_once_and_replaced_by_pytorch(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('wrong NumPy')")
    code = f"""
import torch
from sparc.core.kernels import kernels
from sparc.core.kernels.plain import PLAIN
large = torch.empty(1, {WORTH_COMPILING})
print(kernels(large) is PLAIN, kernels(large) is PLAIN)
"""
    output, warned = run(code, tmp_path)
    assert output == ["True True"]
    assert warned.count("numba does not work here, so training is slower: wrong NumPy") == 1


def test_other_dtypes_than_float32_are_computed_by_pytorch():
    assert kernels(torch.empty(1, WORTH_COMPILING, dtype=torch.float64)) is PLAIN
    assert kernels(torch.empty(4, 4)) is PLAIN
