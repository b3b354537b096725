"""An exported stream equals the space's stream, in SAELens and in an SAE written here from its equations."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparc.config import SpaceConfig
from sparc.errors import InvalidConfig, UnknownName
from sparc.interchange.export_saelens import write_saelens
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.runs import provenance

WIDTHS, LATENTS, KEPT = {"a": 12, "b": 7}, 40, 9
NORMALIZATIONS = ("unit", "standard", "none")


def drawn_space(normalization):
    """A space without initial values: biases are not 0, and decoders are not the transposed encoders."""
    config = SpaceConfig(streams=WIDTHS, n_latents=LATENTS, k=KEPT, normalization=normalization)
    space = SharedLatentSpace(config, seed=1).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in space.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        space.renormalize_decoder()
    if normalization == "standard":
        space.fit_normalization({stream: [raw_features(stream)] for stream in WIDTHS})
    return space


def raw_features(stream):
    """Features far from the origin, whose norms differ tenfold."""
    torch.manual_seed(2)
    samples = torch.randn(64, WIDTHS[stream]) * 3 + torch.linspace(-4, 9, WIDTHS[stream])
    return samples * torch.linspace(0.2, 2, 64).unsqueeze(1)


def undone(space, stream, normalized, raw):
    """Return a space's reconstructions, in the space of the raw features."""
    if space.normalization == "unit":
        return normalized * raw.norm(dim=1, keepdim=True)
    if space.normalization == "standard":
        place = list(WIDTHS).index(stream)
        return normalized * space.scale[place] + space.center[space.segments[stream]]
    return normalized


def expected(space, stream):
    """Return codes and reconstructions of the stream encoded alone."""
    raw = raw_features(stream)
    codes = space.encode({stream: raw})[stream]
    with torch.no_grad():
        return codes.to_dense(), undone(space, stream, space.decode(codes, stream), raw)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def saelens_by_hand(folder, raw):
    """Return codes and reconstructions of an exported folder, from the equations of SAELens' TopKSAE."""
    config, weights = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
    factor = torch.ones(len(raw), 1)
    if config["normalize_activations"] == "constant_norm_rescale":
        factor = config["d_in"] ** 0.5 / raw.norm(dim=1, keepdim=True)
    logits = (raw * factor - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    kept = logits.topk(config["k"], dim=1)
    codes = torch.zeros_like(logits).scatter(1, kept.indices, kept.values.relu())
    return codes, (codes @ weights["W_dec"] + weights["b_dec"]) / factor


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("stream", WIDTHS)
def test_an_exported_stream_has_the_codes_and_reconstructions_of_the_stream_encoded_alone(
    stream, normalization, tmp_path
):
    space = drawn_space(normalization)
    write_saelens(space, stream, tmp_path / "sae")
    for found, wanted in zip(
        saelens_by_hand(tmp_path / "sae", raw_features(stream)), expected(space, stream), strict=True
    ):
        close(found, wanted)


LOAD = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from sae_lens import SAE
for folder in map(Path, sys.argv[1:]):
    sae = SAE.load_from_disk(folder)
    assert type(sae).__name__ == "TopKSAE" and sae.cfg.metadata.stream == "b", sae.cfg
    raw = load_file(folder / "raw.safetensors")["raw"]
    codes = sae.encode(raw)
    found = {"codes": codes, "rebuilt": sae.decode(codes), "forward": sae(raw)}
    save_file({name: tensor.detach() for name, tensor in found.items()}, folder / "found.safetensors")
from benchmarks.gpu.peers import sae_lens_step
sae_lens_step(24, 64, 4, 16, "cpu")()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="sae-lens is not installed (extra dev)")
def test_saelens_itself_loads_an_export_and_computes_the_same(tmp_path):
    """Run SAELens once for all exports, in a new process, since importing it takes seconds and warns.

    The benchmark's step of its trainer runs there too.
    """
    folders = {normalization: tmp_path / normalization for normalization in NORMALIZATIONS}
    for normalization, folder in folders.items():
        write_saelens(drawn_space(normalization), "b", folder)
        save_file({"raw": raw_features("b")}, folder / "raw.safetensors")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *folders.values()],
        env=offline,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    for normalization, folder in folders.items():
        codes, rebuilt = expected(drawn_space(normalization), "b")
        found = load_file(folder / "found.safetensors")
        for name, wanted in (("codes", codes), ("rebuilt", rebuilt), ("forward", rebuilt)):
            close(found[name], wanted)


def test_an_export_overwrites_nothing_and_knows_its_streams(tmp_path):
    space = drawn_space("unit")
    with pytest.raises(UnknownName, match="the space has no stream named 'c'") as error:
        write_saelens(space, "c", tmp_path / "sae")
    assert "known: a, b" in error.value.hint
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "cfg.json").write_text("{}")
    with pytest.raises(InvalidConfig, match="overwrites nothing"):
        write_saelens(space, "a", tmp_path / "full")
    assert (tmp_path / "full" / "cfg.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_the_command_exports_a_run_and_says_what_made_the_features(tmp_path, sparc_here):
    drawn_space("unit").save_pretrained(tmp_path / "run")
    made_by = {"backbone": "some-model", "params": {"size": "small"}, "weights": "hub:lab/some-model"}
    here = {**made_by, "params": {"size": "small", "weights": str(tmp_path / "weights.bin")}}
    Run(tmp_path / "run").write_provenance(provenance(streams={"a": made_by, "b": here}))
    words = ["export", "run", "--stream", "b", "--format", "saelens", "--out", "sae"]
    done = sparc_here(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sae: stream b, 7 wide, 40 latents, 9 kept" in done.stdout
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert config["metadata"]["backbone"] == {**made_by, "plugin": None}
    assert (config["architecture"], config["d_in"], config["d_sae"], config["k"]) == ("topk", 7, 40, 9)
    shapes = {name: tuple(x.shape) for name, x in load_file(tmp_path / "sae" / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (7, 40), "b_enc": (40,), "W_dec": (40, 7), "b_dec": (7,)}
    again = sparc_here(*words)
    assert (again.returncode, again.stdout) == (1, "")
    assert "sae already exists" in again.stderr


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (
            ["run", "--stream", "a", "--format", "saelense"],
            "--format: expected saelens, found 'saelense'",
            "did you mean 'saelens'?",
        ),
        (["nothing", "--stream", "a", "--format", "saelens"], "no run at nothing", "give the directory of a run"),
        (["empty", "--stream", "a", "--format", "saelens"], "the configuration of a space is missing", "check"),
    ],
)
def test_what_cannot_be_exported_is_said(words, message, hint, tmp_path, sparc_here):
    (tmp_path / "empty").mkdir()
    done = sparc_here("export", *words, "--out", "sae")
    assert done.returncode == 1
    assert message in done.stderr
    assert hint in done.stderr
    assert not (tmp_path / "sae").exists()
