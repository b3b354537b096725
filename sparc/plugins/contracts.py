"""The contract between sparc and its plugins: backbones, datasets, samples and taxonomies.

A plugin returns a `BackboneSpec` or a `DatasetSpec`, whose `load` or `open` returns a `Backbone` or a `Dataset`.
Nothing here imports torch, so that listing plugins stays fast. The package's docstring explains the letters of shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from sparc.errors import BadSample, Problems, SparcError
from sparc.system.refusals import refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array
    from torch import Tensor


class Params(BaseModel):
    """Base class of a plugin's parameters: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Sample:
    """One image-caption pair. The image is opened only when `image` is called."""

    id: str
    """Unique id in the dataset, the same every time the dataset is opened."""
    open_image: Callable[[], Image] | None = None
    caption: str | None = None
    image_id: str | None = None
    """Samples of one dataset with the same `image_id` show the same image, whose features are then computed once.
    None: no other sample shows this image."""

    def image(self) -> Image:
        """Return the decoded image, upright, as RGB with 8 bits per channel; `images.py` says how more bits are scaled.

        Raises:
            BadSample: there is no image, it does not decode, or it is larger than the limits. The error names the
                sample.
            StorageError, OutOfMemory: the machine refuses to read it.
        """
        if self.open_image is None:
            raise BadSample(
                f"sample '{self.id}' has no image",
                hint="use text streams or another dataset; or pass --skip-bad to train without it",
            )
        from sparc.plugins.images import TooLarge, read_rgb

        try:
            return read_rgb(self.open_image)
        except BadSample as error:
            if f"'{self.id}'" in error.message:
                raise
            raise BadSample(f"the image of sample '{self.id}': {error.message}", hint=error.hint) from error
        except SparcError:
            raise
        except TooLarge as error:
            raise BadSample(
                f"the image of sample '{self.id}' has {error}",
                hint=f"pass {error.remedy} to read it; or --skip-bad to train without it",
            ) from error
        except Exception as error:  # Pillow raises a dozen unrelated types for broken files
            if (found := refusal(error, f"read the image of sample '{self.id}'")) is not None:
                raise found from error
            raise BadSample(
                f"the image of sample '{self.id}' does not decode: {error}",
                hint="repair or remove it; or pass --skip-bad to train without it",
            ) from error

    def text(self) -> str:
        """Return the caption.

        Raises:
            BadSample: the caption is missing or blank. The error names the sample.
        """
        if self.caption is None or not self.caption.strip():
            raise BadSample(
                f"sample '{self.id}' has an empty caption",
                hint="write one, or remove the sample; or pass --skip-bad to train without it",
            )
        return self.caption


@runtime_checkable
class Backbone(Protocol):
    """A loaded frozen model, which turns samples into features."""

    @property
    def width(self) -> int:
        """Number of features per sample, d."""
        ...

    @property
    def preprocess(self) -> Callable[[Sequence[Sample]], Any]:
        """Function from B samples to a batch on the CPU: a tensor or a dict of tensors, each with B rows.

        It must be picklable, since data-loading workers call it, and must not hold the model.
        """
        ...

    def forward(self, batch: Any) -> Tensor:
        """Return floating-point features (B, d) of a batch that `preprocess` made and sparc moved to the device."""
        ...


@runtime_checkable
class GridBackbone(Backbone, Protocol):
    """A backbone that also returns features of the patches of an image."""

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches; None if this model has no patches."""
        ...

    def forward_tokens(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the features (B, d) of `forward`, and the patches' features (B, rows * columns, d'), row by row.

        Localisation needs d' = d: apply the model's own head to each patch as if it were the whole image.
        """
        ...


@runtime_checkable
class WordBackbone(Backbone, Protocol):
    """A backbone that also maps its tokens to the words of a caption."""

    def words(self, caption: str) -> Sequence[tuple[str, Sequence[int]]]:
        """Return the words in order, each with the positions of its tokens in a batch of that caption alone."""
        ...


