"""Read a model of transformers from its files, and say why one cannot be read and what to do instead."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plugins import (
    CorruptFile,
    InvalidConfig,
    MissingData,
    SparcError,
    check_finite,
    local_weights,
    read_weights,
    reading,
    seeded,
    sha256,
    weight_files,
    without_prefix,
)

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
MODULES = "modules.json"
"""List of the modules of a sentence-transformers model, with the folder of each."""
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names under which transformers looks for weights, in its order."""
IMPORT = "compute its features in a program of your own, and pass them to `sparc import features`"
_ELSEWHERE = {
    "adapter_model.safetensors": (
        "an adapter without the model it belongs to",
        "merge it with peft (model.merge_and_unload().save_pretrained(FOLDER)) and give weights=FOLDER",
    ),
    "adapter_model.bin": (
        "an adapter without the model it belongs to",
        "merge it with peft (model.merge_and_unload().save_pretrained(FOLDER)) and give weights=FOLDER",
    ),
    "tf_model.h5": ("weights of TensorFlow", "convert them to safetensors with transformers 4 (from_tf=True)"),
    "flax_model.msgpack": ("weights of Flax", "convert them to safetensors with transformers 4 (from_flax=True)"),
    "*.gguf": ("quantised weights for llama.cpp", "use the model's original weights"),
    "model.*.safetensors": (
        "a variant of the weights alone",
        "rename it to model.safetensors, or give the file itself, weights=FILE",
    ),
    "open_clip_*": (
        "a model of open_clip",
        "use the streams clip-img and clip-txt, with model=hf-hub:OWNER/NAME or model=local-dir:FOLDER",
    ),
    "**/*.onnx": ("an exported graph", "use the original model, or " + IMPORT),
}
"""Files that transformers does not read as weights: what they are, and what to do."""
_TEXTS = {".json", ".txt", ".model", ".spm", ".codes", ".tiktoken", ".tokenizer"}
"""Suffixes of configurations and of tokenizer files."""


def find_weights(folder: Path) -> Path:
    """Return the file of weights in a folder, or the index of several.

    Raises:
        MissingData: there is none. The error lists the files that exist.
    """
    if (path := first_weights(folder)) is not None:
        return path
    for pattern, (kind, way) in _ELSEWHERE.items():
        if found := sorted(folder.glob(pattern)):
            raise MissingData(
                f"{folder} has no {WEIGHTS[0]} or {WEIGHTS[2]}, but {found[0].relative_to(folder)}: {kind}", hint=way
            )
    raise MissingData(
        f"{folder} has no weights: expected {WEIGHTS[0]} or {WEIGHTS[2]}, whole or in parts with an index",
        hint="give the folder that save_pretrained wrote, or the file itself, weights=FILE",
    )


def local_folder(weights: str) -> tuple[Path, Path | None]:
    """Return the folder of a model at a local path, and the file of its weights if the path is a file.

    Raises MissingData if there is nothing at the path.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise MissingData(
            f"weights: no file or folder at {path}", hint="check weights=PATH; relative paths start at this folder"
        )
    return path, None


def identify_folder(folder: Path, weights: Path | None) -> str:
    """Return a digest of a model's folder: of its weights, or the file of `weights`, and all that is read beside them.

    Raises MissingData if the folder has no weights.
    """
    places = [folder, *module_folders(folder)]
    files = [path for place in places for path in place.iterdir() if path.suffix in _TEXTS and path.name[0] != "."]
    tensors = [weights or first_weights(folder), *map(_weights_of_module, places[1:])]
    found = [path for path in tensors if path is not None]
    if not found:
        find_weights(folder)  # raises, and lists the files that exist
    files += [part for path in found for part in weight_files(path)]
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in sorted(set(files))]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _weights_of_module(folder: Path) -> Path | None:
    """Return the file of weights that is read for a module; None for a module without weights."""
    try:
        return first_weights(folder) or local_weights(str(folder))
    except MissingData:
        return None


def module_folders(folder: Path) -> list[Path]:
    """Return the folders of a sentence-transformers model's modules that exist, besides the model's own folder."""
    try:
        with reading(folder / MODULES):
            listed = json.loads((folder / MODULES).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return []
    except ValueError:  # said when the model is read
        return []
    paths = [one.get("path") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    places = {folder / path for path in paths if isinstance(path, str)}
    return sorted(place for place in places if place.is_dir() and place.resolve() != folder.resolve())


def first_weights(folder: Path) -> Path | None:
    """Return the file of weights that transformers would read, or the index of several; None if there is none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def check_config(folder: Path) -> None:
    """Raise CorruptFile or InvalidConfig if the model in a folder is not read, going by its configuration alone."""
    with _quiet():
        _read_config(folder)


