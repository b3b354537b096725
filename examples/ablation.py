"""Compare settings: train and measure the paper's four configurations, and print one table.

python examples/ablation.py

`sparc.ablate` and `sparc ablate --dataset digits --grid selection=global,local --grid lambda=1,0` do the same with
several seeds, side by side, and show the spread over seeds: with one seed, small differences mean nothing.
"""

from itertools import product
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import sparc

print(f"{'selection':10} {'lambda':>6} {'cross NMSE, joint':>18} {'cross NMSE, solo':>17} {'R@10':>6}")
with TemporaryDirectory() as folder:
    for selection, cross_weight in product(("global", "local"), (1, 0)):
        # All four use the same features, which are extracted once.
        report = sparc.train(
            dataset="digits",
            selection=selection,
            lambda_=cross_weight,
            epochs=4,
            out=Path(folder) / f"{selection}-{cross_weight}",
        ).report

        # With joint encoding the streams of a sample select their latents together. A search has solo codes only.
        joint, solo = (
            mean(nmse for source, row in way.nmse.items() for target, nmse in row.items() if target != source)
            for way in (report.joint, report.solo)
        )
        recall = mean(pair.latents.r10 for pair in report.retrieval)
        print(f"{selection:10} {cross_weight:6} {joint:18.3f} {solo:17.3f} {recall:6.2f}")
chance = mean(pair.chance.r10 for pair in report.retrieval)
print(f"{'by chance':53} {chance:6.2f}")
