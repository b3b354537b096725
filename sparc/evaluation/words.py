"""Words of captions, in any script, as terms that samples have or lack."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import regex
from scipy.sparse import csr_array

from sparc.system.graphemes import start_of

FEWEST = 3
"""Samples that a word needs to count as a term."""
MOST = 5000
"""Terms kept, the most frequent ones."""
READ = 4000
"""Characters of a caption that are read."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)
"""Runs of scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han."""
_EMOJI = regex.compile(
    r"\p{RI}{2}"
    r"|\p{Extended_Pictographic}\p{Emoji_Modifier}?[\U000E0020-\U000E007F]*"
    r"(?:\u200d\p{Extended_Pictographic}\p{Emoji_Modifier}?)*"
    r"|[0-9#*]\u20e3"
)
"""Emoji, of which many are several code points: flags, people with a skin tone or a profession, keycaps."""
_STYLE = str.maketrans("", "", "\ufe0e\ufe0f")
"""Marks that choose between the coloured and the plain picture of an emoji."""
_BARE = re.compile("[\u200c\u200d\ufe0e\ufe0f'’]+")


class _Parts(dict[int, str]):
    """Table for `str.translate`: letters, marks and digits stay, other symbols stand alone, all else separates."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] in "LMN" or character in "\u200c\u200d'’":
            found = character
        else:
            found = f" {character} " if kind == "So" else " "
        self[code] = found
        return found


_PARTS = _Parts()


class Words(NamedTuple):
    """Terms, and the samples that have them."""

    terms: tuple[str, ...]
    """C terms, the most frequent first."""
    samples: csr_array
    """(N, C) float32, 1 where the sample's caption has the term."""


def words_in(caption: str) -> set[str]:
    """Return the words of a caption, folded to lower case. An emoji is a word.

    Scripts that put no spaces between words give each pair of neighbouring characters, and single ideographs.
    """
    text = unicodedata.normalize("NFC", start_of(caption, READ)).casefold()
    found: set[str] = set()
    if not text.isascii():
        text = text.translate(_STYLE)
        found.update(_EMOJI.findall(text))
        text = _EMOJI.sub(" ", text)
    for token in text.translate(_PARTS).split():
        rest = _UNSPACED.sub(" ", token).split()
        found.update(word for word in (part.strip("'’\u200c\u200d\ufe0f") for part in rest) if _BARE.sub("", word))
        for run in _UNSPACED.findall(token):
            found.update(run[place : place + 2] for place in range(len(run) - 1))
            found.update(character for character in run if len(run) == 1 or character >= "\u3400")
    return {word for word in found if not all(unicodedata.category(character)[0] == "M" for character in word)}


def words_of(captions: Iterable[str | None]) -> Words:
    """Return the words of some captions as terms: those in at least FEWEST captions, at most MOST of them."""
    number: dict[str, int] = {}
    flat, ends = array("q"), array("q", [0])
    for caption in captions:
        flat.extend(number.setdefault(word, len(number)) for word in words_in(caption or ""))
        ends.append(len(flat))
    entries = (np.ones(len(flat), np.float32), np.asarray(flat, np.int64), np.asarray(ends, np.int64))
    every = csr_array(entries, shape=(len(ends) - 1, len(number)))
    counts = np.bincount(entries[1], minlength=len(number)).tolist()
    often = [word for word, place in number.items() if counts[place] >= FEWEST]
    terms = sorted(often, key=lambda word: (-counts[number[word]], word))[:MOST]
    found = csr_array(every[:, np.array([number[term] for term in terms], dtype=np.int64)])
    found.sort_indices()
    return Words(tuple(terms), found)
