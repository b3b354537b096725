"""Find and open the images that an index lists, whatever program wrote their paths."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.plugins import BadSample, InvalidConfig, find_path, head_fault, read_image, same_name

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jfif", ".avif", ".heic")


def is_image(root: Path, name: str) -> bool:
    """Return True if a text names an image: by its suffix, or because that file exists."""
    return name.lower().endswith(SUFFIXES) or (bool(name) and os.path.isfile(os.path.join(root, name)))


HEADERS, SECONDS = 100_000, 20.0
"""Most headers of images that are looked at before an extraction, and the longest time for them."""
UNREAD = (".heic", ".heif", ".svg")
_PLAIN = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)
"""Paths whose only spelling they are."""


def image_name(written: str, root: str) -> str:
    r"""Return the path of an image in `root` in one spelling, so that two spellings of a path are one image.

    `.` and `..` are resolved, `\` of Windows becomes `/`, and Unicode's composed form is used. A path outside `root`
    stays a path outside.
    """
    if _PLAIN.fullmatch(written) and os.sep == "/":
        return written
    name = written.strip()
    if "://" in name:
        return same_name(name)  # an address is no path; it is counted as missing
    if "\\" in name:
        name = name.replace("\\", "/")
    name = os.path.normpath(name)
    if os.path.isabs(name) or name.startswith(".."):
        place = os.path.normpath(os.path.join(root, name))
        if place.startswith(root + os.sep):
            name = place[len(root) + 1 :]
    return same_name(name)


def are_two_files(root: str, one: str, other: str) -> bool:
    """Return True if both paths exist in a folder and lead to two files."""
    paths = os.path.join(root, one), os.path.join(root, other)
    try:
        return all(map(os.path.exists, paths)) and not os.path.samefile(*paths)
    except OSError:
        return False


def as_text(text: str, errors: str = "backslashreplace") -> str:
    """Return a text that can be written to a file: a half of a character (lone surrogate) is escaped or replaced."""
    return text if text.isascii() else text.encode("utf-8", errors).decode()


def open_image(root: Path, name: str) -> Image:
    """Open an image of the folder. Raises BadSample if it does not exist."""
    try:
        try:
            return read_image(os.path.join(root, name))
        except FileNotFoundError:
            return read_image(_respelled(root, name))
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise BadSample(
            f"image not found: {root / name}",
            hint="check the column 'image'; or pass --skip-bad to continue without it",
        ) from error


def _respelled(root: Path, name: str) -> Path:
    r"""Return the file that a name means: of another Unicode form or case of its suffix, or with `\` in its name."""
    found = find_path(root, name)
    literal = root / name.replace("/", "\\")  # unpacked from an archive that Windows made
    return literal if not os.path.exists(found) and os.path.exists(literal) else found


@dataclass
class Survey:
    """Images of the folder, compared with those that the index lists."""

    sizes: dict[str, int | None] = field(default_factory=dict)
    """Size of each listed image that exists, by its path with its spelling on disk; None for what is no file."""
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    """Images in the same folders as listed ones, in their spelling on disk."""
    unreadable: list[str] = field(default_factory=list)
    """Listed images that are empty, or of a format that Pillow does not read by the suffix of their names."""
    twice: dict[str, InvalidConfig] = field(default_factory=dict)
    """Why a name cannot stay, for each that means a file of which another name is listed too."""


def survey(root: Path, images: Iterable[str]) -> Survey:
    """Look for all images at once."""
    found = Survey()
    respelled: dict[str, str] = {}
    listed = set()
    start = os.path.join(root, "")
    for name in sorted(set(images)):
        path = os.path.join(start, name)
        try:
            size = _check_file(path)
        except OSError:
            try:
                path = str(_respelled(root, name))
                size = _check_file(path)
            except OSError:
                found.missing.append(name)
                continue
            actual = os.path.relpath(path, root)
            path = os.path.join(start, actual)
            _note_same(found, respelled.setdefault(actual, name), name, actual)
        listed.add(name)
        found.sizes[path] = size
        if not size or (name.lower().endswith(UNREAD) and not _is_read(name)):
            found.unreadable.append(name)
    for actual, name in respelled.items():
        if actual in listed:
            _note_same(found, actual, name, actual)
    listed |= respelled.keys()
    for folder in {name[: name.rfind(os.sep) + 1] for name in listed}:
        found.unlisted += [name for name in _images_in(root, folder, listed) if same_name(name) not in listed]
    return found


def faults_of_heads(root: Path, images: Iterable[str]) -> dict[str, BadSample]:
    """Return what the headers of images say against them, by the names that the index has.

    Images that are missing or empty are no faults here. At most HEADERS are looked at, evenly spread, for SECONDS: what
    is wrong with others is found when they are read.
    """
    names = sorted(set(images))
    latest = time.monotonic() + SECONDS
    found = {}
    for name in names[:: -(-len(names) // HEADERS) or 1]:
        path = os.path.join(root, name)
        with contextlib.suppress(OSError):
            if not os.path.exists(path):
                path = str(_respelled(root, name))
            if os.stat(path).st_size and (fault := head_fault(path, f"the image '{as_text(name)}'")):
                found[name] = fault
        if time.monotonic() > latest:
            break
    return found


def _check_file(path: str | Path) -> int | None:
    """Return the size of a file, None for a pipe, a socket or a device. Raises OSError unless it is there."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _is_read(name: str) -> bool:
    """Return True if Pillow has a reader for a suffix, as after `pillow_heif.register_heif_opener()`."""
    from PIL import Image

    return os.path.splitext(name)[1].lower() in Image.registered_extensions()


def _images_in(root: Path, folder: str, listed: set[str]) -> list[str]:
    """Return the images of a folder that are not listed. `folder` is empty, or ends in a separator."""
    try:
        names = os.listdir(os.path.join(root, folder))
    except OSError:
        return []
    others = (set(names) if not folder else {folder + name for name in names}) - listed
    return [name for name in others if name.lower().endswith(SUFFIXES) and name[len(folder)] != "."]


def _note_same(found: Survey, one: str, other: str, actual: str) -> None:
    if one != other:
        message = f"'{as_text(one)}' and '{as_text(other)}' are one file, {as_text(actual)}"
        found.twice[other] = InvalidConfig(message, hint="write one name for it in all lines")