def _read_config(folder: Path) -> Any:
    """Return the model's configuration.

    Raises:
        FileNotFoundError: there is none.
        CorruptFile: transformers does not read it.
        InvalidConfig: the model needs code of its repository, or is quantised.
    """
    from transformers import AutoConfig, __version__

    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{CONFIG} is missing")
    try:
        with reading(path):
            stated = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise CorruptFile(f"{path} is no JSON: {error}", hint="download it again") from error
    if not isinstance(stated, dict):
        raise CorruptFile(f"{path}: expected a JSON object, found {type(stated).__name__}", hint="download it again")
    kind = f"the model '{stated['model_type']}'" if "model_type" in stated else "a model without model_type"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # KeyError, ValueError and others, by version
        if "auto_map" in stated:
            raise InvalidConfig(
                f"{path}: {kind} is Python code of its repository, which sparc does not run", hint=IMPORT
            ) from error
        raise CorruptFile(
            f"{path}: transformers {__version__} does not read {kind}",
            hint="pip install -U transformers, or choose another model; the streams timm, clip-img and clip-txt read "
            "models of timm and open_clip",
        ) from error
    if quantized := stated.get("quantization_config"):
        method = quantized.get("quant_method", "unknown method") if isinstance(quantized, dict) else quantized
        raise InvalidConfig(
            f"{path}: the weights are quantised ({method}): expected weights in floating point",
            hint="use the model that was quantised, or " + IMPORT,
        )
    return config


def read_model(folder: Path, weights: Path | None, modality: str) -> tuple[Any, bool]:
    """Return the model, and True if its pooler has trained weights. Without `weights`, all are random, with one seed.

    Names in the file may have prefixes, such as those of a compiled or wrapped model or of a model with a task head.

    Raises:
        CorruptFile: the files are damaged, the weights lack tensors other than the pooler's, or are of several models.
        InvalidConfig: the model is of a kind that is not read.
        MissingData: a file or a package is missing.
    """
    with _quiet(), _worded(folder, modality):
        config = _read_config(folder)
        kind = _class_of(config, modality)
        if weights is None:
            return seeded(lambda: kind(config)), True
        weight_files(weights)  # raises if parts are missing
        if weights == first_weights(folder) and not weights.name.startswith("pytorch_model"):
            model, loaded = _mapped(kind, config, folder, weights)
            state = {} if not _lacking(model, loaded) else read_weights(weights)
        else:
            state = read_weights(weights)
            model, loaded = _filled(kind, config, state)
        if _lacking(model, loaded):
            names = list(model.state_dict())
            model, loaded = _filled(kind, config, without_prefix(state, names, weights))
            # Files of transformers 4 have other names than the models of transformers 5, which renames tensors.
            if _lacking(model, loaded):
                inside = without_prefix(state, names, weights, least=0.05)
                renamed, found = _filled(kind, config, inside)
                model, loaded = (model, loaded) if _lacking(renamed, found) else (renamed, found)
        if lacking := _lacking(model, loaded):
            raise CorruptFile(
                f"{weights}: the weights lack {lacking[0]} and {len(lacking) - 1} more",
                hint="check that config.json and the weights are of one model; or download them again",
            )
    return model, not loaded["missing_keys"]


