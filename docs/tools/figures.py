"""Draws the figures of the concepts page into docs/figures: python docs/tools/figures.py

The numbers are made up; sparc computes which latents are kept, active or dead, and how a label is lifted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import torch

from sparc.core.dead import ActivityCounters
from sparc.core.topk import EncoderProduct, select
from sparc.plugins import Taxonomy

FOLDER = Path(__file__).parent.parent / "figures"
IMAGE, TEXT, INK, FAINT, GROUND, KEPT = "#0072b2", "#b85000", "#222222", "#8a8a8a", "#ffffff", "#007a55"
N_LATENTS, K = 8, 3
LOGITS = {
    "image": torch.tensor([[0.9, -0.3, 0.2, 1.6, 0.1, -0.6, 0.8, 0.3]]),
    "caption": torch.tensor([[0.7, 1.1, -0.5, -0.1, -0.2, 0.4, -0.4, 1.0]]),
    "another's caption": torch.tensor([[-0.4, 0.6, 1.2, 0.2, -0.1, 0.9, 0.3, -0.2]]),
}
COLOUR = {"image": IMAGE, "caption": TEXT, "another's caption": TEXT}
CELL, ROW = 62, 34


@dataclass
class Drawing:
    """An SVG with a light background, so that it is legible on a dark page."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        content: str,
        *,
        size: int = 14,
        colour: str = INK,
        at: str = "start",
        bold: bool = False,
    ) -> None:
        """Write a line."""
        weight = ' font-weight="600"' if bold else ""
        place = f'x="{x:g}" y="{y:g}" font-size="{size}"'
        self.parts.append(f'<text {place} fill="{colour}" text-anchor="{at}"{weight}>{escape(content)}</text>')

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str = "none", line: str = FAINT, wide: float = 1
    ) -> None:
        """Draw a rectangle."""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3"'
        self.parts.append(f'<rect {place} fill="{fill}" stroke="{line}" stroke-width="{wide:g}"/>')

    def line(
        self, points: Sequence[tuple[float, float]], *, colour: str = INK, dashed: bool = False, head: bool = True
    ) -> None:
        """Draw a line, with a head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = ' stroke-dasharray="6 4"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{style}/>')
        if head:
            self._head(points[-2], points[-1], colour)

    def _head(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        length = math.dist(start, end)
        x, y = (end[0] - start[0]) / length, (end[1] - start[1]) / length
        corners = [end, *((end[0] - 9 * x - side * y, end[1] - 9 * y + side * x) for side in (4, -4))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self.parts.append(f'<polygon points="{path}" fill="{colour}"/>')

    def svg(self) -> str:
        """Return the file."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif">'
        ground = f'<rect width="{self.width}" height="{self.height}" rx="6" fill="{GROUND}"/>'
        return "\n".join([start, ground, *self.parts, "</svg>", ""])


def codes(streams: Sequence[str], *, shared: bool) -> dict[str, dict[int, float]]:
    """Return the latents that each stream keeps by sparc's own selection from `LOGITS`, with their activations."""
    eye = torch.eye(N_LATENTS)
    there = torch.ones(1, dtype=torch.bool)
    products = {name: EncoderProduct(LOGITS[name], eye, torch.zeros(N_LATENTS), there) for name in streams}
    found = {}
    for name, kept in select(products, K, shared=shared).items():
        values = torch.relu(kept.logits[0])
        found[name] = dict(sorted(zip(kept.indices[0].tolist(), values.tolist(), strict=True)))
    return found


def cells(
    drawing: Drawing, x: float, y: float, values: Mapping[int, float], colour: str, *, outlined: Sequence[int] = ()
) -> None:
    """Draw a row of latents with their values; latents without a value stay empty."""
    for latent in range(N_LATENTS):
        left = x + latent * CELL
        value = values.get(latent)
        drawing.box(left, y, CELL, ROW, line="#cccccc")
        if latent in outlined:
            drawing.box(left + 2, y + 2, CELL - 4, ROW - 4, line=KEPT, wide=2.5)
        if value is not None:
            shown = f"{value:.1f}".replace("-", "−")
            drawing.text(left + CELL / 2, y + 22, shown, colour=colour if value > 0 else FAINT, at="middle", size=15)


