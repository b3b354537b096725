"""Extraction of DINOv2's and CLIP's architectures from JPEGs, beside the bare loop over pixels that are ready."""

import argparse
import tempfile
from pathlib import Path

from benchmarks import extract
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams

MODELS = {"DINOv2": "vit_base_patch14_reg4_dinov2.lvd142m", "CLIP": "vit_base_patch16_clip_224.openai"}
"""timm's names of two image encoders."""
SMALL = {"DINOv2": "test_vit", "CLIP": "test_vit2"}


def measure(settings):
    """Measure each architecture alone; `waited` says where the time goes."""
    images, side = (8, 64) if settings.small else (2048, 480)
    how = {"device": settings.device, "precision": "bfloat16", "repeats": 1 if settings.small else 2}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        extract.write_images(Path(folder), images, side)
        dataset = ImageFolder(ImageFolderParams(root=folder, holdout=0.0), "train")
        for name, model in (SMALL if settings.small else MODELS).items():
            if not settings.in_time:
                rows.append({"what": name, "left out": "no time left"})
                continue
            options = argparse.Namespace(model=model, size=None if settings.small else 224, **how)
            found = extract.measure(dataset, Path(folder), 1, options)
            rows.append({"what": name, "of the bare loop's speed": found["bare"] / found["extraction"], **found})
    return rows
