"""Keyword arguments of `sparc.train` and the other verbs, for editors and type checkers.

`python docs/tools/signatures.py` generates this file from `sparc.config.options`, and a test compares the two.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from sparc.config.references import PluginRef


class RunArguments(TypedDict, total=False):
    """Arguments with the fields of `RunConfig`."""

    stream: str | PluginRef | Mapping[str, Any] | Sequence[str | PluginRef | Mapping[str, Any]]
    """Backbone of a stream; repeat for more. 'other=NAME[...]' renames a stream."""
    dataset: str | PluginRef | Mapping[str, Any]
    """Dataset. Default: openmoji, the demo."""
    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | Mapping[str, Any] | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    max_time: str | None
    """Stop cleanly after this time, as SIGTERM does: 90s, 45m, 3h, 1d12h. What is done is kept."""
    shard_latents: int
    """With torchrun: number of processes that hold the latents together, for a dictionary that fits in no single one.
    Several such groups split each batch."""
    n_latents: int
    """Latents shared by all streams (L)."""
    k: int
    """Latents kept per sample."""
    selection: Literal["global", "local"]
    """global: one index set per sample for all streams; local: one per stream."""
    normalization: Literal["unit", "standard", "none"]
    """Normalisation of raw features: unit (norm 1 per sample), standard (centred and scaled by statistics of the
    training features), none."""
    lambda_: float
    """Weight of the cross-reconstruction loss."""
    aux_weight: float
    """Weight of the AuxK loss, which revives dead latents (alpha)."""
    k_aux: int
    """Dead latents per sample with which AuxK reconstructs what the code left over."""
    dead_after: int
    """Training samples without activation after which a latent counts as dead."""
    epochs: int
    """Passes over the training samples."""
    batch_size: int
    """Samples per step."""
    lr: float
    """Learning rate of Adam."""
    seed: int
    """Seed of the initial weights and of the order of the samples."""
    pre_bias: Literal["mean", "zeros"]
    """Start of each stream's pre-bias: the mean of its training features, which prevents dead latents; or zeros."""
    completion: Literal["linear", "kernel", "none"]
    """Guess of the streams that a sample lacks: linear, from the covariances of the training features; kernel, which
    guesses better where a stream is alone, and makes encoding slower; or none, the paper's way."""
    stream_dropout: float
    """Part of the samples of a step for which one stream, drawn at random, selects for all."""
    input_dropout: float
    """Part of each stream's features that its encoder does not see, drawn anew in each step."""
    encoder_product: Literal["float32", "bfloat16"]
    """Precision of the encoder product that selects latents. bfloat16 selects the same latents, because candidates are
    rescored in float32, and is faster with large batches on processors with native bfloat16."""
    adam_state: Literal["float32", "bfloat16"]
    """Precision of Adam's moments; bfloat16, rounded stochastically, halves their memory."""
    on_nan: Literal["stop", "skip"]
    """Action at a step whose loss is not finite: stop the training, or skip the step, which leaves the weights as they
    are and is logged."""
    keep_checkpoints: int
    """Checkpoints to keep while a run is trained, beside the one with the least held-out loss."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Precision of the backbones' forward pass."""
    store_dtype: Literal["float32", "float16"]
    """Precision of features in the store."""
    compile: bool
    """Compile the backbones with torch.compile."""
    skip_bad: bool
    """Skip images that do not decode or are too large, and empty captions."""
    max_pixels: int
    """Largest number of pixels of an image."""
    max_side_ratio: float
    """Largest ratio of an image's longer side to its shorter; resizing makes long images huge."""
    exif: Literal["apply", "ignore"]
    """EXIF orientation of images: apply turns them upright; ignore reads them as stored, which matches features that
    were extracted so."""
    recipe: Literal["sparc", "paper"]
    """Options that are not set otherwise: sparc, the recommended ones; or paper, those of arXiv 2507.06265."""
    out: str | Path | None
    """New directory of the run. Default: runs/DATASET, else runs/DATASET-2, ..."""
    on_the_fly: bool
    """Compute the training features while training, again in each epoch, and store only the held-out ones."""
    buffer: int
    """With --on-the-fly: samples from which each batch is drawn."""
    track: Literal["tensorboard", "wandb"] | None
    """Also log the training for tensorboard, into RUN/tensorboard; or for wandb, as its own variables say, such as
    WANDB_PROJECT and WANDB_MODE=offline."""


