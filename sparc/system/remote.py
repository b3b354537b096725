"""Files behind URLs, such as `s3://bucket/prefix`, through the library fsspec: listed, described and downloaded.

A filesystem object is opened anew for each request, because those of fsspec do not survive a fork. fsspec itself
keeps the connections of a process.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sparc.errors import CorruptFile, InvalidConfig, MissingData, SparcError, StorageError, install
from sparc.system.liveness import beat
from sparc.system.refusals import refusal

PAUSES = (1.0, 4.0)
"""Seconds to wait before each further attempt of a download."""
ASKED_AT_A_TIME = 16
"""Files that are asked for at a time, where a server lists none."""
STAMPS = (
    *("sha256", "md5Hash", "Content-MD5", "content_md5", "checksum", "ETag", "etag", "blob_id", "oid", "crc32c"),
    *("generation", "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created"),
)
"""Fields in which a server identifies a file's content, the surest first; then the times."""
_LOCAL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE}
_HTTP = ("http", "https")
_SILENCE = {"ClientConnectorError", "ClientConnectorDNSError", "ServerDisconnectedError", "EndpointConnectionError"}


def shown(url: str) -> str:
    """Return a URL without a password and without the signature behind `?`, for messages and keys."""
    return re.sub(r"(?<=://)[^/@]*@", "", url).partition("?")[0]


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file behind a URL, as its server described it."""

    url: str
    size: int
    stamp: str
    """Checksum, ETag or time of its content, as `NAME=VALUE`; empty if the server says none of them."""

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return str(self).rstrip("/").rpartition("/")[2]

    @property
    def stamp_name(self) -> str:
        """Name of what the stamp is."""
        return self.stamp.partition("=")[0]

    @property
    def key(self) -> tuple[str, int, str]:
        """Text that tells this content from any other. It holds no passwords."""
        return str(self), self.size, self.stamp

    def __str__(self) -> str:
        return shown(self.url)


def check_protocol(url: str) -> None:
    """Raise MissingData if the package that reads a protocol is not installed, InvalidConfig if there is none."""
    with _worded(url):
        _opened(url)


def describe(url: str) -> RemoteFile:
    """Ask for the size and the stamp of a file. Raises MissingData for none or a refused one, and StorageError."""
    with _worded(url):
        filesystem, path = _opened(url)
        filesystem.invalidate_cache()
        return _described(url, filesystem.info(path))


def describe_all(urls: Sequence[str]) -> Iterator[RemoteFile | MissingData]:
    """Yield for each URL its description, or the error that says why there is none. Raises StorageError."""

    def one(url: str) -> RemoteFile | MissingData:
        try:
            return describe(url)
        except MissingData as error:
            return error

    with ThreadPoolExecutor(ASKED_AT_A_TIME) as pool:
        yield from pool.map(one, urls)


def can_list(url: str) -> bool:
    """Return True if the files below such a URL can be listed. Web servers have no lists."""
    return url.partition("://")[0].lower() not in _HTTP


def list_files(url: str) -> dict[str, RemoteFile]:
    """Return the files in a folder by their name, in its order.

    Raises MissingData for a folder that is not there or refused, and StorageError.
    """
    with _worded(url):
        filesystem, path = _opened(url)
        filesystem.invalidate_cache()
        rows = filesystem.ls(path, detail=True)
    start = str(path).strip("/") + "/"
    files = {}
    for row in rows:
        inside = str(row["name"]).lstrip("/").removeprefix(start)
        if row.get("type") == "file" and inside and ".." not in inside.split("/"):
            files[inside] = _described(below(url, inside), row)
    return dict(sorted(files.items()))


def list_folders(url: str) -> list[str]:
    """Return the names of the folders in a folder. Raises as `list_files`."""
    with _worded(url):
        filesystem, path = _opened(url)
        filesystem.invalidate_cache()
        rows = filesystem.ls(path, detail=True)
    names = (str(row["name"]).rstrip("/").rpartition("/")[2] for row in rows if row.get("type") == "directory")
    return sorted(name for name in names if name not in ("", ".", ".."))


def below(url: str, name: str) -> str:
    """Return the URL of a name below another URL, whose part behind `?` stays last."""
    start, mark, query = url.partition("?")
    return f"{start.rstrip('/')}/{name}{mark}{query}"


def read_whole(file: RemoteFile) -> bytes:
    """Return the content of a small file. Raises as `download`."""
    with _worded(file.url):
        filesystem, path = _opened(file.url)
        return bytes(filesystem.cat_file(path))


def download(file: RemoteFile, target: Path) -> None:
    """Download a file whole, trying again after a lost connection.

    Raises:
        MissingData: it is not there any more, or may not be read.
        CorruptFile: its size is not what the server said.
        StorageError: the server does not answer, the file changed meanwhile, or the disk is full.
    """
    for pause in (*PAUSES, None):
        try:
            with _worded(file.url):
                filesystem, path = _opened(file.url)
                filesystem.get_file(path, str(target), callback=_signs(beat()))
        except StorageError as error:
            if pause is None or (isinstance(error.__cause__, OSError) and error.__cause__.errno in _LOCAL_DISK):
                raise
            _wait(pause)
            continue
        size, now = target.stat().st_size, describe(file.url)
        if now.size != file.size or (now.stamp != file.stamp and now.stamp_name == file.stamp_name):
            raise StorageError(f"{file} has changed since it was listed", hint="run the same command again")
        if size == file.size:
            return
        if pause is None:
            raise CorruptFile(
                f"{file} is truncated: the server announced {file.size:,} bytes and sent {size:,}",
                hint="upload the file again",
            )
        _wait(pause)


def _wait(seconds: float) -> None:
    beat()()
    time.sleep(seconds)


def _signs(alive: Callable[[], None]) -> Any:
    from fsspec.callbacks import Callback

    class Signs(Callback):  # type: ignore[misc]  # fsspec has no types
        def relative_update(self, inc: int = 1) -> None:
            alive()
            super().relative_update(inc)

    return Signs()


def _opened(url: str) -> tuple[Any, str]:
    """Return the filesystem of a URL, and the path in it. Raises ImportError or ValueError for an unknown protocol."""
    from fsspec.core import url_to_fs

    options: dict[str, Any] = {}
    if not can_list(url):
        import aiohttp

        # aiohttp ends each download after five minutes unless told otherwise; silence for a minute is an end.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options["client_kwargs"] = {"timeout": limits}
    filesystem, path = url_to_fs(url, **options)
    return filesystem, str(path)


def _described(url: str, info: Mapping[str, Any]) -> RemoteFile:
    if info.get("type") == "directory":
        raise MissingData(f"{shown(url)} is a folder, not a file", hint="name the files in it")
    size = info.get("size")
    if size is None:
        raise MissingData(
            f"the server does not say how large {shown(url)} is", hint="copy the files to a disk, or to an object store"
        )
    lfs = info.get("lfs")
    said = {**info, **(lfs if isinstance(lfs, Mapping) else {})}
    stamp = next((f"{name}={_same_form(said[name])}" for name in STAMPS if said.get(name) not in (None, "")), "")
    return RemoteFile(url, int(size), stamp)


def _same_form(value: Any) -> str:
    """Return a time as seconds and a tag without quotes: the list of a folder and a single answer differ in this."""
    return str(value.timestamp() if isinstance(value, datetime) else value).strip('"')


@contextlib.contextmanager
def _worded(url: str) -> Iterator[None]:
    """Raise what fsspec and the libraries below it raise as a SparcError that names the URL."""
    try:
        yield
    except SparcError:
        raise
    except Exception as error:
        raise _said(error, url) from error


def _said(error: Exception, url: str) -> SparcError:
    protocol, where, status = url.partition("://")[0].lower(), shown(url), _status(error)
    if isinstance(error, ImportError):
        package = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "sftp": "paramiko"}.get(protocol)
        hint = f"pip install {package}" if package else install("remote")
        return MissingData(f"{where}: a package that reads {protocol}:// is not installed: {error}", hint=hint)
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return InvalidConfig(f"{where}: no library reads {protocol}://", hint="such as s3://, gs://, hf:// or https://")
    if isinstance(error, PermissionError) or status in (401, 403):
        return MissingData(
            f"{where}: the server refuses access{f' ({status})' if status else ''}",
            hint="check the credentials, the name, and the right to list and to read",
        )
    if isinstance(error, FileNotFoundError) and status in (None, 404, 410) and not _is_silence(error):
        return MissingData(f"{where} does not exist", hint="check the URL, or upload the file")
    if isinstance(error, OSError) and error.errno in _LOCAL_DISK and (found := refusal(error, f"download {where}")):
        return found
    kind = type(error).__name__
    if "Credentials" in kind:
        return InvalidConfig(
            f"{where}: no credentials for {protocol}://",
            hint="set them as its library wants them, such as AWS_ACCESS_KEY_ID; for a public bucket, FSSPEC_S3_ANON=1",
        )
    reason = " ".join(str(error).split()) or kind
    return StorageError(
        f"cannot read {where}: {f'the server answered {status}' if status else reason}"[:400],
        hint="check the connection and the URL, and run the same command again",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_silence(error: BaseException) -> bool:
    """Return True if no server answered, which fsspec calls a missing file."""
    return any(
        isinstance(one, ConnectionError | TimeoutError) or type(one).__name__ in _SILENCE for one in _chain(error)
    )


def _status(error: BaseException | None) -> int | None:
    """Return the number with which a server answered, from an error or its causes."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        if isinstance(answer, Mapping):  # botocore's
            answer = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        for found in (getattr(one, "status", None), getattr(answer, "status_code", answer)):
            if isinstance(found, int) and found >= 300:
                return found
    return None
