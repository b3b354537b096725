"""The completion of a space on disk: a file of its own beside the model."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparc import SharedLatentSpace, SpaceConfig, load
from sparc.core.completion import Completion
from sparc.core.kernel_guess import KernelGuess
from sparc.errors import CorruptFile

WIDTHS = {"a": 5, "b": 4}


@pytest.fixture
def space():
    made = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=20, k=3))
    generator = torch.Generator().manual_seed(0)
    made.completion = Completion(
        WIDTHS, torch.randn(9, generator=generator), torch.randn(6, 9, generator=generator), 0.1 + 0.2
    )
    return made.eval()


def codes(space):
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    return space.encode({"a": x})["a"]


def test_a_completion_is_saved_and_loaded_with_its_space(space, tmp_path):
    space.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.completion.ridge == space.completion.ridge  # to the bit
    assert torch.equal(loaded.completion.factor, space.completion.factor)
    assert torch.equal(codes(loaded).indices, codes(space).indices)
    assert torch.equal(codes(loaded).values, codes(space).values)


@pytest.fixture
def kernels(space):
    generator = torch.Generator().manual_seed(2)
    landmarks, weights = torch.randn(7, 5, generator=generator), torch.randn(7, 6, generator=generator)
    space.completion = space.completion.with_kernels({"a": KernelGuess(landmarks, weights, 0.1 + 0.2)})
    return space


def test_kernels_are_saved_and_loaded_with_their_completion(kernels, tmp_path):
    kernels.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.completion.shape == kernels.completion.shape  # the precision to the bit
    assert torch.equal(loaded.completion.kernels["a"].landmarks, kernels.completion.kernels["a"].landmarks)
    assert torch.equal(codes(loaded).indices, codes(kernels).indices)
    assert torch.equal(codes(loaded).values_for("b"), codes(kernels).values_for("b"))


def saved_again(path, metadata=(), **tensors):
    every = {**load_file(path), **{name.replace("_", "."): tensor for name, tensor in tensors.items()}}
    save_file({name: tensor for name, tensor in every.items() if tensor is not None}, path, metadata=dict(metadata))


RIDGE = {"ridge": "0.3"}


@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        (RIDGE, {}),
        (RIDGE | {"precision.0": "0"}, {}),
        (RIDGE | {"precision.0": "much"}, {}),
        (RIDGE | {"precision.0": "inf"}, {}),
        (RIDGE | {"precision.0": "1"}, {"landmarks_0": torch.zeros(7, 4)}),
        (RIDGE | {"precision.0": "1"}, {"landmarks_0": torch.zeros(7, 5, 1)}),
        (RIDGE | {"precision.0": "1"}, {"weights_0": torch.zeros(7, 5)}),
        (RIDGE | {"precision.0": "1"}, {"weights_0": torch.zeros(6, 6)}),
        (RIDGE | {"precision.0": "1"}, {"weights_0": None}),
        (RIDGE | {"precision.0": "1"}, {"landmarks_0": None}),
        (RIDGE | {"precision.0": "1"}, {"weights_0": torch.full((7, 6), torch.inf)}),
        (RIDGE | {"precision.0": "1"}, {"landmarks_2": torch.zeros(7, 4)}),
    ],
)
def test_a_damaged_kernel_is_named_with_what_to_do(kernels, tmp_path, metadata, tensors):
    kernels.save_pretrained(tmp_path)
    saved_again(tmp_path / "completion.safetensors", metadata, **tensors)
    with pytest.raises(CorruptFile, match="is truncated or does not fit") as caught:
        load(tmp_path)
    assert "sparc complete" in caught.value.hint


def test_the_model_is_the_same_file_with_and_without_a_completion(space, tmp_path):
    space.save_pretrained(tmp_path / "with")
    space.completion = None
    space.save_pretrained(tmp_path / "without")
    models, configs = (
        [(tmp_path / folder / name).read_bytes() for folder in ("with", "without")]
        for name in ("model.safetensors", "config.json")
    )
    assert models[0] == models[1]
    assert json.loads(configs[0]) == json.loads(configs[1]) | {"completion": True}
    assert load(tmp_path / "without").completion is None


def test_a_space_without_completion_that_replaces_one_with_it_leaves_none_behind(space, tmp_path):
    space.save_pretrained(tmp_path)
    space.completion = None
    space.save_pretrained(tmp_path)
    assert load(tmp_path).completion is None


def test_a_completion_follows_its_space_to_another_dtype(space):
    space.double()
    assert space.encode({"a": torch.randn(3, 5)})["a"].values.dtype == torch.float64


def truncated(path):
    path.write_bytes(path.read_bytes()[:-20])


def of_another_space(path):
    save_file({"mean": torch.zeros(8), "factor": torch.zeros(2, 8)}, path, metadata={"ridge": "0.1"})


def not_finite(path):
    save_file({"mean": torch.zeros(9), "factor": torch.full((2, 9), torch.nan)}, path, metadata={"ridge": "0.1"})


def without_ridge(path):
    save_file(load_file(path), path)


def ridge_of_zero(path):
    save_file(load_file(path), path, metadata={"ridge": "0"})


@pytest.mark.parametrize("damage", [truncated, of_another_space, not_finite, without_ridge, ridge_of_zero])
def test_a_damaged_completion_is_named_with_what_to_do(space, tmp_path, damage):
    space.save_pretrained(tmp_path)
    damage(tmp_path / "completion.safetensors")
    with pytest.raises(
        CorruptFile, match=r"completion\.safetensors is truncated or does not fit config\.json"
    ) as caught:
        load(tmp_path)
    assert "sparc complete" in caught.value.hint


def test_the_hub_gives_the_completion_too(space, tmp_path, monkeypatch):
    repo = tmp_path / "hub" / "models--lab--space"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c0ffee")
    space.save_pretrained(repo / "snapshots" / "c0ffee")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load("lab/space").completion.rank == 6


def test_the_file_says_nothing_of_the_machine(space, tmp_path):
    space.save_pretrained(tmp_path)
    raw = (tmp_path / "completion.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"]["ridge"] == "0.30000000000000004"
    assert header["__metadata__"].keys() == {"ridge", "sha256", "weights"}
    assert os.fsencode(tmp_path) not in raw
