"""Attach a stream to a trained space: `sparc attach`, from Python. The space itself does not change.

python examples/train_three_streams.py
python examples/attach_stream.py runs/digits

A space of two streams is trained first, and tiny-image is attached later, like a model that is published next year. The
result is compared, on held-out images, with the run of `train_three_streams.py`, which trains all three together.
"""

import sys
from tempfile import TemporaryDirectory

import sparc

OLD, NEW = ["hog", "char-ngrams"], "tiny-image"
together = sparc.train(resume=sys.argv[1] if len(sys.argv) > 1 else "runs/digits")  # it is trained, so this opens it
with TemporaryDirectory() as folder:
    two = sparc.train(
        dataset="digits", stream=OLD, n_latents=256, k=16, epochs=10, lr=8e-3, seed=0, out=f"{folder}/two"
    )
    attached = sparc.attach(two.path, stream=NEW, out=f"{folder}/three")

# Without the new stream, the old ones are encoded as before, to the bit.
rows = sparc.extract(dataset="digits", stream=OLD).test.in_memory()
for name in OLD:
    before, after = (run.space.encode({name: rows[name]})[name].to_dense() for run in (two, attached))
    print(f"{name} alone: codes that changed: {int((before != after).any(dim=1).sum())} of {len(before)}")


def recall(run: sparc.session.Trained, query: str, target: str) -> float:
    """Return the share of the searches of one stream with another that have the match among the first ten."""
    return next(one.latents.r10 for one in run.report.retrieval if (one.query, one.target) == (query, target))


pairs = [pair for old in OLD for pair in ((NEW, old), (old, NEW))]
for query, target in pairs:
    late, early = recall(attached, query, target), recall(together, query, target)
    print(f"{query} → {target}: R@10 {late:.3f} attached, {early:.3f} trained together")
share = sum(recall(attached, *pair) for pair in pairs) / sum(recall(together, *pair) for pair in pairs)
print(f"on average, the attached stream has {share:.0%} of the R@10 of the one that was trained together")
