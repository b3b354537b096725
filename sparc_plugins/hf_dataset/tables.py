"""Splits of a Hugging Face dataset as memory-mapped tables, from the hub, a folder, or a stream."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sparc.plugins import (
    CorruptFile,
    InvalidConfig,
    MissingData,
    SparcError,
    cache_dir,
    identify_files,
    install,
    sha256,
    split_revision,
    write_atomically,
)
from sparc_plugins.hf_dataset.choice import choose_files
from sparc_plugins.hf_dataset.commits import commit_of
from sparc_plugins.hf_dataset.failures import sparc_error
from sparc_plugins.hf_dataset.folders import (
    check_arrow,
    decoded,
    folder_files,
    is_encoded,
    is_saved,
    located,
    some,
    telling,
    unmatched,
)
from sparc_plugins.hf_dataset.hub import HubFiles, load_repository
from sparc_plugins.hf_dataset.params import HFParams, dataset_place
from sparc_plugins.hf_dataset.texts import TextFiles, check_columns

EXTRA = install("hf")
COPY_VERSION = 4
"""Part of the name of a stream's copy. Raise it when the content of the copy changes."""
BATCH = 100
"""Rows of a stream in memory at a time."""


def read_splits(params: HFParams) -> dict[str, Any]:
    """Open the splits as memory-mapped tables: `train`, and `test` if the dataset has one.

    Raises:
        MissingData: the library is not installed, or the dataset does not exist.
        InvalidConfig: there is no such configuration, split or column, or a column has the wrong type.
        CorruptFile: the dataset's files cannot be read.
        StorageError: the machine refuses to read them.
    """
    dataset_place(params)
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingData(f"the package '{error.name}' is not installed", hint=EXTRA) from error
    if params.streaming:
        tables = _copy_stream(params)
    else:
        tables = {role: _opened(one, params, role) for role, one in choose_splits(_load(params), params).items()}
        if params.rows is not None:
            tables = {role: table.select(range(min(params.rows, len(table)))) for role, table in tables.items()}
    for role, table in tables.items():
        check_columns(params.columns, table.column_names, role)
        _check_texts(table.select_columns(params.used), role)
        with _as_images(params, table.features):
            closed = table.select_columns(params.used).cast_column(params.image, datasets.Image(decode=False))
        tables[role] = closed
    if params.root is not None and not params.streaming:
        _count_unmatched(params.root, [image_paths(table, params.image) for table in tables.values()])
    return tables


def _check_texts(table: Any, role: str) -> None:
    """Raise CorruptFile if a text is not UTF-8, which Arrow does not check while it reads."""
    import pyarrow as pa

    for column in table.column_names:
        try:
            table.data.column(column).validate(full=True)
        except pa.ArrowInvalid as error:
            raise CorruptFile(
                f"hf: the column '{column}' of {role} is damaged: {error}", hint="write or download the files again"
            ) from error


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


def _load(params: HFParams) -> Mapping[str, Any]:
    """Return all splits by name: tables or streams of the library, or files that are read as texts."""
    import datasets

    place = dataset_place(params)
    files = [] if params.root is None else folder_files(params.root)
    try:
        if params.root is None:
            return load_repository(params)
        if is_saved(files, params.root):
            check_arrow(files)
            found = datasets.load_from_disk(place)
            return found if isinstance(found, dict) else {params.train_split: found}
        return _load_folder(params, Path(place), files)
    except Exception as error:  # the library raises dozens of unrelated types
        raise sparc_error(error, dataset_place(params), is_local=params.root is not None) from error


def _load_folder(params: HFParams, folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    import datasets

    choice = choose_files(files, folder, params.name)
    found: dict[str, Any] = dict(choice.texts)
    options: dict[str, Any] = {"streaming": params.streaming}
    parquet = [path for paths in choice.parquet.values() for path in paths]
    if not params.streaming:  # the library's own cache takes files of the same times for the same
        content = identify_files(folder, files if choice.is_left else parquet, params.digest)
        known = hashlib.sha256(content.encode()).hexdigest()[:16]
        options["cache_dir"] = str(Path(datasets.config.HF_DATASETS_CACHE) / f"sparc-{known}")
    if choice.is_left:
        return dict(datasets.load_dataset(str(folder), params.name, **options))
    if parquet:
        paths = {split: [glob.escape(str(path)) for path in one] for split, one in choice.parquet.items()}
        found |= datasets.load_dataset("parquet", data_files=paths, **options)
    return found


def _opened(split: Any, params: HFParams, role: str) -> Any:
    """Return a split as a table or a stream."""
    if not isinstance(split, TextFiles | HubFiles):
        return split
    table = split.open(params.columns, role)
    return table.to_iterable_dataset() if params.streaming else table


def column_of(table: Any, name: str) -> Any:
    """Return a column as a memory-mapped Arrow array. Views of texts are copied: few functions of Arrow take them."""
    import pyarrow as pa

    column = table.select_columns([name]).with_format("arrow")[:][name]
    inner = getattr(column.type, "value_type", None)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.list_(pa.large_string())) if inner is not None and pa.types.is_string_view(inner) else column


def image_paths(table: Any, column: str) -> list[str]:
    """Return the paths of the images that are not stored in the table."""
    import pyarrow.compute as pc

    if getattr(table, "_indices", None) is not None:
        return []
    images = column_of(table, column)
    paths = pc.struct_field(images, "path").filter(pc.struct_field(images, "bytes").is_null())
    return [path for path in paths.unique().to_pylist() if path and not is_encoded(path)]


