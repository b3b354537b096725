"""The Triton kernels, compiled for a GPU. Their results are those of `tests/benchmarks/test_gpu.py`."""

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")

COMPILES = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sparc.core.kernels import triton_gpu as kernels

types = dict.fromkeys(("indices", "positions", "starts"), "*i64")
types |= dict.fromkeys(("vectors", "values", "table", "summed", "dots"), "*fp32")
types |= {"width": "i32", "sizes": ("i32", "i32", "i32", "i32")}
for kernel in (kernels._weighted_rows, kernels._entry_dots, kernels._sum_by_latent):
    signature = {name: types[name] for name in kernel.arg_names}
    built = triton.compile(ASTSource(kernel, signature), target=GPUTarget("cuda", 90, 32))
    assert "atom" not in built.asm["ptx"]
print("compiled")
"""


def test_kernels_compile_for_a_gpu_and_use_no_atomics():
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True, check=False)
    assert done.stdout == "compiled\n", done.stderr
