"""Arguments of `sparc encode` and `sparc search`: each is a file, a folder or a text, checked before models load.

An argument that names a file or a folder is that. Another one with a path separator, or that ends as image files do, is
a path without a file, and an error; anything else is a text. Imports no torch.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from sparc.errors import BadSample, InvalidConfig, MissingData, SparcError
from sparc.models.inputs import bytes_sample, checked_text, decoded, image_sample
from sparc.plugins.contracts import Sample
from sparc.session.listener import Listener
from sparc.system.nearby import meant
from sparc.system.refusals import reading, refusal

Modality = Literal["image", "text"]
Argument = str | Path | Image.Image | bytes
"""A text or a path, a path, a PIL image, or the content of an image file."""

UNREAD = (".heic", ".heif", ".svg")
"""Ends of names of images that Pillow does not read."""
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
KEPT_PIXELS = 2**26
"""Pixels of checked images that stay in memory, 200 MB; further images are read again when they are encoded."""
LISTED = 5
"""Problems that an error lists."""
SEPARATORS = [one for one in (os.sep, os.altsep) if one]
AS_TEXT = 'check the path; words with a slash or such an end are a text by --text "WORDS"'


@dataclass(frozen=True)
class Input:
    """One image or text to encode."""

    shown: str
    """The path or the text, as the user gave it."""
    modality: Modality
    sample: Sample = field(repr=False, compare=False)


@dataclass
class _Collector:
    listener: Listener
    inputs: list[Input] = field(default_factory=list)
    problems: list[SparcError] = field(default_factory=list)
    _pixels: int = 0

    def add(self, argument: Any, number: int) -> None:
        """Add an argument of a kind that it tells itself."""
        if isinstance(argument, bytes):
            self.image(bytes_sample(argument, "the image on standard input"))
        elif isinstance(argument, Image.Image):
            self.image(image_sample(argument, number))
        elif isinstance(argument, Path):
            self.path(argument, _kind(argument) or "file")
        elif isinstance(argument, str):
            if not argument.strip():
                self.text(argument)
            elif (kind := _kind(path := _expanded(argument))) is not None:
                self.path(path, kind)
            elif _looks_like_path(argument):
                self._fail(_no_file(argument))
            else:
                self.text(argument)
        else:
            self._fail(
                InvalidConfig(
                    f"expected a text, a path or a PIL image, found {type(argument).__name__}",
                    hint="Image.fromarray makes an image of an array",
                )
            )

    def path(self, path: Path, kind: str) -> None:
        """Add an image file, or the images of a folder."""
        if kind == "folder":
            self.folder(path)
            return
        try:
            if not str(path).strip() or _kind(path) is None:
                raise _no_file(str(path))
            self.image(image_sample(path))
        except (MissingData, InvalidConfig) as error:
            self._fail(error)

    def folder(self, folder: Path) -> None:
        """Add the images of a folder and of those in it. Images that cannot be read are counted, not used."""
        self.listener.doing(f"reading the images in {folder}")
        found, others = images_in(folder)
        bad = [error for path in found if (error := self._in_folder(path)) is not None]
        if len(bad) == len(found):
            why = f": {bad[0].message}" if bad else f", {len(others)} other files" if others else ""
            self._fail(MissingData(f"no image in the folder {folder}{why}", hint="give a folder with images"))
            return
        if bad:
            self.listener.warn(f"left out {len(bad)} of {len(found)} images in {folder}: {bad[0].message}")
        if others:
            self.listener.note(f"{folder}: {len(others)} files that are no images, such as {others[0].name}")

    def _in_folder(self, path: Path) -> SparcError | None:
        """Add an image of a folder; return what is wrong with it, such as a link to nothing."""
        try:
            return self._checked(image_sample(path))
        except (MissingData, InvalidConfig) as error:
            return error

    def text(self, text: str) -> None:
        """Add a text."""
        if not isinstance(text, str) or not text.strip():
            self._fail(InvalidConfig("expected words, found an empty text", hint="say what to encode"))
            return
        try:
            self.inputs.append(Input(text, "text", Sample(text, caption=checked_text(text))))
        except InvalidConfig as error:
            self._fail(error)

    def image(self, sample: Sample) -> None:
        """Add an image, decoded."""
        if (error := self._checked(sample)) is not None:
            self._fail(error)

    def _checked(self, sample: Sample) -> SparcError | None:
        """Decode an image, and add it; return what is wrong with it."""
        try:
            read = decoded(sample)
        except BadSample as error:
            return error
        self._pixels += _pixels_of(read)
        self.inputs.append(Input(sample.id, "image", read if self._pixels <= KEPT_PIXELS else sample))
        return None

    def _fail(self, error: SparcError) -> None:
        self.problems.append(error)


def checked_inputs(
    arguments: Sequence[Argument], images: Sequence[Argument], texts: Sequence[str], listener: Listener
) -> list[Input]:
    """Return what to encode: arguments that tell their kind themselves, then images, then texts.

    Raises:
        SparcError: one of the inputs cannot be used, of the type of its problem.
        BadSample: several cannot be used; the message counts and lists them.
        InvalidConfig: there are no inputs.
        StorageError, OutOfMemory: the machine refuses to read a file.
    """
    found = _Collector(listener)
    for number, argument in enumerate(arguments):
        found.add(argument, number)
    for number, image in enumerate(images, start=len(arguments)):
        if isinstance(image, str | Path):
            path = _expanded(image)
            found.path(path, _kind(path) or "file")
        else:
            found.add(image, number)
    for text in texts:
        found.text(text)
    if len(found.problems) == 1:
        raise found.problems[0]
    if found.problems:
        listed = "; ".join(error.message for error in found.problems[:LISTED])
        more = f"; and {len(found.problems) - LISTED} more" if len(found.problems) > LISTED else ""
        total = len(arguments) + len(images) + len(texts)
        raise BadSample(
            f"{len(found.problems)} of {total} inputs cannot be used: {listed}{more}", hint=found.problems[0].hint
        )
    if not found.inputs:
        raise InvalidConfig("expected an image or a text, found nothing", hint='give photo.jpg, "a red bus", or both')
    return found.inputs


def arguments_in(content: bytes) -> list[Argument]:
    """Return the arguments in the content of standard input: one per line, or the image that it is.

    Lines may end in NUL, as `find -print0` writes them. Text is UTF-8, or UTF-16 with its mark, as Windows writes it.
    Raises InvalidConfig if it is empty.
    """
    try:
        text = content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        return [content]
    lines: list[Argument] = [line for line in re.split(r"\0" if "\0" in text else r"\r?\n", text) if line.strip()]
    if not lines:
        raise InvalidConfig("standard input is empty", hint="write paths or texts to it, one per line, or an image")
    return lines


def images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and of its folders, and its other files, both sorted; hidden ones are left out.

    Raises StorageError if the machine refuses to list it.
    """
    suffixes = tuple(image_suffixes())
    found: tuple[list[Path], list[Path]] = ([], [])
    for path in _files(folder):
        found[0 if path.name.lower().endswith(suffixes) else 1].append(path)
    return sorted(found[0]), sorted(found[1])


