"""The paper's four configurations on the embedded demo, over seeds: global and local selection, lambda 1 and 0.

    uv run --extra demo python benchmarks/paper_configurations.py runs/paper-configurations

Trains 12 spaces with the command line (about ten minutes on two cores), reads their evaluation.json, and prints the
table of docs/paper-configurations.md. Seeds draw the held-out fifth, the initial weights and the order of the samples.
Finished runs are kept: a second call only prints.
"""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import mean, pstdev

STREAMS = ("effnet-lite0", "minilm")
SEEDS = (0, 1, 2)
CONFIGURATIONS = tuple(product(("global", "local"), (1, 0)))
# The paper's learning rate; 300 epochs of 1,147 samples are 1,200 steps.
OPTIONS = ("--n-latents", "512", "--k", "16", "--lr", "1e-4", "--epochs", "300")


def train(folder: Path, selection: str, lam: int, seed: int) -> dict:
    """Train one configuration, unless that was done, and return its report."""
    out = folder / f"{selection}-lambda{lam}-seed{seed}"
    if not (out / "evaluation.json").exists():
        streams = [word for name in STREAMS for word in ("--stream", name)]
        dataset = f"openmoji[split_seed={seed}]"
        chosen = ["--selection", selection, "--lambda", str(lam), "--seed", str(seed), "--dataset", dataset]
        command = [sys.executable, "-m", "sparc", "train", *streams, *chosen, *OPTIONS, "--out", str(out)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads((out / "evaluation.json").read_text())["report"]


def pairs(matrix: dict, *, same: bool) -> float:
    """Mean over the pairs of equal, or of different, streams."""
    return mean(matrix[a][b] for a in matrix for b in matrix if (a == b) == same)


def recall(report: dict, kind: str, key: str) -> float:
    """Mean over both directions."""
    return mean(pair[kind][key] for pair in report["retrieval"])


def row_definitions() -> dict:
    """Name of each row to how it is read off a report."""
    rows = {}
    for depth in range(4):
        rows[f"J depth {depth}, joint"] = lambda r, d=depth: r["jaccard"][d]["joint"]["all"]
    rows["J depth 2, joint null"] = lambda r: r["jaccard"][2]["joint_null"]["all"]
    rows["J depth 2, joint, alive latents"] = lambda r: r["jaccard"][2]["joint"]["alive"]
    rows["J depth 2, joint null, alive latents"] = lambda r: r["jaccard"][2]["joint_null"]["alive"]
    for depth in (1, 2):
        rows[f"J depth {depth}, solo"] = lambda r, d=depth: r["jaccard"][d]["solo"]["all"]
        rows[f"J depth {depth}, solo null"] = lambda r, d=depth: r["jaccard"][d]["solo_null"]["all"]
    for kind in ("alive", "dead", "mixed"):
        rows[f"latents {kind}, joint (of 512)"] = lambda r, k=kind: r["joint"][k]
    rows["self NMSE, joint"] = lambda r: pairs(r["joint"]["nmse"], same=True)
    rows["cross NMSE, joint"] = lambda r: pairs(r["joint"]["nmse"], same=False)
    rows["cross NMSE, solo"] = lambda r: pairs(r["solo"]["nmse"], same=False)
    for key in ("r1", "r5", "r10"):
        rows[f"R@{key[1:]} by latents, solo"] = lambda r, k=key: recall(r, "latents", k)
    for key in ("r1", "r5", "r10"):
        rows[f"R@{key[1:]} by cross-reconstruction, solo"] = lambda r, k=key: recall(r, "cross", k)
    return rows


def cell(values: list[float]) -> str:
    """Mean and spread over seeds."""
    if max(values) > 2:
        return f"{mean(values):.0f} ± {pstdev(values):.0f}"
    return f"{mean(values):.3f} ± {pstdev(values):.3f}"


def main() -> None:
    """Train what is not trained and print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/paper-configurations")
    reports = {
        (selection, lam): [train(folder, selection, lam, seed) for seed in SEEDS] for selection, lam in CONFIGURATIONS
    }
    print("| | " + " | ".join(f"{selection}, λ={lam}" for selection, lam in CONFIGURATIONS) + " |")
    print("| --- |" + " ---: |" * len(CONFIGURATIONS))
    for name, read in row_definitions().items():
        print(f"| {name} | " + " | ".join(cell([read(r) for r in reports[c]]) for c in CONFIGURATIONS) + " |")
    chance = reports[CONFIGURATIONS[0]][0]["retrieval"][0]["chance"]
    print(f"\nChance of R@1, R@5, R@10: {chance['r1']:.3f}, {chance['r5']:.3f}, {chance['r10']:.3f}.")


if __name__ == "__main__":
    main()