def read_preparation(folder: Path, modality: str) -> Any:
    """Return the tokenizer, or for `vision` the image processor. Raises CorruptFile, MissingData as `read_model`."""
    from transformers import AutoImageProcessor, AutoTokenizer

    with _quiet(), _worded(folder, modality), reading(folder):
        kind = AutoImageProcessor if modality == "vision" else AutoTokenizer
        return kind.from_pretrained(folder, trust_remote_code=False)


def _class_of(config: Any, modality: str) -> Any:
    """Return the class of transformers that reads the model: of the encoder alone if there is one, as for T5.

    Raises InvalidConfig if there is none.
    """
    from transformers import AutoModel, AutoModelForTextEncoding

    if (projected := _with_projection(config)) is not None:
        return projected
    encoders, models = AutoModelForTextEncoding._model_mapping, AutoModel._model_mapping
    found = encoders[type(config)] if modality == "text" and type(config) in encoders else None
    if found is None or not found.__name__.endswith("EncoderModel"):
        if type(config) not in models:
            raise InvalidConfig(
                f"transformers has no encoder for the model '{config.model_type}': expected a text or an image encoder",
                hint=IMPORT,
            )
        found = models[type(config)]
    if isinstance(found, tuple):  # Funnel has an encoder with and one without the decoder that restores the length
        named = config.architectures or ()
        return next((kind for kind in found if kind.__name__ in named), found[0])
    return found


def _with_projection(config: Any) -> Any:
    """Return the class of a tower with its projection, such as CLIPTextModelWithProjection; None for another model."""
    import transformers

    for name in config.architectures or ():
        kind = getattr(transformers, name, None) if name.endswith("ModelWithProjection") else None
        if kind is not None and kind.config_class is type(config):
            return kind
    return None


def _mapped(kind: Any, config: Any, folder: Path, weights: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return the model in a folder, and what transformers reports of its weights, which it reads as it needs them."""
    try:
        with reading(weights):
            model, loaded = kind.from_pretrained(
                folder, config=config, use_safetensors=True, output_loading_info=True, **_in_float32()
            )
    except SparcError:
        raise
    except Exception:
        read_weights(weights)  # raises, and says what is wrong with the file
        raise
    missing = set(loaded["missing_keys"])  # made at random
    check_finite({name: tensor for name, tensor in model.state_dict().items() if name not in missing}, weights)
    return model, loaded


def _filled(kind: Any, config: Any, state: Mapping[str, Tensor]) -> tuple[Any, Mapping[str, Any]]:
    """Return a model with these weights, and what transformers reports of them."""
    model, loaded = kind.from_pretrained(
        None, config=config, state_dict=dict(state), output_loading_info=True, **_in_float32()
    )
    return model, loaded


def _in_float32() -> dict[str, Any]:
    """Return the option by which transformers keeps the file's values, and rounds none to the configuration's type."""
    import torch
    import transformers

    # The option has this name since transformers 4.56.
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if version >= (4, 56) else "torch_dtype": torch.float32}


def _lacking(model: Any, loaded: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors that the file lacks, which transformers initialises at random.

    The pooler's are left out, and the decoder's, since the encoder alone is run.
    """
    passed = ("pooler.", "decoder.") if model.config.is_encoder_decoder else ("pooler.",)
    return sorted(name for name in loaded["missing_keys"] if not name.startswith(passed))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing bars and tables of tensors, which the errors here say in one line."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def _worded(folder: Path, modality: str) -> Iterator[None]:
    """Raise what transformers raises inside the block as errors of sparc."""
    try:
        yield
    except SparcError:
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        raise MissingData(
            f"{folder}: transformers needs another package to read it: {reason}", hint="install that package"
        ) from error
    except Exception as error:  # transformers raises many unrelated types for files it cannot read
        reason = " ".join(str(error).split())[:200]
        kind, files = ("image", "preprocessor_config.json") if modality == "vision" else ("text", "tokenizer files")
        raise CorruptFile(
            f"{folder} holds no {kind} encoder that transformers can read: {reason}",
            hint=f"expected {CONFIG}, {files} and {WEIGHTS[0]}, as the hub serves them",
        ) from error
