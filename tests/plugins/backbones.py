"""What the tests of backbones share: pictures of noise, a backbone run as extraction runs it, the hub's cache."""

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
    """As data-loading workers and the extraction do it; what goes into the manifest is plain JSON."""
    assert isinstance(backbone, Backbone)
    assert json.loads(json.dumps(backbone.preprocessing)) == backbone.preprocessing
    preprocess = pickle.loads(pickle.dumps(backbone.preprocess))
    with torch.inference_mode():
        return backbone.forward(preprocess(samples))


def tokens(backbone, samples=SAMPLES):
    """Patch tokens, after a check that the features beside them are those of `forward` and the grid is theirs."""
    with torch.inference_mode():
        pooled, found = backbone.forward_tokens(backbone.preprocess(samples))
    torch.testing.assert_close(pooled, features(backbone, samples), rtol=0, atol=1e-6)
    rows, columns = backbone.grid
    assert found.shape[:2] == (len(samples), rows * columns)
    return found


def hub_cache(root, repo, *files):
    """The layout that the hub's own client keeps, holding these files."""
    folder = root / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    snapshot = folder / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for file in files:
        shutil.copy(file, snapshot)


def offered(plugin):
    """What a plugin's hook answers, by name."""
    return {spec.name: spec for spec in plugin.sparc_backbones()}
