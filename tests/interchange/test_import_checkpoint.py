"""Checkpoints in the layout of the paper's research code give the same codes in sparc."""

import json

import numpy as np
import pytest
import torch

import sparc
from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.interchange.import_checkpoint import read_research_checkpoint

WIDTHS, LATENTS, KEPT = {"dino": 6, "clip-txt": 4}, 12, 3


def state():
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for stream, width in WIDTHS.items():
        tensors |= {
            f"encoders.{stream}.weight": torch.randn(LATENTS, width, generator=generator),
            f"decoders.{stream}.weight": torch.randn(width, LATENTS, generator=generator),
            f"pre_biases.{stream}": torch.randn(width, generator=generator),
            f"latent_biases.{stream}": torch.randn(LATENTS, generator=generator),
            f"stats_last_nonzero_{stream}": torch.zeros(LATENTS, dtype=torch.long),
        }
    return tensors


def written(folder, content, topk_type="global", **args):
    torch.save(content, folder / "last.pth")  # noqa: TID251  # as the research code does
    args = {"n_latents": LATENTS, "k": KEPT, "auxk": 2, "topk_type": topk_type, "lr": 1e-4, **args}
    (folder / "run_config.json").write_text(json.dumps({"args": args, "streams": list(WIDTHS)}))
    return folder / "last.pth", folder / "run_config.json"


def by_hand(tensors, features, topk_type):
    """Return codes by sample, and reconstructions of every stream from every other, from the paper's equations."""
    logits = {
        stream: (x - tensors[f"pre_biases.{stream}"]) @ tensors[f"encoders.{stream}.weight"].T
        + tensors[f"latent_biases.{stream}"]
        for stream, x in features.items()
    }
    total = sum(logits.values())
    codes = {}
    for stream, own in logits.items():
        codes[stream] = torch.zeros_like(own)
        for row in range(len(own)):
            kept = (total if topk_type == "global" else own)[row].topk(KEPT).indices
            codes[stream][row, kept] = own[row, kept].clamp(min=0)
    rebuilt = {
        source: {
            target: code @ tensors[f"decoders.{target}.weight"].T + tensors[f"pre_biases.{target}"] for target in codes
        }
        for source, code in codes.items()
    }
    return codes, rebuilt


@pytest.mark.parametrize("topk_type", ["global", "local"])
@pytest.mark.parametrize("form", ["plain", "nested", "wrapped", "compiled", "with numpy scalars"])
def test_codes_and_reconstructions_are_the_research_codes(form, topk_type, tmp_path):
    tensors = state()
    content = {
        "plain": tensors,
        "nested": {"epoch": 3, "model_state_dict": tensors},
        "wrapped": {f"module.{name}": value for name, value in tensors.items()},
        "compiled": {f"_orig_mod.module.{name}": value for name, value in tensors.items()},
        "with numpy scalars": {"best": np.float64(0.3), "losses": np.ones(3), "model": tensors},
    }[form]
    space = read_research_checkpoint(*written(tmp_path, content, topk_type))
    features = {stream: torch.randn(5, width) * 3 for stream, width in WIDTHS.items()}
    # The research code's datasets divide by the norm before its model sees the features.
    unit = {stream: x / x.norm(dim=1, keepdim=True) for stream, x in features.items()}
    expected, rebuilt = by_hand(tensors, unit, topk_type)
    codes = space.encode(features)
    for stream in WIDTHS:
        torch.testing.assert_close(codes[stream].to_dense(), expected[stream])
        for target in WIDTHS:
            torch.testing.assert_close(space.decode(codes[stream], target), rebuilt[stream][target])


