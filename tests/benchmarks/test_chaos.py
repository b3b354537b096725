"""The chaos campaign in small: whatever is killed or started twice, no byte differs and nothing is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_and_doubled_imports_extractions_and_trainings_lose_nothing(tmp_path):
    counts = tmp_path / "counts.json"
    limits = (
        "--operations",
        "5",
        "--moments",
        "1",
        "--doubles",
        "1",
        "--only",
        "import",
        "--only",
        "train",
        "--only",
        "extract",
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *limits, "--json", counts],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(counts.read_text())
    assert set(found) == {"import", "train", "extract"}
    for of_command in found.values():
        assert (of_command["kills"], of_command["double starts"]) == (6, 1)
        assert not {"blocked", "different", "left over", "stuck"} & of_command.keys()
        assert of_command["operations"] > 50