class ExtractArguments(RunArguments, total=False):
    """Arguments with the fields of `ExtractOptions`."""

    tokens: Literal["patch"] | None
    """patch: also store the features of image patches, which take much disk space."""
    shard: str | None
    """Compute share I of N, counted from 0. torchrun sets it automatically."""


class CompleteArguments(TypedDict, total=False):
    """Arguments with the fields of `CompleteOptions`."""

    stream: str | PluginRef | Mapping[str, Any] | Sequence[str | PluginRef | Mapping[str, Any]]
    """Backbone of a stream; repeat for more. 'other=NAME[...]' renames a stream."""
    dataset: str | PluginRef | Mapping[str, Any]
    """Dataset. Default: openmoji, the demo."""
    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    completion: Literal["linear", "kernel"]
    """Guess of the streams that a sample lacks: linear, from the covariances of the training features; or kernel, which
    guesses better where a stream is alone, and makes encoding slower."""


class AttachArguments(TypedDict, total=False):
    """Arguments with the fields of `AttachOptions`."""

    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    max_time: str | None
    """Stop cleanly after this time, as SIGTERM does: 90s, 45m, 3h, 1d12h. What is done is kept."""
    stream: str | PluginRef | Mapping[str, Any] | Sequence[str | PluginRef | Mapping[str, Any]]
    """Backbone of the stream to attach. 'other=NAME[...]' renames it."""
    out: str | Path | None
    """New directory of the run. Default: RUN-NAME, with the stream's name, else RUN-NAME-2, ..."""


class DetachArguments(TypedDict, total=False):
    """Arguments with the fields of `DetachOptions`."""

    out: str | Path | None
    """New directory. Default: RUN-without-STREAM, else RUN-without-STREAM-2, ..."""


class EvaluateArguments(TypedDict, total=False):
    """Arguments with the fields of `EvaluateOptions`."""

    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    dataset: str | PluginRef | Mapping[str, Any] | None
    """Dataset to measure on, instead of the run's own data; 'imported' for --features."""
    stream: str | PluginRef | Mapping[str, Any] | Sequence[str | PluginRef | Mapping[str, Any]]
    """Backbone of a stream of an imported space; repeat for more."""
    skip_bad: bool
    """Skip images that do not decode, and empty captions, of the dataset to measure on."""
    max_time: str | None
    """Stop cleanly after this time, as SIGTERM does: 90s, 45m, 3h, 1d12h. What is done is kept."""
    concepts: Literal["enrichment", "purity"]
    """Rule of the concept statistics: enrichment; or purity, the paper's: in each stream, the label that most of a
    latent's 50 strongest labelled samples have, if at least 0.3 of them do. Names of latents are by enrichment
    always."""
    localization: bool
    """Also measure how well maps of concepts point at them."""
    layers: int | None
    """With --localization: layers that relevance goes through, counted from the last; the paper's code takes 1.
    Default: all."""


class ExploreArguments(TypedDict, total=False):
    """Arguments with the fields of `ExploreOptions`."""

    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    dataset: str | PluginRef | Mapping[str, Any] | None
    """Dataset to measure on, instead of the run's own data; 'imported' for --features."""
    stream: str | PluginRef | Mapping[str, Any] | Sequence[str | PluginRef | Mapping[str, Any]]
    """Backbone of a stream of an imported space; repeat for more."""
    skip_bad: bool
    """Skip images that do not decode, and empty captions, of the dataset to measure on."""
    latent: int | None
    """Open the page at this latent. With --sheet: draw it alone, instead of those on which the streams agree best."""
    text: str | None
    """Open the page at the latents that these words activate in the text streams."""
    image: str | Path | None
    """Open the page at the latents that this image activates in the image streams."""
    serve: bool
    """Serve the page on this machine alone, until Ctrl-C."""
    sheet: bool
    """Draw a contact sheet, one picture of a few latents, instead of the page."""
    out: str | Path | None
    """With --sheet: picture to write. Default: latents.png, or latent-N.png, in the run."""


