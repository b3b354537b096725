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
_CLIP_RETRIEVAL = re.compile(r"(?:img|text)_emb_(\d+)")
_HINT = (
    "the parts of a folder have one name and a number: img_emb_0.npy, img_emb_1.npy; or the number of their first row, "
    "or of their first and last; or several numbers, if they hold their ids"
)


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of features in a folder, in the order of their names. Raises MissingData if there is none."""
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
    return files


def in_order(files: list[Path]) -> list[Path]:
    """Return parts in the order of the numbers in their names. Raises InvalidConfig if names differ in more."""
    numbers = _part_numbers(files)
    return sorted(files, key=lambda path: numbers[path])


def _is_metadata(path: Path) -> bool:
    return path.name.startswith(f"{METADATA}_") and path.suffix.lower() == ".parquet"


def _part_numbers(files: list[Path]) -> dict[Path, tuple[int, ...]]:
    """Return the numbers of each part: those in which the names differ."""
    if len(files) == 1:
        return {files[0]: (_single(files[0]),)}
    first = files[0]
    for path in files:
        if _NUMBERS.sub("0", path.name) != _NUMBERS.sub("0", first.name):
            raise InvalidConfig(f"{first.parent}: found {first.name} and {path.name}", hint=_HINT)
    found = [[int(one) for one in _NUMBERS.findall(path.stem)] for path in files]
    differ = [place for place, column in enumerate(zip(*found, strict=True)) if len(set(column)) > 1]
    return {path: tuple(some[place] for place in differ) for path, some in zip(files, found, strict=True)}


def _single(path: Path) -> int:
    """Return the number of the only part; other names than those of clip-retrieval may end in any number."""
    numbered = _CLIP_RETRIEVAL.fullmatch(path.stem) or re.search(r"(\d+)-of-\d+$", path.stem)
    return int(numbered.group(1)) if numbered else 0


def _total(path: Path) -> int | None:
    """Return the number of parts that a name such as `train-00000-of-00004` states."""
    stated = re.search(r"-of-(\d+)$", path.stem)
    return int(stated.group(1)) if stated else None


def check_parts(files: list[Path], rows: list[int], *, ordered: bool) -> None:
    """Raise InvalidConfig if a part is missing, occurs twice or, if their order counts, has no definite place.

    The number in a name counts the parts from 0 or 1, or is that of the part's first row. Two numbers may be those of
    the first row and the last, or of the one after it. Other numbers, such as `rank0_part1`, leave the order open.
    """
    numbers = _part_numbers(files)
    keys = [numbers[path] for path in files]
    firsts = list(itertools.accumulate(rows, initial=0))[:-1]
    ends = [first + count for first, count in zip(firsts, rows, strict=True)]
    if len(keys[0]) == 1:
        counted = len(files) == 1 or _CLIP_RETRIEVAL.fullmatch(files[0].stem)
        if counted or [key[0] for key in keys] != firsts:
            _check_complete(files, {path: numbers[path][0] for path in files})
        return
    for last in (0, 1):
        if keys == [(first, end - last) for first, end in zip(firsts, ends, strict=True)]:
            return
    if len(set(keys)) < len(keys) or not keys[0]:
        raise InvalidConfig(f"{files[0].parent}: found {files[0].name} and {files[1].name}", hint=_HINT)
    if ordered:
        raise InvalidConfig(
            f"{files[0].parent}: expected parts with ids, or with one number, since several leave the order of "
            f"the rows open, found {files[0].name} and {files[1].name}",
            hint=_HINT,
        )
    _check_grid(files, numbers)


def _check_grid(files: list[Path], numbers: dict[Path, tuple[int, ...]]) -> None:
    """Raise InvalidConfig if, of parts with several numbers, one is missing before another."""
    for place in range(len(numbers[files[0]])):
        groups: dict[tuple[int, ...], list[Path]] = {}
        for path in files:
            groups.setdefault(numbers[path][:place], []).append(path)
        for some in groups.values():
            distinct = {numbers[path][place]: path for path in some}
            _check_complete(list(distinct.values()), {path: number for number, path in distinct.items()})


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
