"""Features that a program has in memory, for `sparc.train(features={...})`: kept in the store as an import keeps files.

Features of the same content are kept once. Their folder in the store, `arrays-DIGEST`, becomes the option `features` of
the run, so the run is resumed, evaluated and explored later as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparc.config.references import check_stream_names
from sparc.config.signatures import RunArguments
from sparc.errors import InvalidConfig
from sparc.interchange import SPLITS
from sparc.plugins.registry import discover
from sparc.session.listener import Listener
from sparc.session.options import as_options, resolved, store_root
from sparc.session.session import free_path
from sparc.storage.manifest import IMPORTING, is_complete
from sparc.system.refusals import reading


class TrainArguments(RunArguments, total=False):
    """Arguments of `sparc.train`: the fields of `RunConfig`, and what belongs to features in memory."""

    ids: Sequence[Any] | Mapping[str, Any]
    """Ids of the samples, one per row, or by stream. Default: the numbers of the rows."""
    labels: Sequence[Any] | Mapping[str, Any] | str | Path
    """Labels of the samples: for each row, by id, or a file of them."""
    taxonomy: Mapping[str, Sequence[str]] | str | Path
    """Parents of each label, or a file of them. Default: all labels are roots."""
    split: Sequence[str] | Mapping[str, str]
    """train or test, for each row or by id. Default: a fifth of the samples is held out, drawn by their ids."""


BESIDE = tuple(name for name in TrainArguments.__annotations__ if name not in RunArguments.__annotations__)


def without_arrays(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide arguments into options, and features in memory with what belongs to them.

    Raises InvalidConfig for ids, labels, a taxonomy or a split without features in memory.
    """
    beside = {name: value for name, value in arguments.items() if name in BESIDE and value is not None}
    options = {name: value for name, value in arguments.items() if name not in BESIDE}
    features = options.get("features")
    if isinstance(features, Mapping):
        return options, {"features": options.pop("features"), **beside}
    if not isinstance(features, str | Path | None):
        raise InvalidConfig(
            f"features: expected a folder, or arrays by the names of their streams, found {type(features).__name__}",
            hint="features={'a': array, 'b': array}",
        )
    if beside:
        raise InvalidConfig(
            f"{next(iter(beside))}: expected features in memory too, features={{'a': array, ...}}",
            hint="sparc import features takes --ids, --labels, --taxonomy and --split for files",
        )
    return options, {}


def kept(arrays: Mapping[str, Any], given: Mapping[str, Any], listener: Listener) -> Path:
    """Keep features in memory in the store, and return their folder. The options are checked before.

    Raises InvalidConfig, BadFeatures for values that are not finite and for rows of zeros, InUse and StorageError.
    """
    features = arrays["features"]
    if not features or not all(isinstance(name, str) for name in features):
        raise InvalidConfig(
            f"features: expected arrays by the names of their streams, found {sorted(map(str, features))}",
            hint="features={'a': array, 'b': array}",
        )
    try:
        check_stream_names(list(features))
    except ValueError as error:
        raise InvalidConfig(f"features: {error}", hint="features={'a': array, 'b': array}") from error
    config = resolved({**given, "features": "."}, discover()).checked()
    free_path(config)
    listener.loading("PyTorch")
    from sparc.interchange.import_features import import_features
    from sparc.interchange.in_memory import held

    found = held(**arrays)
    root = store_root(config) / f"arrays-{found.digest()[:16]}"
    with reading(root):
        begun = (root / IMPORTING).exists()
    if begun or not all(is_complete(root / split / name) for split in SPLITS for name in features):
        listener.doing(f"writing {', '.join(features)} into {root}")
        import_features(found.sources, root, split=found.splits, labels=found.labels)
    listener.note(f"features: kept in {root}")
    return root


def options_of_train(config: Any, arguments: Mapping[str, Any], model: Any, listener: Listener) -> dict[str, Any]:
    """Return the options of `sparc.train` as `as_options` does; features in memory are then in the store."""
    options, arrays = without_arrays(arguments)
    given = as_options(config, options, model)
    return {**given, "features": kept(arrays, given, listener)} if arrays else given
