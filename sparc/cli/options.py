"""What the user may say about a run on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.config import OPTION_NAMES, RunConfig, read_options
from sparc.session_options import DEFAULT_DATASET, merged

if TYPE_CHECKING:
    from sparc.plugins.registry import Registry

Streams = Annotated[
    list[str] | None,
    typer.Option(
        "--stream",
        metavar="NAME[KEY=VALUE,...]",
        help="Backbone of a stream; repeat for more. 'other=NAME[...]' gives the stream another name.",
    ),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help=f"Dataset. Without it: {DEFAULT_DATASET}, the demo.")
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder of the dataset.")]
Features = Annotated[
    Path | None,
    typer.Option("--features", help="Folder that `sparc import features` wrote, instead of a dataset and backbones."),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Where features are kept. Without it: $SPARC_CACHE/store, else ~/.cache/sparc/store."),
]
StoreNow = Annotated[
    Path | None, typer.Option("--store", help="Where features are kept now. Without it: where they were for the run.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto (CUDA where it is), cpu, cuda, cuda:1, ...")]
SkipBad = Annotated[
    bool | None, typer.Option("--skip-bad", help="Go on without images that do not decode and empty captions.")
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="Of the backbones' products: float32, bfloat16, float16.")
]
StoreDtype = Annotated[str | None, typer.Option("--store-dtype", help="Of features in the store: float32, float16.")]
Compile = Annotated[bool | None, typer.Option("--compile", help="Compile the backbones with torch.compile first.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file with any of these options, by name, without the dashes.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="New directory of the run. Without it: runs/DATASET, or -2, -3, ...")
]
NLatents = Annotated[int | None, typer.Option("--n-latents", help="Latents shared by all streams (L); paper: 8192.")]
K = Annotated[int | None, typer.Option("--k", help="Latents kept per sample; paper: 64.")]
Selection = Annotated[
    str | None, typer.Option("--selection", help="global: one index set per sample; local: each stream its own.")
]
Normalization = Annotated[
    str | None, typer.Option("--normalization", help="Of raw features: unit (norm per sample), standard, none.")
]
Lambda = Annotated[float | None, typer.Option("--lambda", help="Weight of the cross-reconstruction loss; paper: 1.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the training samples; paper: 50.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Samples per step; paper: 256.")]
Lr = Annotated[float | None, typer.Option("--lr", help="Learning rate of Adam; paper: 1e-4.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of weights and sample order.")]
EncoderProduct = Annotated[
    str | None,
    typer.Option(
        "--encoder-product",
        help="float32; or bfloat16: the same latents, faster with large batches where the processor has it.",
    ),
]
AdamState = Annotated[
    str | None, typer.Option("--adam-state", help="float32; or bfloat16: half the memory of the optimiser.")
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run, as it was started.")
]


def said_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a command was told, by the names of the options: those of its arguments that are options of a run."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in arguments.items()}
    return {name: value for name, value in named.items() if name in OPTION_NAMES}


def resolve(said: Mapping[str, Any], config: Path | None, registry: Registry) -> RunConfig:
    """Merge options: the command line, else the config file, else the dataset's own defaults, else the paper's.

    Raises MissingData, InvalidConfig, UnknownName.
    """
    return merged(said, read_options(config) if config is not None else {}, registry).checked()
