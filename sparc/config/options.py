"""Every option of sparc: type, bounds, default and help, declared once.

The command line, the TOML keys, the keys of an ablation and `sparc info` follow a field at once. Three files are
generated: after a change, run `python docs/tools/signatures.py` (the signatures of `sparc.train` and the other verbs),
`python docs/tools/cli_reference.py` and `python docs/tools/options_reference.py`. Tests fail until then.

The defaults are those of the recipe `sparc`. A configuration is frozen, and unknown keys are errors. A field
`n_latents` is the option `--n-latents`, the TOML key `n-latents` and the Python argument `n_latents`; Python's
`lambda_` is `lambda` elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from sparc.config.references import PluginRef, RefLike, parsed, parsed_streams
from sparc.config.validation import ExplainedModel, validated
from sparc.config.wording import Unfit, option_name, spelling

Selection = Literal["global", "local"]
Normalization = Literal["unit", "standard", "none"]
PreBias = Literal["mean", "zeros"]
CompletionKind = Literal["linear", "kernel", "none"]
Recipe = Literal["sparc", "paper"]
Precision = Literal["float32", "bfloat16"]
ForwardPrecision = Literal["float32", "bfloat16", "float16"]
StoreDtype = Literal["float32", "float16"]
OnNan = Literal["stop", "skip"]
Method = Literal["dense", "relevance", "grad-cam", "layer-cam"]
Scale = Literal["common", "own"]
Exif = Literal["apply", "ignore"]
TrackerName = Literal["tensorboard", "wandb"]
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(place: object) -> bool:
    """Return True for a text that is a URL. A drive of Windows is none: its name is one letter."""
    return isinstance(place, str) and _URL.match(place) is not None


def _place(value: Any) -> Path | str:
    return value if is_url(value) else _path(value)


def _path(value: Any) -> Path:
    if isinstance(value, Mapping):
        raise ValueError("expected a path, found arrays in memory, which only sparc.train takes")
    if not isinstance(value, str | Path) or value == "":
        raise ValueError(f"expected a path, found {value!r:.80}")
    if is_url(value):
        raise ValueError(f"expected a path on this machine, found a URL: {value:.80}")
    return Path(value)


def _several(value: Any) -> tuple[Any, ...]:
    """Return a sequence as a tuple; anything else, text and paths too, is one value."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _latent_sets(value: Any) -> tuple[int | tuple[int, ...], ...]:
    """Read latents: a number is one latent, `4,5` and a sequence are several together. Raises ValueError."""
    return tuple(one if isinstance(one, int) else _latent_set(one) for one in _several(value))


