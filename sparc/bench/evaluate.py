"""How long an evaluation takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from sparc.checkpoint import SharedLatentSpace
from sparc.config import SpaceConfig
from sparc.evaluate import evaluate
from sparc.memory import peak_bytes


@dataclass(frozen=True)
class EvaluationCost:
    """Cost of all measurements on samples without labels."""

    evaluate_ms: float
    peak_bytes: int | None


def measure_evaluation(shape: SpaceConfig, *, samples: int, device: str = "cpu") -> EvaluationCost:
    """Time one evaluation of an untrained space on random features."""
    space = SharedLatentSpace(shape).to(device)
    features = {name: torch.randn(samples, width).to(device) for name, width in space.streams.items()}
    began = time.perf_counter()
    evaluate(space, features, labels=None, taxonomy=None, groups=[str(row) for row in range(samples)])
    return EvaluationCost(round(1000 * (time.perf_counter() - began), 1), peak_bytes())
