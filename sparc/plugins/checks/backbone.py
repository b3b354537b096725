"""What a backbone promises."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  # data-loading workers are given what they preprocess with in this form
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparc.localization.geometry import measured_box
from sparc.plugins.batches import mapped, tensors
from sparc.plugins.checks.checks import (
    Check,
    Outcome,
    check_identity,
    check_light,
    check_params,
    check_words,
    module_of,
    outcomes,
    params_of,
    raise_broken,
    require,
)
from sparc.plugins.contracts import Backbone, BackboneSpec, GridBackbone, Params, Sample, WordBackbone

CAPTIONS = (
    "a red bus on a street",
    "ein Hund läuft durch den Schnee, 犬が走る",
    "x",
    " ".join(["a very long story"] * 400),
)
CLOSE = 1e-3
"""Of the largest feature: so far those of one sample may lie apart, since sums run in another order elsewhere."""


def check_backbone(spec: BackboneSpec, params: Mapping[str, Any] | None = None, *, device: str = "cpu") -> None:
    """Check all that a backbone promises, with its default parameters or others, such as weights="random".

    Raises PluginError that names each broken promise, what was found, and what to change.
    """
    raise_broken(f"the backbone '{spec.name}'", backbone_outcomes(spec, params, device=device))


def backbone_outcomes(
    spec: BackboneSpec, params: Mapping[str, Any] | None = None, *, device: str = "cpu"
) -> Iterator[Outcome]:
    """The same, promise by promise. Ends early where the model does not load."""
    return outcomes(_Backbone(spec, params, device).checks())


class _Backbone:
    """A backbone under test."""

    def __init__(self, spec: BackboneSpec, given: Mapping[str, Any] | None, device: str) -> None:
        self.spec = spec
        self.given = given
        self.device = device
        self.samples = _images() if spec.modality == "image" else _captions()
        self.backbone: Any = None
        self.features: Any = None

    @property
    def params(self) -> Params:
        return params_of(self.spec.params, self.given, self.spec.name)

    def checks(self) -> Iterator[Check]:
        yield "its name and summary can be listed", partial(check_words, self.spec.name, self.spec.summary)
        yield "it reads images or text", self._modality
        yield "its parameters have a schema", partial(check_params, self.spec.params)
        yield "listing it imports no heavy library", partial(check_light, module_of(self.spec.load))
        yield "its weights have an identity", lambda: check_identity(self.spec.identify, self.params)
        yield "it loads", self._load
        if self.backbone is None:
            return
        yield "what it preprocesses with can be sent to other processes", self._pickle
        yield "a batch is a tensor, or a dict of tensors, on the CPU", self._batch
        yield "features are (samples, width) in floating point", self._forward
        if self.features is None:
            return
        yield "features are finite, and differ between samples", self._differ
        yield "the same sample has the same features again", self._again
        yield "a sample's features do not depend on its neighbours", self._alone
        yield "its width is what it says before it is loaded", self._width
        yield "it computes in bfloat16 too", self._lower
        if self.spec.modality == "image":
            yield "images of any kind and shape are read", self._odd
        if isinstance(self.backbone, GridBackbone) and self.backbone.grid is not None:
            yield "its patches are (samples, rows * columns, width), in the space of its features", self._grid
            yield "it is known where its grid lies in an image", self._geometry
        if isinstance(self.backbone, WordBackbone):
            yield "its words are the caption's, in order", self._words

    def _modality(self) -> None:
        known = self.spec.modality in ("image", "text")
        require(known, f"its modality is {self.spec.modality!r}", change="say modality='image' or 'text'")

    def _load(self) -> None:
        loaded = self.spec.load(self.params, self.device, "float32")
        require(
            isinstance(loaded, Backbone),
            f"load gives a {type(loaded).__name__} that lacks width, preprocess or forward",
            change="return an object with all three",
        )
        self.backbone = loaded

    def _pickle(self) -> None:
        try:
            content = pickle.dumps(self.backbone.preprocess)
            restored = pickle.loads(content)
        except Exception as error:
            message = f"pickling its preprocess raises {type(error).__name__}: {error}".splitlines()[0]
            require(False, message, change="make it a function of a module, or an object that holds only data")
        require(
            len(content) < 50_000_000,
            f"its preprocess takes {len(content) / 1e6:.0f} MB when it is sent",
            change="do not hold the model in it",
        )
        _same(tensors(restored(self.samples)), tensors(self.backbone.preprocess(self.samples)), "what it makes")

    def _batch(self) -> None:
        batch = self.backbone.preprocess(self.samples)
        found = tensors(batch)
        good = bool(found) and all(isinstance(one, Tensor) and one.device.type == "cpu" for one in found)
        require(
            good,
            f"preprocess gives a {type(batch).__name__}",
            change="return a tensor or a dict of tensors, on the CPU",
        )
        counts = {len(one) for one in found}
        require(
            counts == {len(self.samples)},
            f"of {len(self.samples)} samples preprocess makes {sorted(counts)} rows",
            change="return a row for each sample, in order",
        )

    def _run(self, samples: Sequence[Sample], backbone: Any = None) -> Tensor:
        backbone = self.backbone if backbone is None else backbone
        with torch.inference_mode():
            found: Tensor = backbone.forward(self._moved(backbone.preprocess(samples)))
        return found

    def _moved(self, batch: Any) -> Any:
        return mapped(batch, lambda tensor: tensor.to(self.device))

    def _forward(self) -> None:
        found = self._run(self.samples)
        shape = (len(self.samples), self.backbone.width)
        good = isinstance(found, Tensor) and found.is_floating_point() and tuple(found.shape) == shape
        shown = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        require(good, f"forward gives {shown}, expected floating point {shape}", change="repair forward or width")
        self.features = found.float().cpu()

    def _differ(self) -> None:
        finite = bool(self.features.isfinite().all())
        require(finite, "some features are not finite", change="find where they overflow, or are divided by 0")
        same = torch.equal(self.features[0], self.features[1])
        require(not same, "two different samples have the same features", change="let forward use what preprocess read")

    def _again(self) -> None:
        again = self._run(self.samples).float().cpu()
        require(
            self._apart(again) < CLOSE,
            f"a second time they differ by {self._apart(again):.1%} of the largest feature",
            change="put the model in eval mode (no dropout), and let preprocess draw nothing at random",
        )

    def _alone(self) -> None:
        alone = torch.cat([self._run([sample]) for sample in self.samples]).float().cpu()
        require(
            self._apart(alone) < CLOSE,
            f"alone they differ by {self._apart(alone):.1%} of the largest feature",
            change="mask what pads a batch, and put the model in eval mode (batch norm)",
        )

    def _apart(self, found: Tensor) -> float:
        """How far features lie from the first ones, in units of the largest of those."""
        scale = float(self.features.abs().max()) or 1.0
        return float((found.float().cpu() - self.features).abs().max()) / scale

    def _width(self) -> None:
        said, default = self.spec.width, not self.given
        require(
            said is None or not default or said == self.backbone.width,
            f"the spec says {said}, the model has {self.backbone.width}",
            change="mend the spec's width, or leave it out",
        )

    def _lower(self) -> None:
        lower = self.spec.load(self.params, self.device, "bfloat16")
        found = self._run(self.samples[:2], lower)
        good = tuple(found.shape) == (2, self.backbone.width) and bool(found.isfinite().all())
        require(
            good,
            f"they are {found.dtype} {tuple(found.shape)}",
            change="move the inputs to the model's dtype in forward",
        )
        near = torch.cosine_similarity(found.float().cpu(), self.features[:2], dim=1).min()
        require(
            float(near) > 0.9, f"their cosine with float32 is {near:.2f}", change="keep norms and softmax in float32"
        )

    def _odd(self) -> None:
        odd = [
            ("grey", Image.new("L", (40, 30), 100)),
            ("transparent", Image.new("RGBA", (40, 30), (9, 99, 200, 10))),
            ("of one pixel", Image.new("RGB", (1, 1), "red")),
            ("tall", Image.new("RGB", (10, 400), "blue")),
        ]
        for kind, image in odd:
            try:
                found = self._run([Sample(kind, partial(copy.copy, image))])
            except Exception as error:
                reason = f"an image that is {kind} raises {type(error).__name__}: {error}".splitlines()[0]
                require(False, reason, change="take sample.image(), which is RGB, and resize it to the model's size")
            require(
                bool(found.isfinite().all()),
                f"an image that is {kind} has features that are not finite",
                change="mend it",
            )

    def _grid(self) -> None:
        rows, columns = self.backbone.grid
        with torch.inference_mode():
            features, patches = self.backbone.forward_tokens(self._moved(self.backbone.preprocess(self.samples)))
        shape = (len(self.samples), rows * columns, self.backbone.width)
        require(
            tuple(patches.shape) == shape,
            f"patches are {tuple(patches.shape)}, expected {shape}",
            change="apply the model's own head to each patch alone; leave class and register tokens out",
        )
        near = self._apart(features) < CLOSE
        require(near, "beside patches, features differ from those of forward", change="compute both from one forward")

    def _geometry(self) -> None:
        for size in ((320, 200), (200, 320)):
            box = measured_box(self.spec.name, self.backbone, size)
            inside = min(box.right, size[0]) - max(box.left, 0) > 0 and min(box.bottom, size[1]) - max(box.top, 0) > 0
            require(inside, f"of an image of {size} it sees {tuple(map(round, box))}", change="crop inside the image")

    def _words(self) -> None:
        caption = CAPTIONS[0]
        words = self.backbone.words(caption)
        place = 0
        for word, tokens in words:
            found = caption.lower().find(word.lower(), place)
            require(found >= 0, f"of '{caption}' it has the word '{word}'", change="give the caption's words in order")
            place = found + len(word)
            require(bool(tokens), f"its word '{word}' has no tokens", change="give positions in what preprocess makes")


def _images() -> list[Sample]:
    """Pictures that differ in colour, form and size."""
    made = []
    for number, size in enumerate(((90, 60), (64, 64), (50, 120))):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        made.append(Sample(f"picture {number}", partial(copy.copy, image)))
    return made


def _captions() -> list[Sample]:
    return [Sample(f"caption {number}", caption=text) for number, text in enumerate(CAPTIONS)]


def _same(found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
    same = all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    require(same, f"{what} in another process differs", change="let preprocess depend on its samples alone")