def selection() -> Drawing:
    """Draw global and local TopK of the same logits."""
    drawing = Drawing(720, 416)
    left, pair = 196, ("image", "caption")
    rows = {name: dict(enumerate(LOGITS[name][0].tolist())) for name in pair}
    summed = dict(enumerate((LOGITS["image"] + LOGITS["caption"])[0].tolist()))
    together, alone = codes(pair, shared=True), codes(pair, shared=False)
    for latent in range(N_LATENTS):
        drawing.text(left + latent * CELL + CELL / 2, 28, str(latent), colour=FAINT, at="middle", size=13)
    drawing.text(16, 28, "latent", colour=FAINT, size=13)
    at = 38
    for name in pair:
        drawing.text(16, at + 22, f"logits, {name}", colour=COLOUR[name])
        cells(drawing, left, at, rows[name], INK)
        at += ROW
    drawing.text(16, at + 22, "their sum", bold=True)
    cells(drawing, left, at, summed, INK, outlined=list(together["image"]))
    for title, found in (
        ("global: the 3 largest sums, the same for both", together),
        ("local: each its own 3 largest", alone),
    ):
        at += ROW + 40
        drawing.text(16, at - 9, title, bold=True)
        for name in pair:
            drawing.text(16, at + 22, f"code, {name}", colour=COLOUR[name])
            cells(drawing, left, at, found[name], COLOUR[name], outlined=list(found[name]))
            at += ROW
        at -= ROW
    drawing.text(
        16,
        at + ROW + 26,
        "Outlined: kept. A kept latent whose logit is negative is 0 after the ReLU; all others are 0.",
        size=13,
    )
    return drawing


def reconstruction() -> Drawing:
    """Draw which code rebuilds which stream, with the weights of the loss."""
    drawing = Drawing(720, 330)
    for top, name, short in ((60, "image", "A"), (200, "text", "B")):
        colour = IMAGE if name == "image" else TEXT
        drawing.box(16, top, 112, 60, line=colour, wide=1.6)
        drawing.text(72, top + 26, f"{name} ({short})", at="middle", size=13)
        drawing.text(72, top + 47, f"x_{short}", at="middle", colour=colour, bold=True)
        drawing.text(160, top + 22, f"W_{short}", at="middle", size=13)
        drawing.line([(128, top + 30), (192, top + 30)], colour=colour)
        drawing.box(240, top, 90, 60, line=colour, wide=1.6)
        drawing.text(285, top + 26, "code", at="middle", size=13)
        drawing.text(285, top + 47, f"z_{short}", at="middle", colour=colour, bold=True)
    drawing.box(192, 40, 20, 240, line=KEPT, wide=1.6)
    for top, colour in ((90, IMAGE), (230, TEXT)):
        drawing.line([(212, top), (240, top)], colour=colour)
    drawing.text(202, 28, "one TopK", at="middle", size=13, colour=KEPT, bold=True)
    drawing.text(202, 300, "the same k latents", at="middle", size=13, colour=KEPT)
    places = {("A", "A"): 44, ("A", "B"): 108, ("B", "A"): 180, ("B", "B"): 244}
    for (source, target), top in places.items():
        colour = IMAGE if source == "A" else TEXT
        cross = source != target
        start = 90 if source == "A" else 230
        drawing.line([(330, start), (392, start), (392, top + 21), (446, top + 21)], colour=colour, dashed=cross)
        drawing.text(420, top + 14, f"D_{target}", at="middle", size=13)
        drawing.box(446, top, 60, 42, line=colour, wide=1.6)
        drawing.text(476, top + 26, f"y_{target}{source}", at="middle", colour=colour, bold=True)
        drawing.text(520, top + 26, f"≈ x_{target}", size=15)
        weight = "λ · " if cross else "1 · "
        drawing.text(574, top + 26, f"{weight}NMSE(y_{target}{source}, x_{target})", size=13)
    drawing.text(446, 28, "self (solid) and cross (dashed)", size=13, colour=FAINT)
    return drawing


