"""Write files as a whole, so that no reader sees half of one; read JSON; checksum files."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sparc.errors import CorruptFile, MissingData
from sparc.system.locks import LOCK
from sparc.system.refusals import reading, writing

_Model = TypeVar("_Model", bound=BaseModel)
_UNSYNCED = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}
"""Numbers with which a file system says that it syncs no folders."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary file beside `path`, then rename it: readers see the old file or the new one.

    Raises:
        StorageError: the disk is full or refuses; an existing file is untouched.
    """
    write_together({path: write})


def write_output(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file as `write_atomically`, and remove what killed processes of this machine left of the same file.

    For files in folders that no run and no store owns. Raises StorageError.
    """
    start = f".{_shortened(path.name)}.{_machine()}-"
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            pid = left.name.removeprefix(start).partition("-")[0]
            if left.name.startswith(start) and left.name.endswith(".tmp") and pid.isdecimal() and not _lives(int(pid)):
                left.unlink(missing_ok=True)
    write_atomically(path, write)


def check_writable(folder: Path) -> None:
    """Raise StorageError unless files can be written into a folder; it is created if it does not exist."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:  # a file without a name, which a kill leaves nowhere
            os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
        except (AttributeError, OSError):  # not Linux, or a file system without such files, or a refusal
            probe = folder / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()


def check_no_folder(*paths: Path) -> None:
    """Raise StorageError if there is a folder where a file is to be written."""
    for path in paths:
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def free_bytes(path: Path) -> int | None:
    """Return the bytes that are free where a path lies, or will lie; None if the system does not tell."""
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    with contextlib.suppress(OSError):
        return shutil.disk_usage(there or ".").free
    return None


def is_temporary(path: Path) -> bool:
    """Return True for what a killed process leaves behind: a temporary file of `write_together`, or a lock file."""
    return path.name.startswith(LOCK) or (path.name.startswith(".") and path.name.endswith(".tmp"))


def remove_temporaries(*folders: Path) -> None:
    """Remove the temporary files of killed processes from folders that this process owns."""
    for folder in folders:
        with contextlib.suppress(OSError):  # there is no such folder, or it may not be written
            for path in folder.iterdir():
                if is_temporary(path) and path.name != LOCK and not path.is_dir():
                    path.unlink(missing_ok=True)


def write_together(files: Mapping[Path, Callable[[Path], object]]) -> None:
    """Fill a temporary file beside each path, then rename them one by one; if one cannot be filled, no file changes.

    Raises StorageError as `write_atomically`. No temporary file is left behind.
    """
    temporaries = {path: path.with_name(_temporary_name(path.name)) for path in files}
    try:
        made = [folder for path in files for folder in _missing(path.parent)]
        for path, write in files.items():
            with writing(path):
                _fill(temporaries[path], write)
        for path, temporary in temporaries.items():
            with writing(path):
                temporary.replace(path)
        for folder in {path.parent for path in files} | {folder.parent for folder in made}:
            sync_folder(folder)
    except BaseException:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):  # the error of the path itself is raised
                temporary.unlink()
        raise


def _temporary_name(name: str) -> str:
    """Return the name of a temporary file, which says whose it is."""
    return f".{_shortened(name)}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex}.tmp"


def _shortened(name: str) -> str:
    """Return the beginning of a long name, because a file's name has at most 255 bytes."""
    return name.encode(errors="surrogateescape")[:180].decode(errors="ignore")


@functools.cache
def _machine() -> str:
    """Return a digest of this machine and its numbering of processes; each start and each container has its own."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            parts.append(os.readlink(path) if path.endswith("ns/pid") else Path(path).read_text(encoding="ascii"))
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:8]


def _lives(pid: int) -> bool:
    import psutil  # not at the top: few commands ask

    return bool(psutil.pid_exists(pid))


def _missing(folder: Path) -> list[Path]:
    """Return the folders on the way to a folder, and itself, that do not exist."""
    found: list[Path] = []
    while not os.path.lexists(folder) and folder != folder.parent:
        found.append(folder)
        folder = folder.parent
    return found


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, without which a power failure can undo a rename."""
    with writing(folder):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:  # Windows opens no folder, and some folders may be written but not read
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _UNSYNCED:
                raise
        finally:
            os.close(descriptor)


def _fill(temporary: Path, write: Callable[[Path], object]) -> None:
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.touch()
    permissions = temporary.stat().st_mode
    write(temporary)
    temporary.chmod(permissions)  # safetensors creates files that only the owner can read
    with temporary.open("r+b") as file:  # Windows syncs only files that are open for writing
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomically(path, json_writer(content))


def json_writer(content: Any) -> Callable[[Path], object]:
    """Return a function that writes `content` as indented JSON, for `write_atomically` and `write_together`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return lambda path: path.write_text(text, encoding="utf-8")


def read_json(path: Path, *, what: str) -> Any:
    """Read a JSON file; `what` names its content in errors.

    Raises:
        MissingData: the file does not exist.
        CorruptFile: the file is not JSON.
    """
    try:
        with reading(path):
            return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingData(f"{what} is missing: {path}", hint="check the path") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise CorruptFile(
            f"{what} is not valid JSON: {path} ({error})", hint="restore the file, or create it again"
        ) from error


def read_model(path: Path, model: type[_Model], *, what: str, hint: str) -> _Model:
    """Read a JSON file as a pydantic model; errors name the file as `what`, and `hint` says how to get a good one.

    Raises:
        MissingData: the file does not exist.
        CorruptFile: the file is not JSON, or does not fit the model.
    """
    content = read_json(path, what=what)
    try:
        return model.model_validate(content)
    except (ValidationError, UnicodeEncodeError) as error:  # pydantic raises the latter for a key that UTF-8 lacks
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(map(str, first["loc"]))
        raise CorruptFile(
            f"{what} is not of this version's format: {path} ({f'{place}: ' if place else ''}{first['msg']})", hint=hint
        ) from error


def sha256(path: Path) -> str:
    """Return the hex digest of a file's content. Raises StorageError if the machine refuses to read it."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_readable(path: Path) -> None:
    """Raise StorageError if the machine refuses to open a file, and FileNotFoundError if there is none.

    safetensors calls a file that may not be read a missing one, so its readers call this first.
    """
    with reading(path), path.open("rb"):
        pass
