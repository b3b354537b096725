"""Rows reach their places, whatever their order and however little memory there is, and are read once."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparc.interchange import scatter as module
from sparc.interchange.scatter import Layout, disk_bytes, scatter

WIDTH = 3


@st.composite
def layouts(draw):
    """Sizes of shards, the places of some rows in storage order, and the sizes of blocks."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    everything = draw(st.permutations(range(sum(sizes))))
    places = everything[: draw(st.integers(1, len(everything)))]
    return sizes, np.array(places), draw(st.integers(1, 4))


def scattered(sizes, places, per_block, room):
    """Return the shards by number, and how often each block was read."""
    features = (np.arange(len(places) * WIDTH).reshape(-1, WIDTH) + 1).astype(np.float16)
    read = []

    def blocks():
        for low in range(0, len(places), per_block):
            read.append(low)
            # Parts of a source may differ in their type.
            yield features[low : low + per_block].astype(np.float32 if low % 2 else np.float16)

    shards = {}
    layout = Layout(np.cumsum([0, *sizes]), WIDTH)
    scatter(blocks(), places, layout, lambda number, shard: shards.setdefault(number, []).append(shard), room)
    assert len(read) == len(set(read)), "a block was read twice"
    return features, shards


@pytest.mark.parametrize("open_bytes", [1 << 30, 1], ids=["in memory", "through buckets"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layouts())
def test_every_row_is_in_its_place_and_every_shard_is_written_once(open_bytes, tmp_path, some):
    sizes, places, per_block = some
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OPEN_BYTES", open_bytes)
        features, shards = scattered(sizes, places, per_block, tmp_path)
    expected = np.zeros((sum(sizes), WIDTH), np.float32)
    expected[places] = features
    assert sorted(shards) == list(range(len(sizes)))
    assert all(len(written) == 1 for written in shards.values())
    assert np.array_equal(np.concatenate([shards[number][0] for number in range(len(sizes))]), expected)
    assert list(tmp_path.iterdir()) == []


def test_rows_in_order_keep_one_shard_open(monkeypatch, tmp_path):
    """A file in the order of the shards streams through: no more than one of 100 shards fits into this memory."""
    monkeypatch.setattr(module, "OPEN_BYTES", 4 * WIDTH * 4)
    monkeypatch.setattr(module, "_through_buckets", None)
    _, shards = scattered([4] * 100, np.arange(400), 7, tmp_path)
    assert len(shards) == 100


def test_the_number_of_open_shards_is_that_of_the_overlapping_ones():
    """Shard 0 is open from row 0 to 3, shard 1 from 1 to 2, shard 2 in row 4."""
    assert module._most_open(np.array([0, 1, 1, 0, 2]), 4) == 2
    assert module._most_open(np.array([2, 1, 0]), 3) == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("open_bytes", [1 << 30, 5 * WIDTH * 4, 1])
def test_the_disk_that_is_needed_holds_shards_and_temporary_files(open_bytes, dtype, monkeypatch, tmp_path):
    """Rows in a random order need buckets: the shards are written while some of the buckets are still there."""
    monkeypatch.setattr(module, "OPEN_BYTES", open_bytes)
    places = np.random.default_rng(0).permutation(400)
    features = np.ones((400, WIDTH), dtype)
    layout = Layout(np.arange(0, 401, 4), WIDTH)
    seen = [0]

    def used():
        return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    def write(number, shard):
        shard.tofile(tmp_path / str(number))
        seen.append(used())

    scatter((features[low : low + 50] for low in range(0, 400, 50)), places, layout, write, tmp_path)
    needed = disk_bytes(places, layout, np.dtype(dtype).itemsize, 0)
    assert max(seen) <= needed <= 1.1 * max(seen)
    assert disk_bytes(places, layout, np.dtype(dtype).itemsize, 10**6) >= 10**6 + 400 * WIDTH * min(4, dtype().itemsize)
