"""Write the site of a run: the page, its data and its thumbnails, as one folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sparc.errors import StorageError
from sparc.evaluation.report import Report
from sparc.explorer import thumbnails
from sparc.explorer.bias import bias_data
from sparc.explorer.details import LATENTS_PER_FILE, latent_details
from sparc.explorer.heat import HeatMaps
from sparc.explorer.latents import Decoders, branches, duplicates, latent_columns
from sparc.explorer.overview import curves, measures
from sparc.explorer.samples import SAMPLES_PER_FILE, sample_columns, sample_details
from sparc.explorer.shown import Shown
from sparc.explorer.statements import clean, write_statement
from sparc.explorer.terms import latent_terms
from sparc.system.files import check_writable
from sparc.system.refusals import reading, writing

PAGE = Path(__file__).parent / "page"
"""Files of the page, which are copied as they are."""
INDEX = "index.html"
FORMAT = 2
"""Format of the data files."""

OnPart = Callable[[str, int, int], None]
"""Callback that receives what is being made, and the number of its parts done and their total."""


@dataclass(frozen=True)
class About:
    """The facts on a run that its site shows beside samples and latents."""

    name: str
    version: str
    held_out: int
    """Held-out samples; some of them are shown."""
    metrics: Path
    dataset: tuple[str, str] | None
    """Name and split; None for imported features."""
    random_weights: Sequence[str] = ()
    report: Report | None = None
    warnings: list[str] = field(default_factory=list)
    made_of: str = ""
    """Digest of everything that the site is made of."""


def write_site(
    folder: Path, shown: Shown, about: About, heat: HeatMaps, on_part: OnPart = lambda what, done, total: None
) -> list[str]:
    """Write the site of a run into `folder`, in place of an older one, and return what the user should be warned of.

    Raises StorageError; the older site is then untouched.
    """
    with whole_folder(folder) as new:
        with writing(folder):
            shutil.copytree(PAGE, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
        (new / "data").mkdir()
        (new / "sprites").mkdir()
        return _fill(new, shown, about, heat, on_part)


def _fill(folder: Path, shown: Shown, about: About, heat: HeatMaps, on_part: OnPart) -> list[str]:
    chosen = thumbnails.choose(shown)
    errors = thumbnails.write_sprites(
        shown, chosen, folder / "sprites", lambda done, total: on_part("thumbnails", done, total)
    )
    warnings = [*about.warnings, *heat.notes]
    if errors:
        warnings.append(
            f"{len(errors)} of {len(chosen.samples)} images cannot be read, and their tiles are empty: "
            f"{errors[0].message}{', ...' if len(errors) > 1 else ''}"
        )
    data, n_latents = folder / "data", shown.space.n_latents
    decoders = Decoders(shown)
    log, damaged = curves(about.metrics)
    if damaged:
        warnings.append(f"{damaged} lines of {about.metrics.name} are damaged and left out of the training curves")
    terms = latent_terms(shown)
    write_statement(data, "latents", latent_columns(shown, decoders, terms, chosen.of_samples))
    for number, block in enumerate(latent_details(shown, decoders, terms, heat.maps)):
        write_statement(data, f"latent/{number}", block)
        on_part("latents", min((number + 1) * LATENTS_PER_FILE, n_latents), n_latents)
    write_statement(data, "samples", sample_columns(shown, chosen.of_samples))
    for number, details in enumerate(sample_details(shown)):
        write_statement(data, f"sample/{number}", details)
        on_part("samples", min((number + 1) * SAMPLES_PER_FILE, len(shown)), len(shown))
    write_statement(data, "bias", bias_data(shown))
    run = _run(shown, about, heat.grids, log) | duplicates(decoders)
    write_statement(
        data, "run", {**run, "sprite": thumbnails.described(chosen), "warnings": list(map(clean, warnings))}
    )
    return warnings


def _run(shown: Shown, about: About, grids: Mapping[str, tuple[int, int]], log: list[dict[str, Any]]) -> dict[str, Any]:
    space = shown.space
    taxonomy = None if shown.labels is None else shown.labels[1]
    depths = list(range(taxonomy.max_depth + 1)) if taxonomy is not None and len(shown.streams) > 1 else []
    return {
        "format": FORMAT,
        "made_of": about.made_of,
        "name": clean(about.name),
        "version": about.version,
        "dataset": None if about.dataset is None else dict(zip(("name", "split"), about.dataset, strict=True)),
        "held_out": about.held_out,
        "shown": len(shown),
        "n_latents": space.n_latents,
        "k": space.k,
        "selection": space.selection,
        "streams": [
            {
                "name": clean(name),
                "modality": shown.modalities[name],
                "width": width,
                "random_weights": name in about.random_weights,
                "grid": list(grids[name]) if name in grids else None,
            }
            for name, width in space.streams.items()
        ],
        "depths": depths,
        "has": {
            "labels": taxonomy is not None,
            "taxonomy": taxonomy is not None and taxonomy.max_depth > 0,
            "images": bool((shown.image_numbers >= 0).any()),
            "captions": any(caption is not None for caption in shown.captions),
        },
        "chunk": {"latents": LATENTS_PER_FILE, "samples": SAMPLES_PER_FILE},
        "branches": [] if taxonomy is None else list(map(clean, branches(taxonomy))),
        "curves": log,
        "measures": measures(about.report),
    }


def page_digest() -> str:
    """Return a digest of the files of the page."""
    digest = hashlib.sha256(str(FORMAT).encode())
    with reading(PAGE):
        for path in sorted(PAGE.rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(PAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def is_made_of(folder: Path, made_of: str) -> bool:
    """Return True if `folder` holds a site that was made of this."""
    path = folder / "data" / "run.js"
    try:
        with reading(path):
            return f'"made_of":"{made_of}"' in path.read_text(encoding="utf-8")[:200]
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def check_replaceable(folder: Path) -> None:
    """Raise StorageError unless a site can be written as `folder`: nothing is there, or an older site."""
    check_writable(folder.parent)
    with reading(folder):
        if not os.path.lexists(folder):
            return
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
        own = {*(path.name for path in PAGE.iterdir()), "data", "sprites"}
        if foreign := sorted(names - own):
            raise StorageError(
                f"{folder} holds something that sparc did not write, so it is not replaced"
                f"{f': {foreign[0]}' if foreign[0] else ''}",
                hint="move it, or remove it",
            )
        if names and not (folder / "data").is_dir():
            raise StorageError(
                f"{folder} is not a site that sparc wrote, so it is not replaced", hint="move it, or remove it"
            )


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill, which takes the place of `folder` at the end; an error leaves the old one.

    A process that is killed leaves the old folder, or none for the moment between two renames; the next call then
    removes what it left behind. A link is followed: the new site lies where it points to. Raises StorageError.
    """
    if folder.is_symlink():
        folder = folder.resolve()
    check_replaceable(folder)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        number = left.name.split(".")[-3]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp") for _ in range(2))
    try:
        with writing(folder):
            new.mkdir(parents=True)
            yield new
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
