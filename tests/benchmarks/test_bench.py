"""`sparc bench`: the numbers exist and add up; their size is not judged here."""

import json
import subprocess
import sys

import pytest

from sparc.benchmarks.dense_process import DenseProcess
from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.errors import SparcError
from sparc.system.memory import resident_bytes

SMALL = ("--widths", "12,8", "--n-latents", "64", "--k", "4", "--json")


def measured(sparc, *arguments):
    done = sparc("bench", *arguments)
    assert done.returncode == 0, done.stderr
    assert "timing" in done.stderr  # notes are kept apart from the JSON
    return json.loads(done.stdout)


def test_a_step_is_measured_beside_its_product_and_by_phase(sparc_here):
    found = measured(sparc_here, "step", *SMALL, "--batch", 16, "--steps", 2, "--oracle")
    for name in ("step_ms", "encoder_product_ms", "oracle_step_ms", "peak_bytes"):
        assert found[name] > 0
    assert found["autograd_step_ms"] is None  # without --autograd
    assert {"select", "decode", "losses", "code_gradients", "decoder", "encoders", "other"} < found["phases"].keys()
    assert all(part > 0 for part in found["phases"].values())
    assert sum(found["phases"].values()) < 1.01 * found["step_ms"]
    assert found["of_encoder_product"] == pytest.approx(found["step_ms"] / found["encoder_product_ms"], rel=0.1)


def test_the_loader_and_an_evaluation_are_measured(sparc_here):
    assert measured(sparc_here, "loader", "--widths", "12,8", "--samples", 3000, "--json")["later_epochs"] > 0
    found = measured(sparc_here, "evaluate", *SMALL, "--samples", 100, "--n-labels", 20)
    assert found["alignment_s"] > 0
    assert found["latents_queries_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--widths", "a,b"), "--widths: expected comma-separated numbers from 1, found 'a,b'"),
        (("--k", "9000"), "--k: expected at most --n-latents, 8192, found 9000"),
        (("--widths", "0,5"), "--widths: expected comma-separated numbers from 1, found '0,5'"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(sparc_here, arguments, message):
    done = sparc_here("bench", "step", *arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"error: {message}"


def test_one_stream_has_no_evaluation_to_be_measured(sparc_here):
    done = sparc_here("bench", "evaluate", "--widths", "64")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: --widths: expected at least two streams, found '64'"


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives freed memory back so readily")
def test_freed_memory_is_kept():
    code = """
import torch
from sparc.system.memory import keep_freed_memory, resident_bytes
keep_freed_memory()
tensor = torch.ones(2**25)
held = resident_bytes()
del tensor
print(held - resident_bytes() < 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_resident_memory_is_that_of_the_process():
    assert resident_bytes() > 2**24


def test_the_naive_step_that_ends_early_is_an_error():
    shape = validated(SpaceConfig, {"streams": {"a": 12, "b": 8}, "n_latents": 64, "k": 4})
    with DenseProcess(shape, TrainingConfig(batch_size=16), "cpu") as dense:
        dense.advance()
        dense._process.kill()
        with pytest.raises(SparcError, match="the process of the naive step ended with code"):
            dense.advance()
