"""How long it takes to open Open Images, and how much memory: on files in the official format that it makes itself.

    uv run python benchmarks/open_images.py --samples 1700000 --points 20

Makes shards of Localized Narratives (`--points` per trace: the official ones have hundreds), an empty image file per
narrative, a hierarchy of 600 classes, and a label file with `--labels` rows per image, of which half are verified and
one in four is of those classes. Each step runs in a process of its own. Prints one JSON object: seconds and peak
resident memory of the first opening, of one from the cache, and of reading the labels after that. Linux only.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sparc_plugins.open_images import OpenImages, OpenImagesParams

SHARDS = 10
CLASSES = 600
WORDS = (
    "in",
    "this",
    "image",
    "I",
    "can",
    "see",
    "a",
    "man",
    "standing",
    "on",
    "the",
    "ground",
    "and",
    "behind",
    "him",
)
SPLIT = "train"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=300, help="points of a trace")
    parser.add_argument("--labels", type=int, default=8, help="rows of labels per image")
    parser.add_argument("--folder", type=Path, help="where to make the files, and leave them; else a temporary folder")
    parser.add_argument("--step", choices=["open", "labels"], help="of files that are there: print what it takes")
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measured(options.folder, options.step)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(benchmark(options.folder or Path(temporary), options), indent=2))


def benchmark(folder: Path, options: argparse.Namespace) -> dict:
    """Make the files where there are none, and run each step."""
    data, cache = folder / "data", folder / "cache"
    if not data.exists():
        make(data, options.samples, options.points, options.labels)
    for old in cache.glob("open-images/*"):
        old.unlink()
    size = sum(path.stat().st_size for path in data.glob("*.jsonl"))

    def run(step: str) -> dict:
        command = [sys.executable, __file__, "--folder", str(data), "--step", step]
        environment = {**os.environ, "SPARC_CACHE": str(cache)}
        return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)

    return {
        "samples": options.samples,
        "points_per_trace": options.points,
        "bytes_per_narrative": round(size / options.samples),
        "narratives_gib": round(size / 2**30, 2),
        "label_rows": options.samples * options.labels,
        "first_open": run("open"),
        "cached_open": run("open"),
        "labels": run("labels"),
    }


def measured(data: Path, step: str) -> dict:
    """Seconds and peak memory of one step, in this process."""
    start = time.perf_counter()
    dataset = OpenImages(OpenImagesParams(root=str(data)), SPLIT)
    if step == "labels":
        start = time.perf_counter()
        dataset.labels()
    seconds = time.perf_counter() - start
    # Not getrusage: it counts what the parent process had.
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))[1])
    return {"seconds": round(seconds, 1), "peak_resident_gib": round(peak / 2**20, 2), "samples": len(dataset)}


def make(data: Path, samples: int, points: int, labels: int) -> None:
    """Write all files; the same every time."""
    generator = random.Random(0)
    (data / SPLIT).mkdir(parents=True)
    ids = [f"{generator.getrandbits(64):016x}" for _ in range(samples)]
    rest = json.dumps(recording(points))[1:]
    for shard in range(SHARDS):
        name = f"open_images_{SPLIT}_v6_localized_narratives-{shard:05d}-of-{SHARDS:05d}.jsonl"
        with (data / name).open("w") as file:
            for image in ids[shard::SHARDS]:
                text = " ".join(generator.choices(WORDS, k=generator.randint(20, 60)))
                head = {"dataset_id": "open_images_train", "image_id": image, "annotator_id": 93, "caption": text}
                file.write(f"{json.dumps(head)[:-1]}, {rest}\n")
    for image in ids:
        (data / SPLIT / f"{image}.jpg").touch()
    mids = [f"/m/{number:06x}" for number in range(4 * CLASSES)]
    kinds = [{"LabelName": mid, "Subcategory": []} for mid in mids[:CLASSES]]
    for number in range(1, CLASSES):
        kinds[number // 4]["Subcategory"].append(kinds[number])
    (data / "bbox_labels_600_hierarchy.json").write_text(json.dumps(kinds[0]))
    (data / "class-descriptions-boxable.csv").write_text("".join(f"{mid},Class {mid}\n" for mid in mids))
    with (data / f"{SPLIT}-annotations-human-imagelabels.csv").open("w") as file:
        file.write("ImageID,Source,LabelName,Confidence\n")
        for image in sorted(ids):
            for mid in generator.choices(mids, k=labels):
                file.write(f"{image},crowdsource-verification,{mid},{generator.getrandbits(1)}\n")


def recording(points: int) -> dict:
    """What a record has besides the caption, as long as a real one of so many points."""
    spoken = [{"utterance": "In this", "start_time": 0.1 * n, "end_time": 0.1 * n + 0.4} for n in range(points // 10)]
    traces = [[{"x": 0.2086, "y": -0.0533, "t": round(0.022 * n, 3)} for n in range(points)]]
    return {"timed_caption": spoken, "traces": traces, "voice_recording": "open_images_train/0123456789abcdef_93.ogg"}


if __name__ == "__main__":
    main()
