"""A command that reads a store or a run, or plans an extraction, loads no library of models."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "timm", "transformers", "open_clip", "huggingface_hub")


def heavy_modules_after(code):
    command = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", ["sparc.storage.run", "sparc.extraction", "sparc.extraction.supervise"])
def test_reading_a_run_and_planning_an_extraction_imports_no_heavy_library(module):
    """`run` imports provenance, manifest and space configuration; `extraction` imports the plan and the registry."""
    assert heavy_modules_after(f"import {module}") == []


def test_a_heavy_import_would_be_noticed():
    assert "numpy" in heavy_modules_after("import sparc.plotting.figures")
