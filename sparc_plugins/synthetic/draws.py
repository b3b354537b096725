"""Random draws that depend on names alone, so that a sample is the same in any order, process and size of the data."""

from __future__ import annotations

import hashlib
from bisect import bisect
from functools import lru_cache
from itertools import accumulate
from random import Random

WEAKEST, RANGE = 500, 1001
"""Smallest strength, and number of strengths, in thousandths: a caption then holds a strength exactly."""


def seed_of(*names: object) -> int:
    """Return the seed of these names, such as the seed of a dataset, a split and the number of a sample."""
    content = "\0".join(map(str, names)).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "big")


def strength(random: Random) -> float:
    """Draw a strength, uniformly from 0.5 to 1.5."""
    return (WEAKEST + int(random.random() * RANGE)) / 1000


def ranked(random: Random, count: int) -> int:
    """Draw a number below `count` by Zipf's law: with weights 1, 1/2, 1/3, ..."""
    bounds = _bounds(count)
    return bisect(bounds, random.random() * bounds[-1])


@lru_cache
def _bounds(count: int) -> list[float]:
    return list(accumulate(1 / rank for rank in range(1, count + 1)))
