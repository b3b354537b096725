"""Export one stream of a space as a TopK SAE for SAELens.

SAELens (`TopKSAE`, version 6) computes for rows x of samples:

    u    = norm(x),  h = (u - b_dec) W_enc + b_enc      logits
    z    = ReLU(h) on TopK_k(h), 0 elsewhere            as a space encodes one stream, complete=False
    y    = norm^-1(z W_dec + b_dec)                     in the space of the raw features

The normalisation of a space is linear for a given sample, so it is folded into `norm` and the weights. The codes z
equal the space's codes, and y is the space's reconstruction with its normalisation undone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sparc.config import suggestion
from sparc.errors import UnknownName
from sparc.interchange import SAE_CONFIG, check_new_folder
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.system.files import json_writer, remove_temporaries, write_together
from sparc.system.locks import owned

WEIGHTS = "sae_weights.safetensors"
FORMAT = "6.0.0"
"""SAELens version of this configuration. Without it, SAELens assumes an older version and drops the metadata."""


def write_saelens(space: SharedLatentSpace, stream: str, out: Path, *, backbone: dict[str, Any] | None = None) -> None:
    """Write one stream of `space` into the new folder `out` as a TopK SAE of SAELens.

    Given raw features, the SAE computes the codes of that stream encoded alone without completion: SAELens selects by
    the values, so it can guess no stream. A row of zeros marks a missing stream in a space, but is an ordinary sample
    to SAELens, and gives NaN with unit norm. `backbone` describes the origin of the features in the metadata.

    Raises:
        UnknownName: the space has no such stream.
        InvalidConfig: `out` exists already and is not empty.
        StorageError: the disk is full. Nothing is left at `out`.
    """
    if stream not in space.streams:
        raise UnknownName(f"the space has no stream named '{stream}'", hint=suggestion(stream, [*space.streams]))
    check_new_folder(out)
    config = {
        "architecture": "topk",
        "d_in": space.streams[stream],
        "d_sae": space.n_latents,
        "k": space.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        # It scales each sample to the norm sqrt(d_in), and its reconstruction back.
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
    with owned(out, "wait until it ends; or choose another --out"):
        remove_temporaries(out)
        # The weights are the last: without them the folder counts for nothing.
        write_together({out / SAE_CONFIG: json_writer(config), out / WEIGHTS: lambda path: save_file(tensors, path)})


@torch.no_grad()
def _weights(space: SharedLatentSpace, stream: str) -> dict[str, Tensor]:
    """Return W_enc (D, L), b_enc (L,), W_dec (L, D) and b_dec (D,) in float32, with normalisation folded in.

    The space encodes (u - center) / scale, where u is SAELens' own normalisation of x. Each kind of normalisation sets
    `scale` and `center`; the formulas are the same.
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
