"""One stream of a space as a TopK SAE that SAELens loads.

SAELens computes, with rows for samples (its `TopKSAE`, version 6):

    u    = norm(x),  h = (u - b_dec) W_enc + b_enc      logits
    z    = ReLU(h) on TopK_k(h), 0 elsewhere            as a space encodes one stream alone
    y    = norm^-1(z W_dec + b_dec)                     in the space of the raw features

What a space does to raw features is linear given the sample, so it goes into `norm` and the weights: the codes are the
space's, and y is the space's reconstruction with its normalisation undone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sparc.config import suggestion
from sparc.errors import InvalidConfig, UnknownName
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.system.files import json_writer, write_together

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
FORMAT = "6.0.0"
"""The SAELens whose configurations look like this; one that names none is taken for older, and loses its metadata."""


def write_saelens(space: SharedLatentSpace, stream: str, out: Path, *, backbone: dict[str, Any] | None = None) -> None:
    """Write a stream of `space` into the folder `out` as a TopK SAE of SAELens; `backbone` says what made its features.

    Given raw features, it has the codes of that stream encoded alone, by the same latents. A row of zeros, which a
    space takes for a sample that lacks the stream, is like any other row to SAELens, and NaN with unit norm.

    Raises:
        UnknownName: a stream that the space does not have.
        InvalidConfig: there is something at `out` already.
        StorageError: the disk is full; nothing is left there.
    """
    if stream not in space.streams:
        raise UnknownName(f"the space has no stream named '{stream}'", hint=suggestion(stream, [*space.streams]))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidConfig(
            f"there is something at {out} already, and an export overwrites nothing", hint="choose another --out"
        )
    config = {
        "architecture": "topk",
        "d_in": space.streams[stream],
        "d_sae": space.n_latents,
        "k": space.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        # Scales each sample to the norm sqrt(d_in), and its reconstruction back.
        "normalize_activations": "constant_norm_rescale" if space.normalization == "unit" else "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "sae_lens_version": FORMAT,
            "made_by": "sparc, a space shared by several streams (arXiv 2507.06265)",
            "stream": stream,
            "streams": space.streams,
            "backbone": backbone,
            "inputs": "raw features of the backbone; normalisation is in this configuration and the weights",
        },
    }
    tensors = _weights(space, stream)
    write_together({out / CONFIG: json_writer(config), out / WEIGHTS: lambda path: save_file(tensors, path)})


@torch.no_grad()
def _weights(space: SharedLatentSpace, stream: str) -> dict[str, Tensor]:
    """The SAE's parameters, (D, L), (L,), (L, D) and (D,) float32, with normalisation folded in.

    The space sees (x - center) / scale, where SAELens' own normalisation gives x: there is one factor and one offset
    for each way to normalise, and the rest is the same.
    """
    segment = space.segments[stream]
    center_D, scale = torch.zeros(space.streams[stream], dtype=torch.float64), 1.0
    if space.normalization == "unit":
        scale = space.streams[stream] ** 0.5
    elif space.normalization == "standard":
        center_D = space.center[segment].double().cpu()
        scale = float(space.scale[list(space.streams).index(stream)])
    weight_LD, bias_L = (tensor.double().cpu() for tensor in space.encoder(stream))
    tensors = {
        "W_enc": weight_LD.T / scale,
        "b_enc": bias_L,
        "W_dec": space.decoder[:, segment].double().cpu() * scale,
        "b_dec": space.pre_bias[segment].double().cpu() * scale + center_D,
    }
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}