@dataclass(frozen=True)
class Planted:
    """Truth about the features of samples: x = strengths @ directions + noise."""

    concepts: tuple[str, ...]
    """Names of the C concepts that any of the samples has. A shared concept has its name in every stream."""
    strengths: csr_array
    """(B, C), positive where a sample has the concept."""
    directions: NDArray[np.float32]
    """(C, d), of norm 1."""


@runtime_checkable
class PlantedBackbone(Backbone, Protocol):
    """A backbone whose features are made of known concepts; `sparc bench planted` compares a space with them."""

    def planted(self, samples: Sequence[Sample]) -> Planted:
        """Return the truth about the features of B samples."""
        ...


class Dataset(Protocol):
    """Paired samples in a fixed order. Picklable, since data-loading workers read it."""

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the samples, in order."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """Group of each sample, such as the image of several captions; equal to `ids` if samples share nothing."""
        ...

    @property
    def taxonomy(self) -> Taxonomy | None:
        """Taxonomy of the labels; None without labels."""
        ...

    def __len__(self) -> int:
        """Return the number of samples, N."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        ...

    def labels(self) -> csr_array | None:
        """Return sparse multi-hot labels (N, labels), columns as in `taxonomy.labels`; None without labels."""
        ...


@runtime_checkable
class SegmentedDataset(Dataset, Protocol):
    """A dataset that also has masks of its labels."""

    def masks(self, index: int) -> Mapping[str, NDArray[np.bool_]]:
        """Return a mask (H, W) for each label of a sample, True inside, of the pixels that `Sample.image` returns.

        That image is turned as its EXIF orientation says; `upright_masks` turns masks of the pixels as stored.
        """
        ...


@runtime_checkable
class CheckedDataset(Dataset, Protocol):
    """A dataset that knows of images that are missing, empty or of a wrong kind without decoding them."""

    def image_fault(self, index: int) -> BadSample | None:
        """Return why the image of a sample cannot be read, as far as name, size and header tell; None if they do not.

        `head_fault` looks at the header of a file.
        """
        ...


def _recognizes_nothing(folder: Path) -> bool:
    """Return False: a folder does not show that this dataset reads it."""
    return False


def _only_parameters(params: Any) -> str:
    """Return the identity of a plugin that its parameters identify completely."""
    return ""


@dataclass(frozen=True)
class BackboneSpec:
    """Description of a backbone, which can be listed without loading the model.

    `sparc.plugins.weights` has the functions with which `load`, `identify` and `has_weights` find weights.
    """

    name: str
    """Name for `--stream`."""
    modality: str
    """Part of a sample that the backbone reads: `image` or `text`."""
    load: Callable[[Any, str], Backbone]
    """`load(params, device)` returns the model in float32, for example `load(params, "cuda:0")`. Import heavy libraries
    in here. Lower precision is up to sparc, which runs `forward` under autocast."""
    params: type[Params] = Params
    summary: str = ""
    """One line for `sparc plugins list`."""
    width: int | None = None
    """Width of the features with default parameters; None if it depends on a parameter without a default."""
    has_weights: Callable[[], bool] | None = None
    """`has_weights()` returns True if the weights for the default parameters are on this machine. None if that depends
    on a parameter without a default."""
    identify: Callable[[Any], str] = _only_parameters
    """`identify(params)` returns a short text that changes when the weights change, such as a file's digest or a name
    on the hub, without loading them; `random` for random weights. Stored features are keyed by the backbone's name, its
    parameters and this text. If the text is not empty, the parameter `weights` is a mere path, left out of the key; so
    is the path in a value `local-dir:PATH`, except of random weights. `hub:OWNER/NAME@COMMIT` identifies weights on the
    hub: sparc then loads with the parameter `revision` set to that commit, and leaves `revision` out of the key.
    `identify` raises `WeightsUnavailable` if neither the hub nor its cache says which commit the revision is; `sparc
    plugins list` and `sparc info` do not call it."""
    shared_space: Callable[[Any], str] | None = None
    """`shared_space(params)` names the space in which the features lie, if those of another backbone lie in it too (the
    two towers of one model). Features in spaces of one name are comparable. None: the space is not shared."""


