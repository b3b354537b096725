"""The cost model beside what trainings counted, and the arithmetic of a million latents."""

import pytest

from sparc.training.cost_model import Mesh, Work, memory_bytes, sent_bytes


def test_a_million_latents_of_three_streams_fit_on_eight_gpus():
    work = Work({"a": 1024, "b": 768, "c": 768}, 2**20, 64, 16384)
    weights = 2 * 2**20 * 2560 + 3 * 2**20 + 2560  # encoders and decoders, latent biases, pre-bias
    assert memory_bytes(work, Mesh(1, 1)) == weights * 12 + 3 * 2**20 * 8
    assert memory_bytes(work, Mesh(1, 8)) < 8.1e9
    assert memory_bytes(work, Mesh(1, 8), moment=2) < 5.4e9
    # k numbers and three logits per sample to 7 others; twice 7/8 of the reconstructions of 3 sources.
    candidates, reconstructions = 7 * 16384 * 64 * 4 * 4, 2 * 7 / 8 * 16384 * 3 * 2560 * 4
    sent = sent_bytes(work, Mesh(1, 8))
    assert (sent["candidates"], sent["reconstructions"]) == (candidates, reconstructions)
    assert sum(sent.values()) == pytest.approx(candidates + reconstructions, rel=1e-3)


def test_one_process_sends_nothing():
    assert sum(sent_bytes(Work({"a": 8, "b": 4}, 64, 4, 32), Mesh()).values()) == 0
