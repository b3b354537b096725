"""Measure the page of `sparc explore` in a headless Chromium: first paint, search per key, memory.

    uv run python benchmarks/explorer_page.py RUN/explore
    uv run python benchmarks/explorer_page.py --planted 8192 20000

Opens the folder's page from the disk, in a new browser each time. Prints one JSON object, of medians over the browsers:
the first paint and the first cards in milliseconds after the start of the navigation; the slowest and the median key of
searches that are typed (filtering and drawing included) and the first key, for which the index is made; the memory of
the renderer's process in MiB (PSS) after the first cards, after a walk through every view, and once its garbage is
collected.
The planted site has a thumbnail of each sample, and those of a card lie in different sprites.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.explorer_page.site import Site

PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
KEY = """async (text) => {
  const input = document.getElementById("search");
  const start = performance.now();
  input.value = text;
  input.dispatchEvent(new Event("input"));
  await new Promise((done) => setTimeout(done));
  document.body.offsetHeight;
  return performance.now() - start;
}"""
MOMENTS = ("first cards", "every view", "a collection")
TEXTS = ("whale", "drawing of a clock", "word7", "number 12", "house")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--planted", type=int, nargs=2, metavar=("LATENTS", "SAMPLES"))
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Site(Path(scratch), *options.planted).write(chunks=80).folder
        print(json.dumps(measure(folder, options.repeat), indent=2))


def measure(folder: Path, repeat: int) -> dict[str, float]:
    paints, cards, sizes, keys, first_keys = [], [], [], [], []
    for _ in range(repeat):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"] if os.geteuid() == 0 else []
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto((folder / "index.html").resolve().as_uri())
            page.wait_for_selector(".card")
            cards.append(page.evaluate("performance.now()"))
            paints.append(page.evaluate(PAINT))
            memory = renderer_memory()
            first_keys.append(page.evaluate(KEY, "w"))
            page.wait_for_timeout(3000)
            keys.append([page.evaluate(KEY, text[:end]) for text in TEXTS for end in range(1, len(text) + 1)])
            walk(page)
            after = renderer_memory()
            page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
            page.wait_for_timeout(500)
            sizes.append((memory, after, renderer_memory()))
            browser.close()
    each = np.median(keys, 0)
    return {
        "first paint ms": round(statistics.median(paints)),
        "first cards ms": round(statistics.median(cards)),
        "first key, index cold ms": round(statistics.median(first_keys), 1),
        "key median ms": round(float(np.median(each)), 1),
        "key slowest ms": round(float(each.max()), 1),
        **{f"renderer after {what} MiB": round(size) for what, size in zip(MOMENTS, np.median(sizes, 0), strict=True)},
    }


def walk(page: Page) -> None:
    start = page.url.split("#")[0]
    views = "compare map samples latent/40 latent/500 sample/3 sample/900 bias?a=whale&b=clock run latents"
    for view in views.split():
        page.goto(f"{start}#/{view}")
        page.wait_for_timeout(600)
    for _ in range(40):
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(30)


def renderer_memory() -> float:
    """Return the proportional memory of this script's renderer processes, the largest, in MiB."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        if "--type=renderer" in process.cmdline():
            sizes.append(process.memory_full_info().pss / 2**20)
    return max(sizes)


if __name__ == "__main__":
    main()
