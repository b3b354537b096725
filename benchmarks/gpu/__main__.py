"""One short run that shows what sparc does on a GPU: are the numbers right, and how long do they take.

    python -m benchmarks.gpu --out gpu.json              # one GPU, at most 8 minutes, no network
    python -m benchmarks.gpu --device cpu --small        # the same code, small sizes, on the CPU

On a machine without a network, put the wheels of missing packages beside the checkout (elsewhere, `pip download --dest
wheels pydantic`), install them by `pip install --no-index --find-links wheels pydantic`, and set PYTHONPATH to the
checkout. The script prints one table and writes one JSON file. A part that fails does not stop the next ones; the exit
code is then 1. The parts:

    kernels      each Triton kernel beside PyTorch's operators in float64
    agreement    ten training steps beside the same steps in float64 on the CPU
    training     a whole training on the GPU and on the CPU, measured on held-out samples (--features for your own)
    steps        the step, its encoder product, the naive dense step in bfloat16, and trainers of other libraries
    extraction   DINOv2's and CLIP's architecture, random weights, from JPEGs, beside the bare loop
"""

import argparse
import json
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu import agreement, extraction, kernels, steps, training
from sparc.system.memory import keep_freed_memory

PARTS = {
    "kernels": kernels.measure,
    "agreement": agreement.measure,
    "training": training.measure,
    "steps": steps.measure,
    "extraction": extraction.measure,
}


@dataclass(frozen=True)
class Settings:
    """The device and the size of all parts."""

    device: str
    small: bool
    features: Path | None
    ends: float
    """Value of `time.monotonic` after which no further measurement starts."""

    @property
    def in_time(self) -> bool:
        return time.monotonic() < self.ends


def main() -> int:
    """Run the parts, print a table, and write the JSON file. Returns 1 if a part failed or found a wrong number."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--features", type=Path, help="folder of `sparc import features`, for the part `training`")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; repeat for more")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no further measurement starts")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("error: no CUDA device\nhint: --device cpu --small runs the same code on the CPU", file=sys.stderr)
        return 2
    keep_freed_memory()
    began = time.monotonic()
    settings = Settings(options.device, options.small, options.features, began + 60 * options.minutes)
    report: dict[str, object] = {"machine": machine(options.device), "small": options.small}
    right = True
    for name in options.only or PARTS:
        part_began = time.monotonic()
        try:
            rows = PARTS[name](settings) if settings.in_time else [{"what": name, "left out": "no time left"}]
        except Exception as error:
            traceback.print_exc()
            rows = [{"what": name, "error": f"{type(error).__name__}: {error}"}]
        right = right and all("error" not in row and row.get("right", True) for row in rows)
        report[name] = rows
        show(name, rows, time.monotonic() - part_began)
        if options.out:  # after each part: a run that is killed leaves what it had
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if right else 1


def machine(device: str) -> dict[str, object]:
    """Return the versions, and the name and memory of the device."""
    found: dict[str, object] = {"torch": torch.__version__, "device": device, "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
    return found


def show(name: str, rows: list[dict[str, object]], seconds: float) -> None:
    """Print a part's rows, each value behind its name."""
    print(f"{name} ({seconds:.0f} s)")
    for row in rows:
        print("  " + "  ".join(f"{key} {short(value)}" for key, value in row.items()), flush=True)


def short(value: object) -> str:
    """Return a value in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {short(one)}" for key, one in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
