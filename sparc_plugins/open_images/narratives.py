"""Read image ids and captions from the JSONL files of Localized Narratives, which take many gigabytes."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparc.plugins import Problems, cache_dir, cache_key, same_name, write_atomically
from sparc_plugins.open_images.files import reading, wrong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 2
"""Part of the name of a cached file. Raise it when the parsing changes."""
# Mouse traces make up most of a record, and parsing them takes twenty times as long as the rest. This expression reads
# only the fields before the traces. A record in another format is parsed completely.
RECORD = re.compile(
    rb'\{"dataset_id": ?"[^"\\]*+", ?"image_id": ?"([^"\\\x00-\x1f]++)", ?"annotator_id": ?\d++, ?'
    rb'"caption": ?"((?:[^"\\\x00-\x1f]++|\\.)*+)"[,}]'
)


@dataclass(frozen=True, eq=False)
class Narratives:
    """Image ids and captions of N narratives, in arrays, which forked workers share and which pickle fast."""

    images: NDArray[np.bytes_]
    starts: NDArray[np.int64]
    """(N,): start of each caption in `captions`."""
    ends: NDArray[np.int64]
    """(N,): end of each caption in `captions`."""
    captions: NDArray[np.uint8]
    """Concatenated UTF-8 bytes of all captions."""
    changed: NDArray[np.int64]
    """(2,): number of captions that are null, and of those with half of a character, which becomes `?`."""

    def __len__(self) -> int:
        """Return the number of narratives, N."""
        return len(self.images)

    def caption(self, index: int) -> str:
        """Return one caption."""
        return self.captions[self.starts[index] : self.ends[index]].tobytes().decode()

    def chosen(self, which: NDArray[np.bool_]) -> Narratives:
        """Return the narratives in a boolean mask (N,). All captions stay in memory."""
        return Narratives(self.images[which], self.starts[which], self.ends[which], self.captions, self.changed)

    def numbers(self) -> NDArray[np.int32]:
        """Return, for each narrative, the number of earlier narratives of its image."""
        import numpy as np

        _, image_of, counts = np.unique(self.images, return_inverse=True, return_counts=True)
        firsts = np.cumsum(counts) - counts
        numbers = np.empty(len(self), np.int32)
        numbers[np.argsort(image_of, kind="stable")] = np.arange(len(self)) - np.repeat(firsts, counts)
        return numbers

    def write(self, path: Path) -> None:
        """Write the arrays to a file."""
        import numpy as np

        with path.open("wb") as file:  # given a path, savez would append a suffix
            np.savez(file, **vars(self))


def read_narratives(paths: Sequence[Path], digest: Literal["sample", "all"] = "sample") -> Narratives:
    """Read all narratives of several files, in order. `digest` is the part of a file by which the cache knows it.

    Raises CorruptFile if a line is not a narrative. The error names file and line.
    """
    import numpy as np

    parts = [_read(path, digest) for path in paths]
    offsets = np.cumsum([0, *(len(part.captions) for part in parts)])
    return Narratives(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.starts + offset for part, offset in zip(parts, offsets, strict=False)]),
        np.concatenate([part.ends + offset for part, offset in zip(parts, offsets, strict=False)]),
        np.concatenate([part.captions for part in parts]),
        np.sum([part.changed for part in parts], axis=0),
    )


def _read(path: Path, digest: Literal["sample", "all"]) -> Narratives:
    """Return the narratives of one file, from the cache if it was parsed before."""
    import zipfile

    import numpy as np

    cached = cache_dir("open-images", f"{path.name}-{cache_key([path], digest, VERSION)[:32]}.npz")
    unreadable = (OSError, EOFError, TypeError, ValueError, zlib.error, zipfile.BadZipFile)
    with contextlib.suppress(*unreadable), cached.open("rb") as file, np.load(file) as arrays:
        return Narratives(**arrays)
    narratives = _parse(path)
    write_atomically(cached, narratives.write)
    return narratives


def lines_of(paths: Sequence[Path], rows: Sequence[int]) -> list[str]:
    """Return the file and the line of some narratives, given in order by their numbers over all files."""
    wanted, row = set(rows), -1
    places: list[str] = []
    for path in paths:
        if len(places) == len(wanted):
            break
        with reading(path) as file:
            for number, line in enumerate(file, start=1):
                row += not line.isspace()
                if row in wanted and not line.isspace():
                    places.append(f"{path.name}, line {number}")
                    if len(places) == len(wanted):
                        break
    return places


def _parse(path: Path) -> Narratives:
    """Read the narratives of a file. Raises CorruptFile, which lists the first twenty of the lines that are none."""
    import numpy as np

    problems = Problems(f"{path}, ")
    images: list[bytes] = []
    ends = array("q")
    captions = bytearray()
    nulls = halves = 0
    with reading(path) as file:
        for number, line in enumerate(file, start=1):
            record = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if record.isspace():
                continue
            try:
                image, text = _image_and_caption(record)
            except (ValueError, TypeError, LookupError, RecursionError):
                found = record[:60].strip()
                problems.add(wrong(path, number, "a JSON object with texts image_id and caption", found))
                continue
            if text is None:
                nulls += 1
                text = b""
            elif isinstance(text, str):
                halves += 1
                text = text.encode("utf-8", "replace")
            images.append(image if image.isascii() else same_name(image.decode()).encode())
            captions += text
            ends.append(len(captions))
    if problems:
        raise problems.joined()
    bounds = np.array([0, *ends], np.int64)
    changed = np.array([nulls, halves], np.int64)
    return Narratives(np.array(images, np.bytes_), bounds[:-1], bounds[1:], np.frombuffer(captions, np.uint8), changed)


def _image_and_caption(record: bytes) -> tuple[bytes, bytes | str | None]:
    """Return both in UTF-8: a caption that is null or NaN as None, one that UTF-8 cannot encode as it is.

    Raises ValueError, TypeError or LookupError if the record is not a narrative.
    """
    start = RECORD.match(record)
    if start is None or not record[-8:].rstrip().endswith(b"}"):  # refuse a truncated record
        fields = json.loads(record.decode())
        image, caption = fields["image_id"], fields["caption"]
        if not isinstance(image, str) or not image:
            raise TypeError
        return image.encode(), _encoded(caption)
    start[0].decode()
    written = start[2]
    return start[1], _encoded(json.loads(b'"%s"' % written)) if b"\\" in written else written


def _encoded(caption: Any) -> bytes | str | None:
    if caption is None or (isinstance(caption, float) and math.isnan(caption)):
        return None
    if not isinstance(caption, str):
        raise TypeError
    try:
        return caption.encode()
    except UnicodeEncodeError:
        return caption
