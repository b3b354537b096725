"""Train one latent space on three streams: what `sparc train --dataset digits` does, from Python.

python examples/train_three_streams.py
"""

import sparc

# Features are extracted once and kept: the second call of this takes seconds. Options are those of `sparc train`.
fitted = sparc.fit(
    dataset="digits",
    stream=["hog", "tiny-image", "char-ngrams"],
    n_latents=256,
    k=16,
    epochs=20,
    lr=4e-3,
    seed=0,
)

# All that `sparc train` prints is in the report; what is called solo encodes each stream alone, as a search must.
report = fitted.report
print(f"{report.samples} held-out samples; {report.solo.alive} of {report.n_latents} latents are alive in all streams")
for pair in report.retrieval:
    found, chance = pair.latents.r10, pair.chance.r10
    print(f"{pair.query} → {pair.target}: the match is among the first ten for {found:.0%}, by chance {chance:.0%}")
print(f"saved in {fitted.path}")
