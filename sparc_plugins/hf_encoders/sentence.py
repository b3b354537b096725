"""The files of a sentence-transformers model: which modules follow the encoder, which prompt and how many tokens.

modules.json                      the modules in order, each with its type and its folder
sentence_bert_config.json         of the encoder: max_seq_length, do_lower_case
1_Pooling/config.json             how tokens become one vector
2_Dense/, 3_LayerNorm/            layers after it, each with config.json and weights
config_sentence_transformers.json prompts, and the one that is the default; truncate_dim, the number of features kept
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc.plugins import CorruptFile, InvalidConfig, SparcError, reading
from sparc_plugins.hf_encoders.text import TextRecipe

_OLD_POOLS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Names of the pooling modes in older files, in the order in which the vectors of several modes are joined."""
_ENCODER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
LAYERS = ("Dense", "LayerNorm", "Normalize", "Dropout")
"""Types of modules that may follow the pooling."""
ELSEWHERE = "compute its features with sentence-transformers, and pass them to `sparc import features`"


@dataclass(frozen=True)
class Layer:
    """A module after the pooling."""

    kind: str
    """One of `LAYERS`."""
    folder: Path
    config: Mapping[str, Any]

    @property
    def described(self) -> str:
        """The layer in one line, such as `Dense 384 -> 128, Tanh`."""
        if self.kind == "Dense":
            activation = str(self.config.get("activation_function", "Tanh")).rpartition(".")[2]
            added = ", residual" if self.config.get("use_residual") else ""
            return f"Dense {self.config.get('in_features')} -> {self.config.get('out_features')}, {activation}{added}"
        return self.kind

    @property
    def widths(self) -> tuple[Any, Any]:
        """Width of the vectors that the layer takes and of those it gives; None for any."""
        if self.kind == "Dense":
            return self.config.get("in_features"), self.config.get("out_features")
        return (self.config.get("dimension"),) * 2 if self.kind == "LayerNorm" else (None, None)


def read_recipe(folder: Path) -> tuple[Path, TextRecipe, tuple[Layer, ...]]:
    """Return the folder of the encoder, what to do with its tokens, and the layers that follow.

    A folder without `modules.json` holds the encoder alone, whose tokens are averaged.

    Raises:
        CorruptFile: a file is no JSON, or lacks what it should say.
        InvalidConfig: a module is none of those that are understood.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        recipe = TextRecipe(pools=("mean",), **_encoder_options(folder), **_model_options(folder))
        return folder, recipe, ()
    modules = _read(listing)
    if not isinstance(modules, list) or not all(_is_module(module) for module in modules):
        raise CorruptFile(
            f"{listing}: expected a list of modules, each with 'type' and 'path'", hint="download it again"
        )
    kinds = [_kind(listing, module["type"]) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= set(LAYERS):
        raise InvalidConfig(
            f"{listing}: expected Transformer, Pooling, then any of {', '.join(LAYERS)}; found {', '.join(kinds)}",
            hint=ELSEWHERE,
        )
    places = [_inside(listing, module["path"]) for module in modules]
    configs = [_options(place / "config.json") for place in places[1:]]
    pools, with_prompt = _pooling(places[1] / "config.json", configs[0])
    layers = tuple(map(Layer, kinds[2:], places[2:], configs[1:]))
    recipe = TextRecipe(
        pools,
        pools_prompt=with_prompt,
        layers=tuple(layer.described for layer in layers),
        width=_check(layers),
        **_encoder_options(places[0]),
        **_model_options(folder),
    )
    return places[0], recipe, layers


def _read(path: Path) -> Any:
    try:
        with reading(path):
            return json.loads(path.read_text(encoding="utf-8-sig"))
    except SparcError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} is no JSON: {error}", hint="download it again") from error


def _options(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one without the file."""
    if not path.is_file():
        return {}
    options = _read(path)
    if not isinstance(options, dict):
        raise CorruptFile(f"{path}: expected a JSON object, found {type(options).__name__}", hint="download it again")
    return options


def _is_module(module: Any) -> bool:
    return isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("type", "path"))


