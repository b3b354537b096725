"""Time and memory of `sparc import features` for a large compressed HDF5 file whose rows are in another order.

    python benchmarks/import_features.py [--rows 1700000] [--width 1024] [--chunk rows|columns|auto] [--folder /tmp]

Prints one JSON object: seconds to generate the file, its size, and the seconds and the peak memory of the import, in a
process of its own. A first stream, of width 8, has the same ids in another order, so every row of the large file moves.
Some of the imported rows are compared with the generated ones. At the default size it needs 20 GB of disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from sparc.storage.store import SHARD_ROWS, read_shard, shard_path

BLOCK = 16384
CHECKED = 64


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_700_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--chunk", choices=("rows", "columns", "auto"), default="rows", help="shape of HDF5's chunks")
    parser.add_argument("--level", type=int, default=1, help="of gzip")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        began = time.perf_counter()
        order = generate(folder, options)
        generated = time.perf_counter() - began
        seconds, peak = measure(folder)
        check(folder, order, options)
        found = {
            "generate_s": round(generated, 1),
            "file_gb": round((folder / "large.h5").stat().st_size / 1e9, 3),
            "import_s": round(seconds, 1),
            "peak_memory_gb": round(peak / 1e9, 2),
        }
    print(json.dumps({**found, "setting": {name: str(value) for name, value in vars(options).items()}}))


def generate(folder, options):
    """Write both files, and return for each row of the large file the row of the first stream with its id."""
    order = np.random.default_rng(0).permutation(options.rows)
    ids = np.array([f"sample-{number}" for number in range(options.rows)])
    np.savez(folder / "first.npz", features=np.ones((options.rows, 8), np.float16), ids=ids)
    by_rows, by_columns = (min(1024, options.rows), options.width), (options.rows, 8)
    chunks = {"rows": by_rows, "columns": by_columns, "auto": True}[options.chunk]
    with h5py.File(folder / "large.h5", "w", rdcc_nbytes=1 << 30) as file:
        shape = (options.rows, options.width)
        features = file.create_dataset(
            "features", shape, np.float16, chunks=chunks, compression="gzip", compression_opts=options.level
        )
        if options.chunk == "columns":
            for low in range(0, options.width, 8):
                features[:, low : low + 8] = np.stack(
                    [values(np.arange(options.rows), column) for column in range(low, low + 8)], axis=1
                )
        else:
            step = BLOCK if options.chunk == "rows" else features.chunks[0]
            for low in range(0, options.rows, step):
                rows = np.arange(low, min(low + step, options.rows))
                features[low : low + step] = values(rows[:, None], np.arange(options.width)[None])
        file["ids"] = [one.encode() for one in ids[order]]
    return order


def values(row, column):
    """Features that can be computed again for any row: 12 bits of a hash, as numbers from -2 to 2."""
    mixed = (row.astype(np.uint64) + 1) * np.uint64(0x9E3779B97F4A7C15)
    mixed = mixed ^ (np.asarray(column, np.uint64) + 1) * np.uint64(0x94D049BB133111EB)
    mixed = (mixed ^ mixed >> np.uint64(31)) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(40)
    return ((mixed & np.uint64(0xFFF)).astype(np.float32) / 1024 - 2).astype(np.float16)


def measure(folder):
    """Return the seconds and the peak memory of the import."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "sparc",
        "import",
        "features",
        "--split",
        "train",
        "--out",
        str(folder / "out"),
    ]
    streams = ["--stream", f"first={folder / 'first.npz'}", "--stream", f"large={folder / 'large.h5'}"]
    began = time.perf_counter()
    child = subprocess.Popen([*command, *streams], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit("the import failed")
    return time.perf_counter() - began, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check(folder, order, options):
    """Compare some imported rows with the generated ones."""
    for row in np.linspace(0, options.rows - 1, CHECKED).astype(int):
        place = int(order[row])
        shard = read_shard(shard_path(folder / "out" / "train" / "large", place // SHARD_ROWS))
        expected = values(np.full(1, row)[:, None], np.arange(options.width)[None]).astype(np.float32)[0]
        if shard.ids[place % SHARD_ROWS] != f"sample-{place}" or not np.array_equal(
            shard.features[place % SHARD_ROWS].numpy(), expected
        ):
            raise SystemExit(f"row {row} was not imported as it is")


if __name__ == "__main__":
    main()
