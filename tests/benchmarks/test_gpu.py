"""The script for a GPU, run on the CPU in small sizes: every part of it works, and its numbers are right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT_THEN = """
import runpy, sys
sys.modules["sae_lens"] = None  # it takes long to import, and tests/interchange/test_export_saelens.py has its step
try:
    runpy.run_module("benchmarks.gpu", run_name="__main__")
except SystemExit as ended:
    code = ended.code
%s
sys.exit(code)
"""


def run(tmp_path, *parts, then="", **environment):
    """Run some parts, and in the same process, which has imported PyTorch, some code after them."""
    chosen = [argument for part in parts for argument in ("--only", part)]
    options = ["--device", "cpu", "--small", "--out", tmp_path / "out.json", *chosen]
    command = [sys.executable, "-c", SCRIPT_THEN % then, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_part_runs_on_the_cpu_and_finds_right_numbers_after_one_that_fails_and_makes_the_script_fail(tmp_path):
    parts = ("agreement", "training", "steps", "extraction")
    # A GPU's kernels do not run on the CPU.
    done, report = run(tmp_path, "kernels", *parts, TRITON_INTERPRET="0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error" in report["kernels"][0]
    assert not [row for part in parts for row in report[part] if "error" in row]
    agreement = {row["what"]: row for row in report["agreement"]}
    assert agreement["AuxK"]["AuxK terms"] == 3
    assert all(row["right"] for row in report["agreement"])
    assert report["training"][0]["cross NMSE"] < 0.8
    step, *_ = report["steps"]
    assert step["ms"] > 0
    assert {"select", "decode", "losses", "decoder", "encoders", "other"} <= step["phases"].keys()
    assert [row["what"] for row in report["extraction"]] == ["DINOv2", "CLIP"]
    assert "sparc, float32 product" in done.stdout


COLUMN_BY_COLUMN = """
import torch
from sparc.core.kernels import LatentSum, SortedEntries
from sparc.core.kernels.plain import PLAIN
from sparc.core.kernels.triton_gpu import TritonKernels

torch.manual_seed(0)
for samples, kept, width in [(5, 4, 70), (4, 1, 16), (3, 66, 300)]:
    entries = SortedEntries(torch.stack([torch.randperm(90)[:kept] for _ in range(samples)]), 90)
    vectors = torch.randn(width, samples).T  # as features of a data frame are
    summed = LatentSum(entries, entries.in_order(torch.randn(samples, 1, kept)), vectors.unsqueeze(1))
    torch.testing.assert_close(TritonKernels().sum_by_latent(summed), PLAIN.sum_by_latent(summed))
"""


@pytest.mark.slow
def test_the_triton_kernels_are_right_under_the_interpreter_for_vectors_in_any_order_of_memory(tmp_path):
    pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")
    done, report = run(tmp_path, "kernels", then=COLUMN_BY_COLUMN, TRITON_INTERPRET="1")
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("the interpreter of this Triton wants a NumPy older than 2.4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row["right"] for row in report["kernels"])
