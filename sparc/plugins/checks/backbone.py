"""The contract of a backbone as checks."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  # data-loading workers receive `preprocess` pickled
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
from sparc.plugins.geometry import measured_box

CAPTIONS = (
    "a red bus on a street",
    "ein Hund läuft durch den Schnee, 犬が走る",
    "x",
    " ".join(["a very long story"] * 400),
)
CLOSE = 1e-3
"""Tolerance for two features of one sample, relative to the largest: the order of sums depends on the batch."""


def check_backbone(spec: BackboneSpec, params: Mapping[str, Any] | None = None, *, device: str = "cpu") -> None:
    """Check the whole contract of a backbone, with default parameters or others, such as {"weights": "random"}.

    Raises PluginError, which names each broken promise, what was found, and what to change.
    """
    raise_broken(f"the backbone '{spec.name}'", backbone_outcomes(spec, params, device=device))


def backbone_outcomes(
    spec: BackboneSpec, params: Mapping[str, Any] | None = None, *, device: str = "cpu"
) -> Iterator[Outcome]:
    """Yield the outcome of each check. Ends early if the model does not load."""
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
        yield "its preprocess can be sent to other processes", self._pickle
        yield "a batch is a tensor, or a dict of tensors, on the CPU", self._batch
        yield "features are (samples, width) in floating point", self._forward
        if self.features is None:
            return
        yield "features are finite, and differ between samples", self._differ
        yield "the same sample has the same features again", self._again
        yield "a sample's features do not depend on its neighbours", self._alone
        yield "its width is the spec's", self._width
        yield "it computes in bfloat16 too, under autocast", self._lower
        if self.spec.modality == "image":
            yield "it reads images of any kind and shape", self._odd
        if isinstance(self.backbone, GridBackbone) and self.backbone.grid is not None:
            yield "its patches are (samples, rows * columns, width), in the space of its features", self._grid
            yield "the part of an image that its grid covers can be measured", self._geometry
        if isinstance(self.backbone, WordBackbone):
            yield "its words are the caption's, in order", self._words

    def _modality(self) -> None:
        known = self.spec.modality in ("image", "text")
        require(known, f"its modality is {self.spec.modality!r}", change="set modality='image' or 'text'")

    def _load(self) -> None:
        loaded = self.spec.load(self.params, self.device)
        require(
            isinstance(loaded, Backbone),
            f"load returns a {type(loaded).__name__} that lacks width, preprocess or forward",
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
            f"its preprocess takes {len(content) / 1e6:.0f} MB pickled",
            change="do not hold the model in it",
        )
        _same(tensors(restored(self.samples)), tensors(self.backbone.preprocess(self.samples)), "its batch")

    def _batch(self) -> None:
        batch = self.backbone.preprocess(self.samples)
        found = tensors(batch)
        good = bool(found) and all(isinstance(one, Tensor) and one.device.type == "cpu" for one in found)
        require(
            good,
            f"preprocess returns a {type(batch).__name__}",
            change="return a tensor or a dict of tensors, on the CPU",
        )
        counts = {len(one) for one in found}
        require(
            counts == {len(self.samples)},
            f"preprocess makes {sorted(counts)} rows of {len(self.samples)} samples",
            change="return a row for each sample, in order",
        )

    def _run(self, samples: Sequence[Sample]) -> Tensor:
        with torch.inference_mode():
            found: Tensor = self.backbone.forward(self._moved(self.backbone.preprocess(samples)))
        return found

    def _moved(self, batch: Any) -> Any:
        return mapped(batch, lambda tensor: tensor.to(self.device))

    def _forward(self) -> None:
        found = self._run(self.samples)
        shape = (len(self.samples), self.backbone.width)
        good = isinstance(found, Tensor) and found.is_floating_point() and tuple(found.shape) == shape
        shown = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        require(good, f"forward returns {shown}, expected floating point {shape}", change="fix forward or width")
        self.features = found.float().cpu()

    def _differ(self) -> None:
        finite = bool(self.features.isfinite().all())
        require(finite, "some features are not finite", change="look for an overflow or a division by 0")
        same = torch.equal(self.features[0], self.features[1])
        require(not same, "two different samples have the same features", change="make forward depend on the batch")

    def _again(self) -> None:
        again = self._run(self.samples).float().cpu()
        require(
            self._apart(again) < CLOSE,
            f"a second time they differ by {self._apart(again):.1%} of the largest feature",
            change="put the model in eval mode (no dropout), and make preprocess deterministic",
        )

    def _alone(self) -> None:
        alone = torch.cat([self._run([sample]) for sample in self.samples]).float().cpu()
        require(
            self._apart(alone) < CLOSE,
            f"alone they differ by {self._apart(alone):.1%} of the largest feature",
            change="mask the padding of a batch, and put the model in eval mode (batch norm)",
        )

    def _apart(self, found: Tensor) -> float:
        """Return the largest difference from the first features, relative to the largest of those."""
        scale = float(self.features.abs().max()) or 1.0
        return float((found.float().cpu() - self.features).abs().max()) / scale

    def _width(self) -> None:
        stated, default = self.spec.width, not self.given
        require(
            stated is None or not default or stated == self.backbone.width,
            f"the spec says {stated}, the model has {self.backbone.width}",
            change="correct the spec's width, or leave it out",
        )

    def _lower(self) -> None:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            found = self._run(self.samples[:2])
        good = tuple(found.shape) == (2, self.backbone.width) and bool(found.isfinite().all())
        require(
            good,
            f"they are {found.dtype} {tuple(found.shape)}",
            change="make forward work under torch.autocast",
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
                require(False, reason, change="use sample.image(), which is RGB, and resize it to the model's size")
            require(
                bool(found.isfinite().all()),
                f"an image that is {kind} has features that are not finite",
                change="look for an overflow or a division by 0",
            )

    def _grid(self) -> None:
        rows, columns = self.backbone.grid
        with torch.inference_mode():
            features, patches = self.backbone.forward_tokens(self._moved(self.backbone.preprocess(self.samples)))
        shape = (len(self.samples), rows * columns, self.backbone.width)
        require(
            tuple(patches.shape) == shape,
            f"patches are {tuple(patches.shape)}, expected {shape}",
            change="apply the model's own head to each patch alone, without class and register tokens",
        )
        near = self._apart(features) < CLOSE
        require(near, "features of forward_tokens differ from those of forward", change="compute both in the same way")

    def _geometry(self) -> None:
        for size in ((320, 200), (200, 320)):
            box = measured_box(self.spec.name, self.backbone, size)
            inside = min(box.right, size[0]) - max(box.left, 0) > 0 and min(box.bottom, size[1]) - max(box.top, 0) > 0
            require(
                inside,
                f"in an image of {size} its grid covers {tuple(map(round, box))}",
                change="crop inside the image",
            )

    def _words(self) -> None:
        caption = CAPTIONS[0]
        words = self.backbone.words(caption)
        place = 0
        for word, tokens in words:
            found = caption.lower().find(word.lower(), place)
            require(
                found >= 0, f"for '{caption}' it has the word '{word}'", change="return the caption's words in order"
            )
            place = found + len(word)
            require(
                bool(tokens), f"its word '{word}' has no tokens", change="return positions in the batch of preprocess"
            )


def _images() -> list[Sample]:
    """Return images that differ in colour, pattern and size."""
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
    require(same, f"{what} differs in another process", change="make preprocess depend on its samples alone")
