"""Shared by the tests of backbones: images of noise, a backbone run as extraction runs it, a hub cache."""

import json
import pickle  # noqa: TID251
import shutil

import numpy as np
import torch
from PIL import Image

from sparc.plugins.contracts import Backbone, Sample


def noise(number, size=(80, 60)):
    pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Sample(str(number), lambda: Image.fromarray(pixels), caption=f"picture number {number}")


SAMPLES = [noise(number) for number in range(3)]
GREY = Sample("grey", lambda: SAMPLES[0].image().convert("L"), caption="picture")
GREY_AS_RGB = Sample("rgb", lambda: Image.merge("RGB", [GREY.open_image()] * 3), caption="picture")


def features(backbone, samples=SAMPLES):
    """Compute features with a pickled preprocess, as extraction does; check that `preprocessing` is plain JSON."""
    assert isinstance(backbone, Backbone)
    assert json.loads(json.dumps(backbone.preprocessing)) == backbone.preprocessing
    preprocess = pickle.loads(pickle.dumps(backbone.preprocess))
    with torch.inference_mode():
        return backbone.forward(preprocess(samples))


def tokens(backbone, samples=SAMPLES):
    """Return patch tokens; check that their features equal those of `forward` and their number fits the grid."""
    with torch.inference_mode():
        pooled, found = backbone.forward_tokens(backbone.preprocess(samples))
    torch.testing.assert_close(pooled, features(backbone, samples), rtol=0, atol=1e-6)
    rows, columns = backbone.grid
    assert found.shape[:2] == (len(samples), rows * columns)
    return found


COMMIT = "c0ffee".ljust(40, "0")


def hub_cache(root, repo, *files, commit=COMMIT):
    """Write a hub cache with these files, in the layout of the hub's own client."""
    folder = root / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, snapshot)


def offered(plugin):
    """Return the specs of a plugin's hook by name."""
    return {spec.name: spec for spec in plugin.sparc_backbones()}
