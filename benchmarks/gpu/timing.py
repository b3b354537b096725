"""Clocks for work on a device: CUDA events on a GPU, the processor's clock elsewhere."""

import contextlib
import statistics
import sys
import time
import warnings
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
MODULES = ("sparc.training.gradients", "sparc.training.adam")
"""Modules whose ranges of the profiler are the phases of a step."""


def median_ms(run, device, repeats):
    """Return the median milliseconds of a function's work on the device, after one run that is not counted."""
    run()
    return statistics.median(elapsed(run, device) for _ in range(repeats))


def elapsed(run, device):
    with Stopwatch(device) as watch:
        run()
    return watch.milliseconds()


class Stopwatch:
    """Measures what is queued on the device between entry and exit."""

    def __init__(self, device):
        self._cuda = device.startswith("cuda")

    def _now(self):
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self):
        self._began = self._now()
        return self

    def __exit__(self, *exception):
        self._ended = self._now()

    def milliseconds(self):
        if not self._cuda:
            return 1000 * (self._ended - self._began)
        self._ended.synchronize()
        return self._began.elapsed_time(self._ended)


def phases(step, device, repeats):
    """Return the median milliseconds of each phase of a step, between events at the ranges that the profiler sees."""
    found = defaultdict(list)

    @contextlib.contextmanager
    def timed(name):
        with Stopwatch(device) as watch:
            yield
        watches.append((name.removeprefix("sparc."), watch))

    modules = [sys.modules[name] for name in MODULES]
    originals = [module.record_function for module in modules]
    try:
        for module in modules:
            module.record_function = timed
        for _ in range(repeats):
            watches = []
            whole = elapsed(step, device)
            times = defaultdict(float)
            for name, watch in watches:
                times[name] += watch.milliseconds()
            times["other"] = whole - sum(times.values())
            for name, spent in times.items():
                found[name].append(spent)
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.record_function = original
    return {name: statistics.median(spent) for name, spent in found.items()}


def waits(step, device, steps=5):
    """Return how often the host waits for the GPU in a step, and for how long: {call: [times, milliseconds]}.

    The last step's work is waited for outside of the measurement. `warned` counts the calls that PyTorch warns of.
    """
    if not device.startswith("cuda"):
        return {}
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for _ in range(steps):
                step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
    found = {
        event.key: [event.count / steps, event.cpu_time_total / 1000 / steps]
        for event in profiler.key_averages()
        if event.key in WAITS
    }
    return {**found, "warned": len([one for one in warned if "synchroniz" in str(one.message)]) / steps}


def peak(run, device):
    """Return the most bytes of tensors on the GPU while a function runs; None elsewhere."""
    if not device.startswith("cuda"):
        run()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def free(device):
    """Give the GPU's cached memory back, so that one measurement does not take from the next."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
