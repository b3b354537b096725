"""How much longer an extraction takes than the bare loop of its backbones over tensors that are ready.

    python benchmarks/extract.py [--images 256] [--model vit_small_patch16_224] [--device cuda --precision bfloat16]

Prints one JSON object: for one, two and three image streams of one architecture with random weights, on generated
JPEGs, the seconds of the extraction, of the bare loops, and of reading and preprocessing alone, and what the extraction
took in proportion to the bare loops, and to the bare loops and one reading.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sparc.extraction.features import ComputeOptions, FeatureExtractor
from sparc.extraction.preprocessing import BatchReader, ItemBatch
from sparc.extraction.shards import Destination
from sparc.extraction.work import Work
from sparc.system.memory import keep_freed_memory
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams
from sparc_plugins.timm_image import TimmParams, load_timm


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--side", type=int, default=480, help="of the JPEGs, in pixels")
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, help="side of the model's input, in pixels; default: the model's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, options.images, options.side)
        dataset = ImageFolder(ImageFolderParams(root=str(root), holdout=0.0), "train")
        found = {name: measure(dataset, root, name, options) for name in (1, 2, 3)}
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": options.device}
    print(json.dumps({"streams": found, "setting": vars(options), "machine": machine}))


def write_images(root, count, side):
    """JPEGs with the detail of photographs: noise at several scales."""
    generator = np.random.default_rng(0)
    lines = ["image,caption"]
    for number in range(count):
        small = [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in (4, 16, 64)]
        layers = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in small]
        Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).save(root / f"{number}.jpg", quality=90)
        lines.append(f"{number}.jpg,picture {number}")
    (root / "samples.csv").write_text("\n".join(lines))


def measure(dataset, root, n_streams, options):
    model = TimmParams(model=options.model, weights="random", size=options.size)
    backbones = {f"stream {number}": load_timm(model, options.device, backbone="timm") for number in range(n_streams)}
    how = ComputeOptions(options.device, options.precision)
    batch = FeatureExtractor(backbones, "image", how).batch_size(dataset, range(len(dataset)))
    rows = [list(range(low, min(low + batch, len(dataset)))) for low in range(0, len(dataset), batch)]
    one = {"one": next(iter(backbones.values())).preprocess}
    ready = [BatchReader(dataset, one, "image")[ItemBatch(list(some), ("one",))].inputs["one"] for some in rows]
    ready = [pixels.to(options.device) for pixels in ready]
    kind, dtype = torch.device(options.device).type, getattr(torch, options.precision)

    def bare():
        lower = options.precision != "float32"
        with torch.inference_mode(), torch.autocast(kind, dtype, enabled=lower):
            for backbone in backbones.values():
                for pixels in ready:
                    backbone.forward(pixels)
        if kind == "cuda":
            torch.cuda.synchronize()

    def reading():
        # Preprocessed once per stream, decoded once: what one process needs for it.
        preprocess = {name: backbone.preprocess for name, backbone in backbones.items()}
        for some in rows:
            BatchReader(dataset, preprocess, "image")[ItemBatch(list(some), tuple(preprocess))]

    def extraction():
        with tempfile.TemporaryDirectory(dir=root) as out:
            destinations = {
                name: Destination(Path(out) / str(number), name, {}, "random", "benchmark", "train")
                for number, name in enumerate(backbones)
            }
            extractor = FeatureExtractor(backbones, "image", how)
            Work(dataset, extractor, destinations).run()
        return extractor.spent

    seconds = {"bare": [], "reading": [], "extraction": []}
    for repeat in range(-1, options.repeats):
        for name, run in (("bare", bare), ("reading", reading), ("extraction", extraction)):
            began = time.perf_counter()
            result = run()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    found = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    return {
        **found,
        "to_bare": round(found["extraction"] / found["bare"], 3),
        "to_bare_and_reading": round(found["extraction"] / (found["bare"] + found["reading"]), 3),
        "images_per_s": round(len(dataset) / found["extraction"], 1),
        "waited": {name: round(value, 2) for name, value in vars(result).items()},
    }


if __name__ == "__main__":
    main()
