"""What was said about a run, completed: by a file, by the dataset's defaults, by what is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import PluginRef, RunConfig, validated
from sparc.errors import InvalidConfig, PluginError
from sparc.system.cache import cache_dir

if TYPE_CHECKING:
    from sparc.extraction import How, Job
    from sparc.plugins.registry import Registry
    from sparc.storage.run import Run

PLACES = ("data-root", "features", "store", "device")
"""Options that say where things are, and nothing about a run."""
DEFAULT_DATASET = "openmoji"
"""The embedded demo: what `sparc train` uses where no dataset is named."""


def merged(said: Mapping[str, Any], file: Mapping[str, Any], registry: Registry) -> RunConfig:
    """Merge options: what was said, else what a config file says, else the dataset's own defaults, else the paper's.

    Whether space and training make sense is not known yet: `RunConfig.checked`. Raises InvalidConfig, UnknownName.
    """
    options = {**file, **{name: value for name, value in said.items() if value is not None and value != []}}
    if "features" in options:
        _refuse_beside_features(options)
        return _with_absolute_paths(validated(RunConfig, {**options, "dataset": "imported"}))
    options.setdefault("dataset", DEFAULT_DATASET)
    dataset = validated(RunConfig, {"dataset": options["dataset"]}).dataset
    defaults = registry.dataset(dataset.name).defaults
    try:
        validated(RunConfig, {"dataset": dataset.name, **defaults})
    except InvalidConfig as error:
        message = f"the defaults of dataset '{dataset.name}' are wrong: {error.message}"
        raise PluginError(message, hint="repair that plugin") from error
    return _with_absolute_paths(validated(RunConfig, {**defaults, **options}))


def _refuse_beside_features(options: Mapping[str, Any]) -> None:
    """Options that say how features are made."""
    for name in ("dataset", "data-root", "precision", "store-dtype", "compile", "skip-bad"):
        if name in options:
            raise InvalidConfig(
                f"--features gives features that were made elsewhere, found --{name} too", hint="leave one of them out"
            )


def _with_absolute_paths(options: RunConfig) -> RunConfig:
    """The same with absolute paths, so that a run can be resumed and evaluated from any folder."""
    places = {
        name: place.expanduser().resolve()
        for name in ("data_root", "features", "store")
        if (place := getattr(options, name))
    }
    refs = {"dataset": _absolute(options.dataset), "stream": tuple(_absolute(stream) for stream in options.stream)}
    return options.model_copy(update={**places, **refs})


def _absolute(ref: PluginRef) -> PluginRef:
    """`root` and `weights` are paths by convention, unless nothing is there: then they are another plugin's names."""
    params = {
        key: str(Path(value).expanduser().resolve())
        if key in ("root", "weights") and isinstance(value, str) and Path(value).expanduser().exists()
        else value
        for key, value in ref.params.items()
    }
    return ref.model_copy(update={"params": params})


def dataset_ref(options: RunConfig) -> PluginRef:
    """The dataset, with `--data-root` as its parameter `root`."""
    if options.data_root is None:
        return options.dataset
    return options.dataset.model_copy(update={"params": {**options.dataset.params, "root": str(options.data_root)}})


def store_root(options: RunConfig) -> Path:
    """Where features are kept."""
    return options.store if options.store is not None else cache_dir("store").resolve()


def options_of(run: Run, places: Mapping[str, Any]) -> RunConfig:
    """Options of a run, but for where things lie now: `data-root`, `features`, `store` and `device`."""
    said = {name: place for name, place in places.items() if place is not None}
    content = run.provenance().get("options", {})
    return _with_absolute_paths(validated(RunConfig, {**content, **said}, what=str(run.path)))


def jobs_of(options: RunConfig, registry: Registry, device: str, *, tokens: bool = False) -> dict[str, dict[str, Job]]:
    """What there is to extract, or was imported: split to stream to job."""
    from sparc.extraction import imported, plan

    how = how_to_extract(options, device, tokens=tokens)
    if options.features is not None:
        return imported(options.features, options.stream, how)
    return plan(registry, dataset_ref(options), options.stream, root=store_root(options), how=how)


def how_to_extract(options: RunConfig, device: str, *, tokens: bool = False) -> How:
    """How features are computed and stored, on this device."""
    from sparc.extraction import How

    return How(
        device=device,
        precision=options.precision,
        store_dtype=options.store_dtype,
        compile=options.compile,
        skip_bad=options.skip_bad,
        tokens=tokens,
    )


def resolve_device(device: str) -> str:
    """Turn `auto` into a device, and check that a named one is there. Raises InvalidConfig."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a name, a build or a machine without it
        raise InvalidConfig(
            f"--device: '{device}' is not there: {str(error).splitlines()[0]}", hint="auto, cpu, cuda, cuda:1, ..."
        ) from error
    return device
