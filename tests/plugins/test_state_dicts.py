"""State dicts from the files that people have: every tensor comes back, under the model's own names, or an error."""

import argparse
import collections
import datetime
import pathlib
import string
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from sparc.errors import CorruptFile, StorageError
from sparc.plugins import read_weights, without_prefix

STATE = {"proj.weight": torch.arange(6.0).reshape(2, 3), "proj.bias": torch.zeros(2), "norm.weight": torch.ones(2)}
PARTS = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join).filter(lambda name: name != "__metadata__")


def write(path, content):
    torch.save(content, path)  # noqa: TID251
    return path


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@settings(max_examples=20, deadline=None)
@given(names=st.sets(NAMES, min_size=1, max_size=6), nested=st.booleans(), kind=st.sampled_from(["safetensors", "pt"]))
def test_what_was_written_comes_back_whole(tmp_path_factory, names, nested, kind):
    state = {name: torch.full((number + 1,), float(number)) for number, name in enumerate(sorted(names))}
    path = tmp_path_factory.mktemp("states") / f"model.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        write(path, {"epoch": 1, "state_dict": state} if nested else state)
    assert equal(read_weights(path), state)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 10_000), kind=st.sampled_from(["safetensors", "pt"]))
def test_a_truncated_file_never_gives_fewer_tensors(tmp_path_factory, cut, kind):
    path = tmp_path_factory.mktemp("states") / f"model.{kind}"
    whole = save(STATE) if kind == "safetensors" else write(path, STATE).read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(CorruptFile):
        read_weights(path)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_with_the_tensor(tmp_path, kind, dtype, bad):
    state = {name: tensor.to(dtype, copy=True) for name, tensor in STATE.items()}
    state["proj.weight"][1, 1] = bad
    path = tmp_path / f"model.{kind}"
    save_file(state, path) if kind == "safetensors" else write(path, state)
    with pytest.raises(CorruptFile, match=r"proj\.weight, in which 1 of 6 numbers are NaN or infinite"):
        read_weights(path)


def test_large_weights_masks_and_whole_numbers_are_weights(tmp_path):
    state = {
        "large": torch.full((9,), 3e38),  # its sum is infinite
        "half": torch.full((9,), 60000, dtype=torch.float16),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
        "attn_mask": torch.full((2, 2), float("-inf")).triu(1),
        "steps": torch.tensor([2**40]),
        "none": torch.empty(0),
    }
    save_file(state, tmp_path / "model.safetensors")
    assert read_weights(tmp_path / "model.safetensors").keys() == state.keys()


@given(prefix=st.lists(st.text(string.ascii_lowercase, min_size=1), min_size=1, max_size=3).map(".".join))
def test_any_prefix_is_taken_away(prefix, tmp_path_factory):
    wrapped = {f"{prefix}.{name}": value for name, value in STATE.items()} | {"beside": torch.ones(1)}
    assert equal(without_prefix(wrapped, STATE, "file"), STATE)


def test_names_that_are_the_models_stay_and_so_do_those_of_another_model():
    assert equal(without_prefix(STATE, STATE, "file"), STATE)
    more = STATE | {"module.proj.weight": STATE["proj.weight"]}
    assert equal(without_prefix(more, STATE, "file"), more)
    other = {"module.one": torch.ones(1), "module.norm.weight": torch.ones(1)}
    assert equal(without_prefix(other, STATE, "file"), other)
    inner = {"proj._orig_mod.weight": STATE["proj.weight"], "_orig_mod.norm.weight": STATE["norm.weight"]}
    assert without_prefix(inner, STATE, "file").keys() == {"proj.weight", "norm.weight"}


def test_two_models_in_one_file_are_refused():
    both = {f"{which}.{name}": value for which in ("student", "teacher") for name, value in STATE.items()}
    with pytest.raises(CorruptFile, match=r"expected the weights of one model, found several, under 'student.' and"):
        without_prefix(both, STATE, "file")


EXTRAS = {
    "array": np.ones(3),
    "times": np.array(["2026-01-01"], "M8[D]"),
    "path": pathlib.Path("runs/one"),
    "of Windows": pathlib.PureWindowsPath("C:/runs"),
    "moment": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(hours=3),
    "options": argparse.Namespace(out=pathlib.Path("x"), inner=types.SimpleNamespace(lr=0.1)),
    "defaultdict": collections.defaultdict(list, {"loss": [0.1]}),
    "nested": collections.defaultdict(dict, {"train": collections.OrderedDict(loss=0.1)}),
    "deque": collections.deque([0.1, 0.2], maxlen=3),
    "frozen": frozenset({1, 2}),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_a_training_stores_beside_the_weights_does_no_harm(extra, zipped, tmp_path):
    path = tmp_path / "epoch_1.pt"
    torch.save({"state_dict": STATE, "extra": EXTRAS[extra]}, path, _use_new_zipfile_serialization=zipped)  # noqa: TID251
    assert equal(read_weights(path), STATE)


def test_nothing_that_could_run_code_is_restored_by_way_of_what_is_allowed(tmp_path):
    for call in ((collections.defaultdict, (print,)), (print, ("run",)), (open, (str(tmp_path / "made"), "w"))):
        extra = type("Extra", (), {"__reduce__": lambda self, call=call: call})()
        path = write(tmp_path / "model.pt", {"state_dict": STATE, "extra": extra})
        with pytest.raises(CorruptFile, match="objects that could run code"):
            read_weights(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema", "ema_state_dict"])
@pytest.mark.parametrize("other", ["model", "state_dict", "model_state_dict"])
def test_a_moving_average_goes_before_the_weights_of_the_last_step(key, other, tmp_path):
    last = {name: value + 1 for name, value in STATE.items()}
    assert equal(read_weights(write(tmp_path / "model.pt", {other: last, key: STATE})), STATE)


class Whole(torch.nn.Linear):
    """A model that is pickled as an object."""


REFUSED = {
    "an object": (
        lambda path: write(path, Whole(2, 2)),
        "could run code, such as .*test_state_dicts.Whole",
    ),
    "objects in an array": (
        lambda path: write(path, {"state_dict": STATE, "extra": np.array([{}], dtype=object)}),
        "could run code, such as numpy.dtypes.ObjectDType",
    ),
    "a program": (
        lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
        "it is a TorchScript program",
    ),
    "two models": (lambda path: write(path, {"encoder": STATE, "decoder": STATE}), "found encoder, decoder"),
    "a list": (lambda path: write(path, [torch.ones(2)]), "expected a dict of tensors, .* found list"),
    "one tensor": (lambda path: write(path, torch.ones(2)), "found one tensor"),
    "no tensors": (lambda path: write(path, {"epoch": 3}), "found epoch"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
    "a page": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "a web page, not weights"),
    "keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "weights of Keras or TensorFlow"),
    "nothing": (lambda path: path.touch(), "is empty"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(500)), "holds no readable weights"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_refused_says_why_and_what_to_do(kind, tmp_path):
    make, reason = REFUSED[kind]
    make(tmp_path / "model.pt")
    with pytest.raises(CorruptFile, match=reason) as error:
        read_weights(tmp_path / "model.pt")
    assert error.value.hint
    if kind in ("an object", "two models"):
        assert "torch.save(model.state_dict(), FILE)" in error.value.hint


def test_a_file_that_the_machine_refuses_is_not_called_damaged(tmp_path):
    path = write(tmp_path / "model.pt", STATE)
    path.unlink()
    path.mkdir()  # reading a folder is refused even to root
    with pytest.raises(StorageError, match=r"cannot read .*model.pt"):
        read_weights(path)