def _latent_set(value: Any) -> tuple[int, ...]:
    try:
        latents = tuple(int(one) for one in (value.split(",") if isinstance(value, str) else _several(value)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected numbers, such as 93 or 93,107, found {value!r}") from error
    if not latents:
        raise ValueError("expected at least one latent, found none")
    return latents


Location = Annotated[str | Path, PlainValidator(_path)]
"""A path; strings are accepted and converted."""
Place = Annotated[str | Path, PlainValidator(_place)]
"""A path, or a URL, which stays a string: a path would lose one of its slashes."""


_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")
MAX_PIXELS, MAX_SIDE_RATIO = 178_956_970, 200
"""Default limits on images. The number of pixels is Pillow's own limit: half a gigabyte at three bytes per pixel."""
DEFAULT_DATASET = "openmoji"
"""Dataset of the built-in demo, which `sparc train` uses without options."""


RECIPES: Mapping[Recipe, Mapping[str, Any]] = {
    "sparc": {},
    "paper": {"pre-bias": "zeros", "completion": "none", "stream-dropout": 0.0, "input-dropout": 0.0},
}
"""Options by recipe, which hold unless a dataset's defaults, a file or the caller set them."""


def option(
    default: Any, help: str, *, metavar: str = "", fitted: bool = False, example: Any = None, **bounds: Any
) -> Any:
    """Declare an option: its default, its help, the metavar of its value, and bounds such as `gt=0`.

    fitted: `sparc.config.fitting` sets it by the number of training samples, unless the recipe is the paper's.
    example: a value for the hint of a wrong one, if the default is none.
    """
    extra = {"metavar": metavar, "fitted": fitted, "example": example}
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Options(ExplainedModel):
    """Base of all options: frozen, without unknown keys or infinite numbers; keys are field names or option names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=option_name, populate_by_name=True
    )

    def given(self) -> dict[str, Any]:
        """Return the options that were set explicitly, by option name."""
        return {option_name(name): getattr(self, name) for name in self.model_fields_set}


class DataOptions(Options):
    """The streams, and the dataset that they encode."""

    stream: Annotated[RefLike | Sequence[RefLike], PlainValidator(parsed_streams)] = option(
        (),
        "Backbone of a stream; repeat for more. 'other=NAME[...]' renames a stream.",
        metavar="NAME[KEY=VALUE,...]",
        example="dinov2",
    )
    dataset: Annotated[RefLike, PlainValidator(parsed)] = option(
        PluginRef(name=DEFAULT_DATASET, alias=DEFAULT_DATASET),
        f"Dataset. Default: {DEFAULT_DATASET}, the demo.",
        metavar="NAME",
        example="image-folder",
    )

    @property
    def streams(self) -> tuple[PluginRef, ...]:
        """Parsed streams."""
        streams: tuple[PluginRef, ...] = self.stream  # type: ignore[assignment]
        return streams


class PlaceOptions(Options):
    """Places of a run's data, and the device to compute on."""

    data_root: Place | None = option(
        None, "Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix.", example="photos"
    )
    features: Place | None = option(
        None,
        "Folder written by `sparc import features`, or its URL, instead of a dataset and backbones.",
        example="imported",
    )
    store: Place | None = option(
        None,
        "Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store, "
        "else ~/.cache/sparc/store.",
        example="features",
    )
    device: str = option("auto", "auto (CUDA if available), cpu, cuda, cuda:1, ...")


def _duration(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"expected a time such as 90s, 45m, 3h or 1d12h, found {value!r}")
    return text


Duration = Annotated[str, PlainValidator(_duration)]
"""A time as text: days, hours, minutes and seconds, such as `3h` or `1h30m`."""


class TimeOptions(Options):
    """A limit on the time of a command."""

    max_time: Duration | None = option(
        None,
        "Stop cleanly after this time, as SIGTERM does: 90s, 45m, 3h, 1d12h. What is done is kept.",
        metavar="TIME",
        example="3h",
    )

    @property
    def seconds(self) -> float | None:
        """Return the limit in seconds; None without one."""
        match = _DURATION.fullmatch(self.max_time or "")
        if self.max_time is None or match is None:
            return None
        return sum(int(number or 0) * unit for number, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True))


class ParallelOptions(Options):
    """Options that divide a training among several processes."""

    shard_latents: int = option(
        1,
        "With torchrun: number of processes that hold the latents together, for a dictionary that fits in no single "
        "one. Several such groups split each batch.",
        gt=0,
    )


class ResumeOptions(ParallelOptions, TimeOptions, PlaceOptions):
    """Options that may change when a run is resumed."""


class SpaceOptions(Options):
    """Shape of a shared latent space, apart from its streams."""

    n_latents: int = option(8192, "Latents shared by all streams (L).", fitted=True, gt=0, lt=2**63)
    k: int = option(64, "Latents kept per sample.", fitted=True, gt=0, lt=2**63)
    selection: Selection = option("global", "global: one index set per sample for all streams; local: one per stream.")
    normalization: Normalization = option(
        "unit",
        "Normalisation of raw features: unit (norm 1 per sample), standard (centred and scaled by statistics of the "
        "training features), none.",
    )

    @classmethod
    def disagreement(cls, given: Mapping[str, Any]) -> Unfit | None:
        """Return what is wrong about k if it is above the number of latents."""
        if not {"k", "n_latents"} <= given.keys() or int(given["k"]) <= int(given["n_latents"]):
            return None
        way, n_latents = spelling(), int(given["n_latents"])
        k, latents = way.name("k"), way.name("n_latents")
        return Unfit(
            f"{k}: expected at most {latents}, {n_latents}, found {given['k']}",
            f"lower k to {n_latents} or less, as in {way.assigned(k, max(1, n_latents // 4))}; or raise {latents}",
        )


class SpaceConfig(SpaceOptions):
    """Shape of a shared latent space, as stored in a checkpoint."""

    streams: dict[str, Annotated[int, Field(gt=0)]]
    """Width of each stream, in the model's order."""
    attached: tuple[str, ...] = ()
    """Streams that were attached to the others, which are the founding ones; the last ones in the order."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.streams:
            raise ValueError("streams: expected at least one stream, found none")
        if len(self.attached) >= len(self.streams) or self.attached != tuple(self.streams)[len(self.founding) :]:
            raise ValueError(
                f"attached: expected the last streams, but not all, of {', '.join(self.streams)}, "
                f"found {', '.join(self.attached)}"
            )
        if (wrong := self.disagreement({"k": self.k, "n_latents": self.n_latents})) is not None:
            raise wrong
        return self

    @property
    def founding(self) -> dict[str, int]:
        """Width of each stream that is not attached."""
        return dict(list(self.streams.items())[: len(self.streams) - len(self.attached)])


class TrainingConfig(Options):
    """Options of the training of a space."""

    lambda_: float = option(1.0, "Weight of the cross-reconstruction loss.", ge=0)
    aux_weight: float = option(1 / 32, "Weight of the AuxK loss, which revives dead latents (alpha).", ge=0)
    k_aux: int = option(
        64, "Dead latents per sample with which AuxK reconstructs what the code left over.", gt=0, lt=2**63
    )
    dead_after: int = option(
        256_000,
        "Training samples without activation after which a latent counts as dead.",
        fitted=True,
        gt=0,
        lt=2**63,
    )
    epochs: int = option(50, "Passes over the training samples.", fitted=True, gt=0, lt=2**63)
    batch_size: int = option(256, "Samples per step.", gt=0, lt=2**63)
    lr: float = option(1e-4, "Learning rate of Adam.", fitted=True, gt=0)
    seed: int = option(0, "Seed of the initial weights and of the order of the samples.", ge=0, lt=2**63)
    pre_bias: PreBias = option(
        "mean",
        "Start of each stream's pre-bias: the mean of its training features, which prevents dead latents; or zeros.",
    )
    completion: CompletionKind = option(
        "linear",
        "Guess of the streams that a sample lacks: linear, from the covariances of the training features; kernel, "
        "which guesses better where a stream is alone, and makes encoding slower; or none, the paper's way.",
    )
    stream_dropout: float = option(
        0.25,
        "Part of the samples of a step for which one stream, drawn at random, selects for all.",
        ge=0,
        le=1,
    )
    input_dropout: float = option(
        0.2, "Part of each stream's features that its encoder does not see, drawn anew in each step.", ge=0, lt=1
    )
    encoder_product: Precision = option(
        "float32",
        "Precision of the encoder product that selects latents. bfloat16 selects the same latents, because candidates "
        "are rescored in float32, and is faster with large batches on processors with native bfloat16.",
    )
    adam_state: Precision = option(
        "float32", "Precision of Adam's moments; bfloat16, rounded stochastically, halves their memory."
    )
    on_nan: OnNan = option(
        "stop",
        "Action at a step whose loss is not finite: stop the training, or skip the step, which leaves the weights as "
        "they are and is logged.",
    )
    keep_checkpoints: int = option(
        2, "Checkpoints to keep while a run is trained, beside the one with the least held-out loss.", gt=0
    )


class ExtractionOptions(Options):
    """Options of the computation and storage of features."""

    precision: ForwardPrecision = option("float32", "Precision of the backbones' forward pass.")
    store_dtype: StoreDtype = option("float32", "Precision of features in the store.")
    compile: bool = option(False, "Compile the backbones with torch.compile.")
    skip_bad: bool = option(False, "Skip images that do not decode or are too large, and empty captions.")
    max_pixels: int = option(MAX_PIXELS, "Largest number of pixels of an image.", gt=0)
    max_side_ratio: float = option(
        MAX_SIDE_RATIO, "Largest ratio of an image's longer side to its shorter; resizing makes long images huge.", ge=1
    )
    exif: Exif = option(
        "apply",
        "EXIF orientation of images: apply turns them upright; ignore reads them as stored, which matches features "
        "that were extracted so.",
    )


class RunConfig(
    ExtractionOptions, TrainingConfig, SpaceOptions, ParallelOptions, TimeOptions, PlaceOptions, DataOptions
):
    """All options of a run, from the command line, a TOML file or Python."""

    recipe: Recipe = option(
        "sparc", "Options that are not set otherwise: sparc, the recommended ones; or paper, those of arXiv 2507.06265."
    )
    out: Location | None = option(
        None, "New directory of the run. Default: runs/DATASET, else runs/DATASET-2, ...", example="runs/photos"
    )
    on_the_fly: bool = option(
        False, "Compute the training features while training, again in each epoch, and store only the held-out ones."
    )
    buffer: int = option(16384, "With --on-the-fly: samples from which each batch is drawn.", gt=0)
    track: TrackerName | None = option(
        None,
        "Also log the training for tensorboard, into RUN/tensorboard; or for wandb, as its own variables say, such as "
        "WANDB_PROJECT and WANDB_MODE=offline.",
    )

    @property
    def source(self) -> PluginRef:
        """Parsed dataset, with `data_root` as its parameter `root`."""
        dataset: PluginRef = self.dataset  # type: ignore[assignment]
        if self.data_root is None:
            return dataset
        return dataset.model_copy(update={"params": {**dataset.params, "root": str(self.data_root)}})

    def space(self, widths: Mapping[str, int]) -> SpaceConfig:
        """Return the shape of the space for streams of these widths. Raises InvalidConfig."""
        return validated(SpaceConfig, {"streams": dict(widths), **self._part(SpaceOptions)})

    def training(self) -> TrainingConfig:
        """Return the training options."""
        return validated(TrainingConfig, self._part(TrainingConfig))

    def checked(self) -> Self:
        """Return the configuration itself if its options agree, such as k and n-latents. Raises InvalidConfig."""
        shape = self._part(SpaceOptions)
        if self.recipe != "paper":  # what is not set will fit what is
            shape = {name: value for name, value in shape.items() if name in self.model_fields_set}
            shape = {"n_latents": shape.get("k", 1), "k": 1, **shape}
        validated(SpaceConfig, {"streams": dict.fromkeys([one.alias for one in self.streams] or ["any"], 1), **shape})
        return self

    def _part(self, model: type[Options]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in model.model_fields}


class MeasureOptions(PlaceOptions):
    """Data to measure a space on, if they are not those of its run."""

    dataset: Annotated[RefLike | None, PlainValidator(parsed)] = option(
        None,
        "Dataset to measure on, instead of the run's own data; 'imported' for --features.",
        metavar="NAME",
        example="image-folder",
    )
    stream: Annotated[RefLike | Sequence[RefLike], PlainValidator(parsed_streams)] = option(
        (),
        "Backbone of a stream of an imported space; repeat for more.",
        metavar="STREAM=NAME[KEY=VALUE,...]",
        example="dinov2",
    )
    skip_bad: bool = option(False, "Skip images that do not decode, and empty captions, of the dataset to measure on.")

    @property
    def backbones(self) -> tuple[PluginRef, ...]:
        """Parsed backbones."""
        streams: tuple[PluginRef, ...] = self.stream  # type: ignore[assignment]
        return streams

    @property
    def dataset_name(self) -> str | None:
        """Name of the dataset; None if it is not given."""
        dataset: PluginRef | None = self.dataset  # type: ignore[assignment]
        return dataset.name if dataset is not None else None


class CompleteOptions(PlaceOptions, DataOptions):
    """Options of `sparc complete`."""

    completion: Literal["linear", "kernel"] = option(
        "linear",
        "Guess of the streams that a sample lacks: linear, from the covariances of the training features; or kernel, "
        "which guesses better where a stream is alone, and makes encoding slower.",
    )


class AttachOptions(TimeOptions, PlaceOptions):
    """Options of `sparc attach`."""

    stream: Annotated[RefLike | Sequence[RefLike], PlainValidator(parsed_streams)] = option(
        (),
        "Backbone of the stream to attach. 'other=NAME[...]' renames it.",
        metavar="NAME[KEY=VALUE,...]",
        example="dinov2",
    )
    out: Location | None = option(
        None,
        "New directory of the run. Default: RUN-NAME, with the stream's name, else RUN-NAME-2, ...",
        example="runs/photos",
    )

    @property
    def streams(self) -> tuple[PluginRef, ...]:
        """Parsed streams."""
        streams: tuple[PluginRef, ...] = self.stream  # type: ignore[assignment]
        return streams


class DetachOptions(Options):
    """Options of `sparc detach`."""

    out: Location | None = option(
        None, "New directory. Default: RUN-without-STREAM, else RUN-without-STREAM-2, ...", example="runs/photos"
    )


class ExtractOptions(RunConfig):
    """Options of `sparc extract`."""

    tokens: Literal["patch"] | None = option(
        None, "patch: also store the features of image patches, which take much disk space.", metavar="patch"
    )
    shard: str | None = option(
        None, "Compute share I of N, counted from 0. torchrun sets it automatically.", metavar="I/N"
    )


class EvaluateOptions(TimeOptions, MeasureOptions):
    """Options of `sparc evaluate`."""

    concepts: Literal["enrichment", "purity"] = option(
        "enrichment",
        "Rule of the concept statistics: enrichment; or purity, the paper's: in each stream, the label that most of a "
        "latent's 50 strongest labelled samples have, if at least 0.3 of them do. Names of latents are by enrichment "
        "always.",
    )
    localization: bool = option(False, "Also measure how well maps of concepts point at them.")
    layers: int | None = option(
        None,
        "With --localization: layers that relevance goes through, counted from the last; the paper's code takes 1. "
        "Default: all.",
        gt=0,
    )


class ExploreOptions(MeasureOptions):
    """Options of `sparc explore`."""

    latent: int | None = option(
        None,
        "Open the page at this latent. With --sheet: draw it alone, instead of those on which the streams agree best.",
        example="93",
    )
    text: str | None = option(
        None, "Open the page at the latents that these words activate in the text streams.", metavar="WORDS"
    )
    image: Location | None = option(
        None, "Open the page at the latents that this image activates in the image streams.", metavar="FILE"
    )
    serve: bool = option(False, "Serve the page on this machine alone, until Ctrl-C.")
    sheet: bool = option(False, "Draw a contact sheet, one picture of a few latents, instead of the page.")
    out: Location | None = option(
        None, "With --sheet: picture to write. Default: latents.png, or latent-N.png, in the run.", metavar="FILE"
    )


class LocalizeOptions(PlaceOptions):
    """Options of `sparc localize`."""

    image: Annotated[str | Path | Sequence[Any], PlainValidator(_several)] = option(
        (), "Image to search; repeat for more. In Python also a PIL image.", metavar="FILE"
    )
    text: Annotated[str | Sequence[str], BeforeValidator(_several)] = option(
        (), "Words to find; repeat for more.", metavar="WORDS"
    )
    latent: Annotated[int | str | Sequence[int | str | Sequence[int]], PlainValidator(_latent_sets)] = option(
        (), "Latent to find, or several together; repeat for more.", metavar="N[,N...]", example="93"
    )
    stream: Annotated[str | Sequence[str], BeforeValidator(_several)] = option(
        (),
        "Stream of the run to use; repeat for more. Default: all. Of an imported space, a stream and its backbone.",
        metavar="NAME[=BACKBONE]",
    )
    dataset: Annotated[RefLike | None, PlainValidator(parsed)] = option(
        None,
        "Dataset whose held-out images scores are compared with. Default: the run's own.",
        metavar="NAME",
        example="image-folder",
    )
    method: Method = option("dense", "dense: encode each patch on its own; or relevance, grad-cam, layer-cam.")
    layers: int | None = option(
        None,
        "With --method relevance: layers that it goes through, counted from the last; the paper's code takes 1. "
        "Default: all.",
        gt=0,
    )
    selection: Literal["joint", "solo"] | None = option(
        None,
        "joint: image and text, or for latents all image streams, select the same latents; solo: each selects its own. "
        "Default: joint for texts, solo for latents.",
    )
    pair: bool = option(
        False, "Look for the first text in the first image, the second in the second, ..., not for each in each."
    )
    scale: Scale = option(
        "common",
        "Colours of the maps: common, by how far the score stands out from those of held-out images; or own, each map "
        "by its own highest value.",
    )
    out: Location | None = option(None, "Picture to write. Default: RUN/localize.png.", metavar="FILE")

    @property
    def images(self) -> tuple[Any, ...]:
        """Images to search, as a tuple: paths, or PIL images."""
        images: tuple[Any, ...] = self.image  # type: ignore[assignment]
        return images

    @property
    def latents(self) -> tuple[int | tuple[int, ...], ...]:
        """Latents to find, parsed: a tuple stands for several together."""
        latents: tuple[int | tuple[int, ...], ...] = self.latent  # type: ignore[assignment]
        return latents


class InputOptions(PlaceOptions):
    """Options of `sparc encode` and `sparc search` for inputs whose kind is given."""

    image: Annotated[str | Path | Sequence[Any], PlainValidator(_several)] = option(
        (), "Image or folder, whatever its name; repeat for more. In Python also a PIL image.", metavar="FILE"
    )
    text: Annotated[str | Sequence[str], BeforeValidator(_several)] = option(
        (), "Words that are a text in any case; repeat for more.", metavar="WORDS"
    )

    @property
    def images(self) -> tuple[Any, ...]:
        """Images to encode, as a tuple: paths, or PIL images."""
        images: tuple[Any, ...] = self.image  # type: ignore[assignment]
        return images

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts to encode, as a tuple."""
        texts: tuple[str, ...] = self.text  # type: ignore[assignment]
        return texts


class EncodeOptions(InputOptions):
    """Options of `sparc encode`."""

    stream: Annotated[str | Sequence[str], BeforeValidator(_several)] = option(
        (), "Stream of the run to use; repeat for more. Default: all.", metavar="NAME"
    )
    top: int = option(5, "Latents to show per stream.", gt=0)

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams to use, as a tuple; empty for all."""
        streams: tuple[str, ...] = self.stream  # type: ignore[assignment]
        return streams


class SearchOptions(InputOptions):
    """Options of `sparc search`."""

    find: Literal["image", "text"] | None = option(
        None, "image or text. Default: image, or text if no stream of the run sees images."
    )
    query_stream: Annotated[str | Sequence[str], BeforeValidator(_several)] = option(
        (), "Stream that encodes the query; repeat for more. Default: the first that reads it.", metavar="NAME"
    )
    target_stream: Annotated[str | Sequence[str], BeforeValidator(_several)] = option(
        (),
        "Stream whose codes are searched; repeat for more. Default: all that read what is to be found.",
        metavar="NAME",
    )
    by: Literal["latents", "cross"] = option(
        "latents",
        "latents: cosine of the codes; cross: cosine of the query's code, decoded into the target stream, with its "
        "features.",
    )
    top: int = option(10, "Hits to show per query and target stream.", gt=0)
    index: Location | None = option(
        None,
        "Folder of images to search, instead of the held-out samples of the run.",
        metavar="FOLDER",
        example="photos",
    )
    out: Location | None = option(None, "Page, NAME.html, or sheet, NAME.png, to write.", metavar="FILE")

    @property
    def query_streams(self) -> tuple[str, ...]:
        """Streams that encode queries, as a tuple; empty for the first that reads them."""
        streams: tuple[str, ...] = self.query_stream  # type: ignore[assignment]
        return streams

    @property
    def target_streams(self) -> tuple[str, ...]:
        """Streams to search, as a tuple; empty for all that read what is to be found."""
        streams: tuple[str, ...] = self.target_stream  # type: ignore[assignment]
        return streams


def names(*models: type[Options]) -> tuple[str, ...]:
    """Return the names of all options of these models."""
    return tuple(option_name(field) for model in models for field in model.model_fields)
