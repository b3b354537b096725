"""The file of an index: what was written comes back, and a damaged one is none."""

from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array

from sparc.index.inverted import InvertedIndex
from sparc.storage.index_file import KINDS, read_index, write_index


def made(seed=0, samples=9, latents=5):
    generator = np.random.default_rng(seed)
    dense = np.maximum(generator.normal(size=(samples, latents)), 0).astype(np.float32)
    index = InvertedIndex.build([csr_array(dense)], generator.random(samples) < 0.8, np.arange(samples))
    return {name: torch.from_numpy(array) for name, array in vars(index).items()}


@given(seed=st.integers(0, 99), samples=st.integers(1, 30), latents=st.integers(1, 9))
@settings(max_examples=25)
def test_what_was_written_comes_back(seed, samples, latents, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "codes.safetensors"
    tensors = made(seed, samples, latents)
    write_index(path, tensors)
    found = read_index(path)
    assert list(found) == list(KINDS)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_file_that_is_none_or_that_is_cut_or_that_does_not_fit_is_made_again(tmp_path):
    path = tmp_path / "codes.safetensors"
    assert read_index(path) is None
    write_index(path, made())
    content = path.read_bytes()
    for cut in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:cut])
        assert read_index(path) is None
    whole = made()
    wrong = [
        {"values": whole["values"][:-1]},
        {"values": whole["values"].double()},
        {"norms": whole["norms"][:-1]},
        {"starts": whole["starts"].flip(0).contiguous()},
        {"starts": whole["starts"] + 1},
        {"owners": whole["owners"].unsqueeze(0)},
    ]
    for change in wrong:
        write_index(path, {**whole, **change})
        assert read_index(path) is None, change
    write_index(path, whole)
    assert read_index(path) is not None
    with safe_open(path, "pt") as file:
        said = file.metadata()
    save_file({name: tensor for name, tensor in whole.items() if name != "checks"}, path, said)
    assert read_index(path) is None, "as before there were checks"
    save_file(whole, path)
    assert read_index(path) is None
    save_file(whole, path, said)
    assert read_index(path) is not None
    path.rename(tmp_path / "codes-of-another-space.safetensors")
    assert read_index(tmp_path / "codes-of-another-space.safetensors") is None


def test_each_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "codes.safetensors"
    whole = made(samples=4, latents=3)
    write_index(path, whole)
    content = path.read_bytes()
    latents, outcomes = np.arange(3), Counter()
    with path.open("r+b", buffering=0) as file:
        for place in range(8 * len(content)):
            byte = place // 8
            file.seek(byte)
            file.write(bytes([content[byte] ^ 1 << place % 8]))
            found = read_index(path)
            if found is None:
                outcomes["at opening"] += 1
            elif not InvertedIndex(**{name: one.numpy() for name, one in found.items()}).is_whole(latents):
                outcomes["at a list"] += 1
            else:
                outcomes["nothing"] += 1
                assert all(torch.equal(found[name], one) for name, one in whole.items()), place
            file.seek(byte)
            file.write(content[byte : byte + 1])
    assert read_index(path) is not None
    assert outcomes["at a list"] == 64 * len(whole["samples"]) > 0
    assert outcomes["nothing"] < 100, "such as a bit of the name __metadata__ or of a blank"
