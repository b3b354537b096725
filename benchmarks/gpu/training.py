"""A whole training on the device and on the CPU, and what held-out samples measure of both spaces."""

import statistics
import tempfile
import time
from pathlib import Path

import sparc

CLOSE = 0.02
"""Largest difference of NMSE, Jaccard overlap and recall between the devices; two seeds differ by as much."""
STREAMS = ["wide=synthetic[width=48]", "middle=synthetic[width=32]"]


def measure(settings):
    """Train on planted data, or on `--features`, on the device and on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        if settings.features:
            data = {"features": str(settings.features)}
        else:
            samples = 1000 if settings.small else 20_000
            data = {"dataset": f"synthetic[samples={samples},categories=4,subcategories=3,leaves=3]", "stream": STREAMS}
        devices = dict.fromkeys([settings.device, "cpu"])
        rows = [trained(Path(folder), data, device) for device in devices]
    if len(rows) > 1:
        far = {name: abs(rows[0][name] - value) for name, value in rows[1].items() if isinstance(value, float)}
        far.pop("seconds")
        rows.append({"what": "difference", **far, "right": max(far.values()) < CLOSE})
    return rows


def trained(folder, data, device):
    began = time.perf_counter()
    done = sparc.train(**data, out=folder / f"run-{device.replace(':', '-')}", store=folder / "store", device=device)
    seconds = time.perf_counter() - began
    report = done.report
    deepest = report.jaccard[-1]
    return {
        "what": device,
        "seconds": seconds,
        "self NMSE": statistics.mean(report.joint.nmse[name][name] for name in report.streams),
        "cross NMSE": statistics.mean(
            report.joint.nmse[one][other] for one in report.streams for other in report.streams if one != other
        ),
        "joint overlap": deepest.joint.all,
        "solo overlap": deepest.solo.all,
        "R@10": statistics.mean(pair.latents.r10 for pair in report.retrieval),
    }