class LocalizeArguments(TypedDict, total=False):
    """Arguments with the fields of `LocalizeOptions`."""

    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    image: str | Path | Sequence[Any]
    """Image to search; repeat for more. In Python also a PIL image."""
    text: str | Sequence[str]
    """Words to find; repeat for more."""
    latent: int | str | Sequence[int | str | Sequence[int]]
    """Latent to find, or several together; repeat for more."""
    stream: str | Sequence[str]
    """Stream of the run to use; repeat for more. Default: all. Of an imported space, a stream and its backbone."""
    dataset: str | PluginRef | Mapping[str, Any] | None
    """Dataset whose held-out images scores are compared with. Default: the run's own."""
    method: Literal["dense", "relevance", "grad-cam", "layer-cam"]
    """dense: encode each patch on its own; or relevance, grad-cam, layer-cam."""
    layers: int | None
    """With --method relevance: layers that it goes through, counted from the last; the paper's code takes 1. Default:
    all."""
    selection: Literal["joint", "solo"] | None
    """joint: image and text, or for latents all image streams, select the same latents; solo: each selects its own.
    Default: joint for texts, solo for latents."""
    pair: bool
    """Look for the first text in the first image, the second in the second, ..., not for each in each."""
    scale: Literal["common", "own"]
    """Colours of the maps: common, by how far the score stands out from those of held-out images; or own, each map by
    its own highest value."""
    out: str | Path | None
    """Picture to write. Default: RUN/localize.png."""


class EncodeArguments(TypedDict, total=False):
    """Arguments with the fields of `EncodeOptions`."""

    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    image: str | Path | Sequence[Any]
    """Image or folder, whatever its name; repeat for more. In Python also a PIL image."""
    text: str | Sequence[str]
    """Words that are a text in any case; repeat for more."""
    stream: str | Sequence[str]
    """Stream of the run to use; repeat for more. Default: all."""
    top: int
    """Latents to show per stream."""


class SearchArguments(TypedDict, total=False):
    """Arguments with the fields of `SearchOptions`."""

    data_root: str | Path | None
    """Folder of the dataset. `webdataset` also reads a URL, such as s3://bucket/prefix."""
    features: str | Path | None
    """Folder written by `sparc import features`, or its URL, instead of a dataset and backbones."""
    store: str | Path | None
    """Folder of the feature store, or the URL of a complete one. Default: that of the run, else $SPARC_CACHE/store,
    else ~/.cache/sparc/store."""
    device: str
    """auto (CUDA if available), cpu, cuda, cuda:1, ..."""
    image: str | Path | Sequence[Any]
    """Image or folder, whatever its name; repeat for more. In Python also a PIL image."""
    text: str | Sequence[str]
    """Words that are a text in any case; repeat for more."""
    find: Literal["image", "text"] | None
    """image or text. Default: image, or text if no stream of the run sees images."""
    query_stream: str | Sequence[str]
    """Stream that encodes the query; repeat for more. Default: the first that reads it."""
    target_stream: str | Sequence[str]
    """Stream whose codes are searched; repeat for more. Default: all that read what is to be found."""
    by: Literal["latents", "cross"]
    """latents: cosine of the codes; cross: cosine of the query's code, decoded into the target stream, with its
    features."""
    top: int
    """Hits to show per query and target stream."""
    index: str | Path | None
    """Folder of images to search, instead of the held-out samples of the run."""
    out: str | Path | None
    """Page, NAME.html, or sheet, NAME.png, to write."""
