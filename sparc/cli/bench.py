"""`sparc bench`: what a training step, the loader and an evaluation cost on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from typing import Annotated, Any

import typer
from rich.table import Table

from sparc.cli.options import AdamState, EncoderProduct
from sparc.cli.progress import console
from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.errors import InvalidConfig
from sparc.session_options import resolve_device
from sparc.system.memory import keep_freed_memory

app = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

Widths = Annotated[str, typer.Option("--widths", metavar="D,D,...", help="Width of each stream.")]
NLatents = Annotated[int, typer.Option("--n-latents", help="Latents (L).")]
K = Annotated[int, typer.Option("--k", help="Latents kept per sample.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Samples per step.")]
Device = Annotated[str, typer.Option("--device", help="auto (CUDA where it is), cpu, cuda, cuda:1, ...")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

PAPER_WIDTHS = "1024,768,768"


@app.callback()
def _group() -> None:
    """Measure speed and memory on this machine."""


@app.command("step")
def step(
    widths: Widths = PAPER_WIDTHS,
    n_latents: NLatents = 8192,
    k: K = 64,
    batch: Batch = 256,
    encoder_product: EncoderProduct = None,
    adam_state: AdamState = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to take the median of.")] = 10,
    autograd: Annotated[bool, typer.Option("--autograd", help="Time the step through autograd too.")] = False,
    oracle: Annotated[bool, typer.Option("--oracle", help="Time the naive step too, in its own process.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time a whole training step beside its encoder product, which no exact TopK can do without.

    Examples:

        sparc bench step --batch 1024 --autograd --oracle

        sparc bench step --widths 1024,768,768 --n-latents 65536 --json
    """
    # PyTorch's profiler, which measures the phases, else reports on itself.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from sparc.benchmarks.step import measure_step

    shape = _shape(widths, n_latents, k)
    said = {"encoder_product": encoder_product, "adam_state": adam_state}
    precision = {name: value for name, value in said.items() if value is not None}
    keep_freed_memory()
    config = validated(TrainingConfig, {"batch_size": batch, **precision})
    cost = measure_step(shape, config, steps=steps, device=resolve_device(device), autograd=autograd, oracle=oracle)
    found = dataclasses.asdict(cost)
    ratios = {"of_encoder_product": cost.step_ms / cost.encoder_product_ms}
    if cost.autograd_step_ms is not None:
        ratios["autograd_to_step"] = cost.autograd_step_ms / cost.step_ms
    if cost.oracle_step_ms is not None:
        ratios["oracle_to_step"] = cost.oracle_step_ms / cost.step_ms
    found |= {name: round(ratio, 2) for name, ratio in ratios.items()}
    setting = {"widths": widths, "n_latents": n_latents, "k": k, "batch": batch, "device": device, **precision}
    _show(found, setting, as_json)


@app.command("loader")
def loader(
    widths: Widths = PAPER_WIDTHS,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples to write to a temporary folder.")] = 100_000,
    batch: Batch = 256,
    as_json: Json = False,
) -> None:
    """Time the loader: float16 features of several streams, shuffled by sample, from files in the disk's cache.

    Example:

        sparc bench loader --widths 1024,768,768 --json
    """
    from sparc.benchmarks.loader import measure_loader

    shape = _shape(widths, 1, 1)
    keep_freed_memory()
    cost = measure_loader(list(shape.streams.values()), samples=samples, batch_size=batch)
    _show(dataclasses.asdict(cost), {"widths": widths, "batch": batch}, as_json)


@app.command("evaluate")
def evaluate(
    widths: Widths = PAPER_WIDTHS,
    n_latents: NLatents = 8192,
    k: K = 64,
    samples: Annotated[int, typer.Option("--samples", min=64, help="Held-out samples.")] = 20_000,
    n_labels: Annotated[int, typer.Option("--n-labels", min=16, help="Labels in the taxonomy.")] = 600,
    as_json: Json = False,
) -> None:
    """Time alignment, patterns, concepts and the search of one pair of streams, on random codes.

    Example:

        sparc bench evaluate --samples 126000 --json
    """
    from sparc.benchmarks.evaluate import measure_evaluation

    shape = _shape(widths, n_latents, k)
    if len(shape.streams) < 2:
        raise InvalidConfig(
            f"--widths: expected two streams at least, found {widths!r}", hint=f"they are compared: {PAPER_WIDTHS}"
        )
    cost = measure_evaluation(shape, samples=samples, n_labels=n_labels)
    setting = {"widths": widths, "n_latents": n_latents, "k": k, "samples": samples, "n_labels": n_labels}
    _show(dataclasses.asdict(cost), setting, as_json)


def _shape(widths: str, n_latents: int, k: int) -> SpaceConfig:
    try:
        parsed = [int(width) for width in widths.split(",")]
    except ValueError as error:
        raise InvalidConfig(
            f"--widths: expected numbers between commas, found {widths!r}", hint=f"such as {PAPER_WIDTHS}"
        ) from error
    streams = {f"stream-{number}": width for number, width in enumerate(parsed)}
    return validated(SpaceConfig, {"streams": streams, "n_latents": n_latents, "k": k})


def _show(found: dict[str, Any], setting: dict[str, Any], as_json: bool) -> None:
    """Print measured numbers with what they were measured on."""
    import torch

    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "platform": platform.platform()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    if as_json:
        print(json.dumps({**found, "setting": setting, "machine": machine}))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    phases = found.pop("phases", {})
    for name, number in [*found.items(), *((f"  {phase}", share) for phase, share in phases.items())]:
        if number is not None:
            table.add_row(name.replace("_", " "), f"{number:,}")
    console.print(table)
