"""Weights in several files with an index are read as those in one file are, with the same checks."""

import json
import shutil

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

import sparc
from sparc.core.completion import Completion
from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.storage.belonging import weights_in
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.index_file import index_path
from sparc.storage.run import Run
from sparc.storage.weight_files import INDEXED, space_files, weight_files
from tests.storage.test_store import write_stream


def saved(folder, seed=0):
    space = SharedLatentSpace(sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=16, k=2), seed=seed)
    space.completion = Completion(space.streams, torch.full((10,), float(seed)), torch.ones(3, 10), 0.5)
    space.save_pretrained(folder)
    return space


def split(folder, convert=lambda tensor: tensor):
    """Split the weights of a folder as the hub's client does."""
    whole = folder / "model.safetensors"
    state = {name: convert(tensor) for name, tensor in load_file(whole).items()}
    whole.unlink()
    save_torch_state_dict(state, folder, max_shard_size=500)
    assert (folder / INDEXED).is_file()
    return folder


@pytest.fixture
def folder(tmp_path):
    saved(tmp_path / "space")
    return split(tmp_path / "space")


def test_weights_that_the_hubs_client_split_are_those_of_one_file(folder, tmp_path):
    one = saved(tmp_path / "one")
    found = sparc.load(folder)
    assert len(weight_files(folder)) > 2
    for name, tensor in one.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert torch.equal(found.completion.mean, one.completion.mean)
    assert weights_in(folder) == weights_in(tmp_path / "one")
    found.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "one" / "model.safetensors"
    ).read_bytes()


def test_such_a_folder_is_a_finished_run_that_is_copied_whole_and_never_overwritten(folder, tmp_path):
    run = Run(folder)
    assert run.finished
    assert run.is_space
    attaching = Run(tmp_path / "attaching")
    attaching.copy_base(folder)
    assert torch.equal(sparc.load(attaching.base).decoder, sparc.load(folder).decoder)
    Run.check_free(tmp_path / "attaching")  # as if the process had been killed after it had copied
    (folder / "provenance.json").write_text("{}")
    with pytest.raises(InvalidConfig, match="a run is never overwritten"):
        sparc.load(folder).save_pretrained(folder)


def test_a_space_that_is_saved_over_one_in_several_files_takes_its_place(folder):
    other = saved(folder, seed=1)
    assert torch.equal(sparc.load(folder).decoder, other.decoder)
    assert space_files(folder) == [
        folder / name for name in ("config.json", "model.safetensors", "completion.safetensors")
    ]


def altered(folder):
    path = next(path for path in weight_files(folder) if "decoder" in load_file(path))
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


def infinite(folder):
    path = next(path for path in weight_files(folder) if "decoder" in load_file(path))
    state = load_file(path)
    state["decoder"][3, 2] = torch.nan
    save_file(state, path)
    config = json.loads((folder / "config.json").read_text())
    del config["weights"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "completion.safetensors").unlink()


def another_shape(folder):
    path = next(path for path in weight_files(folder) if "pre_bias" in load_file(path))
    save_file(load_file(path) | {"pre_bias": torch.zeros(11)}, path)


def another_place(folder):
    index = json.loads((folder / INDEXED).read_text())
    index["weight_map"]["pre_bias"] = index["weight_map"]["decoder"]
    (folder / INDEXED).write_text(json.dumps(index))


def cut(folder):
    path = weight_files(folder)[0]
    path.write_bytes(path.read_bytes()[:-9])


def without_tensor(folder):
    index = json.loads((folder / INDEXED).read_text())
    del index["weight_map"]["scale"]
    (folder / INDEXED).write_text(json.dumps(index))


@pytest.mark.filterwarnings("ignore:.*completion.safetensors is missing")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (altered, "are altered, or of another space than config.json: expected the digest "),
        (infinite, "expected finite weights, found .*decoder"),
        (another_shape, r"expected pre_bias as F32 \(10,\), found F32 \(11,\)"),
        (another_place, "expected the tensor pre_bias, found none of that name|expected . tensors, found"),
        (cut, "is truncated or does not fit config.json"),
        (without_tensor, "they differ in scale"),
    ],
)
def test_damage_is_an_error_that_says_what(folder, damage, message):
    damage(folder)
    with pytest.raises(CorruptFile, match=message):
        sparc.load(folder)


def test_a_missing_file_and_one_outside_the_folder_are_named(folder, tmp_path):
    left = shutil.copytree(folder, tmp_path / "left")
    gone = weight_files(left)[1]
    gone.unlink()
    with pytest.raises(MissingData, match=rf"1 of them are not beside it, such as {gone.name}"):
        sparc.load(left)
    index = json.loads((folder / INDEXED).read_text())
    index["weight_map"]["scale"] = "../other.safetensors"
    (folder / INDEXED).write_text(json.dumps(index))
    with pytest.raises(CorruptFile, match="expected files in its own folder"):
        sparc.load(folder)


def test_files_of_two_spaces_are_not_mixed(folder, tmp_path):
    saved(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "completion.safetensors", folder)
    with pytest.raises(CorruptFile, match="belongs to other weights"):
        sparc.load(folder)


def test_weights_of_half_the_size_are_read_as_float32(tmp_path):
    one = saved(tmp_path / "space")
    folder = split(tmp_path / "space", lambda tensor: tensor.bfloat16())
    assert torch.equal(sparc.load(folder).decoder, one.decoder.bfloat16().float())


def test_the_index_of_a_search_belongs_to_the_weights(folder, tmp_path):
    stream = write_stream(tmp_path / "a", torch.ones(10, 6), [str(number) for number in range(10)])
    saved(tmp_path / "other", seed=1)
    split(tmp_path / "other")
    for name in ("config.json", "completion.safetensors", INDEXED):
        shutil.copy(folder / name, tmp_path / "other")
    assert index_path(stream, folder, "a") != index_path(stream, tmp_path / "other", "a")
