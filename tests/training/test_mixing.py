"""Training without a store: what the buffer gives to each step."""

import itertools

import numpy as np
import pytest
import torch

from sparc.config import TrainingConfig
from sparc.training.mixing import MixedBatches, Mixing

WIDTHS = {"a": 3, "b": 2}


def features_of(places):
    """Features that tell their place in the reading order."""
    at = torch.tensor(list(places), dtype=torch.float32).unsqueeze(1)
    return {name: at + torch.arange(width) / 10 for name, width in WIDTHS.items()}


def arriving(piece):
    def start(listed, following):
        places = iter([*listed, *following])
        while some := list(itertools.islice(places, piece)):
            yield features_of(some)

    return start


def trained_on(n_samples, config, buffer, start=0, piece=7):
    loader = MixedBatches(arriving(piece), n_samples, config, buffer=buffer, start=start)
    loader.fill()
    return [[round(float(row[0])) for row in batch["a"]] for batch in loader]


@pytest.mark.parametrize(
    ("n_samples", "batch", "epochs", "buffer"), [(40, 8, 3, 20), (41, 8, 2, 9), (5, 8, 4, 3), (64, 8, 1, 500)]
)
def test_each_place_is_trained_on_once(n_samples, batch, epochs, buffer):
    config = TrainingConfig(batch_size=batch, epochs=epochs)
    batches = trained_on(n_samples, config, buffer)
    size = min(batch, n_samples)
    steps = max(1, n_samples // batch) * epochs
    assert [len(one) for one in batches] == [size] * steps
    assert sorted(itertools.chain(*batches)) == list(range(steps * size))


def test_no_sample_is_trained_on_before_it_arrives_or_twice_in_a_batch():
    config = TrainingConfig(batch_size=8, epochs=2)
    for step, batch in enumerate(trained_on(80, config, 24)):
        assert max(batch) < 24 + 8 * step
        assert len(set(batch)) == 8


@pytest.mark.parametrize("start", [1, 5, 9, 13])
def test_a_resumed_training_goes_on_with_the_same_samples(start):
    config = TrainingConfig(batch_size=8, epochs=3, seed=4)
    assert trained_on(40, config, 20, start=start, piece=3) == trained_on(40, config, 20)[start:]


def test_a_buffer_of_all_samples_mixes_as_well_as_a_permutation():
    config = TrainingConfig(batch_size=50, epochs=1)
    first = np.array(trained_on(5000, config, 5000))
    assert abs(first[:50].mean() / first[50:].mean() - 1) < 0.05  # neither half has the early ones
    narrow = np.array(trained_on(5000, config, 100))
    assert narrow[:50].mean() < narrow[50:].mean() / 2


def test_rows_of_one_sample_stay_together_in_all_streams():
    loader = MixedBatches(arriving(5), 30, TrainingConfig(batch_size=4, epochs=2), buffer=12)
    filled = loader.fill()
    assert {name: rows.shape for name, [rows] in filled.shards.items()} == {"a": (12, 3), "b": (12, 2)}
    for batch in loader:
        assert torch.equal(batch["a"][:, 0], batch["b"][:, 0])
        assert torch.allclose(batch["a"][:, 2], batch["a"][:, 0] + 0.2)


def test_the_buffer_before_a_step_is_that_of_the_simulated_draws():
    mixing = Mixing(40, TrainingConfig(batch_size=8, epochs=2), 20)
    places = list(range(20))
    arrived = 20
    for step, draw in enumerate(mixing.draws()):
        assert mixing.at(step).tolist() == places
        assert mixing.arrived(step) == arrived
        new = list(range(arrived, arrived + len(draw.filled)))
        arrived += len(new)
        for slot, place in zip(draw.filled, new, strict=True):
            places[slot] = place
        gone = set(draw.drawn[len(new) :].tolist())
        kept = len(places) - len(gone)
        tail = [places[slot] for slot in range(kept, len(places)) if slot not in gone]
        for slot, place in zip(sorted(slot for slot in gone if slot < kept), tail, strict=True):
            places[slot] = place
        del places[kept:]
    assert not places
