"""The inverted index against the dense product of all codes, and against the retrieval of an evaluation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import percentileofscore

from sparc.core.codes import Codes
from sparc.errors import CorruptFile
from sparc.evaluation.retrieval import on_latents
from sparc.index import inverted
from sparc.index.inverted import InvertedIndex, strongest

RED, BLUE, GREEN = range(3)
CODES = np.array([[3, 4, 0], [0, 0, 2], [0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32)
PRESENT = np.array([True, True, True, True, False])


def indexed(dense, present=None, pieces=1):
    present = np.ones(len(dense), bool) if present is None else present
    parts = [csr_array(part) for part in np.array_split(dense, pieces)]
    return InvertedIndex.build(parts, present, np.arange(len(dense)))


def codes_of(dense, k):
    values, indices = torch.from_numpy(dense).topk(k, dim=1)
    return Codes(indices, values, dense.shape[1])


def test_cosines_by_hand():
    index = indexed(CODES, PRESENT)
    np.testing.assert_allclose(index.cosines(np.array([RED]), np.array([2.0])), [0.6, 0, 0, 1, 0])
    np.testing.assert_allclose(
        index.cosines(np.array([GREEN, BLUE]), np.array([3.0, 4.0])), [4 / 5 * 4 / 5, 3 / 5, 0, 0, 0], rtol=1e-6
    )
    assert not index.cosines(np.array([], np.int64), np.array([])).any()


def test_percentiles_count_those_that_activate_the_latent_less_and_not_those_that_lack_the_stream():
    index = indexed(CODES, PRESENT)
    # Of four samples that have the stream, red is 3, 0, 0, 1.
    latents, values = np.array([RED] * 5), np.array([4.0, 3.0, 2.0, 1.0, 0.5], np.float32)
    assert index.percentiles(latents, values).tolist() == [100, 75, 75, 50, 50]
    assert index.percentiles(latents[:1], np.array([3 * (1 + 1e-6)], np.float32)).tolist() == [75]  # rounding
    assert np.isnan(indexed(CODES, np.zeros(5, bool)).percentiles(latents, values)).all()


def test_what_query_and_hit_share_sums_to_one_the_largest_first():
    index = indexed(CODES)
    assert index.shared(0, np.array([RED, BLUE, GREEN]), np.array([1.0, 3.0, 9.0])) == [(BLUE, 0.8), (RED, 0.2)]
    assert index.shared(2, np.array([RED]), np.array([1.0])) == []


@st.composite
def sparse_codes(draw):
    seed, samples, latents = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 40)), draw(st.integers(2, 12))
    generator = np.random.default_rng(seed)
    dense = np.maximum(generator.normal(size=(samples, latents)), 0) * (generator.random((samples, latents)) < 0.4)
    return dense.astype(np.float32)


@given(dense=sparse_codes(), pieces=st.integers(1, 4))
@settings(max_examples=60)
def test_the_scores_are_those_of_the_dense_product_and_of_the_retrieval_of_an_evaluation(dense, pieces):
    index, k = indexed(dense, pieces=pieces), dense.shape[1]
    codes = codes_of(dense, k)
    measured = on_latents(codes, codes)(slice(0, len(dense))).numpy()
    length = np.linalg.norm(dense, axis=1)
    unit = dense / np.where(length > 0, length, 1)[:, None]
    for row, code in enumerate(dense):
        active = np.flatnonzero(code)
        found = index.cosines(active, code[active])
        np.testing.assert_allclose(found, unit @ unit[row], atol=1e-6)
        np.testing.assert_allclose(found, measured[row], atol=1e-6)
        expected = [percentileofscore(dense[:, latent], code[latent], kind="strict") for latent in active]
        np.testing.assert_allclose(index.percentiles(active, code[active]), expected)
        shares = index.shared(row, active, code[active])
        assert {latent for latent, _ in shares} == set(active)
        assert sum(share for _, share in shares) == pytest.approx(1 if len(active) else 0)


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0, float("nan"), -1.0]), max_size=20),
    count=st.integers(1, 25),
    many=st.integers(0, 2**32 - 1),
)
def test_the_strongest_are_those_of_a_stable_sort_without_nan(scores, count, many):
    generator = np.random.default_rng(many)
    length = int(generator.integers(1, 3000)) if many % 2 else 0  # so many that blocks are compared first
    more = generator.choice([0.0, 0.25, 0.5, np.nan, *generator.random(many % 50)], length)
    scores = np.concatenate([scores, more]).astype(np.float32)
    known = np.flatnonzero(~np.isnan(scores))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverted, "BLOCK", 16)
        found = strongest(scores, count).tolist()
    expected = known[np.argsort(-scores[known], kind="stable")][:count]
    assert found == expected.tolist()


def test_an_index_that_lists_samples_beyond_its_end_is_an_error():
    index = indexed(CODES)
    index.samples[-1] = 99
    with pytest.raises(CorruptFile, match="lists samples that it does not have"):
        index.cosines(np.array([GREEN]), np.array([1.0]))
