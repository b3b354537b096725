"""The objects of a pickle that are restored: values that run no code, beside the tensors that torch itself restores."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import types
from typing import Any

_FACTORIES = (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)
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
    paths = [
        (pure, f"{module}.{name}")
        for module in _MODULES_OF_PATHS
        for pure, names in (
            (pathlib.PurePosixPath, ("PosixPath", "PurePosixPath")),
            (pathlib.PureWindowsPath, ("WindowsPath", "PureWindowsPath")),
        )
        for name in names
    ]
    collections = [(_dict, "collections.defaultdict"), (_list, "collections.deque")]
    return [*_of_numpy(), argparse.Namespace, types.SimpleNamespace, *collections, *_MOMENTS, *paths, *_FACTORIES]


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

    functions = [multiarray.scalar, multiarray._reconstruct]
    # NumPy before version 2 wrote its functions under another name.
    both = [
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in functions
        for core in ("core", "_core")
    ]
    kinds = {type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}
    return [*both, np.ndarray, np.dtype, *kinds]
