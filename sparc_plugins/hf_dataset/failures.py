"""Errors of the library `datasets` in words: it raises dozens of unrelated types."""

from __future__ import annotations

import errno

from sparc.plugins import CorruptFile, InvalidConfig, MissingData, SparcError, refusal

NETWORK = {
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
}
"""Numbers of errors of the network, which are no refusal of this machine."""


def sparc_error(error: Exception, place: str, *, is_local: bool) -> SparcError:
    """Return the SparcError for an error of the library: missing data, a wrong option, a refusal, or a corrupt file.

    `place` is the folder or the repository.
    """
    if isinstance(error, SparcError):
        return error
    if is_local:
        found = refusal(error, f"read {place}")
    else:  # the resolver of names has negative numbers
        found = refusal(error, f"load {place}", {errno.ENOENT, errno.EINVAL, *NETWORK, *range(-12, 0)})
    if found is not None:
        return found
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split())[:200] or type(cause).__name__
    if (differ := _difference(cause)) is not None:
        hint = "give all files of a split the same columns and types, or move the others to another folder"
        return InvalidConfig(f"hf: the files of {place} differ: {differ}", hint=hint)
    if not is_local and isinstance(error, OSError):
        hint = "check the name and the connection; for a dataset behind a gate, log in: hf auth login"
        if "Offline" in f"{type(cause).__name__} {reason}":
            hint = "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE forbids connections: unset it to download the dataset"
        return MissingData(f"hf: {place} is not available: {reason}", hint=hint)
    if type(cause).__name__ in ("DataFilesNotFoundError", "EmptyDatasetError"):
        hint = "give a folder of CSV, JSONL or Parquet files, or of images and metadata.csv; unpack archives"
        return MissingData(f"hf: {reason}", hint=hint)
    if isinstance(cause, FileNotFoundError):
        return MissingData(f"hf: a file is missing for {place}: {reason}", hint="check the paths in it")
    if type(error) is ValueError:
        return InvalidConfig(f"hf: {place}: {reason}", hint="set 'name' to a configuration of the dataset")
    if reason.startswith("BatchSize must be"):
        return MissingData(f"hf: a Parquet file of {place} has no rows", hint="remove it, or choose other files")
    hint = "make its files again, or download them again; datasets.load_dataset alone shows the details"
    return CorruptFile(f"hf: {place} cannot be read: {reason}", hint=hint)


def _difference(error: BaseException) -> str | None:
    """Return how the columns of two files differ if that is what the library's error is about."""
    from datasets.table import CastError

    if isinstance(error, CastError):
        return str(error.details())
    text = " ".join(str(error).split())[:200]
    return text if text.startswith(("Couldn't cast", "Failed to parse string")) else None
