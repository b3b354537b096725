"""The objects of a pickle that are restored: values that run no code, beside the tensors that torch itself restores."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import pathlib
import types
import uuid
from typing import Any

_FACTORIES = (bool, complex, dict, float, frozenset, int, list, set, str, tuple)
"""Built-in types that a defaultdict names as its factory, and by which collections are restored."""
_MOMENTS = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone)
_MODULES_OF_PATHS = ("pathlib", "pathlib._local")
"""Module of paths; the second name is that of Python 3.13."""


def harmless() -> list[Any]:
    """Return what torch may restore from a pickle besides tensors, for `torch.serialization.safe_globals`.

    Those are arrays and numbers of NumPy without Python objects in them, options (`Namespace`), paths, times, and
    collections. A path becomes a pure one, which has no access to files, on any system; a defaultdict becomes a dict
    and a deque a list, since torch fills no others.
    """
    _bound_torch()
    paths = [
        (pure, f"{module}.{name}")
        for module in _MODULES_OF_PATHS
        for pure, names in (
            (pathlib.PurePosixPath, ("PosixPath", "PurePosixPath")),
            (pathlib.PureWindowsPath, ("WindowsPath", "PureWindowsPath")),
        )
        for name in names
    ]
    sized = [
        (function, f"{module}.{kind.__name__}")
        for kind, function in ((bytes, _bytes), (bytearray, _bytearray))
        for module in ("builtins", "__builtin__")
    ]
    collections = [*sized, (_dict, "collections.defaultdict"), (_list, "collections.deque")]
    return [*_of_numpy(), argparse.Namespace, types.SimpleNamespace, *collections, *_MOMENTS, *paths, *_FACTORIES]


def _bound_torch() -> None:
    """Replace the array of bytes that torch restores on its own, of whatever length a file says."""
    with contextlib.suppress(ImportError, AttributeError, KeyError):  # another version of torch names it otherwise
        from torch._weights_only_unpickler import _get_allowed_globals

        allowed = _get_allowed_globals()  # kept by torch, and the same at each call
        if allowed["builtins.bytearray"] is bytearray:
            allowed["builtins.bytearray"] = _bytearray


def _bytes(*content: Any) -> bytes:
    """Return bytes of a text or of numbers. A single number would be a length, which a file must not choose."""
    if any(isinstance(one, int) for one in content):
        raise ValueError("it makes bytes of a length instead of a content")
    return bytes(*content)


def _bytearray(*content: Any) -> bytearray:
    """Return an array of bytes, as `_bytes`."""
    return bytearray(_bytes(*content))


def _dict(factory: object = None) -> dict[Any, Any]:
    """Return the dict that takes the place of a defaultdict, whose items follow in the pickle."""
    return {}


def _list(items: object = (), length: object = None) -> list[Any]:
    """Return the list that takes the place of a deque, whose items follow in the pickle."""
    return []


def _of_numpy() -> list[Any]:
    """Return what rebuilds arrays and numbers of NumPy, without Python objects in them."""
    import numpy as np  # not at the top: planning an extraction needs none
    from numpy._core import multiarray

    functions = [(multiarray.scalar, "scalar"), (_empty_array, "_reconstruct")]
    # NumPy before version 2 wrote its functions under another name.
    both = [(function, f"numpy.{core}.multiarray.{name}") for function, name in functions for core in ("core", "_core")]
    kinds = {type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}
    # torch fills an array later if it knows the type. Under its own name a file could make one of any size.
    arrays = [(_Array, "numpy.ndarray"), (np.ndarray, f"{uuid.uuid4().hex}.ndarray")]
    return [*both, *arrays, np.dtype, *kinds]


class _Array:
    """Stands for NumPy's array where a pickle names it."""


def _empty_array(kind: object, shape: tuple[int, ...], code: object) -> Any:
    """Return the array of no length that NumPy's pickles fill later."""
    import numpy as np

    if kind is not _Array or tuple(shape) != (0,):
        raise ValueError("it makes an array of a length instead of a content")
    return np.empty(0, np.int8)
