"""The model card of a trained space on the Hugging Face Hub: streams, usage, training, metrics.

The card is built with `huggingface_hub.ModelCard`, and its text is Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import SpaceConfig
from sparc.errors import CorruptFile
from sparc.storage.provenance import PROVENANCE, Provenance, read_provenance
from sparc.storage.space_config import CONFIG, read_config
from sparc.system.files import read_json

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD = "README.md"
TAGS = (
    "sparse-autoencoder",
    "interpretability",
    "dictionary-learning",
    "representation-alignment",
    "arxiv:2507.06265",
)
NORMALIZATIONS = {
    "unit": "the space scales each sample to unit norm, and its reconstructions are on that scale",
    "standard": "the space subtracts the mean of the training features and divides by their root mean square norm, and "
    "its reconstructions are on that scale",
    "none": "the space was trained on raw features and normalises nothing",
}
SELECTION_TEXTS = {
    "global": "Streams that are encoded together keep the same latents; a stream encoded alone selects its own.\n",
    "local": "Each stream selects its own latents.\n",
}
LICENCE = """\
## Licence

No licence is stated yet. The author sets it as `license:` in the metadata of this page. Backbones and data have
licences of their own.
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


def model_card(directory: Path, repo_id: str) -> ModelCard:
    """Return the model card of the run or space in `directory`, as the hub repository `repo_id`.

    The card is written from `config.json` and, if they exist, `provenance.json` and `evaluation.json`. It contains no
    path of this machine. Raises MissingData or CorruptFile if one of these files cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData  # slow to import, and only an upload needs it

    space = read_config(directory)
    training = read_json(directory / CONFIG, what="the configuration of a space").get("training", {})
    run = read_provenance(directory / PROVENANCE) if (directory / PROVENANCE).is_file() else None
    path = directory / "evaluation.json"
    evaluation = read_json(path, what="the evaluation of a run") if path.is_file() else {}
    try:
        sections = [
            f"# {repo_id}\n",
            *_summary(space, run),
            *_usage(space, repo_id),
            *_training(training, run),
            *_metrics(evaluation),
            LICENCE,
            CITATION,
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(
            f"the files of {directory} are not of this version's format: {type(error).__name__} {error}",
            hint=f"evaluate it again: sparc evaluate {directory}",
        ) from error
    metadata = ModelCardData(library_name="sparc", tags=list(TAGS))
    return ModelCard("\n".join(["---", metadata.to_yaml(), "---\n", *sections]))


def _summary(space: SpaceConfig, run: Provenance | None) -> list[str]:
    """Say what the space is and which models it was trained on."""
    streams = space.streams
    several = len(streams) > 1
    models = f"{len(streams)} frozen models" if several else "a frozen model"
    same = ", trained so that a latent stands for the same concept in all of them" if several else ""
    rows = []
    for name, width in streams.items():
        origin = run.streams.get(name) if run is not None else None
        backbone = _spelled(origin.backbone, origin.params) if origin is not None else ""
        rows.append((_code(name), str(width), _code(backbone), _code(origin.weights if origin is not None else "")))
    sections = [
        f"One sparse dictionary for the features of {models}{same}: a sparse autoencoder with {space.n_latents} "
        f"latents, of which each sample keeps {space.k} ({space.selection} selection), trained with sparc "
        "([arXiv 2507.06265](https://arxiv.org/abs/2507.06265)).\n",
        _table(("stream", "width", "backbone", "weights"), rows),
    ]
    if run is not None and run.random_weights:
        names = ", ".join(run.random_weights)
        sections.append(f"**{names}: random weights (a dry run), so the numbers here say nothing about the models.**\n")
    return sections


def _usage(space: SpaceConfig, repo_id: str) -> list[str]:
    """Show how to load the space and encode with it. The code runs as it stands."""
    widths = space.streams
    source, *others = widths
    target = (others or [source])[0]
    key = json.dumps(source, ensure_ascii=False)
    return [
        "## Use\n",
        "```python",
        "import sparc\n",
        f'space = sparc.load("{repo_id}")',
        "```\n",
        f"Pass raw backbone features: {NORMALIZATIONS[space.normalization]}.\n",
        "```python",
        "import torch\n",
        f"x = torch.randn(8, {widths[source]})  # stands for features of {source}, one row per sample",
        f"codes = space.encode({{{key}: x}})[{key}]",
        f"codes.indices, codes.values  # (8, {space.k}) each: the kept latents and their activations",
        f"y = space.decode(codes, stream={json.dumps(target, ensure_ascii=False)})"
        f"  # (8, {widths[target]}): reconstructed features of {target}",
        "```\n",
        SELECTION_TEXTS[space.selection],
    ]


def _training(training: Mapping[str, Any], run: Provenance | None) -> list[str]:
    """List data, training options and versions."""
    lines = []
    if run is not None:
        dataset = run.options.source
        lines.append(f"- data: {_code(_spelled(dataset.name, dataset.params))}, {run.samples} samples")
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in training.items()]
    versions = run.versions if run is not None else {}
    if made_with := [f"{name} {versions[name]}" for name in ("sparc-sae", "torch", "python") if name in versions]:
        lines.append(f"- made with: {', '.join(made_with)}")
    return ["## Training\n", *lines, ""] if lines else []


def _metrics(evaluation: Mapping[str, Any]) -> list[str]:
    """Tabulate the metrics on held-out samples."""
    if not evaluation:
        return []
    report = evaluation["report"]
    ways = [report[way][measure] for way in ("joint", "solo") for measure in ("nmse", "r2")]
    pairs = [(name, name) for name in report["streams"]] + list(permutations(report["streams"], 2))
    sections = [
        "## Held-out metrics\n",
        f"{report['samples']} samples, {_code(evaluation['dataset'])} {evaluation['split']}. Joint: the streams of a "
        "sample are encoded together. Solo: each stream alone, as in a search. Null: the same on shuffled pairs.\n",
        _table(
            ("reconstruction, from → to", "joint NMSE", "joint R²", "solo NMSE", "solo R²"),
            [(f"{_code(a)} → {_code(b)}", *(_number(way[a][b]) for way in ways)) for a, b in pairs],
        ),
    ]
    if report["jaccard"]:
        kinds = ("joint", "joint_null", "solo", "solo_null")
        rows = [(str(row["depth"]), *(_number(row[kind]["all"]) for kind in kinds)) for row in report["jaccard"]]
        sections.append(_table(("Jaccard of labels, at depth", "joint", "joint null", "solo", "solo null"), rows))
    if report["retrieval"]:
        ranks = ("latents", "cross", "chance")
        rows = [
            (f"{_code(pair['query'])} → {_code(pair['target'])}", *(_number(pair[kind]["r1"]) for kind in ranks))
            for pair in report["retrieval"]
        ]
        sections.append(
            _table(("R@1, solo, search with → in", "by latents", "by cross-reconstruction", "chance"), rows)
        )
    return sections


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _code(text: str) -> str:
    return "`{}`".format(text.replace("|", "\\|")) if text else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _spelled(name: str, params: Mapping[str, Any]) -> str:
    """Write a backbone or dataset as an option, without unset parameters and without paths of this machine."""
    shown = {key: value for key, value in without_paths(params).items() if value is not None}
    return f"{name}[{','.join(f'{key}={value}' for key, value in shown.items())}]" if shown else name


def without_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not paths of this machine, for publishing."""
    return {key: value for key, value in params.items() if not _absolute(value)}


def _absolute(value: Any) -> bool:
    return isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~"))
