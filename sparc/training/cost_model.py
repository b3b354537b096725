"""Bytes that a process sends in a training step, and the time of a step on many devices: `docs/scaling.md`.

A process sends the least that an exchange can send: 2 (n - 1) / n of a tensor that n ranks sum, and n - 1 times a
tensor that all n get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOAT = 4


@dataclass(frozen=True)
class Work:
    """Sizes of a training step."""

    widths: Mapping[str, int]
    """Width of each stream."""
    n_latents: int
    k: int
    batch_size: int
    """Samples of all processes together."""
    selects_alone: bool = False
    """True if each stream selects its own latents (`--selection local`)."""
    k_aux: int = 0
    """Latents that AuxK keeps in every stream; 0 while no latent is dead."""
    active: float = 1.0
    """Part of the latents that are active in a batch."""

    @property
    def total(self) -> int:
        """Width of all streams together."""
        return sum(self.widths.values())

    @property
    def weights(self) -> int:
        """Number of weights: those of all encoders and decoders, and the biases."""
        return 2 * self.n_latents * self.total + len(self.widths) * self.n_latents + self.total


@dataclass(frozen=True)
class Mesh:
    """Processes: `rows` of them split the samples, `shards` the latents."""

    rows: int = 1
    shards: int = 1

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.rows * self.shards


def sent_bytes(work: Work, mesh: Mesh) -> dict[str, float]:
    """Return the bytes that each process sends in a step, by kind."""
    streams, samples = len(work.widths), work.batch_size / mesh.rows
    summed_in_rows, summed_in_all = (2 * (count - 1) / count for count in (mesh.rows, mesh.size))
    summed_in_shards, others = 2 * (mesh.shards - 1) / mesh.shards, mesh.shards - 1
    own = work.n_latents / mesh.shards
    active = work.active if work.active <= 0.9 else 1.0
    sets = streams if work.selects_alone else 1
    candidates = sets * work.k * (1 + streams / sets) + streams * work.k_aux * 2
    reconstructions = streams * work.total + (work.total if work.k_aux else 0)
    return {
        "gradients": summed_in_rows * 2 * own * work.total * active * FLOAT,
        "kept": summed_in_rows * own,
        "biases": summed_in_rows * streams * own * FLOAT + summed_in_all * work.total * FLOAT,
        "counters": summed_in_rows * streams * (own + 8),
        "candidates": others * samples * candidates * FLOAT,
        "reconstructions": summed_in_shards * samples * reconstructions * FLOAT,
    }


def memory_bytes(work: Work, mesh: Mesh, moment: int = FLOAT) -> float:
    """Return the bytes of weights, Adam's moments and counters that each process holds."""
    return work.weights / mesh.shards * (FLOAT + 2 * moment) + len(work.widths) * work.n_latents / mesh.shards * 8


@dataclass(frozen=True)
class Device:
    """Speed of one device: the time of a step, as measured there, and its link."""

    step_seconds: float
    """Seconds of a step on one device with all latents and `samples`."""
    samples: int
    fixed_seconds: float
    """Part of them that does not shrink with the samples: reading and writing the weights in Adam's step."""
    send_bytes: float
    """Bytes per second that a device sends to the others."""


def step_seconds(work: Work, mesh: Mesh, device: Device) -> float:
    """Return the predicted seconds of a step.

    It assumes that work is split evenly, that the exchange overlaps with nothing, and that one link of equal speed
    joins any two devices.
    """
    per_sample = (device.step_seconds - device.fixed_seconds) / device.samples
    computing = per_sample * work.batch_size / mesh.size + device.fixed_seconds / mesh.shards
    return computing + sum(sent_bytes(work, mesh).values()) / device.send_bytes
