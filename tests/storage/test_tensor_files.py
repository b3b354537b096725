"""Files of tensors: their header is checked before anything is allocated, and each bit of their content counts."""

import json
import struct
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparc import SpaceConfig
from sparc.core.completion import Completion
from sparc.errors import CorruptFile
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.tensor_files import write_tensors
from sparc.system.tensor_headers import read_header

CONFIG = SpaceConfig(streams={"a": 6, "b": 4}, n_latents=16, k=2)


@pytest.fixture
def space(tmp_path):
    space = SharedLatentSpace(CONFIG, seed=1)
    space.completion = Completion(space.streams, torch.ones(10), torch.ones(3, 10), 0.5)
    space.save_pretrained(tmp_path)
    return space


def configured(folder, **fields):
    content = json.loads((folder / "config.json").read_text())
    content["space"].update(fields)
    (folder / "config.json").write_text(json.dumps(content))


def with_header(path, header, body=b""):
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + body)


def test_a_loaded_space_is_the_saved_one(space, tmp_path):
    found = load(tmp_path)
    assert all(torch.equal(one, found.state_dict()[name]) for name, one in space.state_dict().items())
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in found.parameters())
    x = torch.randn(5, 6)
    assert torch.equal(space.encode({"a": x})["a"].values, found.encode({"a": x})["a"].values)
    (tmp_path / "model.safetensors").unlink()  # the space holds copies, not views of the file
    assert torch.equal(space.decoder, found.decoder)


def test_a_space_in_half_precision_loads_in_float32(space, tmp_path):
    space.half().save_pretrained(tmp_path / "half")
    found = load(tmp_path / "half")
    assert found.decoder.dtype == torch.float32
    assert torch.equal(found.decoder, space.decoder.float())


@pytest.mark.parametrize("file", ["model.safetensors", "completion.safetensors"])
def test_every_bit_counts(space, tmp_path, file):
    path = tmp_path / file
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in [*range(0, header, 5), *range(header, len(whole), 37)]:
        if whole[place : place + 1] == b" " and place > header - 8:
            continue  # padding
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(CorruptFile, match=file):
            load(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_latents": 20_000_000},
        {"n_latents": 10**18},
        {"streams": {"a": 6, "b": 10**12}},
        {"streams": {f"s{number}": 1000 for number in range(3000)}, "n_latents": 10**6},
    ],
)
def test_a_configuration_of_more_than_the_file_holds_allocates_nothing(space, tmp_path, fields):
    configured(tmp_path, **fields)
    tracemalloc.start()
    with pytest.raises(CorruptFile, match=r"does not fit config\.json: expected at least"):
        load(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_latents": 15}, r"expected latent_bias as F32 \(2, 15\), found F32 \(2, 16\)"),
        ({"streams": {"a": 4, "b": 6}}, r"expected encoders.0 as F32 \(16, 4\), found F32 \(16, 6\)"),
        ({"streams": {"a": 6, "b": 3, "c": 1}}, r"expected the tensor encoders.2, found none of that name"),
        ({"streams": {"a": 10}}, r"expected 6 tensors, found 7, such as encoders.1"),
    ],
)
def test_a_header_of_another_shape_is_refused(space, tmp_path, fields, message):
    configured(tmp_path, **fields)
    with pytest.raises(CorruptFile, match=message):
        load(tmp_path)


def test_a_tensor_of_another_type_is_refused(space, tmp_path):
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "decoder": state["decoder"].to(torch.int32)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match=r"expected decoder as F32 \(16, 10\), found I32"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "completion.safetensors"])
@pytest.mark.parametrize(
    "header",
    [
        {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(20_000)},
        b"[" * 5000,
        b"{}",
        b"[]",
        b'{"mean": 3}',
        b'{"mean": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}',
        b'{"__metadata__": 3}',
        b"\xff\xfe",
    ],
    ids=["many", "deep", "empty", "list", "number", "infinite", "metadata", "bytes"],
)
def test_a_header_that_is_none_is_refused(space, tmp_path, file, header):
    with_header(tmp_path / file, header)
    with pytest.raises(CorruptFile, match=file):
        load(tmp_path)


def test_a_header_that_claims_to_be_longer_than_the_file_is_not_read(tmp_path):
    path = tmp_path / "some.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(ValueError, match="expected a header of at most"):
        read_header(path)
    path.write_bytes(struct.pack("<Q", 1000) + b"{}")
    with pytest.raises(ValueError, match="expected a header of 1,000 bytes, found 2"):
        read_header(path)


def test_equal_content_gives_equal_bytes_whatever_the_metadata_hold(tmp_path):
    tensors = {"x": torch.arange(6).reshape(2, 3), "y": torch.zeros(0, 4, dtype=torch.bfloat16), "z": torch.ones(())}
    metadata = dict.fromkeys(("c", "a", "ß", "b\t"), 'é"\\\n\x01\u2028' * 3)
    for name in ("1", "2", "3"):
        write_tensors(tmp_path / name, tensors, metadata)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == (tmp_path / "3").read_bytes()
    header = read_header(tmp_path / "1")
    assert {name: header.metadata[name] for name in metadata} == metadata
    assert header.tensors["x"] == ("I64", (2, 3))
    assert torch.equal(load_file(tmp_path / "1")["x"], tensors["x"])
