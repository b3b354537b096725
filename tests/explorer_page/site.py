"""Sites in the format of `sparc explore`, made by hand, so that the page is tested without a trained run."""

import base64
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

PAGE = Path(__file__).parents[2] / "sparc" / "explorer" / "page"
STREAMS = (("dino", "image", [4, 4]), ("clip-image", "image", None), ("clip-text", "text", None))
CONCEPTS = ("whale", "clock", "woman", "nurse", "red heart", "tree", "car", "house", "café", "猫が好き", "قطة", "ball")
BRANCHES = ("animals", "people", "things")
# Text that would act if any place took it for markup: each one sets a variable that the tests look at.
MARKUP = (
    "<img src=x onerror=\"window.attacked='{place}'\"><script>window.attacked='{place}'</script>&amp;\"'\u202e{place}"
)

Columns = dict[str, Any]


def write(folder: Path, name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    (folder / "data" / f"{name.replace('/', '-')}.js").write_text(
        f"sparcData({json.dumps(name)}, {text});\n", encoding="utf-8"
    )


class Site:
    """A small site of planted concepts. "hostile": markup in each text. "bare": one stream of imported features.

    Concept c fires in the samples whose number is c modulo the number of concepts, and in some others.
    """

    def __init__(self, folder: Path, latents: int = 70, samples: int = 240, kind: str = ""):
        self.folder, self.latents, self.samples = folder, latents, samples
        self.hostile, self.bare = kind == "hostile", kind == "bare"
        self.random = np.random.default_rng(0)
        self.kinds = (("features", "unknown", None),) if self.bare else STREAMS
        self.streams = [self.text(f"stream{i}", name) for i, (name, _, _) in enumerate(self.kinds)]
        self.fires: dict[str, list[np.ndarray]] = {
            name: [self.draw(latent, s) for latent in range(latents)] for s, name in enumerate(self.streams)
        }
        self.rate = {name: [round(len(f) / samples, 4) for f in fires] for name, fires in self.fires.items()}
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        for name in ("data", "sprites"):
            (folder / name).mkdir(exist_ok=True)

    def text(self, place: str, plain: str) -> str:
        return MARKUP.format(place=place) if self.hostile else plain

    def draw(self, latent: int, stream: int) -> np.ndarray:
        """Return the samples in which a latent fires: 5 is dead, 6 fires in the first stream alone."""
        if latent == 5 or (latent == 6 and stream > 0):
            return np.array([], int)
        if latent >= len(CONCEPTS):
            return np.flatnonzero(
                self.random.random(self.samples) < self.random.choice([0.004, 0.01, 0.03]) + 1 / self.samples
            )
        planted = np.arange(self.samples) % len(CONCEPTS) == latent
        if latent == 2:  # "woman" fires for nurses too
            planted |= np.arange(self.samples) % len(CONCEPTS) == 3
        return np.flatnonzero(
            (planted & (self.random.random(self.samples) < 0.9)) | (self.random.random(self.samples) < 0.02)
        )

    def write(self, chunks: int | None = None) -> "Site":
        self.write_run()
        self.write_latents()
        self.write_details(chunks)
        self.write_samples(chunks)
        self.write_bias()
        self.write_sprites()
        return self

    def caption(self, sample: int) -> str:
        return self.text("caption", f"a drawing of a {CONCEPTS[sample % len(CONCEPTS)]}, number {sample}")

    def write_run(self) -> None:
        steps = list(range(0, 1000, 50))
        streams = [
            {"name": self.streams[s], "modality": kind, "width": 64, "random_weights": s == 1, "grid": grid}
            for s, (_, kind, grid) in enumerate(self.kinds)
        ]
        write(
            self.folder,
            "run",
            {
                "format": 2,
                "name": self.text("run", "planted"),
                "version": "0.1",
                "dataset": {"name": self.text("dataset", "drawings"), "split": "test"},
                "held_out": self.samples,
                "shown": self.samples,
                "n_latents": self.latents,
                "k": 8,
                "selection": "global",
                "streams": streams,
                "depths": [] if self.bare else [0, 1, 2],
                "has": dict.fromkeys(("labels", "taxonomy", "images", "captions"), not self.bare),
                "chunk": {"latents": 32, "samples": 32},
                "sprite": {"size": 96, "columns": 8, "rows": 8, "files": -(-self.samples // 64)},
                "branches": [] if self.bare else [self.text("branch", name) for name in BRANCHES],
                "curves": [
                    {
                        "name": "loss",
                        "label": self.text("curve", "Loss"),
                        "x": steps,
                        "series": [
                            {
                                "name": self.text("series", name),
                                "values": [round(1 / (1 + step / 100) + s / 10, 4) for step in steps],
                            }
                            for s, name in enumerate(self.streams)
                        ],
                        "read": self.text("read", "Falls as the streams are rebuilt better."),
                    }
                ],
                "measures": [
                    {
                        "name": "mse",
                        "label": self.text("measure", "Error"),
                        "value": 0.21,
                        "null": 1.0,
                        "better": "lower",
                        "read": self.text("read", "How far off."),
                    }
                ],
                "warnings": [self.text("warning", "The weights of one backbone are missing.")],
            },
        )

    def two(self) -> list[tuple[int, int]]:
        return list(itertools.combinations(range(len(self.streams)), 2))

    def pairs(self) -> Columns:
        found = {}
        for a, b in self.two():
            one, two = self.fires[self.streams[a]], self.fires[self.streams[b]]
            both = [len(np.intersect1d(x, y)) for x, y in zip(one, two, strict=True)]
            found[f"{self.streams[a]}>{self.streams[b]}"] = {
                "a": [len(x) for x in one],
                "b": [len(y) for y in two],
                "both": both,
            }
        return found

    def state(self, latent: int) -> int:
        firing = sum(len(fires[latent]) > 0 for fires in self.fires.values())
        return 3 if latent == 7 else 2 if not firing else 0 if firing == len(self.streams) else 1

    def write_latents(self) -> None:
        everyone = range(self.latents)
        known = [latent < len(CONCEPTS) and not self.bare for latent in everyone]
        agreement = [None if self.bare else round(float(a), 3) for a in self.random.uniform(0.05, 0.95, self.latents)]
        place = self.random.uniform(0, 1, (2, self.latents)).round(4).tolist()
        place = [[value if self.state(latent) != 2 else None for latent, value in enumerate(axis)] for axis in place]
        thumbs = [
            [] if self.bare else [int(sample) for sample in self.fires[self.streams[0]][latent][:3]]
            for latent in everyone
        ]
        self.names = [self.text("name", CONCEPTS[latent]) if known[latent] else None for latent in everyone]
        self.columns = {
            "name": self.names,
            "named_by": [int(k) + (latent % 3 == 2 and k) for latent, k in enumerate(known)],
            "sure": [round(0.5 + latent / 40, 2) if k else None for latent, k in enumerate(known)],
            "branch": [latent % 3 if k else -1 for latent, k in enumerate(known)],
            "state": [self.state(latent) for latent in everyone],
            "duplicate_of": [4 if latent == 7 else -1 for latent in everyone],
            "agreement": agreement,
            "rate": self.rate,
            "jaccard": [
                [round(0.2 + 0.2 * depth + latent / 999, 3) if k else None for latent, k in enumerate(known)]
                for depth in range(0 if self.bare else 3)
            ],
            "null": [[0.1 + 0.1 * depth if k else None for k in known] for depth in range(0 if self.bare else 3)],
            "purity": [round(0.4 + latent / 40, 2) if k else None for latent, k in enumerate(known)],
            "thumb": [t[0] if t else -1 for t in thumbs],
            "thumbs": thumbs,
            "caption": [
                self.caption(int(self.fires[self.streams[0]][latent][0]))
                if len(self.fires[self.streams[0]][latent]) and not self.bare
                else None
                for latent in everyone
            ],
            "also": [
                self.text("also", f"more{latent}") if k and latent % 2 else None for latent, k in enumerate(known)
            ],
            "words": [self.text("words", f"word{latent} Wörter") if k else None for latent, k in enumerate(known)],
            "pairs": self.pairs(),
            "x": place[0],
            "y": place[1],
        }
        write(self.folder, "latents", self.columns)

    def detail(self, latent: int) -> Columns | None:
        if self.state(latent) == 2:
            return None
        heat = base64.b64encode(bytes(range(0, 256, 16))).decode()
        others = [other % self.latents for other in range(latent + 1, latent + 6) if other % self.latents != 5]
        edges = [round(i / 8, 3) for i in range(9)]
        return {
            "top": {
                name: [
                    [int(sample), round(2 / (1 + i), 3), heat if s == 0 else None]
                    for i, sample in enumerate(self.fires[name][latent][:12])
                ]
                for s, name in enumerate(self.streams)
            },
            "histogram": {
                name: {"edges": edges, "counts": [len(self.fires[name][latent]) // (i + 1) for i in range(8)]}
                for name in self.streams
            },
            "nearest": [[other, 0.5, [0.6, 0.5, 0.4][: len(self.streams)]] for other in others],
            "together": [[other, 3, 2.5] for other in others],
            "pairs": [
                [a, b, len(self.fires[self.streams[a]][latent]), len(self.fires[self.streams[b]][latent]), 3]
                for a, b in self.two()
            ],
            "words": [] if self.bare else [[self.text("word", "drawing"), 10, 20, 12]],
            "labels": [] if self.bare else [[self.text("label", "whale"), 10, 20, 12, 0.83, True]],
        }

    def write_details(self, chunks: int | None) -> None:
        for chunk in range(min(chunks or self.latents, -(-self.latents // 32))):
            members = range(chunk * 32, min(self.latents, chunk * 32 + 32))
            write(self.folder, f"latent/{chunk}", [self.detail(latent) for latent in members])

    def write_samples(self, chunks: int | None) -> None:
        everyone = range(self.samples)
        write(
            self.folder,
            "samples",
            {
                "id": [self.text("id", f"id-{sample}") for sample in everyone],
                "caption": [None if self.bare else self.caption(sample)[:160] for sample in everyone],
                "thumb": [-1 if self.bare else sample for sample in everyone],
            },
        )
        codes: list[dict[str, list[list[float]]]] = [{name: [] for name in self.streams} for _ in everyone]
        for name, fires in self.fires.items():
            for latent, found in enumerate(fires):
                for sample in found:
                    codes[sample][name].append([latent, round(2 / (1 + len(codes[sample][name])), 3)])
        ways = [f"{a}>{b}" for a in self.streams for b in self.streams]
        for chunk in range(min(chunks or self.samples, -(-self.samples // 32))):
            members = range(chunk * 32, min(self.samples, chunk * 32 + 32))
            write(
                self.folder,
                f"sample/{chunk}",
                [
                    {
                        "caption": None if self.bare else self.caption(sample),
                        "truncated": False,
                        "labels": [] if self.bare else [self.text("label", CONCEPTS[sample % len(CONCEPTS)])],
                        "there": [True, True, sample % 10 > 0][: len(self.streams)],
                        "codes": codes[sample],
                        "joint": codes[sample],
                        "parts": {way: [[sample % 5, 0.4], [6, -0.1]] for way in ways},
                        "explained": dict.fromkeys(ways, 0.62),
                    }
                    for sample in members
                ],
            )

    def bias(self) -> Columns:
        count = min(self.samples, 2000)
        labels = np.arange(count) % len(CONCEPTS)
        terms = [
            {"term": self.text(f"term{c}", name), "kind": "label", "samples": np.flatnonzero(labels == c).tolist()}
            for c, name in enumerate(CONCEPTS)
        ]
        if self.bare:
            return {
                "samples": list(range(count)),
                "terms": [],
                "fires": {name: [f.tolist() for f in found] for name, found in self.fires.items()},
            }
        terms.append({"term": "tall", "kind": "word", "samples": [0, 1, 2, 3, 4, 5, 6, 14]})
        absent = {self.streams[2]: list(range(0, count, 10))}
        fires = {
            name: [[int(s) for s in f if s < count and s not in absent.get(name, [])] for f in found]
            for name, found in self.fires.items()
        }
        return {"samples": list(range(count)), "terms": terms, "fires": fires, "absent": absent}

    def write_bias(self) -> None:
        def numbers(values: list[int]) -> str:
            return base64.b64encode(np.array(values, "<u2").tobytes()).decode()

        bias = self.bias()
        bias["fires"] = {
            name: {
                "counts": numbers([len(fires) for fires in found]),
                "positions": numbers([position for fires in found for position in fires]),
            }
            for name, found in bias["fires"].items()
        }
        write(self.folder, "bias", bias)

    def write_sprites(self) -> None:
        sheet = Image.new("RGB", (96 * 8, 96 * 8), "white")
        draw = ImageDraw.Draw(sheet)
        for tile in range(64):
            x, y, hue = tile % 8 * 96, tile // 8 * 96, tile % len(CONCEPTS) * 360 // len(CONCEPTS)
            colour = f"hsl({hue}, 60%, {45 + tile % 5 * 6}%)"
            (draw.ellipse if tile % 2 else draw.rectangle)((x + 14, y + 14, x + 82, y + 82), fill=colour)
            draw.text((x + 40, y + 42), str(tile), fill="white")
        sheet.save(self.folder / "sprites" / "0.webp", quality=70)
        for file in range(1, -(-self.samples // 64)):
            shutil.copy(self.folder / "sprites" / "0.webp", self.folder / "sprites" / f"{file}.webp")


if __name__ == "__main__":
    import sys

    Site(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]).write(chunks=4)
