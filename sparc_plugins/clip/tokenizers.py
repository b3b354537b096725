"""Tokenizers of CLIP models: open_clip's own, or one of transformers, from the model's folder or from the hub.

A tokenizer of transformers comes from the folder of the model if its files lie there, else from the repository that the
configuration names. It is read at one commit, which is part of the identity of the text tower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sparc.plugins import SparcError, hub_commit, hub_file, hub_folder, sha256, unavailable
from sparc_plugins.clip.source import CONFIG, FOLDER, HUB, ClipParams, Source, find

BACKBONE = "clip-txt"
TOKENIZERS = (
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""Files of which a tokenizer has at least one."""
_READ = ("*.json", "*.txt", "*.model", "*.spm", "*.codes", "*.tiktoken", "*.tokenizer")
"""Files that a tokenizer of transformers can read."""


def with_tokenizer(source: Source, params: ClipParams) -> Source:
    """Return a source with the folder of its tokenizer, which is downloaded the first time.

    Raises WeightsUnavailable if the tokenizer cannot be had from the hub.
    """
    name = source.text_config.get("hf_tokenizer_name")
    if not name:
        return source
    folder = _local(params, name)
    if folder is None:
        commit = hub_commit(name, _revision(params, name), backbone=BACKBONE, file=TOKENIZERS[0])
        needs = hub_file(name, TOKENIZERS, backbone=BACKBONE, revision=commit).name
        folder = hub_folder(name, _READ, needs=needs, backbone=BACKBONE, revision=commit)
    return replace(source, tokenizer=folder, stamp=stamp(_files(folder)))


def with_text_model(source: Source, params: ClipParams) -> Source:
    """Return a source with the folder of its text tower's configuration, at the commit that the identity names.

    open_clip would read the newest one. Raises WeightsUnavailable if it cannot be had from the hub.
    """
    name = source.text_config.get("hf_model_name")
    if not name or Path(name).is_dir():
        return source
    config = hub_file(name, ["config.json"], backbone=BACKBONE, revision=_revision(params, name))
    return replace(source, text_model=config.parent)


def _revision(params: ClipParams, name: str) -> str | None:
    """Return the revision of a repository that a configuration names: that of the weights, if it is theirs."""
    return params.revision if params.model == f"{HUB}{name}" else None


def identify_tokenizer(params: ClipParams) -> str | None:
    """Return the identity of what the text tower reads besides the weights and open_clip's configuration.

    That are the commits of the repositories of its tokenizer and of its configuration of transformers, unless it is
    the repository of the weights; or a digest of the tokenizer's files in the model's folder. None without such.

    Raises the errors of `find`; WeightsUnavailable if the hub does not answer and the cache does not know a commit.
    """
    text = find(params, BACKBONE).text_config
    found: dict[str, None] = {}
    if name := text.get("hf_tokenizer_name"):
        folder = _local(params, name)
        found[_commit(params, name) if folder is None else _digest(_files(folder))] = None
    if name := text.get("hf_model_name"):
        config = Path(name) / "config.json"
        found[_digest([config]) if config.is_file() else _commit(params, name)] = None
    return " ".join(filter(None, found)) or None


def _commit(params: ClipParams, name: str) -> str:
    """Return the identity of a repository beside that of the weights; an empty text if it is the same one."""
    if params.model == f"{HUB}{name}":
        return ""
    return f"hub:{name}@{hub_commit(name, backbone=BACKBONE, file='config.json')}"


def _digest(files: Sequence[Path]) -> str:
    lines = [f"{path.name} {sha256(path)}\n" for path in files if path.name != CONFIG]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def stamp(files: Sequence[Path]) -> tuple[tuple[str, int, int, int], ...]:
    """Return what changes when a file is written anew: its place on the disk, its size, and the time of the change."""
    found = [(path, path.stat()) for path in files]
    return tuple((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found)


@cache
def tokenizer(source: Source) -> Any:
    """Return open_clip's tokenizer of a model. Raises WeightsUnavailable if its files cannot be had from the hub."""
    import open_clip

    text = source.text_config
    length, options = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    try:
        if text.get("hf_tokenizer_name"):
            return open_clip.tokenizer.HFTokenizer(
                str(source.tokenizer or text["hf_tokenizer_name"]),
                context_length=length,
                tokenizer_mode=text.get("tokenizer_mode"),
                **options,
            )
        if source.folder is None:
            return open_clip.get_tokenizer(source.model)
        return open_clip.SimpleTokenizer(context_length=length, **options)
    except OSError as error:
        raise needs_the_hub(source, error) from error


def needs_the_hub(source: Source, error: OSError) -> SparcError:
    """Return the error for a text tower from transformers whose configuration or tokenizer cannot be downloaded."""
    text = source.text_config
    repo = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return unavailable(error, BACKBONE, f"{repo} (configuration and tokenizer)")


def _local(params: ClipParams, name: str) -> Path | None:
    """Return the local folder of a tokenizer: the model's own, or the one that the configuration names; else None."""
    if params.model.startswith(FOLDER) and any((params.folder / file).is_file() for file in TOKENIZERS):
        return params.folder
    return Path(name) if Path(name).is_dir() else None


def _files(folder: Path) -> list[Path]:
    found = {path for pattern in _READ for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith("."))  # macOS leaves ._NAME beside a file