def _count_unmatched(root: str, named: Sequence[Sequence[str]]) -> None:
    """Warn about images of a folder that no row names, and about rows whose image the folder lacks."""
    if not any(named):
        return
    unnamed, lost = unmatched(folder_files(root), root, chain.from_iterable(named))
    if unnamed:
        warnings.warn(f"hf: {len(unnamed)} images of {root} are in no row: {some(unnamed)}", stacklevel=4)
    if lost:
        warnings.warn(f"hf: {len(lost)} images that rows name are not in {root}: {some(lost)}", stacklevel=4)


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
    if others := [split for split in found if split not in chosen.values()]:
        warnings.warn(f"hf: splits that are not used: {', '.join(others)}; 'test_split' chooses one", stacklevel=4)
    return {role: found[split] for role, split in chosen.items()}


def _copy_stream(params: HFParams) -> dict[str, Any]:
    """Copy the splits into Arrow files in the cache, once, and open these. An interrupted copy starts again."""
    import datasets

    options = [
        COPY_VERSION,
        params.path,
        params.name,
        params.columns,
        params.train_split,
        params.test_split,
        params.rows,
    ]
    digest = hashlib.sha256(json.dumps([identify(params), *options]).encode()).hexdigest()
    folder = cache_dir("hf", digest[:16])
    if not (folder / "train.arrow").is_file():
        streams = {role: _opened(one, params, role) for role, one in choose_splits(_load(params), params).items()}
        named: dict[str, list[str]] = {role: [] for role in streams}
        for role in sorted(streams):  # train comes last and marks the copy as complete
            write_atomically(folder / f"{role}.arrow", partial(_write_arrow, params, streams[role], role, named[role]))
        if params.root is not None:
            _count_unmatched(params.root, list(named.values()))
    return {path.stem: datasets.Dataset.from_file(str(path)) for path in sorted(folder.glob("*.arrow"))}


def _write_arrow(params: HFParams, stream: Any, role: str, named: list[str], path: Path) -> None:
    """Write the used columns of a stream to an Arrow file, with the images' bytes in place of their paths.

    `named` receives these paths.
    """
    import pyarrow as pa

    writer = None
    with path.open("wb") as file:
        for table in _tables(params, stream, role, named):
            writer = writer or pa.ipc.new_stream(file, table.schema)
            writer.write_table(table)
        if writer is None:
            raise MissingData(f"hf: the {role} split has no rows", hint="choose another split")
        writer.close()


def _tables(params: HFParams, stream: Any, role: str, named: list[str]) -> Iterator[Any]:
    """Yield the rows of a stream, batch by batch, as the cache stores them. Errors here come from the stream."""
    import datasets

    closed = datasets.Image(decode=False)
    features = None
    try:
        for piece in (stream if params.rows is None else stream.take(params.rows)).with_format("arrow").iter(BATCH):
            check_columns(params.columns, piece.column_names, role)
            table = piece.select(params.used)
            features = features or stream.features or datasets.Features.from_arrow_schema(table.schema)
            with _as_images(params, features):
                images = _embedded(closed.cast_storage(table[params.image].combine_chunks()), params.root, named)
            table = table.set_column(table.column_names.index(params.image), params.image, images)
            kept = {**{column: features[column] for column in params.used}, params.image: closed}
            yield table.cast(datasets.Features(kept).arrow_schema)
    except SparcError:
        raise
    except Exception as error:  # a lost connection or a truncated file raises any of dozens of types
        raise sparc_error(error, dataset_place(params), is_local=params.root is not None) from error


def _embedded(images: Any, root: str | None, named: list[str]) -> Any:
    """Return images with their bytes in place of their paths, which go into `named`.

    An image that is not there becomes an empty cell.
    """
    import datasets
    import pyarrow as pa

    closed = datasets.Image(decode=False)
    stored = images.to_pylist()
    for number, one in enumerate(stored):
        if one is not None and one["bytes"] is None:
            stored[number] = _found(one["path"], root, named)
    return closed.embed_storage(pa.array(stored, images.type))


def _found(cell: str | None, root: str | None, named: list[str]) -> dict[str, Any] | None:
    """Return an image that a cell names or holds as text; None if there is none. The path goes into `named`."""
    if not cell:
        return None
    try:
        if (content := decoded(cell)) is not None:
            return {"bytes": content, "path": None}
        path = located(cell, root)
    except (ValueError, FileNotFoundError):
        return None
    named.append(path)
    return {"bytes": None, "path": path} if "://" in path or os.path.isfile(path) else None


def identify(params: HFParams) -> str:
    """Return the identity of the data: names, sizes and content of a folder's files, or name and commit on the hub.

    Raises InvalidConfig, MissingData, StorageError.
    """
    dataset_place(params)
    texts = []
    if params.root is not None:
        root = Path(params.root).expanduser()
        texts.append(identify_files(root, telling(folder_files(params.root), root), params.digest))
    else:
        name, revision = split_revision(str(params.path), params.revision)
        texts.append(f"hub:{name}@{commit_of(name, revision) or revision or 'main'}")
    if params.taxonomy is not None and Path(params.taxonomy).expanduser().is_file():
        texts.append(f"taxonomy sha256:{sha256(Path(params.taxonomy).expanduser())}")
    return " ".join(texts)
