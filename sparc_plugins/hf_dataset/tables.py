"""Splits of a Hugging Face dataset as memory-mapped tables, from the hub, a folder, or a stream."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sparc.plugins import (
    CorruptFile,
    InvalidConfig,
    MissingData,
    Params,
    SparcError,
    cache_dir,
    sha256,
    write_atomically,
)

EXTRA = "pip install 'sparc-sae[hf]'"
SAVED = ("dataset_dict.json", "state.json")
"""Files that mark a folder written by `save_to_disk`; it has one of them."""
BATCH = 100
"""Rows of a stream in memory at a time."""


class HFParams(Params):
    """Parameters of the dataset."""

    path: str | None = None
    """Dataset on the hub, such as `nlphuji/flickr30k`."""
    root: str | None = None
    """Or a local folder, also set by `--data-root`: files for `datasets.load_dataset`, or written by `save_to_disk`."""
    name: str | None = None
    """Configuration, if the dataset has several."""
    image: str = "image"
    """Column of images."""
    caption: str = "caption"
    """Column of captions: a text, or a list of texts, each of which makes a sample."""
    labels: str | None = None
    """Column of labels: a class, a text, a number, or a list of these."""
    id: str | None = None
    """Column of ids; default: split and row, such as `train/17`."""
    group: str | None = None
    """Column that is equal for rows that show the same image."""
    train_split: str = "train"
    """Split to train on."""
    test_split: str | None = None
    """Split to evaluate on; default: `test`, or without one a fraction `holdout` of the images."""
    holdout: float = 0.2
    """Fraction of the images that is held out if there is no split to evaluate on."""
    split_seed: int = 0
    """Seed of the draw of held-out images."""
    rows: int | None = None
    """Number of rows of each split to use, from its start; default: all."""
    streaming: bool = False
    """Copy only the used columns and rows into the cache, instead of downloading all files first."""
    taxonomy: str | None = None
    """JSON file that maps each label to its parents; default: all labels are roots."""

    @property
    def columns(self) -> dict[str, str]:
        """Column of each parameter that names one."""
        named = {name: getattr(self, name) for name in ("image", "caption", "labels", "id", "group")}
        return {name: column for name, column in named.items() if column is not None}

    @property
    def used(self) -> list[str]:
        """Columns in use, each once."""
        return list(dict.fromkeys(self.columns.values()))


def read_splits(params: HFParams) -> dict[str, Any]:
    """Open the splits as memory-mapped tables: `train`, and `test` if the dataset has one.

    Raises:
        MissingData: the library is not installed, or the dataset does not exist.
        InvalidConfig: there is no such configuration, split or column, or a column has the wrong type.
        CorruptFile: the dataset's files cannot be read.
    """
    dataset_place(params)
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingData(f"the package '{error.name}' is not installed", hint=EXTRA) from error
    if params.streaming:
        tables = _copy_stream(params)
    else:
        tables = choose_splits(_load(params), params)
        if params.rows is not None:
            tables = {role: table.select(range(min(params.rows, len(table)))) for role, table in tables.items()}
    for role, table in tables.items():
        _check_columns(params, table.column_names, role)
        with _as_images(params, table.features):
            closed = table.select_columns(params.used).cast_column(params.image, datasets.Image(decode=False))
        tables[role] = closed
    return tables


@contextlib.contextmanager
def _as_images(params: HFParams, features: Any) -> Iterator[None]:
    """Turn the library's errors for a column without images into InvalidConfig."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InvalidConfig(
            f"hf: expected images in the column '{params.image}', found {features[params.image]}",
            hint=f"set 'image'; columns: {', '.join(features)}",
        ) from error


def dataset_place(params: HFParams) -> str:
    """Return the hub repository or the local folder. Raises InvalidConfig and MissingData, without the library."""
    if (params.path is None) == (params.root is None):
        found = "neither" if params.path is None else "both"
        hint = "for example --dataset 'hf[path=nlphuji/flickr30k]'"
        raise InvalidConfig(f"hf: expected path=REPOSITORY or --data-root FOLDER, found {found}", hint=hint)
    return params.path or str(_folder(params))


def _folder(params: HFParams) -> Path:
    folder = Path(params.root or "").expanduser()
    if not folder.is_dir():
        raise MissingData(f"hf: no folder at {folder}", hint="check --data-root")
    return folder


def _load(params: HFParams) -> Mapping[str, Any]:
    """Return all splits by name."""
    import datasets

    place = dataset_place(params)
    try:
        if params.root is not None and any((_folder(params) / name).is_file() for name in SAVED):
            found = datasets.load_from_disk(place)
            return found if isinstance(found, dict) else {params.train_split: found}
        return dict(datasets.load_dataset(place, params.name, streaming=params.streaming))
    except Exception as error:  # the library raises dozens of unrelated types
        raise _refused(place, error) from error


