"""The script for a GPU, run on the CPU in small sizes: every part of it works, and its numbers are right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(tmp_path, *parts, **environment):
    chosen = [argument for part in parts for argument in ("--only", part)]
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--device",
        "cpu",
        "--small",
        "--out",
        tmp_path / "out.json",
        *chosen,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_part_runs_on_the_cpu_and_finds_right_numbers(tmp_path):
    done, report = run(tmp_path, "agreement", "training", "steps", "extraction")
    assert done.returncode == 0, done.stdout + done.stderr
    agreement = {row["what"]: row for row in report["agreement"]}
    assert agreement["AuxK"]["AuxK terms"] == 3
    assert all(row["right"] for row in report["agreement"])
    assert report["training"][0]["cross NMSE"] < 0.8
    step, *_ = report["steps"]
    assert step["ms"] > 0
    assert {"select", "decode", "losses", "decoder", "encoders", "other"} <= step["phases"].keys()
    assert [row["what"] for row in report["extraction"]] == ["DINOv2", "CLIP"]
    assert "sparc, float32 product" in done.stdout


@pytest.mark.slow
def test_the_triton_kernels_are_compared_under_the_interpreter(tmp_path):
    pytest.importorskip("triton", reason="needs triton, which comes with torch for CUDA")
    done, report = run(tmp_path, "kernels", TRITON_INTERPRET="1")
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("the interpreter of this Triton wants a NumPy older than 2.4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row["right"] for row in report["kernels"])


def test_a_wrong_number_or_a_failing_part_makes_the_script_fail(tmp_path):
    done, report = run(tmp_path, "kernels", TRITON_INTERPRET="0")  # a GPU's kernels do not run on the CPU
    assert done.returncode == 1
    assert "error" in report["kernels"][0]
