"""The model card of a trained space: what somebody who finds it on the Hugging Face Hub needs to know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from sparc.errors import CorruptFile
from sparc.system.files import read_json

PROVENANCE = "provenance.json"
"""Where a run comes from; a folder that has it is one."""
CARD = "README.md"
HEAD = """\
---
library_name: sparc
tags:
- sparse-autoencoder
- interpretability
- dictionary-learning
- representation-alignment
- arxiv:2507.06265
---
"""
NORMALIZATIONS = {
    "unit": "the space scales each sample to unit norm itself, and what it decodes is on that scale",
    "standard": "the space takes off the mean of the training features and divides by their root mean square norm "
    "itself, and what it decodes is on that scale",
    "none": "the space was trained on them as they are, and normalises nothing",
}
TOGETHER = {
    "global": "Streams that are encoded together keep the same latents; one encoded alone selects for itself.\n",
    "local": "Each stream selects its latents for itself.\n",
}
LICENCE = """\
## Licence

Not said yet: that is for the author, as `license:` in the metadata of this page. Backbones and data have licences of
their own.
"""
CITATION = """\
## Citation

```bibtex
@misc{sparc2025,
  title = {SPARC: Concept-Aligned Sparse Autoencoders for Cross-Model and Cross-Modal Interpretability},
  author = {Nasiri-Sarvi, Ali and Rivaz, Hassan and Hosseini, Mahdi S.},
  year = {2025},
  eprint = {2507.06265},
  archivePrefix = {arXiv},
}
```
"""


def card(directory: Path, repo_id: str) -> str:
    """Return the model card, Markdown, of the run or space in `directory` as the hub repository `repo_id`.

    It is written from `config.json` and, where they are there, `provenance.json` and `evaluation.json`; no path of this
    machine gets into it. Raises MissingData or CorruptFile where these cannot be read.
    """
    config = read_json(directory / "config.json", what="the configuration of a space")
    provenance = _optional(directory / PROVENANCE, "the provenance of a run")
    evaluation = _optional(directory / "evaluation.json", "the evaluation of a run")
    try:
        parts = [
            HEAD,
            f"# {repo_id}\n",
            *_what(config["space"], provenance),
            *_use(config["space"], repo_id),
            *_training(config.get("training", {}), provenance),
            *_metrics(evaluation),
            LICENCE,
            CITATION,
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(
            f"the files of {directory} are not as this sparc writes them: {type(error).__name__} {error}",
            hint=f"measure anew: sparc evaluate {directory}",
        ) from error
    return "\n".join(parts)


def _optional(path: Path, what: str) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path, what=what) if path.is_file() else {}
    return content


def _what(space: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """What it is, and of which models."""
    streams = space["streams"]
    several = len(streams) > 1
    models = f"{len(streams)} frozen models" if several else "a frozen model"
    same = ", trained so that a latent stands for the same in all of them" if several else ""
    rows = []
    for name, width in streams.items():
        made_by = provenance.get("streams", {}).get(name, {})
        backbone = _spelled(made_by["backbone"], made_by["params"]) if made_by else ""
        rows.append((_code(name), str(width), _code(backbone), _code(made_by.get("weights") or "")))
    parts = [
        f"One sparse dictionary for the features of {models}{same}: a sparse autoencoder of {space['n_latents']} "
        f"latents, of which a sample keeps {space['k']} ({space['selection']} selection), made with sparc after "
        "[arXiv 2507.06265](https://arxiv.org/abs/2507.06265).\n",
        _table(("stream", "width", "backbone", "weights"), rows),
    ]
    if random := provenance.get("random_weights"):
        parts.append(f"**{', '.join(random)}: random weights, a dry run: nothing here says anything of the models.**\n")
    return parts


def _use(space: Mapping[str, Any], repo_id: str) -> list[str]:
    """How to load it and encode with it; the code runs as it stands."""
    widths = space["streams"]
    source, *others = widths
    target = (others or [source])[0]
    key = json.dumps(source, ensure_ascii=False)
    return [
        "## Use\n",
        "```python",
        "import sparc\n",
        f'space = sparc.load("{repo_id}")',
        "```\n",
        f"Features go in as their backbone makes them: {NORMALIZATIONS[space['normalization']]}.\n",
        "```python",
        "import torch\n",
        f"x = torch.randn(8, {widths[source]})  # in the place of features of {source}, one row per sample",
        f"codes = space.encode({{{key}: x}})[{key}]",
        f"codes.indices, codes.values  # (8, {space['k']}) each: the kept latents and their activations",
        f"y = space.decode(codes, stream={json.dumps(target, ensure_ascii=False)})"
        f"  # (8, {widths[target]}): said in features of {target}",
        "```\n",
        TOGETHER[space["selection"]],
    ]


def _training(training: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """Data and options."""
    said = []
    if dataset := provenance.get("options", {}).get("dataset"):
        spelled = dataset if isinstance(dataset, str) else _spelled(dataset["name"], dataset["params"])
        samples = f", {provenance['samples']} samples" if "samples" in provenance else ""
        said.append(f"- data: {_code(spelled)}{samples}")
    said += [f"- {name.replace('_', ' ')}: {value}" for name, value in training.items()]
    versions = provenance.get("versions", {})
    if made_with := [f"{name} {versions[name]}" for name in ("sparc-sae", "torch", "python") if name in versions]:
        said.append(f"- made with: {', '.join(made_with)}")
    return ["## Training\n", *said, ""] if said else []


def _metrics(evaluation: Mapping[str, Any]) -> list[str]:
    """Tables of what was measured on held-out samples."""
    if not evaluation:
        return []
    report = evaluation["report"]
    ways = [report[way][measure] for way in ("joint", "solo") for measure in ("nmse", "r2")]
    pairs = [(name, name) for name in report["streams"]] + list(permutations(report["streams"], 2))
    parts = [
        "## Held-out metrics\n",
        f"{report['samples']} samples, {_code(evaluation['dataset'])} {evaluation['split']}. Joint: the streams of a "
        "sample are encoded together; solo: each alone, as in a search; null: the same on shuffled pairs.\n",
        _table(
            ("reconstruction, from → to", "joint NMSE", "R²", "solo NMSE", "R²"),
            [(f"{_code(a)} → {_code(b)}", *(_number(way[a][b]) for way in ways)) for a, b in pairs],
        ),
    ]
    if report["jaccard"]:
        kinds = ("joint", "joint_null", "solo", "solo_null")
        rows = [(str(row["depth"]), *(_number(row[kind]["all"]) for kind in kinds)) for row in report["jaccard"]]
        parts.append(_table(("Jaccard of labels, at depth", "joint", "null", "solo", "null"), rows))
    if report["retrieval"]:
        ranks = ("latents", "cross", "chance")
        rows = [
            (f"{_code(pair['query'])} → {_code(pair['target'])}", *(_number(pair[kind]["r1"]) for kind in ranks))
            for pair in report["retrieval"]
        ]
        parts.append(_table(("R@1, solo, search with → in", "by latents", "by cross-reconstruction", "chance"), rows))
    return parts


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _code(text: str) -> str:
    return "`{}`".format(text.replace("|", "\\|")) if text else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _spelled(name: str, params: Mapping[str, Any]) -> str:
    """A backbone or dataset as options spell it, without what is not set, and without paths of this machine."""
    said = {key: value for key, value in without_paths(params).items() if value is not None}
    return f"{name}[{','.join(f'{key}={value}' for key, value in said.items())}]" if said else name


def without_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that are paths of this machine, to be shown elsewhere."""
    return {key: value for key, value in params.items() if not _absolute(value)}


def _absolute(value: Any) -> bool:
    return isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~"))
