"""Time of a search among sparse codes with the inverted index, beside dense searches of the same samples.

    python benchmarks/search.py [--samples 1700000] [--peers] [--hnsw]

A sample has about `--k` of `--latents` concepts, drawn with frequencies 1 / rank, so that the first concepts are in
most samples. Its features are the sum of its concepts' directions, weighted by their strengths, plus noise. A query is
another view of a sample: a quarter of the concepts is gone, the strengths vary, the noise is new. Recall at 10 is the
share of queries that find their sample among ten.

The index reads codes. The peers read features: `--peers` adds the product with all of them in PyTorch, and faiss's
flat index; `--hnsw` adds faiss's HNSW, with the smallest `efSearch` whose recall is that of the index or of the flat
search, whichever is less; if none reaches it, with the largest one, which the table says. HNSW takes an hour to build
for 1.7 million samples of width 768 on two cores. At that size the codes take 0.9 GB, the features 5.2 GB, and a faiss
index a copy of them. One copy is in memory at a time: 12 GB in all. faiss is `pip install faiss-cpu`. Prints one JSON
object, and a table for people.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array

from sparc.index.inverted import InvertedIndex, strongest
from sparc.storage.index_file import read_index, write_index

BLOCK = 16384
TOP = 10
EF_SEARCH = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Planted:
    """Codes of samples, and features made of them."""

    def __init__(self, options):
        self.options = options
        self.random = np.random.default_rng(0)
        self.chance = np.cumsum(1 / np.arange(1, options.latents + 1))
        self.chance /= self.chance[-1]
        directions = self.random.standard_normal((options.latents, options.width)).astype(np.float32)
        self.directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def codes(self, count):
        """Return the codes of `count` samples."""
        k, latents = self.options.k, self.options.latents
        drawn = np.searchsorted(self.chance, self.random.random((count, k))).ravel()
        values = self.random.gamma(2.0, size=count * k).astype(np.float32)
        found = csr_array((values, drawn, np.arange(0, count * k + 1, k)), shape=(count, latents))
        found.sum_duplicates()
        found.indices = found.indices.astype(np.int32)
        return found

    def view(self, codes):
        """Return other views of samples, as codes."""
        other = codes.copy()
        other.data *= self.random.gamma(4.0, 0.25, len(other.data)).astype(np.float32)
        other.data[self.random.random(len(other.data)) < 0.25] = 0
        other.eliminate_zeros()
        return other

    def features(self, codes):
        """Return the features of samples, of unit norm."""
        found = codes @ self.directions
        found += self.random.standard_normal(found.shape).astype(np.float32) * self.options.noise
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def timed(search, queries, truth):
    """Return the times of single queries in milliseconds, and the recall."""
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        best = search(query)
        times.append(1000 * (time.perf_counter() - began))
        found.append(best)
    recall = float(np.mean([place in best for place, best in zip(truth, found, strict=True)]))
    return {"median_ms": round(float(np.median(times)), 2), "max_ms": round(max(times), 2), f"recall_at_{TOP}": recall}


def main():
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_700_000)
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", action="store_true", help="also search the features")
    parser.add_argument("--hnsw", action="store_true", help="also build and search an HNSW index of the features")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    planted = Planted(options)
    parts = [planted.codes(min(BLOCK, options.samples - low)) for low in range(0, options.samples, BLOCK)]
    truth = np.sort(planted.random.choice(options.samples, options.queries, replace=False))
    chosen = [parts[place // BLOCK][[place % BLOCK]] for place in truth]
    views = [planted.view(code) for code in chosen]
    with tempfile.TemporaryDirectory() as folder:
        result = {**vars(options), **index_times(Path(folder) / "codes.safetensors", parts, views, truth, options)}
    if options.peers or options.hnsw:
        rows = np.empty((options.samples, options.width), np.float32)
        for number, part in enumerate(parts):
            rows[number * BLOCK : number * BLOCK + part.shape[0]] = planted.features(part)
        del parts
        queries = np.concatenate([planted.features(view) for view in views])
        result |= peer_times(rows, queries, truth, result["index"][f"recall_at_{TOP}"], options)
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    print(json.dumps(result, indent=2))
    print()
    print(table(result))


def table(result):
    """Return the times as a table in Markdown."""
    rows = {
        "index": ("inverted index of the codes", result["build_s"]),
        "product": ("product of the features, PyTorch", None),
        "faiss_flat": ("faiss flat, features", None),
        "faiss_hnsw": ("faiss HNSW, features", result.get("faiss_hnsw_build_s")),
    }
    lines = [f"| search of {result['samples']:,} samples | median | slowest | recall at {TOP} | built in |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for key, (name, built) in rows.items():
        if key not in result:
            continue
        found = result[key]
        effort = f", efSearch {found['efSearch']}" if "efSearch" in found else ""
        short = " (recall not reached)" if not found.get("recall_reached", True) else ""
        times = f"{found['median_ms']:.1f} ms | {found['max_ms']:.1f} ms | {found[f'recall_at_{TOP}']:.2f}{short}"
        lines.append(f"| {name}{effort} | {times} | {'–' if built is None else f'{built:,.0f} s'} |")
    return "\n".join(lines)


def index_times(path, parts, views, truth, options):
    """Return the times of the index: in memory, and mapped from its file as `sparc search` opens it."""
    began = time.perf_counter()
    made = InvertedIndex.build(parts, np.ones(options.samples, bool), np.arange(options.samples))
    built = time.perf_counter() - began
    write_index(path, {name: torch.from_numpy(array) for name, array in vars(made).items()})
    began = time.perf_counter()
    index = InvertedIndex(**{name: tensor.numpy() for name, tensor in read_index(path).items()})
    opened = 1000 * (time.perf_counter() - began)

    def search(view):
        latents = view.indices.astype(np.int64)
        assert index.is_whole(latents)  # as `sparc search` looks
        return strongest(index.cosines(latents, view.data), TOP)

    search(views[0])
    share = np.diff(index.starts).max() / options.samples
    return {
        "entries": len(index.samples),
        "largest_list": round(float(share), 3),
        "build_s": round(built, 1),
        "file_mb": path.stat().st_size >> 20,
        "open_ms": round(opened, 1),
        "index": timed(search, views, truth),
    }


def peer_times(rows, queries, truth, recall, options):
    """Return the times of dense searches of the features."""
    features = torch.from_numpy(rows)
    found = {}
    if options.peers:
        found["product"] = timed(
            lambda query: (features @ torch.from_numpy(query)).topk(TOP).indices.numpy(), queries, truth
        )
    import faiss  # noqa: PLC0415  # an optional peer

    faiss.omp_set_num_threads(options.threads)
    flat = faiss.IndexFlatIP(options.width)
    flat.add(rows)
    found["faiss_flat"] = timed(lambda query: flat.search(query[None], TOP)[1][0], queries, truth)
    flat.reset()  # its copy of the features makes room for that of the next index
    if options.hnsw:
        began = time.perf_counter()
        graph = faiss.IndexHNSWFlat(options.width, 32, faiss.METRIC_INNER_PRODUCT)
        graph.add(rows)
        found["faiss_hnsw_build_s"] = round(time.perf_counter() - began, 1)
        least = min(recall, found["faiss_flat"][f"recall_at_{TOP}"])
        for ef in EF_SEARCH:
            graph.hnsw.efSearch = ef
            measured = timed(lambda query: graph.search(query[None], TOP)[1][0], queries, truth)
            reached = measured[f"recall_at_{TOP}"] >= least
            found["faiss_hnsw"] = {"efSearch": ef, **measured, "recall_reached": reached}
            if reached:
                break
    return found


if __name__ == "__main__":
    main()