def _files(folder: Path) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        if (said := refusal(error, f"read {error.filename}")) is not None:
            raise said from error

    with reading(folder):
        for place, folders, files in os.walk(folder, onerror=refused):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(place, name) for name in files if not name.startswith("."))


def image_suffixes() -> set[str]:
    """Return how names of image files end, in lower case: those that Pillow reads, and those that need conversion."""
    return {*(end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN), *UNREAD}


def _expanded(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))  # Path.expanduser raises for a user that does not exist


def _kind(path: Path) -> str | None:
    """Return `file` or `folder`; None if there is no such path. Raises StorageError if the machine refuses to look."""
    try:
        mode = path.stat().st_mode
    except ValueError:  # it holds a NUL
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        with reading(path):
            raise
    return "folder" if stat.S_ISDIR(mode) else "file"


def _looks_like_path(argument: str) -> bool:
    return any(one in argument for one in SEPARATORS) or argument.lower().endswith(tuple(image_suffixes()))


def _no_file(argument: str) -> MissingData:
    if re.match(r"[a-z]+://", argument):
        return MissingData(f"{argument} is an address, not a file", hint="download it, and give the file")
    return MissingData(f"no file at {argument}", hint=meant(argument, AS_TEXT))


def _pixels_of(sample: Sample) -> int:
    assert sample.open_image is not None
    width, height = sample.open_image().size
    return width * height
