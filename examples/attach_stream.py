"""Attach a stream to a trained space: the space does not change, and only the new stream's weights are trained.

python examples/train_three_streams.py
python examples/attach_stream.py runs/digits

A space of two streams is trained first, and tiny-image is attached later, like a model that is published next year. The
result is compared, on held-out images, with a space that was trained on all three streams together.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import sparc
from sparc.core.losses import LossWeights, loss_terms, total
from sparc.evaluation import HeldOut, evaluate

OLD, NEW = ["hog", "char-ngrams"], "tiny-image"
together = sparc.load(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
features = sparc.extract(dataset="digits", stream=[*OLD, NEW])
train, test = features.train, features.test
with TemporaryDirectory() as folder:
    trained = sparc.train(dataset="digits", stream=OLD, out=Path(folder) / "two").space

# A space of three streams; the first two are copies of the trained ones.
space = sparc.SharedLatentSpace(trained.config.model_copy(update={"streams": {**trained.streams, NEW: 192}}))
width = sum(trained.streams.values())
with torch.no_grad():
    for position in range(len(OLD)):
        space.encoders[position].copy_(trained.encoders[position])
        space.latent_bias[position] = trained.latent_bias[position]
    space.decoder[:, :width] = trained.decoder
    space.pre_bias[:width] = trained.pre_bias
before = {name: tensor.clone() for name, tensor in space.state_dict().items()}

# All weights but the encoders are one tensor for all streams: only the new stream's part of it keeps its gradient.
for weight in space.encoders[: len(OLD)]:
    weight.requires_grad_(False)
space.latent_bias.register_hook(lambda gradient: torch.cat([torch.zeros_like(gradient[:-1]), gradient[-1:]]))
for weight in (space.decoder, space.pre_bias):
    weight.register_hook(
        lambda gradient: torch.cat([torch.zeros_like(gradient[..., :width]), gradient[..., width:]], -1)
    )

# The paper's loss, with all streams encoded together. It makes the new stream keep the latents that the old streams
# keep, makes its code rebuild their features through their fixed decoders, and makes its decoder read their codes.
optimizer = torch.optim.Adam([space.encoders[-1], space.latent_bias, space.decoder, space.pre_bias], lr=4e-3)
rows_of = train.in_memory()
generator = torch.Generator().manual_seed(0)
for _ in range(20):
    for rows in torch.randperm(len(train), generator=generator).split(256):
        batch = space.normalize({name: rows_of[name][rows] for name in space.streams})
        loss = total(loss_terms(space, batch, space.encode_batch(batch), LossWeights(cross=1.0)))
        optimizer.zero_grad()
        loss.backward()
        space.project_decoder_gradient()
        optimizer.step()
        space.renormalize_decoder()

after = space.state_dict()
moved = [name for name in ("encoders.0", "encoders.1") if not torch.equal(after[name], before[name])]
moved += ["latent_bias"] * (not torch.equal(after["latent_bias"][:-1], before["latent_bias"][:-1]))
# Scaling the columns back to unit norm rounds.
moved += ["decoder"] * (not torch.allclose(after["decoder"][:, :width], before["decoder"][:, :width], atol=1e-6))
print(f"weights of {' and '.join(OLD)} that changed: {', '.join(moved) or 'none'}")

samples = HeldOut(test.in_memory(), groups=test.ids, rows=test.rows)
for name, one in (("attached", space.eval()), ("trained together", together)):
    report = evaluate(one, samples).report
    nmse, (pair,) = report.solo.nmse, (pair for pair in report.retrieval if (pair.query, pair.target) == (NEW, "hog"))
    print(
        f"{name + ':':17} {NEW} → {NEW} NMSE {nmse[NEW][NEW]:.3f}, → hog NMSE {nmse[NEW]['hog']:.3f}; search for hog "
        f"with {NEW}, R@10 {pair.latents.r10:.2f} (chance {pair.chance.r10:.2f})"
    )
