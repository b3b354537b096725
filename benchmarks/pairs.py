"""What pairs are worth: both recipes on fewer of the demo's pairs, and on pairs of which a half came apart.

python benchmarks/pairs.py [--seeds 3] [--dataset openmoji]

`pairs 1/4`: a quarter of the training samples. `apart 1/2`: all samples, but a half of them keep one stream, drawn at
random. Each line has the mean over the seeds, measured on the held-out samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

import sparc
from sparc.config import RECIPES, validated
from sparc.config.fitting import fitted
from sparc.evaluation import HeldOut, Report, evaluate
from sparc.session import Features
from sparc.storage.run import Run
from sparc.training.loader import FeaturesInMemory
from sparc.training.trainer import train

DEPTH = 2


def cases(features: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield training features by the name of the case."""
    count = len(next(iter(features.values())))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for name, part in (("1/4", count // 4), ("1/2", count // 2), ("all", count)):
        yield f"pairs {name}", {stream: rows[order[:part]] for stream, rows in features.items()}
    apart = {stream: rows.clone() for stream, rows in features.items()}
    keeps = torch.randint(len(apart), (count // 2,), generator=torch.Generator().manual_seed(1))
    for number, rows in enumerate(apart.values()):
        rows[order[: count // 2][keeps != number]] = 0
    yield "apart 1/2", apart


def measured(found: Features, features: Mapping[str, Tensor], recipe: str, seed: int) -> Report:
    """Train as the dataset's defaults and the recipe have it, with as many steps as on all samples."""
    config = found.data.config
    own = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    options = {**own, "recipe": recipe, **RECIPES[recipe], "seed": seed}
    count, all_of_them = len(next(iter(features.values()))), len(found.train)
    options["epochs"] = round(config.epochs * (all_of_them // config.batch_size) / max(1, count // config.batch_size))
    run_config = fitted(validated(sparc.RunConfig, options), count)
    widths = {name: rows.shape[1] for name, rows in features.items()}
    space = sparc.SharedLatentSpace(run_config.space(widths), seed=seed)
    in_memory = FeaturesInMemory({name: [rows] for name, rows in features.items()})
    with TemporaryDirectory() as folder:
        train(space, run_config.training(), in_memory, Run.create(Path(folder) / "run"))
    data = found.data
    held_out = HeldOut(data.held_out.features, data.held_out.groups, *data.held_out.labelled, rows=data.held_out.rows)
    return evaluate(space, held_out, seed=seed).report


def line(reports: list[Report]) -> str:
    """Return the numbers of a case."""

    def nmse(report: Report, *, same: bool) -> float:
        rows = report.solo.nmse.items()
        return mean(value for a, row in rows for b, value in row.items() if (a == b) == same)

    overlap = mean(one.jaccard[DEPTH].solo.all for one in reports)
    null = mean(one.jaccard[DEPTH].solo_null.all for one in reports)
    recall = mean(pair.latents.r10 for one in reports for pair in one.retrieval)
    own, cross = (mean(nmse(one, same=same) for one in reports) for same in (True, False))
    return f"J2 {overlap:.3f} (null {null:.3f})  self {own:.3f}  cross {cross:.3f}  R@10 {recall:.3f}"


def main() -> None:
    """Print a line for each case and recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dataset", default="openmoji")
    options = parser.parse_args()
    found = sparc.extract(dataset=options.dataset)
    for name, features in cases(found.train.in_memory()):
        for recipe in RECIPES:
            reports = [measured(found, features, recipe, seed) for seed in range(options.seeds)]
            print(f"{name:10} {recipe:6} {line(reports)}", flush=True)


if __name__ == "__main__":
    main()
