"""The Hugging Face Hub: the commit of a revision, files at that commit, and what the local cache has of them.

`hub_commit` resolves a revision (a branch, a tag, `main` by default) to a commit, and everything else works at that
commit. The hub is asked first. If it does not answer, or `HF_HUB_OFFLINE` is set, the cache (`HF_HOME`) says to which
commit the revision pointed last.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparc.errors import CorruptFile, InvalidConfig, SparcError, WeightsUnavailable
from sparc.system.files import read_json, write_atomically
from sparc.system.refusals import reading, refusal

INDEX = ".index.json"
"""End of the name of the file that lists the parts of weights in several files, such as
`model.safetensors.index.json`."""
PATIENCE = 60.0
"""Seconds for which a hub that did not answer is not asked again."""
CONNECTING = 10.0
"""Seconds for which a hub may take to accept a connection."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
_asked_again: dict[str, float] = {}
"""Time from which a hub that did not answer is asked again."""
_connected: dict[str, float] = {}
"""Time until which a hub that accepted a connection is taken to do so again."""


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Return name and revision of `NAME@REVISION`, or `name` and `revision` if the name has no `@`.

    Raises:
        InvalidConfig: the two revisions differ, or one side of the `@` is empty.
    """
    repo, at, found = name.partition("@")
    if not at:
        return name, revision
    if not repo or not found:
        raise InvalidConfig(f"expected NAME@REVISION, found '{name}'", hint="leave the @ out for the newest revision")
    if revision is not None and revision != found:
        raise InvalidConfig(
            f"'{name}' names the revision '{found}', revision= names '{revision}'", hint="give one of the two"
        )
    return repo, found


def revision_from_name(values: Any) -> Any:
    """Split `NAME@REVISION` in the parameter `model`. Use it as a pydantic validator, `model_validator(mode="before")`.

    Raises InvalidConfig as `split_revision`.
    """
    if not isinstance(values, dict) or "@" not in str(values.get("model", "")):
        return values
    model, revision = split_revision(str(values["model"]), values.get("revision"))
    return {**values, "model": model, "revision": revision}


def hub_commit(repo: str, revision: str | None = None, *, backbone: str, file: str = "model.safetensors") -> str:
    """Return the commit of a revision of a hub repository: what the hub says, or else what the cache says.

    A full commit is returned as it is, without a network. `file` is any file of the repository.

    Raises:
        WeightsUnavailable: the hub does not answer or refuses, and the cache does not know the revision.
        InvalidConfig: `repo` cannot be the name of a repository.
    """
    _check_name(repo)
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = _ask(repo, file, revision)
    except Exception as error:  # errors of the HTTP library pass through the hub's client
        cached = _cached_commit(repo, revision)
        if cached is None:
            known = sorted(path.name for path in _folder(repo).glob("snapshots/*"))
            other = f"; the cache has revision={known[0]}" if known else ""
            raise unavailable(error, backbone, _named(repo, revision, file), other) from error
        return cached
    _note(repo, revision, commit)
    return commit


def hub_file(repo: str, filenames: Sequence[str], *, backbone: str, revision: str | None = None) -> Path:
    """Return the local path of the first of `filenames` that a hub repository has, downloading it the first time.

    If that is the index of weights in several files, the files it lists are downloaded too, into the same folder.

    Raises:
        WeightsUnavailable: the file is not in the cache (`HF_HOME`) and cannot be downloaded. The error names
            `backbone` and the file.
        StorageError: the disk is full or refuses.
    """
    commit = hub_commit(repo, revision, backbone=backbone, file=filenames[0])
    failure: Exception | None = None
    for name in filenames:
        file = name
        try:
            path = _fetched(repo, file, commit)
            for file in parts_of(path) if name.endswith(INDEX) else ():
                _fetched(repo, file, commit)
        except SparcError:
            raise
        except Exception as error:  # errors of the HTTP library pass through the hub's client
            if failure is None or not _is_absence(error):
                failure = error
            if file != name:
                raise unavailable(error, backbone, _named(repo, revision, file)) from error
            continue
        return path
    first = _named(repo, revision, filenames[0])
    if _is_absence(failure):
        raise WeightsUnavailable(backbone, first, f"the repository has none of {', '.join(filenames)}") from failure
    raise unavailable(failure or ValueError(), backbone, first) from failure


def hub_folder(repo: str, patterns: Sequence[str], *, needs: str, backbone: str, revision: str | None = None) -> Path:
    """Return a local folder with the files of a hub repository that match `patterns`, including the file `needs`.

    A file that `hub_file` returned at the same revision lies in the same folder. If `needs` is an index of weights, the
    files it lists are there too.

    Raises:
        WeightsUnavailable: the files are not in the cache (`HF_HOME`) and cannot be downloaded.
        StorageError: the disk is full or refuses.
    """
    from huggingface_hub import snapshot_download

    commit = hub_commit(repo, revision, backbone=backbone, file=needs)
    folder = _folder(repo) / "snapshots" / commit
    try:
        with asking_hub(connect=True):
            folder = Path(snapshot_download(repo, revision=commit, allow_patterns=list(patterns)))
    except Exception as error:  # errors of the HTTP library pass through the hub's client
        if not _has(folder, needs):
            raise unavailable(error, backbone, _named(repo, revision, needs)) from error
    if not _has(folder, needs):
        raise WeightsUnavailable(backbone, _named(repo, revision, needs), "the cached copy is incomplete")
    return folder


def in_hub_cache(repo: str, filenames: Sequence[str], revision: str | None = None) -> bool:
    """Return True if the hub's local cache (`HF_HOME`) has one of the files of a repository, with all its parts.

    Uses no network.
    """
    commit = revision if revision is not None and _COMMIT.fullmatch(revision) else _cached_commit(repo, revision)
    return commit is not None and any(_has(_folder(repo) / "snapshots" / commit, name) for name in filenames)


def parts_of(index: Path) -> list[str]:
    """Return the names of the files that the index of weights in several files lists, in order.

    Raises:
        CorruptFile: it is no such index, or names a file outside its folder.
    """
    content = read_json(index, what="the index of weights in several files")
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CorruptFile(
            f"{index} is no index of weights: expected an object 'weight_map' of tensor names and file names",
            hint="download it again",
        )
    names = sorted(set(places.values()))
    if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise CorruptFile(f"{index}: expected files in its own folder, found '{outside[0]}'", hint="download it again")
    return names


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InvalidConfig(
            f"expected the name of a repository on the hub, OWNER/NAME, found '{repo}'",
            hint="check the name; give a local file or folder as weights=PATH",
        ) from error


def _named(repo: str, revision: str | None, file: str) -> str:
    return f"{repo}/{file}" if revision is None else f"{repo}@{revision}/{file}"


def _folder(repo: str) -> Path:
    """Return the folder of a repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _cached_commit(repo: str, revision: str | None) -> str | None:
    """Return the commit to which a revision pointed when the cache last saw it; None if it never did."""
    folder, name = _folder(repo), revision or "main"
    ref = folder / "refs" / name
    if ".." not in Path(name).parts and ref.is_file():
        with reading(ref):
            commit = ref.read_bytes().decode("ascii", "replace").strip()
        if _COMMIT.fullmatch(commit):  # a process that was killed, or a full disk, leaves an empty file
            return commit
    if (folder / "snapshots" / name).is_dir():
        return name
    found = [path.name for path in folder.glob(f"snapshots/{name}*")] if _SHORT.fullmatch(name) else []
    return found[0] if len(found) == 1 else None


