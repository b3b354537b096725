"""Heat maps: where in its top images a latent is, in each stream whose backbone has a grid of patches.

A map is the latent's activation in each patch, encoded on its own, as `sparc localize --method dense` computes it. It
is resampled to the square tile of the thumbnail, so the page need not know which part of the image a backbone sees.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array

from sparc.errors import BadSample, PluginError
from sparc.explorer.shown import TOP, Shown
from sparc.localization.geometry import spread
from sparc.models.forward import forward
from sparc.models.models import Models
from sparc.plugins.batches import mapped
from sparc.plugins.contracts import GridBackbone, Sample
from sparc.plugins.geometry import Box, measured_box

MOST_CELLS = 16
"""Rows and columns of a map at most."""
BATCH = 16
"""Images per forward pass."""
MOST_ON_CPU = 320
"""Images per stream that are looked into on a CPU, which takes up to a second for each; on a GPU, all top images."""
SIZES = 1024
"""Image sizes whose box is remembered."""

OnImage = Callable[[str, int, int], None]
"""Callback that receives a stream, and the number of its images done and their total."""


class HeatMaps(NamedTuple):
    """Maps of all latents over their top images."""

    grids: dict[str, tuple[int, int]]
    """Rows and columns of the maps, per stream that has them."""
    maps: dict[tuple[str, int, int], str]
    """By stream, latent and sample: rows * columns bytes in base64, 255 where the latent is strongest in its images."""
    notes: list[str]
    """Streams of which some top images have no maps."""


def no_maps() -> HeatMaps:
    """Return no maps of no stream."""
    return HeatMaps({}, {}, [])


def heat_maps(shown: Shown, models: Models, on_image: OnImage) -> HeatMaps:
    """Compute the maps of each image stream of `models` that has a grid. Images that cannot be read have none.

    Raises PluginError for patches that are not as wide as the features.
    """
    found = no_maps()
    for stream, backbone in models.backbones.items():
        grid = getattr(backbone, "grid", None)
        if grid is None or models.modalities[stream] != "image" or not isinstance(backbone, GridBackbone):
            continue
        found.grids[stream] = _cells(grid)
        strongest: dict[int, float] = {}
        maps: dict[tuple[int, int], NDArray[np.float32]] = {}
        wanted = _wanted(shown, stream)
        if torch.device(models.device).type == "cpu" and len(wanted) > MOST_ON_CPU:
            found.notes.append(
                f"{stream}: heat maps of {MOST_ON_CPU} of its {len(wanted):,} top images, those that show most "
                "latents best; --device cuda makes all"
            )
            wanted = dict(list(wanted.items())[:MOST_ON_CPU])
        for latent, sample, values in _of_stream(shown, models, stream, wanted, on_image):
            strongest[latent] = max(strongest.get(latent, 0.0), float(values.max()))
            maps[latent, sample] = values
        for (latent, sample), values in maps.items():
            scaled = np.rint(values * (255 / strongest[latent])) if strongest[latent] > 0 else values
            if scaled.any():
                text = base64.b64encode(scaled.astype(np.uint8).tobytes()).decode("ascii")
                found.maps[stream, latent, sample] = text
    return found


Wanted = Mapping[int, Sequence[tuple[int, int]]]
"""Per image, by its row in the store: the latents that it shows, each with the sample that has the image."""


def _wanted(shown: Shown, stream: str) -> dict[int, list[tuple[int, int]]]:
    """Return the distinct top images of a stream, those first that are strongest for a latent, and for many."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    worth: dict[int, Counter[int]] = {}
    for latent, top in enumerate(shown.tops[stream]):
        for rank, sample in enumerate(top.samples.tolist()):
            row = int(shown.rows[stream][sample])
            wanted.setdefault(row, []).append((latent, sample))
            worth.setdefault(row, Counter())[rank] += 1
    order = sorted(wanted, key=lambda row: ([-worth[row][rank] for rank in range(TOP)], row))
    return {row: wanted[row] for row in order}


def _of_stream(
    shown: Shown, models: Models, stream: str, wanted: Wanted, on_image: OnImage
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Yield latent, sample and map, for each latent and each of its top images."""
    images = list(wanted)
    backbone = models.backbones[stream]
    assert isinstance(backbone, GridBackbone)
    assert backbone.grid is not None
    cells = _cells(backbone.grid)
    box_of = lru_cache(SIZES)(lambda size: measured_box(stream, backbone, size))
    for start in range(0, len(images), BATCH):
        on_image(stream, start, len(images))
        block = images[start : start + BATCH]
        read = _readable([(row, shown.sample(wanted[row][0][1])) for row in block])
        if not read:
            continue
        patches = _patches(stream, models, [sample for _, sample, _ in read])
        codes = shown.space.encode({stream: patches.flatten(0, 1)})[stream]
        count = patches.shape[1]
        for place, (row, _, size) in enumerate(read):
            columns = csc_array(codes[place * count : (place + 1) * count].to_csr())
            for latent, sample in wanted[row]:
                own = slice(columns.indptr[latent], columns.indptr[latent + 1])
                values = np.zeros(count, np.float32)
                values[columns.indices[own]] = columns.data[own]
                yield latent, sample, _on_tile(values.reshape(backbone.grid), box_of(size), size, cells)
    on_image(stream, len(images), len(images))


def _readable(samples: Sequence[tuple[int, Sample]]) -> list[tuple[int, Sample, tuple[int, int]]]:
    """Return row, decoded sample and size of the images that can be read."""
    found = []
    for row, sample in samples:
        try:
            image = sample.image()
        except BadSample:
            continue
        found.append((row, Sample(sample.id, image.copy, sample.caption, sample.image_id), image.size))
    return found


def _patches(stream: str, models: Models, samples: Sequence[Sample]) -> torch.Tensor:
    """Return the features of patches, (B, P, D). Raises PluginError unless they are as wide as the features."""
    backbone = models.backbones[stream]
    assert isinstance(backbone, GridBackbone)
    batch = mapped(backbone.preprocess(samples), lambda tensor: tensor.to(models.device))
    _, patches_BPD = forward(backbone.forward_tokens, batch, models.device, models.precision)
    if patches_BPD.shape[-1] != backbone.width:
        raise PluginError(
            f"stream '{stream}': expected patches of width {backbone.width} as its features have, found "
            f"{patches_BPD.shape[-1]}",
            hint="fix its forward_tokens",
        )
    found: torch.Tensor = patches_BPD.float().clone()
    return found


def _cells(grid: tuple[int, int]) -> tuple[int, int]:
    return min(MOST_CELLS, grid[0]), min(MOST_CELLS, grid[1])


def _on_tile(
    values: NDArray[np.float32], box: Box, size: tuple[int, int], cells: tuple[int, int]
) -> NDArray[np.float32]:
    """Resample a grid to the square that holds the whole image in its middle; 0 outside of what the backbone sees."""
    side = max(size)
    left, top = (side - size[0]) / 2, (side - size[1]) / 2
    moved = Box(box.left + left, box.top + top, box.right + left, box.bottom + top)
    found = spread(values, moved, (side, side), (cells[1], cells[0]))
    return np.nan_to_num(np.maximum(found, 0), nan=0.0).astype(np.float32)