def _refused(place: str, error: Exception) -> SparcError:
    """Return the SparcError for an error of the library: missing data, a wrong option, or a corrupt file."""
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split())[:200] or type(cause).__name__
    if isinstance(error, OSError):
        hint = "check the name and the connection; for a dataset behind a gate, log in: hf auth login"
        return MissingData(f"hf: {place} is not available: {reason}", hint=hint)
    if type(error) is ValueError:
        return InvalidConfig(f"hf: {place}: {reason}", hint="set 'name' to a configuration of the dataset")
    hint = "download it again; or try datasets.load_dataset alone"
    return CorruptFile(f"hf: {place} cannot be read: {reason}", hint=hint)


def choose_splits(found: Mapping[str, Any], params: HFParams) -> dict[str, Any]:
    """Return the split to train on as `train`, and any split to evaluate on as `test`. Raises InvalidConfig."""
    test = params.test_split
    if test is None and "test" in found and params.train_split != "test":
        test = "test"
    chosen = {"train": params.train_split} if test is None else {"train": params.train_split, "test": test}
    for role, split in chosen.items():
        if split not in found:
            raise InvalidConfig(
                f"hf: the dataset has no split '{split}'", hint=f"set '{role}_split'; splits: {', '.join(found)}"
            )
    if test == params.train_split:
        hint = "name another; or leave 'test_split' out to hold out a part"
        raise InvalidConfig(f"hf: the split '{test}' is used both to train and to evaluate", hint=hint)
    return {role: found[split] for role, split in chosen.items()}


def _check_columns(params: HFParams, present: Sequence[str], role: str) -> None:
    for name, column in params.columns.items():
        if column not in present:
            raise InvalidConfig(
                f"hf: no column '{column}' in the {role} split", hint=f"set '{name}'; columns: {', '.join(present)}"
            )


def _copy_stream(params: HFParams) -> dict[str, Any]:
    """Copy the splits into Arrow files in the cache, once, and open these. An interrupted copy starts again."""
    import datasets

    options = [params.path, params.name, params.columns, params.train_split, params.test_split, params.rows]
    digest = hashlib.sha256(json.dumps([identify(params), *options]).encode()).hexdigest()
    folder = cache_dir("hf", digest[:16])
    if not (folder / "train.arrow").is_file():
        streams = choose_splits(_load(params), params)
        for role in sorted(streams):  # train comes last and marks the copy as complete
            write_atomically(folder / f"{role}.arrow", partial(_write_arrow, params, streams[role], role))
    return {path.stem: datasets.Dataset.from_file(str(path)) for path in sorted(folder.glob("*.arrow"))}


def _write_arrow(params: HFParams, stream: Any, role: str, path: Path) -> None:
    """Write the used columns of a stream to an Arrow file, with the images' bytes in place of their paths."""
    import pyarrow as pa

    writer = None
    with path.open("wb") as file:
        for table in _tables(params, stream, role):
            writer = writer or pa.ipc.new_stream(file, table.schema)
            writer.write_table(table)
        if writer is None:
            raise MissingData(f"hf: the {role} split has no rows", hint="choose another split")
        writer.close()


def _tables(params: HFParams, stream: Any, role: str) -> Iterator[Any]:
    """Yield the rows of a stream, batch by batch, as the cache stores them. Errors here come from the stream."""
    import datasets

    closed = datasets.Image(decode=False)
    features = None
    try:
        for piece in (stream if params.rows is None else stream.take(params.rows)).with_format("arrow").iter(BATCH):
            _check_columns(params, piece.column_names, role)
            table = piece.select(params.used)
            features = features or stream.features or datasets.Features.from_arrow_schema(table.schema)
            with _as_images(params, features):
                images = closed.embed_storage(closed.cast_storage(table[params.image].combine_chunks()))
            table = table.set_column(table.column_names.index(params.image), params.image, images)
            kept = {**{column: features[column] for column in params.used}, params.image: closed}
            yield table.cast(datasets.Features(kept).arrow_schema)
    except SparcError:
        raise
    except Exception as error:  # a lost connection or a truncated file raises any of dozens of types
        raise _refused(params.path or str(params.root), error) from error


def identify(params: HFParams) -> str:
    """Return the identity of the data: names, sizes and times of a folder's files, or the name on the hub.

    The hub's own version is left out, since reading it needs a connection. Raises InvalidConfig and MissingData.
    """
    dataset_place(params)
    texts = []
    if params.root is not None:
        folder = _folder(params)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        seen = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
        stamps = json.dumps([(name, status.st_size, status.st_mtime_ns) for name, status in seen])
        texts.append(f"sha256:{hashlib.sha256(stamps.encode()).hexdigest()}")
    else:
        texts.append(f"hub:{params.path}")
    if params.taxonomy is not None and Path(params.taxonomy).expanduser().is_file():
        texts.append(f"taxonomy sha256:{sha256(Path(params.taxonomy).expanduser())}")
    return " ".join(texts)
