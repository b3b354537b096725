"""Training steps of other libraries' TopK autoencoders: one stream as wide as all of ours together."""
# ruff: noqa: PLC0415 - the libraries are optional

import importlib.util

import torch


def sae_lens_step(width, latents, k, batch, device):
    """Return a function that takes a step of SAELens's TopK trainer, in bfloat16 by autocast."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    model = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=width, d_sae=latents, k=k, device=device)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    features = torch.randn(batch, width, device=device)
    dead = torch.zeros(latents, dtype=torch.bool, device=device)

    def step():
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            done = model.training_forward_pass(
                TrainStepInput(
                    sae_in=features, coefficients={}, dead_neuron_mask=dead, n_training_steps=1, is_logging_step=False
                )
            )
        optimizer.zero_grad()
        done.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def sparsify_step(width, latents, k, batch, device):
    """Return a function that takes a step of EleutherAI's sparsify, which uses bfloat16 by itself on a GPU."""
    from sparsify import SparseCoder, SparseCoderConfig

    model = SparseCoder(width, SparseCoderConfig(num_latents=latents, k=k), device=device, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    features = torch.randn(batch, width, device=device)

    def step():
        optimizer.zero_grad()
        model(features).fvu.backward()
        model.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        model.set_decoder_norm_to_unit_norm()

    return step


PEERS = {"sae_lens": sae_lens_step, "sparsify": sparsify_step}


def installed():
    """Return the names of the libraries that are here."""
    return [name for name in PEERS if importlib.util.find_spec(name) is not None]