@dataclass(frozen=True)
class DatasetSpec:
    """Description of a dataset, which can be listed without opening it."""

    name: str
    """Name for `--dataset`."""
    open: Callable[[Any, str], Dataset]
    """`open(params, split)` returns one split."""
    params: type[Params] = Params
    summary: str = ""
    """One line for `sparc plugins list`."""
    modalities: tuple[str, ...] = ("image", "text")
    """Parts that every sample has: `image`, `text` or both."""
    splits: tuple[str, str] = ("train", "test")
    """Names of the splits for training and for evaluation. No group is in both."""
    identify: Callable[[Any], str] = _only_parameters
    """`identify(params)` returns a short text that changes when the data change, without reading all of them. If the
    text is not empty, the parameters `root` and `taxonomy` are mere paths: features are reused when the same data move
    elsewhere."""
    check: Callable[[Any, Collection[str]], Problems] | None = None
    """`check(params, modalities)` returns what an extraction of images, captions or both would stop at, as far as that
    is known without decoding an image. It is called after `identify`. A `BadSample` is passed over with `--skip-bad`;
    other errors are not. None: all splits are opened, and their samples looked at without opening an image; see
    `CheckedDataset`."""
    open_readable: Callable[[Any, str], Dataset] | None = None
    """`open_readable(params, split)` returns a split without what `check` finds wrong, for an estimate of the work.
    None: `open` does."""
    recognizes: Callable[[Path], bool] = _recognizes_nothing
    """`recognizes(folder)` returns True if a folder has the files of this dataset, so that `--data-root` needs no
    `--dataset`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options of `sparc train` that suit this dataset, by their names there (`n-latents`, `stream`, ...). They apply
    unless the user sets those options."""


class Taxonomy:
    """A DAG of labels.

    The depth of a label is the length of the longest path up to a root; roots have depth 0. `lift` goes up through the
    deepest parent (the first declared among equals), so that each step reduces the depth by one.
    """

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        """Build the DAG from each label's parents. The mapping's order is the order of `labels`; a root has no parents.

        Raises:
            ValueError: a label's parents are a text, a parent is not a label, or the labels form a cycle.
        """
        self.labels: tuple[str, ...] = tuple(parents)
        self.parents: dict[str, tuple[str, ...]] = {label: tuple(above) for label, above in parents.items()}
        for label, above in self.parents.items():
            if isinstance(parents[label], str):
                raise ValueError(f"label '{label}' has the text '{parents[label]}' where a list of parents is expected")
            for parent in above:
                if parent not in self.parents:
                    raise ValueError(f"label '{label}' has the parent '{parent}', which is not a label")
        self._depths = self._measure()

    def _measure(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        waiting = list(self.labels)
        while waiting:
            ready = [label for label in waiting if all(parent in depths for parent in self.parents[label])]
            if not ready:
                raise ValueError(f"these labels form a cycle: {', '.join(waiting[:5])}")
            for label in ready:
                depths[label] = 1 + max((depths[parent] for parent in self.parents[label]), default=-1)
            waiting = [label for label in waiting if label not in depths]
        return depths

    @cached_property
    def max_depth(self) -> int:
        """Depth of the deepest label."""
        return max(self._depths.values(), default=0)

    def depth(self, label: str) -> int:
        """Return the depth of `label`; roots have depth 0. Raises KeyError for an unknown label."""
        return self._depths[label]

    def lift(self, label: str, depth: int) -> str:
        """Return the ancestor of `label` at `depth`, or `label` if it is no deeper. Raises KeyError if unknown."""
        while self._depths[label] > depth:
            label = max(self.parents[label], key=self._depths.__getitem__)
        return label