def _kind(listing: Path, name: str) -> str:
    """Return the last part of a module's type, such as `Pooling`."""
    package, _, kind = name.rpartition(".")
    if package.split(".")[0] != "sentence_transformers":
        raise InvalidConfig(
            f"{listing}: the module {name} is Python code of the model's repository, which sparc does not run",
            hint=ELSEWHERE,
        )
    return kind


def _inside(listing: Path, path: str) -> Path:
    place = listing.parent / path
    if not place.resolve().is_relative_to(listing.parent.resolve()):
        raise CorruptFile(f"{listing}: the path '{path}' leaves the folder", hint="use another model")
    return place


def _encoder_options(folder: Path) -> dict[str, Any]:
    """Return `max_length` and `lower` as the encoder's own file says."""
    path = next((folder / name for name in _ENCODER_CONFIGS if (folder / name).is_file()), None)
    if path is None:
        return {}
    config = _options(path)
    length = config.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or length < 1):
        raise CorruptFile(
            f"{path}: max_seq_length: expected a positive number or null, found {length!r}", hint="correct it"
        )
    task, output = config.get("transformer_task"), config.get("module_output_name")
    if task not in (None, "feature-extraction") or output not in (None, "token_embeddings"):
        raise InvalidConfig(
            f"{path}: expected the task feature-extraction with token_embeddings; found {task} with {output}",
            hint=ELSEWHERE,
        )
    return {"max_length": length, "lower": bool(config.get("do_lower_case", False))}


def _pooling(path: Path, config: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Return the pooling modes, and False if the prompt's tokens do not count."""
    found = config.get("pooling_mode")
    if found is None:
        found = [mode for key, mode in _OLD_POOLS.items() if config.get(key)] or ["mean"]
    modes = [found] if isinstance(found, str) else found
    if not isinstance(modes, list) or not modes or not all(isinstance(mode, str) for mode in modes):
        raise CorruptFile(f"{path}: expected a pooling_mode, found {found!r}", hint="download it again")
    known = tuple(_OLD_POOLS.values())
    if unknown := [mode for mode in modes if mode not in known]:
        raise InvalidConfig(
            f"{path}: pooling_mode: expected any of {', '.join(known)}; found {unknown[0]}", hint=ELSEWHERE
        )
    return tuple(modes), bool(config.get("include_prompt", True))


def _model_options(folder: Path) -> dict[str, Any]:
    """Return `prompt`, which sentence-transformers puts before every text by default, and `truncate_dim`."""
    path = folder / "config_sentence_transformers.json"
    config = _options(path)
    if (kind := config.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise InvalidConfig(f"{path}: expected a SentenceTransformer, found a {kind}", hint=ELSEWHERE)
    kept = config.get("truncate_dim")
    if kept is not None and (not isinstance(kept, int) or isinstance(kept, bool) or kept < 1):
        raise CorruptFile(
            f"{path}: truncate_dim: expected a positive number or null, found {kept!r}", hint="correct it"
        )
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return {"truncate_dim": kept}
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise CorruptFile(f"{path}: the default prompt '{name}' is none of the prompts", hint="download it again")
    return {"prompt": str(prompts[name]), "truncate_dim": kept}


def _check(layers: Sequence[Layer]) -> int | None:
    """Return the width that the layers take, None for any.

    Raises:
        InvalidConfig: a layer reads or writes anything but the caption's vector.
        CorruptFile: a layer does not take what the one before gives.
    """
    first: int | None = None
    width: Any = None
    for layer in layers:
        path = layer.folder / "config.json"
        for key in ("module_input_name", "module_output_name"):
            if (name := layer.config.get(key)) not in (None, "sentence_embedding"):
                raise InvalidConfig(f"{path}: {key}: expected sentence_embedding, found {name}", hint=ELSEWHERE)
        taken, given = layer.widths
        if taken is None:
            continue
        if width is not None and taken != width:
            raise CorruptFile(f"{path}: takes {taken} features, and gets {width}", hint="download it again")
        first, width = first if width is not None else taken, given
    return first