def _note(repo: str, revision: str | None, commit: str) -> None:
    """Write into the cache to which commit a revision points, for a time without network."""
    ref = _folder(repo) / "refs" / (revision or "main")
    if _cached_commit(repo, revision) != commit:
        with contextlib.suppress(SparcError):  # a cache for many users may be read-only
            write_atomically(ref, lambda path: path.write_text(commit, encoding="utf-8"))


def _has(folder: Path, file: str) -> bool:
    """Return True if a folder has a file, and, if that is an index of weights, the files it lists."""
    if not (folder / file).is_file():
        return False
    return not file.endswith(INDEX) or all((folder / part).is_file() for part in parts_of(folder / file))


def _ask(repo: str, file: str, revision: str | None) -> str:
    """Return the commit of a revision as the hub says it, by one request."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    with asking_hub():
        try:
            commit = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision)).commit_hash
        except EntryNotFoundError as error:  # the hub names the commit beside "no such file" too
            answer = error.response if isinstance(error, HfHubHTTPError) else None
            commit = None if answer is None else answer.headers.get("X-Repo-Commit")
        commit = commit or HfApi().model_info(repo, revision=revision).sha
    if not commit:
        raise ConnectionError("the hub names no commit")
    return commit


def _fetched(repo: str, file: str, commit: str) -> Path:
    """Return the local path of a file at a commit: from the cache, without a network, or downloaded."""
    from huggingface_hub import hf_hub_download

    path = _folder(repo) / "snapshots" / commit / file
    if path.is_file():
        return path
    with asking_hub(connect=True):
        return Path(hf_hub_download(repo, file, revision=commit))


@contextlib.contextmanager
def asking_hub(*, connect: bool = False) -> Iterator[None]:
    """Run the block, which uses the network. Raise ConnectionError instead if the hub did not answer a moment ago.

    connect: connect to the hub first, once a minute, for functions of the hub's client that repeat a request several
    times: without a network they take half a minute, and up to a minute and a half, to give up.

    Raises OfflineModeIsEnabled, of the hub's client, if `HF_HUB_OFFLINE` is set.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    hub = constants.HUGGINGFACE_CO_URL_TEMPLATE
    if time.monotonic() < _asked_again.get(hub, 0.0):
        raise ConnectionError("the hub did not answer")
    try:
        if connect and time.monotonic() > _connected.get(hub, 0.0):
            _connect(hub.partition("/{repo_id}")[0])
        yield
    except Exception as error:
        if is_silence(error):
            _asked_again[hub] = time.monotonic() + PATIENCE
            _connected.pop(hub, None)
        raise
    _connected[hub] = time.monotonic() + PATIENCE


