"""List what is wrong with a folder, line by line, before anything slow begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from sparc.plugins import BadSample, InvalidConfig, MissingData, Problems, SparcError, counted, read_taxonomy
from sparc_plugins.image_folder.images import UNREAD, Survey, as_text
from sparc_plugins.image_folder.index import SPLITS, Index, Row
from sparc_plugins.image_folder.records import Fault

CORRECT = "correct these lines or files; or pass --skip-bad to continue without these samples"
DOWNLOAD = "images must be files in the folder: download them; or pass --skip-bad to continue without these samples"


Heads = Mapping[str, BadSample]
"""Faults of the headers of images, by the images' names in the index."""


def problems_of(
    path: Path, index: Index, found: Survey, taxonomy: Path | None, heads: Heads = MappingProxyType({})
) -> dict[frozenset[str], Problems]:
    """Return all that is wrong, in the order of lines, for image streams, for text streams, and for both."""
    grave = [*index.faults, *_of_names(path, index, found), *_of_labels(path, index, taxonomy), *_of_splits(index)]
    images, captions = list(_of_images(path, index, found, heads)), list(_of_captions(path, index))
    kinds: dict[frozenset[str], Problems] = {}
    for modalities in (("image",), ("text",), ("image", "text")):
        every = [*grave, *(images if "image" in modalities else ()), *(captions if "text" in modalities else ())]
        problems = kinds[frozenset(modalities)] = Problems(f"{path}, ")
        for fault in sorted(every, key=lambda one: one.line):
            problems.add(fault.error)
    return kinds


def faults_of_samples(path: Path, index: Index, found: Survey, heads: Heads) -> Iterator[Fault]:
    """Yield the samples whose image or caption cannot be read."""
    yield from _of_images(path, index, found, heads)
    yield from _of_captions(path, index)


def _rows(index: Index) -> Iterator[Row]:
    yield from (row for row in index.rows if row.split in SPLITS)
    yield from index.parts


def _at(path: Path, row: Row, message: str, hint: str = CORRECT) -> Fault:
    return Fault(row.line, BadSample(f"{path}, line {row.line}: {message}", hint=hint))


def _of_images(path: Path, index: Index, found: Survey, heads: Heads) -> Iterator[Fault]:
    """Yield images that are missing, or that no reader knows, or whose header says that they cannot be read."""
    missing, unreadable = set(found.missing), set(found.unreadable)
    for row in _rows(index) if missing or unreadable or heads else ():
        if row.image in missing:
            hint = DOWNLOAD if "://" in row.image else CORRECT
            yield _at(path, row, f"no image '{as_text(row.image)}' in the folder", hint)
        elif row.image in unreadable:
            suffix = Path(row.image).suffix.lower()
            what = f"{suffix[1:].upper()}, which is not read" if suffix in UNREAD else "empty"
            yield _at(path, row, f"the image '{as_text(row.image)}' is {what}")
        elif (fault := heads.get(row.image)) is not None:
            yield _at(path, row, fault.message, fault.hint)


def _of_captions(path: Path, index: Index) -> Iterator[Fault]:
    for row in _rows(index):
        if not row.caption.strip():
            yield _at(path, row, f"the caption of '{row.id}' is empty")


def _of_names(path: Path, index: Index, found: Survey) -> Iterator[Fault]:
    """Yield names of files that another line writes otherwise."""
    first: dict[str, int] = {}
    for row in _rows(index) if found.twice else ():
        first.setdefault(row.image, row.line)
    for name, error in found.twice.items():
        message = f"{path}, line {first[name]}: {error.message}"
        yield Fault(first[name], InvalidConfig(message, hint=error.hint))


def _of_labels(path: Path, index: Index, taxonomy: Path | None) -> Iterator[Fault]:
    """Yield labels that the taxonomy lacks, each in its first line; or what is wrong with the taxonomy's file."""
    if taxonomy is None:
        return
    rows = [row for row in index.rows if row.split in SPLITS]
    try:
        read_taxonomy(taxonomy, [label for row in rows for label in row.labels])
        return
    except SparcError as error:
        wrong = error
    try:
        known = set(read_taxonomy(taxonomy, ()).labels)
    except SparcError:
        yield Fault(0, wrong)
        return
    lines: dict[str, list[int]] = {}
    for row in rows:
        for label in row.labels:
            if label not in known:
                lines.setdefault(label, []).append(row.line)
    for label, where in lines.items():
        more = f", nor in {counted(len(where) - 1, 'line')} more" if len(where) > 1 else ""
        message = f"{path}, line {where[0]}: the label '{label}' is not in {taxonomy}{more}"
        yield Fault(where[0], InvalidConfig(message, hint="add it there, with its parents; roots have []"))


def _of_splits(index: Index) -> Iterator[Fault]:
    """Yield a split without samples, if all lines can be read."""
    used = {row.split for row in index.rows}
    for split in SPLITS if not index.faults else ():
        if split not in used:
            hint = "add samples; or a column 'split'; or change 'holdout'"
            if third := sorted(used - set(SPLITS)):
                hint = f"write {split} in place of {third[0]} in the column 'split'"
            count = sum(row.split in SPLITS for row in index.rows)
            message = f"image-folder: none of {counted(count, 'sample')} is in the split '{split}'"
            yield Fault(0, MissingData(message, hint=hint))
