"""Checks of a local folder that the library does not make: CSV records, truncated Arrow files, images without a row."""

from __future__ import annotations

import codecs
import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sparc.plugins import CorruptFile, InvalidConfig, MissingData, find_path, reading, same_name

SAVED = ("dataset_dict.json", "state.json")
"""Files that mark a folder written by `save_to_disk`; it has one of them."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files in which the library's `imagefolder` describes images."""
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of a complete stream of Arrow batches."""
EMPTY = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Cells that pandas takes for empty ones."""


def folder_files(root: str) -> list[Path]:
    """Return the files of a folder and its sub-folders. Raises MissingData, StorageError."""
    folder = Path(root).expanduser()
    with reading(folder):
        if not folder.is_dir():
            raise MissingData(f"hf: no folder at {folder}", hint="check --data-root")
        next(folder.iterdir(), None)  # walk takes a folder that may not be listed for an empty one
        walked = os.walk(folder, onerror=_raise)
        return sorted(path for place, _, names in walked for name in names if (path := Path(place, name)).exists())


def _raise(error: OSError) -> None:
    raise error


def is_saved(files: Iterable[Path], root: str) -> bool:
    """Return True if `save_to_disk` wrote the folder."""
    return any(path.name in SAVED and path.parent == Path(root).expanduser() for path in files)


def check_arrow(files: Iterable[Path]) -> None:
    """Raise CorruptFile if an Arrow file of a saved dataset is truncated, which its reader does not notice."""
    for path in files:
        if path.suffix != ".arrow":
            continue
        with reading(path), path.open("rb") as file:
            start = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(0, size - len(END)))
            end = file.read()
        if size < len(END) or (start == END[:4] and end != END):  # files of Arrow before 0.15 start and end otherwise
            raise CorruptFile(
                f"hf: {path} is truncated: expected the end mark of an Arrow stream",
                hint="copy it again, or save the dataset again",
            )


def check_parquet(files: Iterable[Path]) -> None:
    """Raise CorruptFile if a Parquet file is truncated; the library does not say which."""
    for path in files:
        if path.suffix != ".parquet":
            continue
        with reading(path), path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4))
            end = file.read()
        if end not in (b"PAR1", b"PARE"):
            raise CorruptFile(
                f"hf: {path} is truncated, or no Parquet file: expected PAR1 at its end",
                hint="copy or download it again, or move it to another folder",
            )


def bad_json_line(files: Iterable[Path]) -> str | None:
    """Return path and line of the first line that is not JSON, and the reason; None if all are."""
    for path in files:
        if path.suffix != ".jsonl":
            continue
        with reading(path), path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    json.loads(line.removeprefix(codecs.BOM_UTF8)) if line.strip() else None
                except ValueError as error:
                    return f"{path}, line {number}: {error}"
    return None


def csv_options(files: Sequence[Path]) -> dict[str, object]:
    """Check the CSV files of a folder, and return the options to read them with: `NA` and `007` stay texts.

    Raises InvalidConfig if a record has another number of fields than the header, which pandas reads without a word.
    """
    import datasets

    tables = [path for path in files if path.suffix.lower() in DELIMITERS]
    described = [path for path in tables if path.name in METADATA]
    data = {path.suffix.lower() for path in files if path.name != "README.md" and not path.name.startswith(".")}
    # The library ignores CSV files beside more files of another kind.
    alone = not described and not data & {".parquet", ".jsonl", ".arrow", ".zip", ".tar", *IMAGES}
    headers = [_check_records(path, na_is_lost=not alone) for path in (tables if alone else described)]
    if not tables or not alone:
        return {}
    if other := next((number for number, one in enumerate(headers) if one != headers[0]), None):
        message = f"columns {', '.join(headers[0])} in {tables[0]}, and {', '.join(headers[other])} in {tables[other]}"
        raise InvalidConfig(f"hf: expected the same columns in all CSV files, found {message}", hint="make them alike")
    texts = datasets.Features({name: datasets.Value("string") for name in headers[0]})
    return {"keep_default_na": False, "na_values": [""], "features": texts}


def _check_records(path: Path, *, na_is_lost: bool) -> list[str]:
    """Check the records of a CSV file, and return its header."""
    header: list[str] = []
    for line, record in _records(path):
        if not header:
            header = record
            if len(set(header)) < len(header):
                raise _wrong(path, line, f"expected columns of different names, found {', '.join(header)}")
        elif len(record) != len(header):
            shown = " | ".join(record)[:80]
            raise _wrong(
                path, line, f"expected {len(header)} fields ({', '.join(header)}), found {len(record)}: {shown}"
            )
        elif na_is_lost and (lost := next((cell for cell in record if cell in EMPTY), None)):
            message = f"the text '{lost}' in the column '{header[record.index(lost)]}' would be read as an empty cell"
            raise InvalidConfig(f"{path}, line {line}: {message}", hint="use metadata.jsonl, or leave the cell empty")
    return header


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV file with the number of their last line, without blank lines."""
    before = csv.field_size_limit(2**31 - 1)  # of the process, so it is set back
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()])
            for record in reader:
                if record:
                    yield reader.line_num, record
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path} is not UTF-8 text: {error}", hint="save it as UTF-8") from error
    except csv.Error as error:
        raise InvalidConfig(f"{path}: {error}", hint="write it again; a text with quotes doubles them") from error
    finally:
        csv.field_size_limit(before)


def _wrong(path: Path, line: int, message: str) -> InvalidConfig:
    hint = "put a text that holds the separator into double quotes; each record has one field per column"
    return InvalidConfig(f"{path}, line {line}: {message}", hint=hint)


def located(path: str, root: str | None) -> str:
    """Return where an image is: a relative path is one in the folder, if the folder has such a file."""
    if root is None or "://" in path or Path(path).is_absolute():
        return path
    inside = find_path(Path(root).expanduser(), path)
    return str(inside) if inside.is_file() else path


def unmatched(files: Iterable[Path], root: str, named: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the images of the folder that no row names, and the images that rows name and the folder lacks.

    Both are empty if no row names an image of the folder.
    """
    folder = Path(root).expanduser()
    starts = {f"{place}{os.sep}" for place in (folder, folder.absolute(), folder.resolve())}
    there = {same_name(os.path.relpath(path, folder)): path.suffix.lower() in IMAGES for path in files}
    wanted = {same_name(inside) for name in named if (inside := _inside(name, starts)) is not None}
    if not wanted & there.keys():
        return [], []
    unnamed = sorted(name for name, is_image in there.items() if is_image and name not in wanted)
    # A folder behind a link is not listed.
    return unnamed, sorted(name for name in wanted - there.keys() if not (folder / name).exists())


def _inside(name: str, starts: Iterable[str]) -> str | None:
    """Return the path of an image relative to the folder, None if it is elsewhere."""
    for start in starts:
        if name.startswith(start):
            return name[len(start) :]
    return None if "://" in name or os.path.isabs(name) else os.path.normpath(name)
