"""Ten training steps on the device beside the same ten in float64 on the CPU."""

import torch

from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.losses import total
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.training.loader import FeaturesInMemory
from sparc.training.trainer import Training, prepare

STEPS = 10
LOSS, MOVED = 1e-4, 0.02
"""Largest relative difference of a loss, and of the way that the weights went."""
SETTINGS = {
    "global": {},
    "local": {"selection": "local"},
    "missing streams": {"missing": True},
    "missing streams, guessed": {"missing": True, "completion": "linear"},
    "AuxK": {"dead_after": 600},
    "bfloat16 product": {"encoder_product": "bfloat16"},
    "bfloat16 moments": {"adam_state": "bfloat16"},
    "default recipe": {"completion": "linear", "stream_dropout": 0.25, "input_dropout": 0.2},
}
DRAWS = {"bfloat16 moments", "default recipe"}
"""Settings that draw random numbers, which differ between devices: only their losses are compared, loosely."""
LOSS_OF_DRAWS = 0.02


def measure(settings):
    """Compare losses and weights in every setting of the training, and two runs on the device bit by bit."""
    shape = {"a": 48, "b": 40, "c": 32} if settings.small else {"a": 1024, "b": 768, "c": 768}
    size = (512, 8, 256) if settings.small else (8192, 64, 1024)
    return [compare(name, dict(chosen), shape, size, settings.device) for name, chosen in SETTINGS.items()]


def compare(name, chosen, widths, size, device):
    latents, k, batch = size
    selection, missing = chosen.pop("selection", "global"), chosen.pop("missing", False)
    space_config = SpaceConfig(streams=widths, n_latents=latents, k=k, selection=selection)
    plain = {"completion": "none", "stream_dropout": 0.0, "input_dropout": 0.0}
    config = TrainingConfig(batch_size=batch, lr=1e-3, k_aux=2 * k, **(plain | chosen))
    generator = torch.Generator().manual_seed(1)
    common = torch.randn(STEPS, batch, 24, generator=generator)
    raw = {
        stream: common @ torch.randn(24, width, generator=generator)
        + 0.5 * torch.randn(STEPS, batch, width, generator=generator)
        for stream, width in widths.items()
    }
    if missing:
        for rows in raw.values():
            rows[torch.rand(STEPS, batch, generator=generator) < 0.2] = 0

    def run(place, dtype):
        space = SharedLatentSpace(space_config, seed=0).to(place, dtype)
        features = FeaturesInMemory({stream: [rows.flatten(0, 1).to(dtype)] for stream, rows in raw.items()})
        lacking = prepare(space, features, config)
        start = [parameter.detach().clone() for parameter in space.parameters()]
        training, losses, kept = Training(space, config, lacking=lacking), [], None
        for step in range(STEPS):
            normalized = space.normalize({stream: rows[step].to(place, dtype) for stream, rows in raw.items()})
            if kept is None:
                kept = [code.indices.sort(dim=1).values.cpu() for code in space.encode_batch(normalized).values()]
            terms = training.advance(normalized)
            losses.append(total(terms).item())
        moved = [
            (parameter.detach() - old).double().cpu() for parameter, old in zip(space.parameters(), start, strict=True)
        ]
        return losses, moved, kept, sum(term.kind == "aux" for term in terms)

    losses, moved, kept, revived = run(device, torch.float32)
    again, moved_again, *_ = run(device, torch.float32)
    exact, way, chosen_exactly, _ = run("cpu", torch.float64)
    loss = max(abs(found - right) / right for found, right in zip(losses, exact, strict=True))
    apart = max(((one - other).norm() / other.norm()).item() for one, other in zip(moved, way, strict=True))
    same = losses == again and all(torch.equal(one, other) for one, other in zip(moved, moved_again, strict=True))
    agreeing = torch.cat([(one == other).all(dim=1) for one, other in zip(kept, chosen_exactly, strict=True)])
    alike = agreeing.float().mean().item()
    close = loss < LOSS_OF_DRAWS if name in DRAWS else loss < LOSS and apart < MOVED
    return {
        "what": name,
        "same latents": alike,
        "loss": loss,
        "weights": apart,
        "AuxK terms": revived,
        "same bits again": same,
        "right": close and alike > 0.999 and same,
    }
