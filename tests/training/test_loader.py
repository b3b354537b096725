"""Batches hold the rows in the seeded order, from shards of any size, read in a thread or not."""

import weakref

import pytest
import torch

from sparc.config import TrainingConfig
from sparc.errors import MisalignedStreams
from sparc.training.loader import FeaturesInMemory, Loader, _Stream, batches, in_thread

CONFIG = TrainingConfig(epochs=2, batch_size=16, seed=3)


@pytest.fixture
def features():
    rows = torch.arange(100.0)
    return {"a": torch.stack([rows, rows + 1000], dim=1).half(), "b": (rows + 0.5).unsqueeze(1)}


def whole(features):
    """Each stream in one shard."""
    return FeaturesInMemory({name: [rows] for name, rows in features.items()})


@pytest.mark.parametrize("sizes", [[100], [50, 50], [1, 98, 1], [30, 30, 30, 10]])
@pytest.mark.parametrize("read_rows", [1, 40, 8192])
@pytest.mark.parametrize("read_bytes", [1, 2**20])
def test_batches_hold_the_rows_that_the_order_names(features, sizes, read_rows, read_bytes, monkeypatch):
    monkeypatch.setattr("sparc.training.loader.READ_ROWS", read_rows)
    monkeypatch.setattr("sparc.training.loader.READ_BYTES", read_bytes)
    loader = Loader(FeaturesInMemory({name: rows.split(sizes) for name, rows in features.items()}), CONFIG, start=2)
    found = list(loader)
    assert loader.per_epoch == 6
    assert len(found) == 2 * 6 - 2
    for batch, rows in zip(found, batches(100, CONFIG, start=2), strict=True):
        for name, expected in features.items():
            assert torch.equal(batch[name], expected[rows])
            assert batch[name].dtype == expected.dtype


def test_as_many_rows_are_read_at_a_time_as_fit(features, monkeypatch):
    """A sample of both streams takes 4 + 4 bytes, and a batch has 16 of them."""
    monkeypatch.setattr("sparc.training.loader.READ_BYTES", 2 * 16 * 8 + 1)
    read = []
    original = _Stream.read
    monkeypatch.setattr(_Stream, "read", lambda self, *what: read.append(len(what[0])) or original(self, *what))
    next(iter(Loader(whole(features), CONFIG)))
    assert read == [32, 32]


def test_the_loader_keeps_no_batch_alive(features):
    """Only the consumer holds a batch: a step on a large one needs the memory."""
    loader = iter(Loader(whole(features), CONFIG))
    held = weakref.ref(next(loader)["a"])
    assert held() is None


def test_samples_that_share_a_row_get_it_each(features):
    shared = torch.tensor([7, 3, 7, 0, 99, 3] * 10)
    rows = {"a": shared, "b": torch.arange(60)}
    shards = {"a": features["a"].split(30), "b": [features["b"][:60]]}
    found = list(Loader(FeaturesInMemory(shards, rows), CONFIG))
    for batch, samples in zip(found, batches(60, CONFIG), strict=True):
        assert torch.equal(batch["a"], features["a"][shared[samples]])
        assert torch.equal(batch["b"], features["b"][samples])


def test_streams_of_different_length_are_refused(features):
    with pytest.raises(MisalignedStreams, match="expected equally many samples in every stream, found a 100, b 80"):
        Loader(FeaturesInMemory({"a": [features["a"]], "b": features["b"][:80].split(50)}), CONFIG)


def test_two_loops_over_one_loader_are_independent(features, monkeypatch):
    monkeypatch.setattr("sparc.training.loader.READ_ROWS", 16)
    loader = Loader(whole({"b": features["b"]}), CONFIG)
    ahead, behind = iter(loader), iter(loader)
    next(ahead)
    for first, rows in zip(behind, batches(100, CONFIG), strict=True):
        next(ahead, None)
        assert torch.equal(first["b"], features["b"][rows])


def test_a_batch_is_not_overwritten_by_the_next(features, monkeypatch):
    monkeypatch.setattr("sparc.training.loader.READ_ROWS", 16)
    loader = iter(Loader(whole({"b": features["b"]}), CONFIG))
    first = next(loader)["b"]
    kept = first.clone()
    next(loader)
    assert torch.equal(first, kept)


def test_a_thread_gives_the_same_batches_and_raises_its_errors_in_the_consumer():
    assert list(in_thread(iter(range(50)))) == list(range(50))

    def failing():
        yield 1
        raise OSError("gone")

    ahead = in_thread(failing())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_a_thread_ends_with_its_consumer():
    taken = []
    ahead = in_thread(taken.append(i) or i for i in range(10**6))
    assert next(ahead) == 0
    ahead.close()
    assert len(taken) < 100
