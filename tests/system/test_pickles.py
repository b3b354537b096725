"""A pickle restores what it holds, and chooses the length of nothing else."""

import datetime
import pickle  # noqa: TID251
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from sparc.errors import CorruptFile
from sparc.interchange.torch_files import load_weights_only
from sparc.plugins import read_weights


def called(name, *arguments):
    """Return a pickle that calls a function with these arguments, each of them a piece of a pickle."""
    module, _, function = name.rpartition(".")
    return b"\x80\x02c" + f"{module}\n{function}\n(".encode() + b"".join(arguments) + b"tR."


def number(value):
    return b"\x8a\x08" + value.to_bytes(8, "little")


LARGE = number(2**44)
BOMBS = {
    "bytearray": called("builtins.bytearray", LARGE),
    "bytearray of Python 2": called("__builtin__.bytearray", LARGE),
    "bytes": called("builtins.bytes", LARGE),
    "bytes of Python 2": called("__builtin__.bytes", LARGE),
    "array": called("numpy.ndarray", b"(" + LARGE + b"t"),
    "array to fill": called("numpy._core.multiarray._reconstruct", b"cnumpy\nndarray\n(" + LARGE + b"tU\x01b"),
    "array to fill of NumPy 1": called(
        "numpy.core.multiarray._reconstruct", b"cnumpy\nndarray\n(" + LARGE + b"tU\x01b"
    ),
}


@pytest.mark.parametrize("read", [load_weights_only, read_weights])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_few_bytes_allocate_no_terabytes(tmp_path, read, bomb):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2)}, path)  # noqa: TID251
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, bomb if name.endswith("data.pkl") else data)
    with pytest.raises(CorruptFile):
        read(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_programs_save_beside_tensors_comes_back(tmp_path, protocol):
    content = {
        "bytes": [b"", b"ab\xff"],
        "array of bytes": [bytearray(), bytearray(b"ab\xff")],
        "arrays": [np.arange(6.0).reshape(2, 3), np.array(["é", "b"]), np.array([], np.int8), np.array([b"x"])],
        "numbers": [np.float32(2.5), np.int64(-3), 2**80, 1j, True],
        "others": [OrderedDict(a=1), {1, 2}, datetime.datetime(2026, 1, 2), "é"],
    }
    try:
        torch.save(content, tmp_path / "x.pt", pickle_protocol=protocol)  # noqa: TID251
        found = load_weights_only(tmp_path / "x.pt")
    except CorruptFile:
        assert protocol > 2  # torch restores no other
        return
    assert pickle.dumps(found["bytes"]) == pickle.dumps(content["bytes"])
    assert found["array of bytes"] == content["array of bytes"]
    for one, other in zip(found["arrays"], content["arrays"], strict=True):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
    assert found["numbers"] == content["numbers"]
    assert found["others"] == content["others"]