def alignment() -> Drawing:
    """Draw the overlap of active latents: joint, solo, and both on a wrong pair."""
    drawing = Drawing(720, 438)
    left, at = 196, 14
    cases = (("joint", "caption", True), ("solo", "caption", False))
    nulls = (("joint null", "another's caption", True), ("solo null", "another's caption", False))
    for title, other, shared in (*cases, *nulls):
        found = codes(("image", other), shared=shared)
        active = {name: {latent for latent, value in code.items() if value > 0} for name, code in found.items()}
        both, either = active["image"] & active[other], active["image"] | active[other]
        drawing.text(16, at + 17, title, bold=True)
        drawing.text(
            left, at + 17, f"active in both {len(both)}, in either {len(either)}: overlap {len(both) / len(either):.2f}"
        )
        for name, code in found.items():
            at += 26 if name == "image" else ROW
            drawing.text(16, at + 20, name, colour=COLOUR[name])
            cells(
                drawing,
                left,
                at,
                {latent: code[latent] for latent in active[name]},
                COLOUR[name],
                outlined=sorted(both & code.keys()),
            )
        at += ROW + 10
    return drawing


def taxonomy() -> Drawing:
    """Draw the depth of labels, which is that of their deepest occurrence, and how one label is lifted."""
    drawing = Drawing(720, 270)
    parents = {"living": [], "animal": ["living"], "pet": ["living"], "mammal": ["animal"], "dog": ["mammal", "pet"]}
    tree = Taxonomy(parents)
    across = {"living": 330, "animal": 230, "pet": 470, "mammal": 230, "dog": 330}
    where = {label: (across[label], 34 + 64 * tree.depth(label)) for label in tree.labels}
    lifted = [tree.lift("dog", depth) for depth in range(tree.depth("dog") + 1)]
    for depth in range(tree.max_depth + 1):
        drawing.text(16, 39 + 64 * depth, f"depth {depth}", colour=FAINT)
        drawing.text(540, 39 + 64 * depth, f"dog at depth {depth}: {lifted[depth]}", size=13, colour=KEPT)
    for label, above in tree.parents.items():
        for parent in above:
            (x, y), (px, py) = where[label], where[parent]
            followed = label in lifted and parent in lifted
            drawing.line([(x, y - 17), (px, py + 17)], colour=KEPT if followed else FAINT, dashed=not followed)
    for label, (x, y) in where.items():
        drawing.box(x - 46, y - 17, 92, 34, fill=GROUND, line=KEPT if label in lifted else FAINT, wide=1.6)
        drawing.text(x, y + 5, label, at="middle")
    return drawing


def dead() -> Drawing:
    """Draw the counters of a stream's latents, and the count above which a latent is dead."""
    drawing = Drawing(720, 268)
    after, seen = 256_000, 400_000
    last_active = torch.tensor([399_900, 385_000, 120_000, 310_000, 0, 398_000])
    counters = ActivityCounters({"stream": 1}, len(last_active))
    counters.samples_since_active[0] = seen - last_active
    dead_latents = counters.dead(after)["stream"].latents.tolist()
    left, scale = 96, 500 / seen
    for latent, since in enumerate(counters.samples_since_active[0].tolist()):
        top, colour = 44 + 30 * latent, TEXT if latent in dead_latents else KEPT
        drawing.text(16, top + 15, f"latent {latent}", size=13)
        drawing.box(left, top, max(2, since * scale), 20, fill=colour, line=colour)
        drawing.text(
            left + max(2, since * scale) + 8,
            top + 15,
            f"{since:,}" + (", dead" if latent in dead_latents else ""),
            size=13,
            colour=colour,
        )
    limit = left + after * scale
    drawing.line([(limit, 34), (limit, 230)], dashed=True, head=False)
    drawing.text(limit, 26, f"dead_after = {after:,}", at="middle", size=13)
    drawing.text(
        16,
        254,
        "Training samples since each latent was last active in this stream.",
        size=13,
        colour=INK,
    )
    return drawing


FIGURES = {
    "selection": selection,
    "reconstruction": reconstruction,
    "alignment": alignment,
    "taxonomy": taxonomy,
    "dead": dead,
}


def write() -> None:
    """Write all figures."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    write()