def hub_is_silent() -> bool:
    """Return True if the hub did not answer a moment ago."""
    from huggingface_hub import constants

    return time.monotonic() < _asked_again.get(constants.HUGGINGFACE_CO_URL_TEMPLATE, 0.0)


def _connect(url: str) -> None:
    """Ask for a page of the hub once; any answer will do. Raises ConnectionError without a connection."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    try:
        get_session().head(url, timeout=CONNECTING)
    except Exception as error:  # of another kind in each version of the hub's client
        if type(error).__name__ in ("ConnectError", "ConnectTimeout", "ConnectionError", "ProxyError"):
            raise ConnectionError("the hub did not answer") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _is_absence(error: Exception | None) -> bool:
    """Return True if the hub says that a repository has no such file."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    return isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)


def is_silence(error: BaseException) -> bool:
    """Return True if the hub did not answer at all."""
    from huggingface_hub.errors import HfHubHTTPError

    for one in _chain(error):
        if isinstance(one, HfHubHTTPError) and getattr(one, "response", None) is not None:
            return False
        library = type(one).__module__.partition(".")[0]
        if isinstance(one, ConnectionError | TimeoutError) or library in ("httpx", "httpx2", "requests", "urllib3"):
            return True
    return False


def unavailable(error: Exception, backbone: str, file: str, more: str = "") -> SparcError:
    """Return the error for a file that cannot be had from the hub, from the error of the library that requested it."""
    return hub_refusal(error, f"download {file}") or WeightsUnavailable(backbone, file, reason(error) + more)


def hub_refusal(error: Exception, doing: str) -> SparcError | None:
    """Return `error` as a StorageError or OutOfMemory if the machine caused it, and not the network or the hub."""
    return None if is_silence(error) else refusal(error, doing)


def reason(error: Exception) -> str:
    """Return in words why the hub gave no file, from the error of the library that requested it."""
    from huggingface_hub import constants, errors

    kinds = (
        (errors.GatedRepoError, "its authors ask you to accept conditions on its page, then to run: hf auth login"),
        (errors.RepositoryNotFoundError, "the hub has no such repository, or it is private: hf auth login"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
        (errors.LocalEntryNotFoundError, "no connection to the hub"),
        (errors.EntryNotFoundError, "the repository has no such file"),
        (errors.HFValidationError, "that is no name of a repository, OWNER/NAME"),
    )
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if is_silence(error):
        return "no connection to the hub"
    for kind, words in kinds:
        if isinstance(error, kind):
            return words
    answer = getattr(error, "response", None)
    return f"the hub answered {answer.status_code}" if answer is not None else type(error).__name__
