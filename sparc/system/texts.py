"""Read the text files that people write: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, gzipped.

Spreadsheets and Windows editors put a byte order mark before the text. A file in any other encoding is refused, with
the line: a guess would turn letters into others without a word.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from sparc.errors import CorruptFile, InvalidConfig
from sparc.system.refusals import reading

_BUFFER = 1 << 16
_MARKS = (  # UTF-32's marks first: the little-endian one begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    r"""Return the text of a file that a person or a program wrote, with `\n` for each line end. Raises as `open_text`.

    Split it with `split("\n")`: `splitlines` also breaks lines at characters that a caption or an id may hold.
    """
    with open_text(path) as file:
        return file.read()


@contextlib.contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file for reading, decompressed if its name ends in `.gz`. `newline` is as in `open`.

    Errors are raised inside the block too, since the file is decoded while it is read.

    Raises:
        FileNotFoundError: the file does not exist.
        InvalidConfig: the file is not text, or in another encoding. The error names line and byte.
        CorruptFile: a gzipped file is truncated or altered.
        StorageError: the machine refuses to read it.
    """
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with reading(path), opener(path, "rb") as raw:
            file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, _BUFFER)
            start = file.peek(_BUFFER)[:_BUFFER]
            encoding = _encoding(start)
            if encoding == "utf-8-sig" and b"\0" in start:
                wide = start.count(0) > len(start) // 4  # as in UTF-16, whose letters are a zero and another byte
                raise InvalidConfig(
                    f"{path} is not text: line {_line(start, start.index(0))} holds a zero byte",
                    hint=f"save it as UTF-8: {_how(path, 'UTF-16LE')}"
                    if wide
                    else "check that it is the right file; a damaged file must be written or copied again",
                )
            yield io.TextIOWrapper(file, encoding=encoding, newline=newline)
    except UnicodeDecodeError as error:
        if not error.encoding.startswith("utf-8"):
            raise InvalidConfig(
                f"{path} begins as {error.encoding.upper()} text and does not go on so: {error.reason}",
                hint="save it again, as UTF-8; a damaged file must be copied again",
            ) from error
        raise InvalidConfig(
            f"{path} is not UTF-8 text: {_place(path, opener, error)}",
            hint=f"save it as UTF-8; if it comes from Windows: {_how(path, 'WINDOWS-1252')}",
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFile(f"{path} is truncated or altered: {error}", hint="copy or download it again") from error


def _encoding(start: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8-sig")


def _how(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name} && mv utf8-{path.name} {path.name}"


def _place(path: Path, opener: Any, error: UnicodeDecodeError) -> str:
    """Return where the file stops being text. The error knows only the place in the block that was being decoded."""
    with reading(path), opener(path, "rb") as file:
        content = file.read()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as found:
        line_start = max(content.rfind(b"\n", 0, found.start), content.rfind(b"\r", 0, found.start)) + 1
        column, byte = found.start - line_start + 1, content[found.start]
        return f"line {_line(content, found.start)}, byte {column} is 0x{byte:02x}"
    return str(error)  # the file has changed meanwhile


def _line(content: bytes, place: int) -> int:
    r"""Return the number of the line of a byte; `\n`, `\r` and `\r\n` end lines."""
    return 1 + content[:place].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")
