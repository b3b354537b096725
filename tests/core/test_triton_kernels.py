"""The Triton kernels against the plain operators: run by Triton's interpreter on the CPU, and compiled for a GPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")

AGREES = """
import torch
from sparc.core.kernels import SortedEntries, LatentSum
from sparc.core.kernels.plain import PLAIN
from sparc.core.kernels.triton_gpu import TritonKernels

TRITON = TritonKernels()
torch.manual_seed(0)
for samples, streams, kept, width in [(5, 3, 4, 70), (4, 1, 1, 16), (3, 2, 66, 300)]:
    indices = torch.stack([torch.randperm(90)[:kept] for _ in range(samples)])
    values, table = torch.randn(samples, streams, kept), torch.randn(90, width)
    vectors = torch.randn(samples, streams, width)
    close = torch.testing.assert_close
    close(TRITON.weighted_rows(indices, values, table), PLAIN.weighted_rows(indices, values, table))
    close(TRITON.entry_dots(vectors, table, indices), PLAIN.entry_dots(vectors, table, indices))
    entries = SortedEntries(indices, 90)
    summed = LatentSum(entries, entries.in_order(values), vectors)
    close(TRITON.sum_by_latent(summed), PLAIN.sum_by_latent(summed))
    close(TRITON.dots_by_latent(summed, table), PLAIN.dots_by_latent(summed, table))
    # As features of a data frame are, column by column.
    first = torch.randn(width, samples).T
    summed = LatentSum(entries, entries.in_order(values[:, :1]), first.unsqueeze(1))
    close(TRITON.sum_by_latent(summed), PLAIN.sum_by_latent(summed))
print("agree")
"""

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


def run(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.slow
def test_interpreted_kernels_agree_with_the_plain_operators():
    done = run(AGREES, TRITON_INTERPRET="1")
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("the interpreter of this Triton wants a NumPy older than 2.4")
    assert done.stdout == "agree\n", done.stderr


def test_kernels_compile_for_a_gpu_and_use_no_atomics():
    done = run(COMPILES)
    assert done.stdout == "compiled\n", done.stderr
