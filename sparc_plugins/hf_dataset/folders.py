"""Checks of a local folder that the library does not make: truncated files, files and images that nothing uses."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparc.plugins import CorruptFile, MissingData, find_path, reading, same_name

SAVED = ("dataset_dict.json", "state.json")
"""Files that mark a folder written by `save_to_disk`; it has one of them."""
PARQUET = {".parquet", ".geoparquet", ".gpq"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files in which the library's `imagefolder` describes images."""
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of a complete stream of Arrow batches."""
POINTER = b"version https://git-lfs"
"""Start of the file that Git LFS puts in place of a large one."""
IGNORED = {"README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "dummy_data.zip"}
"""Files that the library never takes for data."""
LEFT = {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini"}
"""Files that Windows leaves in folders."""
STARTS = ("data:", "/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
ENCODED = re.compile(
    r"data:[^,]{0,100};base64,(.+)|((?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/\s]{40,}=*\s*)", re.DOTALL
)
"""An image as base64 text, with its type before it, or known by the first bytes of JPEG, PNG, GIF, WebP and TIFF."""


def folder_files(root: str) -> list[Path]:
    """Return the files of a folder and its sub-folders. Raises MissingData, StorageError."""
    folder = Path(root).expanduser()
    with reading(folder):
        check_folder(folder)
        next(folder.iterdir(), None)  # walk takes a folder that may not be listed for an empty one
        walked = os.walk(folder, onerror=_raise)
        return sorted(path for place, _, names in walked for name in names if (path := Path(place, name)).exists())


def check_folder(folder: Path) -> None:
    """Raise MissingData if there is no such folder, StorageError if the machine refuses to look."""
    is_file = is_folder = False
    with contextlib.suppress(FileNotFoundError), reading(folder):
        is_file, is_folder = folder.is_file(), folder.is_dir()
    if is_file:
        raise MissingData(
            f"hf: expected a folder, found the file {folder}",
            hint="unpack an archive and give its folder; give the folder in which a table lies",
        )
    if not is_folder:
        raise MissingData(f"hf: no folder at {folder}", hint="check --data-root")


def visible(files: Iterable[Path], root: Path) -> list[Path]:
    """Return the files that the library may take for data: none that is hidden, or in a folder such as `__MACOSX`."""
    found = []
    for path in files:
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts) or any(part.startswith("__") for part in parts[:-1])
        if not hidden and path.name not in IGNORED:
            found.append(path)
    return found


def telling(files: Iterable[Path], root: Path) -> list[Path]:
    """Return the files that identify a folder: without those that systems and tools leave, which are never data."""
    found = []
    for path in files:
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts) and path.suffix.lower() not in IMAGES  # a row may name one
        if not hidden and path.name not in LEFT and not path.name.startswith("._") and "__MACOSX" not in parts:
            found.append(path)
    return found


def suffix_of(path: Path) -> str:
    """Return a file's suffix in small letters, the one before `.gz` for a gzipped file."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def check_pointers(files: Iterable[Path]) -> None:
    """Raise MissingData for a file that is a pointer of Git LFS."""
    for path in files:
        with reading(path), path.open("rb") as file:
            start = file.read(len(POINTER))
        if start == POINTER:
            raise MissingData(f"hf: {path} is a Git LFS pointer, not the data", hint="download the data: git lfs pull")


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
        if path.suffix.lower() not in PARQUET:
            continue
        with reading(path), path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4))
            end = file.read()
        if end not in (b"PAR1", b"PARE"):
            raise CorruptFile(
                f"hf: {path} is truncated, or no Parquet file: expected PAR1 at its end",
                hint="copy or download it again, or move it to another folder",
            )


def decoded(text: str) -> bytes | None:
    """Return the image that a cell holds as base64 text; None for a path. Raises ValueError for a damaged one."""
    found = ENCODED.fullmatch(text) if text.startswith(STARTS) else None
    if found is None:
        return None
    try:
        return base64.b64decode("".join((found[1] or found[2]).split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 text is damaged: {error}") from error


def is_encoded(text: str) -> bool:
    """Return True for base64 text, whose first letters say that it is an image."""
    return text.startswith(STARTS) and ENCODED.fullmatch(text) is not None


def located(path: str, root: str | None) -> str:
    """Return where an image is: a relative path leads into the folder. Raises FileNotFoundError without a folder."""
    if "://" in path or os.path.isabs(path):
        return path
    if root is None:
        raise FileNotFoundError(f"the path {path} is relative, and the dataset is no folder")
    if os.path.exists(exact := os.path.join(os.path.expanduser(root), path)):
        return exact
    folder = Path(root).expanduser()
    inside = find_path(folder, path)
    if "\\" in path and not os.path.exists(inside):  # written on Windows
        inside = find_path(folder, path.replace("\\", "/"))
    return str(inside)


def unmatched(files: Iterable[Path], root: str, named: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the images of the folder that no row names, and the images that rows name and the folder lacks.

    Both are empty if no row names an image of the folder.
    """
    folder = Path(root).expanduser()
    starts = tuple(f"{place}{os.sep}" for place in (folder, folder.absolute(), folder.resolve()))
    there = {_look(name): name for path in files if (name := os.path.relpath(path, folder))}
    wanted = {_look(inside): inside for name in named if (inside := _inside(name, starts)) is not None}
    if not wanted.keys() & there.keys():
        return [], []
    unnamed = sorted(same_name(there[look]) for look in there.keys() - wanted if Path(look).suffix in IMAGES)
    # A folder behind a link is not listed.
    lost = (wanted[look] for look in wanted.keys() - there)
    return unnamed, sorted(
        name for name in lost if not os.path.exists(folder / name)
    )  # False for a name that is too long


def _look(name: str) -> str:
    start, dot, suffix = same_name(name).replace("\\", "/").rpartition(".")
    return start + dot + suffix.lower()


def _inside(name: str, starts: tuple[str, ...]) -> str | None:
    """Return the path of an image relative to the folder, None if it is elsewhere."""
    if name.startswith(starts):
        return next(name.removeprefix(start) for start in starts if name.startswith(start))
    return None if "://" in name or os.path.isabs(name) else os.path.normpath(name)


def some(names: Sequence[object]) -> str:
    """Return up to three names, with an ellipsis if there are more."""
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
