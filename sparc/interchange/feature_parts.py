"""Find the parts of features in a folder, such as `img_emb_0.npy`, `img_emb_1.npy`, and the metadata beside them.

clip-retrieval writes `img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy` and `metadata/metadata_0.parquet`.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from sparc.errors import InvalidConfig, MissingData
from sparc.interchange.arrays import readable

METADATA = "metadata"
_NUMBERS = re.compile(r"\d+")
_HINT = "the parts of a folder have one name and a number, such as img_emb_0.npy and img_emb_1.npy"


def find_parts(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of features in a folder, in the order of their numbers.

    Raises:
        MissingData: the folder has no such file.
        InvalidConfig: names differ in more than one number, or a number is missing.
    """
    with readable(folder):
        there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in there if path.suffix.lower() in suffixes and path.is_file() and not _is_metadata(path)]
    if not files:
        folders = ", ".join(path.name for path in there if path.is_dir())
        raise MissingData(
            f"{folder}: expected files of features, {', '.join(suffixes)}, found "
            f"{f'the folders {folders}' if folders else 'none'}",
            hint=f"give one of these folders, NAME={folder / folders.split(', ')[0]}" if folders else "check the path",
        )
    numbers = _part_numbers(files)
    files.sort(key=lambda path: numbers[path])
    _check_complete(files, numbers)
    return files


def _is_metadata(path: Path) -> bool:
    return path.name.startswith(f"{METADATA}_") and path.suffix.lower() == ".parquet"


def _part_numbers(files: list[Path]) -> dict[Path, int]:
    """Return the number of each part: the only number in which the names differ."""
    if len(files) == 1:
        return {files[0]: _single(files[0])}
    first = files[0]
    for path in files:
        if _NUMBERS.sub("0", path.name) != _NUMBERS.sub("0", first.name):
            raise InvalidConfig(f"{first.parent}: found {first.name} and {path.name}", hint=_HINT)
    found = [[int(one) for one in _NUMBERS.findall(path.stem)] for path in files]
    differ = [place for place, column in enumerate(zip(*found, strict=True)) if len(set(column)) > 1]
    if len(differ) != 1:
        raise InvalidConfig(f"{first.parent}: found {first.name} and {files[1].name}", hint=_HINT)
    return {path: numbers[differ[0]] for path, numbers in zip(files, found, strict=True)}


def _single(path: Path) -> int:
    """Return the number of the only part; other names than those of clip-retrieval may end in any number."""
    numbered = re.fullmatch(r"(?:img|text)_emb_(\d+)", path.stem) or re.search(r"(\d+)-of-\d+$", path.stem)
    return int(numbered.group(1)) if numbered else 0


def _total(path: Path) -> int | None:
    """Return the number of parts that a name such as `train-00000-of-00004` states."""
    stated = re.search(r"-of-(\d+)$", path.stem)
    return int(stated.group(1)) if stated else None


def _check_complete(files: list[Path], numbers: dict[Path, int]) -> None:
    """Raise InvalidConfig if a part is missing or occurs twice. Parts count from 0 or 1."""
    first = numbers[files[0]]
    if first > 1:
        raise InvalidConfig(f"{files[0].parent}: the part before {files[0].name} is missing", hint="restore it")
    for before, path in itertools.pairwise(files):
        step = numbers[path] - numbers[before]
        if step != 1:
            found = "the same number twice" if step == 0 else f"no part {numbers[before] + 1}"
            raise InvalidConfig(
                f"{path.parent}: expected consecutive parts, found {found} ({before.name}, {path.name})",
                hint="restore the missing part, or remove what is no part",
            )
    total = _total(files[-1])
    if total is not None and total != len(files):
        raise InvalidConfig(
            f"{files[0].parent}: expected {total} parts, as {files[-1].name} states, found {len(files)}",
            hint="restore the missing parts",
        )


def find_metadata(parts: list[Path]) -> list[Path] | None:
    """Return the metadata of each part as clip-retrieval writes them: `metadata_3.parquet` for `img_emb_3.npy`.

    Raises MissingData if they are not complete, or belong to more parts than there are.
    """
    folder = parts[0].parent
    for place in (folder / METADATA, folder.parent / METADATA, folder):
        if there := {path.stem[len(METADATA) + 1 :]: path for path in place.glob(f"{METADATA}_*.parquet")}:
            break
    else:
        return None
    numbers = [(_NUMBERS.findall(part.stem) or [""])[-1] for part in parts]
    for number, part in zip(numbers, parts, strict=True):
        if number not in there:
            raise MissingData(
                f"{part} has no ids: expected {place / f'{METADATA}_{number}.parquet'}, found none",
                hint="restore it, or move the other metadata away and give --ids FILE",
            )
    if more := sorted(there.keys() - set(numbers)):
        raise MissingData(
            f"{folder}: expected a part for {there[more[0]]}, found none", hint="restore the missing part"
        )
    return [there[number] for number in numbers]
