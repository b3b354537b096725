"""Resolve options: those of the caller, else a config file, else the dataset's defaults, else the recipe's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparc.config import (
    RECIPES,
    ExtractionOptions,
    Options,
    PlaceOptions,
    PluginRef,
    RunConfig,
    is_url,
    names,
    option_name,
    suggestion,
    validated,
)
from sparc.errors import InvalidConfig, PluginError
from sparc.extraction import IMPORTED
from sparc.plugins.registry import Registry
from sparc.storage.mirror import mirror_of
from sparc.system.cache import cache_dir
from sparc.system.nearby import meant
from sparc.system.refusals import reading
from sparc.system.remote import shown


def resolved(given: Mapping[str, Any], registry: Registry, file: Mapping[str, Any] | None = None) -> RunConfig:
    """Merge options: those given, else a file's, else the dataset's defaults, else the recipe's.

    Keys are option names; None and empty lists count as not given. `RunConfig.checked` then checks that the options fit
    each other. Raises InvalidConfig, UnknownName, PluginError.
    """
    options = {**(file or {}), **given_of(given)}
    recipe = RECIPES[validated(RunConfig, {key: options[key] for key in ("recipe",) if key in options}).recipe]
    if "features" in options:
        _refuse_beside_features(options)
        return with_absolute_paths(validated(RunConfig, {**recipe, **options, "dataset": IMPORTED}))
    if "data-root" in options and "dataset" not in options:
        options["dataset"] = _dataset_of(options["data-root"], registry)
    dataset = validated(RunConfig, {key: options[key] for key in ("dataset",) if key in options}).source
    defaults = registry.dataset(dataset.name).defaults
    allowed = [name for name in names(RunConfig) if name not in (*names(PlaceOptions), "dataset", "out")]
    wrong = f"the defaults of dataset '{dataset.name}' are wrong"
    if unknown := [name for name in defaults if name not in allowed]:
        raise PluginError(f"{wrong}: unknown parameter '{unknown[0]}'", hint=suggestion(unknown[0], allowed))
    try:
        validated(RunConfig, defaults, what=wrong)
    except InvalidConfig as error:
        raise PluginError(error.message, hint="fix that plugin") from error
    return with_absolute_paths(validated(RunConfig, {**recipe, **defaults, **options}))


def _dataset_of(folder: Any, registry: Registry) -> str:
    """Return the name of the dataset that recognizes a folder. Raises InvalidConfig unless one does."""
    place = validated(PlaceOptions, {"data-root": folder}).data_root or ""
    if is_url(place):
        raise InvalidConfig(
            f"--data-root: expected --dataset too, found {shown(str(place))} alone", hint="add --dataset webdataset"
        )
    root = Path(place).expanduser()
    with reading(root):
        if not root.is_dir():
            hint = meant(root, "check --data-root, and add --dataset NAME", folder=True)
            raise InvalidConfig(f"--data-root: no folder at {root}", hint=hint)
        found = [name for name, spec in registry.datasets.items() if spec.recognizes(root)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(found or registry.datasets))
    what = f"{root}, which several datasets read" if found else f"{root} alone"
    raise InvalidConfig(
        f"--data-root: expected --dataset too, found {what}", hint=f"add --dataset NAME, one of {known}"
    )


def as_options(config: RunConfig | None, arguments: Mapping[str, Any], model: type[Options]) -> dict[str, Any]:
    """Return the options that the caller of a verb set, by option name: fields set in `config`, and keyword arguments.

    None and empty lists count as not given. Raises InvalidConfig for a configuration that is not a RunConfig, and for
    an argument that is not an option, or that is given twice; the message spells it as a Python argument.
    """
    if config is not None and not isinstance(config, RunConfig):
        raise InvalidConfig(
            f"expected a RunConfig or nothing before the options, found {type(config).__name__}",
            hint="give options by keyword, such as n_latents=512, or in a sparc.RunConfig",
        )
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in model.model_fields and name not in names(model):
            raise InvalidConfig(f"unknown parameter '{name}'", hint=suggestion(name, tuple(model.model_fields)))
        if option_name(name) in given:
            raise InvalidConfig(f"found '{option_name(name)}' twice", hint="remove one of them")
        given[option_name(name)] = value
    return {**(config.given() if config is not None else {}), **given_of(given)}


def checked_path(value: Any) -> Path:
    """Return the directory that the caller of a verb gave. Raises InvalidConfig for anything but a path."""
    if not isinstance(value, str | Path):
        raise InvalidConfig(
            f"expected the directory of a space, found {type(value).__name__}",
            hint="give its path, such as runs/openmoji",
        )
    return Path(value)


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that have a value: None and empty lists mean that an option was not given."""
    empty = {name for name, value in options.items() if isinstance(value, list | tuple) and not value}
    return {name: value for name, value in options.items() if value is not None and name not in empty}


def _refuse_beside_features(options: Mapping[str, Any]) -> None:
    for name in ("dataset", "data-root", *names(ExtractionOptions)):
        if name in options:
            raise InvalidConfig(
                f"--features takes features that are already computed, found --{name} too",
                hint="remove one of them",
            )


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Make paths absolute, so that a run can be resumed and evaluated from any folder.

    Raises InvalidConfig for a path that JSON, in which runs and features name it, cannot hold.
    """
    places = {
        name: place if is_url(place) else writable_name(Path(place).expanduser().resolve(), f"--{option_name(name)}")
        for name in ("data_root", "features", "store", "out")
        if (place := getattr(config, name))
    }
    places.pop("out", None)  # which is shown as it was given
    own = config.model_copy(update={"data_root": None})
    refs = {"dataset": _absolute(own.source), "stream": tuple(_absolute(stream) for stream in config.streams)}
    return config.model_copy(update={**places, **refs})


def writable_name(path: Path, what: str) -> Path:
    """Return a path itself. Raises InvalidConfig if its name has bytes that are no UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InvalidConfig(
            f"{what}: expected a path that is UTF-8, found {str(path)!r}",
            hint="rename that folder: links to it lead to the same name",
        ) from error
    return path


def _absolute(ref: PluginRef) -> PluginRef:
    """Resolve `root` and `weights`, which are paths by convention, unless no such file exists."""
    for key, value in ref.params.items():
        if isinstance(value, str):
            writable_name(Path(value), key)
    params = {
        key: str(Path(value).expanduser().resolve())
        if key in ("root", "weights") and isinstance(value, str) and Path(value).expanduser().exists()
        else value
        for key, value in ref.params.items()
    }
    return ref.model_copy(update={"params": params})


def store_place(config: RunConfig) -> str | Path:
    """Return the feature store as a run names it: the folder, or the URL."""
    return str(config.store) if is_url(config.store) else store_root(config)


def store_root(config: RunConfig) -> Path:
    """Return the folder of the feature store; for a URL that of its copy, which need not be there yet."""
    if is_url(config.store):
        return mirror_of(str(config.store))
    return Path(config.store) if config.store is not None else cache_dir("store").resolve()
