"""Dataset and stream `synthetic`: planted data, whose concepts, strengths and directions are known.

    dataset.py  which concepts a sample has, and how strongly; its caption says both
    stream.py   features of a caption: planted directions, private concepts and noise

A caption holds all that streams share: `c3=1.132 c3.1=0.871 c3.1.7=1.25`. A stream reads nothing else, so it works on
the captions of any dataset: a word is a concept, and its strength is 1 if no number follows it.
"""

from __future__ import annotations

from sparc.plugins import BackboneSpec, DatasetSpec, hookimpl
from sparc_plugins.synthetic.dataset import PlantedSamples, SyntheticParams
from sparc_plugins.synthetic.stream import StreamParams, load

DEFAULT_STREAMS = {"wide": 384, "middle": 256, "narrow": 128}
"""Widths of the streams of `sparc train --dataset synthetic`, by name."""


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Return the stream."""
    return [
        BackboneSpec(
            name="synthetic",
            modality="text",
            load=load,
            params=StreamParams,
            summary="planted directions of a caption's words, with private concepts and noise",
            width=StreamParams().width,
            has_weights=lambda: True,
        )
    ]


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset, with three streams of different widths."""
    return [
        DatasetSpec(
            name="synthetic",
            open=PlantedSamples,
            params=SyntheticParams,
            summary="planted concepts with a taxonomy, of any size; their true strengths are known",
            modalities=("text",),
            defaults={
                "stream": [f"{alias}=synthetic[width={width}]" for alias, width in DEFAULT_STREAMS.items()],
                "n-latents": 512,
                "k": 16,
                "lr": 1e-3,
                "epochs": 10,
            },
        )
    ]