def test_the_command_writes_a_space_that_loads_and_overwrites_nothing(tmp_path, sparc_here):
    files = written(tmp_path, state())
    done = sparc_here("import", "checkpoint", *files, "--out", "paper")
    assert (done.returncode, done.stderr) == (0, "")
    assert "paper: 12 latents, 3 kept, global selection; streams dino 6, clip-txt 4" in done.stdout
    assert sparc.load(tmp_path / "paper").streams == WIDTHS
    again = sparc_here("import", "checkpoint", *files, "--out", "paper")
    assert again.returncode == 1
    assert "paper already exists, and a run is never overwritten" in again.stderr


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda tensors: tensors.pop("pre_biases.dino"),
            CorruptFile,
            "expected pre_biases.dino with 1 .* found none",
        ),
        (
            lambda tensors: tensors.update({"decoders.dino.weight": torch.zeros(6, 5)}),
            CorruptFile,
            r"expected decoders.dino.weight of shape \(6, 12\), found \(6, 5\)",
        ),
        (lambda tensors: tensors.clear(), CorruptFile, "expected tensors such as encoders.STREAM.weight, found none"),
        (lambda tensors: tensors.update(trainer=Harmful()), CorruptFile, "found a Python object, print"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_nothing_in_it_runs(change, error, message, tmp_path, capsys):
    tensors = state()
    change(tensors)
    with pytest.raises(error, match=message):
        read_research_checkpoint(*written(tmp_path, tensors))
    assert capsys.readouterr().out == ""


def test_a_configuration_with_a_byte_order_mark_is_read(tmp_path):
    file, config = written(tmp_path, state())
    config.write_text(config.read_text(), encoding="utf-8-sig")
    assert read_research_checkpoint(file, config).k == KEPT


def test_raw_and_normalised_features_give_the_same_codes(tmp_path):
    """Without normalisation, raw features kept other latents than those that the research code keeps."""
    space = read_research_checkpoint(*written(tmp_path, state()))
    raw = {stream: torch.randn(20, width) * 7 for stream, width in WIDTHS.items()}
    unit = {stream: x / x.norm(dim=1, keepdim=True) for stream, x in raw.items()}
    for stream, codes in space.encode(raw).items():
        assert torch.equal(codes.indices, space.encode(unit)[stream].indices)


def test_a_configuration_that_does_not_fit_is_refused(tmp_path):
    file, config = written(tmp_path, state(), topk_type="batch")
    with pytest.raises(InvalidConfig, match="expected topk_type global or local, found 'batch'"):
        read_research_checkpoint(file, config)
    with pytest.raises(CorruptFile, match=r"expected encoders.dino.weight of shape \(13, 6\)"):
        read_research_checkpoint(*written(tmp_path, state(), n_latents=13))
    config.write_text('{"args": {"k": 3}}')
    with pytest.raises(CorruptFile, match="found no n_latents"):
        read_research_checkpoint(file, config)
    with pytest.raises(MissingData, match="no checkpoint at"):
        read_research_checkpoint(tmp_path / "other.pth", written(tmp_path, state())[1])
    with pytest.raises(MissingData, match="the configuration of a run is missing"):
        read_research_checkpoint(file, tmp_path / "other.json")
    file, config = written(tmp_path, state())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptFile, match="cannot be read"):
        read_research_checkpoint(file, config)


@pytest.mark.parametrize(
    "name", ["encoders.dino.weight", "decoders.clip-txt.weight", "pre_biases.dino", "latent_biases.clip-txt"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_a_number_that_is_not_finite_is_refused_with_its_tensor(name, value, tmp_path):
    tensors = {key: tensor.double() for key, tensor in state().items()}
    tensors[name].view(-1)[1] = value
    with pytest.raises(CorruptFile, match=f"expected finite numbers in {name}, found 1 of .* not finite in float32"):
        read_research_checkpoint(*written(tmp_path, tensors))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            {"encoders.dino.bias": torch.ones(LATENTS)},
            InvalidConfig,
            "one weight per encoder .* found encoders.dino.bias",
        ),
        ({"decoders.c.weight": torch.ones(3, LATENTS)}, CorruptFile, "expected encoders.c.weight .* found none"),
        ({"pre_biases.c": torch.ones(3)}, CorruptFile, "expected encoders.c.weight .* found none"),
        ({"pre_biases.dino": torch.ones(6).cfloat()}, CorruptFile, "pre_biases.dino as floating-point .*complex64"),
        ({"pre_biases.dino": torch.ones(6).to_sparse()}, CorruptFile, "pre_biases.dino as floating-point .*sparse"),
        ({"model.pre_biases.dino": torch.ones(6)}, InvalidConfig, "expected one tensor pre_biases.dino, found two"),
    ],
)
def test_no_parameter_of_a_checkpoint_is_left_out_or_guessed(more, error, message, tmp_path):
    with pytest.raises(error, match=message):
        read_research_checkpoint(*written(tmp_path, state() | more))


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod.", "module.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_no_part_of_a_name(prefix, tmp_path):
    wrapped = {prefix + name: tensor for name, tensor in state().items()}
    space = read_research_checkpoint(*written(tmp_path, {"state_dict": wrapped, "epoch": 3}))
    assert space.streams == WIDTHS
    assert torch.equal(space.encoders[0], state()["encoders.dino.weight"])


def test_one_of_two_checkpoints_in_a_file_is_not_chosen_silently(tmp_path):
    with pytest.raises(InvalidConfig, match="expected one checkpoint, found 2: model, ema") as error:
        read_research_checkpoint(*written(tmp_path, {"model": state(), "ema": state()}))
    assert "torch.load(file)['ema']" in error.value.hint


def test_a_configuration_of_more_latents_than_the_checkpoint_has_allocates_no_space(tmp_path):
    file, config = written(tmp_path, {"model": state()}, n_latents=10**12)
    with pytest.raises(CorruptFile, match=r"expected encoders.dino.weight of shape \(1000000000000, 6\)"):
        read_research_checkpoint(file, config)


def test_a_view_that_repeats_a_few_numbers_is_no_weight(tmp_path):
    tensors = state()
    tensors["encoders.dino.weight"] = torch.zeros(1, 1).expand(10**9, 6)
    file, config = written(tmp_path, {"model": tensors}, n_latents=10**9)
    with pytest.raises(CorruptFile, match=r"expected 6,000,000,000 numbers of encoders.dino.weight, found a view"):
        read_research_checkpoint(file, config)
