"""A small run to explore, made by hand, and what a page reads of its site."""

import json
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from scipy.sparse import csr_array

from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import encode
from sparc.explorer.shown import Shown, evenly
from sparc.explorer.site import About
from sparc.plugins.contracts import Sample, Taxonomy

ANIMALS = Taxonomy(
    {"thing": [], "animal": ["thing"], "plant": ["thing"], "cat": ["animal"], "dog": ["animal"], "fern": ["plant"]}
)
COLOURS = [(200, 30, 30), (30, 160, 60), (40, 60, 210)]


@dataclass
class Pictures:
    """A dataset of coloured pictures; a picture is shown by two captions that follow one another."""

    count: int
    captions: list = None
    taxonomy: Taxonomy = None
    label_of: list = field(default_factory=list)
    broken: tuple = ()

    @property
    def ids(self):
        return [f"s{number}" for number in range(self.count)]

    @property
    def groups(self):
        return [f"picture {number // 2}" for number in range(self.count)]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        def open_image():
            if index // 2 in self.broken:
                raise OSError("broken data stream")
            return Image.new("RGB", (64, 32), COLOURS[index // 2 % 3])

        caption = None if self.captions is None else self.captions[index]
        return Sample(f"s{index}", open_image, caption, image_id=f"picture {index // 2}")

    def labels(self):
        if self.taxonomy is None:
            return None
        found = np.zeros((self.count, len(self.taxonomy.labels)), np.float32)
        found[np.arange(self.count), [self.taxonomy.labels.index(label) for label in self.label_of]] = 1
        return csr_array(found)


def kinds(count):
    """The kind of each sample: cat, dog or fern, the same for both captions of a picture."""
    return [("cat", "dog", "fern")[number // 2 % 3] for number in range(count)]


def made(count=60, *, labels=True, streams=("eye", "lens", "word"), seed=0, **changes):
    """A space of 12 latents and its samples. Latents 0, 1, 2 of each stream are those of cat, dog, fern.

    Every seventh sample lacks the last stream. Latent 11 is dead; latent 10 repeats latent 0.
    """
    space = LatentSpace(dict.fromkeys(streams, 12), 12, 3, normalization="none", selection="local", seed=seed)
    with torch.no_grad():
        for encoder in space.encoders:
            encoder.copy_(torch.eye(12))
            encoder[11] = 0
        if "lens" in streams:
            space.decoder[10, space.segments["lens"]] = space.decoder[0, space.segments["lens"]]
        for name in streams:
            space.decoder[10, space.segments[name]] = space.decoder[0, space.segments[name]]
    drawn = torch.Generator().manual_seed(seed)
    features = {name: torch.rand(count, 12, generator=drawn) * 0.8 for name in streams}
    for name in streams:
        features[name][:, :3] *= 0.1  # so that the latents of the kinds seldom fire for others
    for number, kind in enumerate(kinds(count)):
        for name in streams:
            features[name][number, ("cat", "dog", "fern").index(kind)] += 2
    for name in streams:
        if name == "eye":  # both captions of a picture show the same one
            features[name][1::2] = features[name][0::2][: count // 2]
    if len(streams) > 1:
        features[streams[-1]][::7] = 0
    captions = [f"a {kind} of number {number}" for number, kind in enumerate(kinds(count))]
    dataset = changes.pop("dataset", None) or Pictures(
        count, captions, ANIMALS if labels else None, kinds(count) if labels else []
    )
    fields = {
        "encodings": encode(space, features),
        "dataset": dataset,
        "places": evenly(count, count),
        "rows": {name: np.arange(count) // 2 if name == "eye" else np.arange(count) for name in streams},
        "modalities": {name: "text" if name == "word" else "image" for name in streams},
        "stored": {},
    }
    return Shown(**{**fields, **changes})


def about(tmp_path, **changes):
    fields = {
        "name": "run",
        "version": "0",
        "held_out": 60,
        "metrics": tmp_path / "metrics.jsonl",
        "dataset": ("photos", "test"),
    }
    return About(**{**fields, **changes})


def parsed(path):
    """The name and the content that a data file hands to the page."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("sparcData(")
    assert text.endswith(");\n")
    name, length = json.JSONDecoder().raw_decode(text[len("sparcData(") :])
    rest = text[len("sparcData(") + length :]
    assert rest.startswith(", ")
    return name, json.loads(rest[2:-3])


def data(folder, name):
    found, content = parsed(folder / "data" / f"{name.replace('/', '-')}.js")
    assert found == name
    return content


def dense(shown):
    """Activations by stream, (n, L), each stream encoded alone."""
    return {name: shown.encodings.solo[name].to_dense().numpy() for name in shown.streams}
