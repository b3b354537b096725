"""Train one latent space on three streams: `sparc train --dataset digits`, from Python.

python examples/train_three_streams.py
"""

import sparc

# Features are extracted once and stored. The arguments are the options of `sparc train`.
trained = sparc.train(
    dataset="digits",
    stream=["hog", "tiny-image", "char-ngrams"],
    n_latents=256,
    k=16,
    epochs=10,
    lr=8e-3,
    seed=0,
)

# The report has all numbers that `sparc train` prints. Solo numbers encode each stream alone, as a search must.
report = trained.report
print(f"{report.samples} held-out samples; {report.solo.alive} of {report.n_latents} latents are alive in all streams")
for pair in report.retrieval:
    found, chance = pair.latents.r10, pair.chance.r10
    print(f"{pair.query} → {pair.target}: the match is among the first ten for {found:.0%}, by chance for {chance:.0%}")
print(f"saved in {trained.path}")
