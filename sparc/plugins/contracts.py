"""What plugins hand over and what sparc promises them: backbones, datasets, samples, taxonomies.

Nothing here imports torch: listing plugins must stay light.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from sparc.errors import BadSample, SparcError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array
    from torch import Tensor


class Params(BaseModel):
    """Base of a plugin's parameters: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Sample:
    """One image-caption pair. The image is opened only when somebody looks at it."""

    id: str
    """Unique in its dataset, and the same every time the dataset is opened."""
    open_image: Callable[[], Image] | None = None
    caption: str | None = None
    image_id: str | None = None
    """Samples of one dataset with the same one show the same image, which is then computed once; None: nobody else."""

    def image(self) -> Image:
        """Decode the image, as RGB.

        Raises:
            BadSample: there is no image, or it does not decode; names the sample.
        """
        if self.open_image is None:
            raise BadSample(f"sample '{self.id}' has no image", hint="use a text stream, or another dataset")
        try:
            return _eight_bits(self.open_image()).convert("RGB")
        except (SparcError, MemoryError):
            raise
        except Exception as error:  # Pillow raises a dozen unrelated types for broken files
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
                raise  # the machine's fault, not the file's
            raise BadSample(
                f"the image of sample '{self.id}' does not decode: {error}",
                hint="repair or remove it; or pass --skip-bad to train without it",
            ) from error

    def text(self) -> str:
        """Return the caption.

        Raises:
            BadSample: the caption is missing or blank; names the sample.
        """
        if self.caption is None or not self.caption.strip():
            raise BadSample(
                f"sample '{self.id}' has an empty caption",
                hint="write one, or remove the sample; or pass --skip-bad to train without it",
            )
        return self.caption


def _eight_bits(image: Image) -> Image:
    """An image of 16 bits in 8: Pillow's own conversion cuts off whatever is brighter than 255 of 65,535."""
    if not image.mode.startswith("I;16"):
        return image
    import numpy as np
    from PIL import Image as Images

    return Images.fromarray((np.asarray(image) >> 8).astype(np.uint8))


@runtime_checkable
class Backbone(Protocol):
    """A frozen model, loaded: turns samples into features."""

    @property
    def width(self) -> int:
        """d, the number of features per sample."""
        ...

    @property
    def preprocess(self) -> Callable[[Sequence[Sample]], Any]:
        """Samples to a batch: a tensor, or a dict of tensors, on the CPU.

        Picklable, since data-loading workers call it; it must not hold the model.
        """
        ...

    def forward(self, batch: Any) -> Tensor:
        """Features (B, d), in floating point, of a batch that `preprocess` made and sparc moved to the device."""
        ...


@runtime_checkable
class GridBackbone(Backbone, Protocol):
    """A backbone that also gives features of the patches of an image."""

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches; None where this model has none."""
        ...

    def forward_tokens(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Features (B, d) as `forward` gives them, and those of the patches, row by row: (B, rows * columns, d').

        To find things in an image, d' must be d: what the model's own head makes of a patch as if it were all.
        """
        ...


@runtime_checkable
class WordBackbone(Backbone, Protocol):
    """A backbone that also says which words of a caption its tokens are."""

    def words(self, caption: str) -> Sequence[tuple[str, Sequence[int]]]:
        """Words in order, each with the positions of its tokens in what `preprocess` makes of that caption alone."""
        ...


class Dataset(Protocol):
    """Paired samples in a fixed order. Picklable, since data-loading workers read it."""

    @property
    def ids(self) -> Sequence[str]:
        """The samples' ids, in order."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """Per sample, what it shares with others (the image of several captions); `ids` where nothing is shared."""
        ...

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The labels' taxonomy, where the dataset is labelled."""
        ...

    def __len__(self) -> int:
        """Count the samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Return one sample; its image stays closed."""
        ...

    def labels(self) -> csr_array | None:
        """Sparse multi-hot labels (N, number of labels), columns as in `taxonomy.labels`; None if unlabelled."""
        ...


@runtime_checkable
class SegmentedDataset(Dataset, Protocol):
    """A dataset that also knows where in an image its labels are."""

    def masks(self, index: int) -> Mapping[str, NDArray[np.bool_]]:
        """Per label of a sample, where it is: (height, width) of the original image, True inside."""
        ...


def _only_parameters(params: Any) -> str:
    """Identity of a plugin whose parameters say everything."""
    return ""


@dataclass(frozen=True)
class BackboneSpec:
    """What a plugin says about a backbone, without loading it."""

    name: str
    """What `--stream` calls it."""
    modality: str
    """`image` or `text`: the part of a sample that it reads."""
    load: Callable[[Any, str, str], Backbone]
    """`load(params, device, dtype)`, for example `load(params, "cuda:0", "float32")`. Heavy imports belong in here."""
    params: type[Params] = Params
    summary: str = ""
    width: int | None = None
    """Width of the features with default parameters; None where it takes a parameter to know."""
    has_weights: Callable[[], bool] | None = None
    """Whether the weights of the default parameters are on this machine; None where it takes a parameter to know."""
    identify: Callable[[Any], str] = _only_parameters
    """`identify(params)`: a short text that changes when the weights do, such as a file's digest or a hub name, without
    loading them. `random` where the weights are. Features are found again by name, parameters and this text; where it
    says something, not by the parameter `weights`, which is then a mere path."""
    shared_space: Callable[[Any], str] | None = None
    """`shared_space(params)` names the space that its features lie in, where those of another backbone lie in it too,
    as of the two towers of one model: features of one name can be compared with each other. None where they are
    alone."""


@dataclass(frozen=True)
class DatasetSpec:
    """What a plugin says about a dataset, without opening it."""

    name: str
    open: Callable[[Any, str], Dataset]
    """`open(params, split)`."""
    params: type[Params] = Params
    summary: str = ""
    modalities: tuple[str, ...] = ("image", "text")
    splits: tuple[str, str] = ("train", "test")
    """The split to train on and the split to evaluate on; no group is in both."""
    identify: Callable[[Any], str] = _only_parameters
    """`identify(params)`: a short text that changes when the data do, without reading it all. Where it says something,
    the parameter `root` is a mere path: the same data elsewhere are found again."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options of `sparc train` that suit this dataset, by their names there (`n-latents`, `stream`, ...): what holds
    where the user says nothing."""


class Taxonomy:
    """A DAG of labels.

    The depth of a label is that of its deepest occurrence: the longest way up to a root, roots being at 0. Where a
    label has several parents, the deepest is followed, the first declared among equals, so each step up is one depth.
    """

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        """Build from each label's parents, in the order the labels shall have; a root has none.

        Raises:
            ValueError: parents are no list, a parent is no label, or the labels form a cycle.
        """
        self.labels: tuple[str, ...] = tuple(parents)
        self.parents: dict[str, tuple[str, ...]] = {label: tuple(above) for label, above in parents.items()}
        for label, above in self.parents.items():
            if isinstance(parents[label], str):
                raise ValueError(f"label '{label}' has the text '{parents[label]}' where a list of parents is expected")
            for parent in above:
                if parent not in self.parents:
                    raise ValueError(f"label '{label}' has the parent '{parent}', which is no label")
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
        """Depth of `label`: that of its deepest occurrence, roots being at 0. Raises KeyError for an unknown label."""
        return self._depths[label]

    def lift(self, label: str, depth: int) -> str:
        """Ancestor of `label` at `depth`; the label itself where it lies no deeper. Raises KeyError if unknown."""
        while self._depths[label] > depth:
            label = max(self.parents[label], key=self._depths.__getitem__)
        return label
