"""Ranks, chance and retrieval, worked by hand."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import sparc.evaluation.retrieval
from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import Encodings, encode, encode_joint
from sparc.evaluation.retrieval import between, chance, on_decoded, on_latents, rank, retrieval, summarize
from tests.evaluation import oracle

ALONE = np.arange(3)


def right(groups):
    groups = np.asarray(groups)
    return csr_array(groups[:, None] == groups[None, :])


def ranks(scores, groups=ALONE):
    scores = torch.tensor(np.array(scores, dtype=np.float32))
    return rank(lambda rows: scores[rows], right(groups)).tolist()


def codes(dense):
    values = torch.tensor(dense, dtype=torch.float32)
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def test_rank_is_one_plus_the_wrong_candidates_above():
    assert ranks([[0.9, 0.1, 0.2], [0.9, 0.8, 0.1], [0.9, 0.8, 0.1]]) == [1, 2, 3]


def test_ties_count_against_the_query():
    assert ranks([[0.5, 0.5, 0.1], [0.5, 0.5, 0.5], [0.0, 0.1, 0.1]]) == [2, 3, 2]


def test_a_score_that_is_not_a_number_ranks_last():
    nan = float("nan")
    assert ranks([[nan, 0.1, 0.2], [nan, nan, nan], [nan, 0.5, 0.6]]) == [3, 3, 2]


def test_all_samples_of_a_group_are_right_and_none_of_them_stands_in_the_way():
    # Samples 0 and 1 share an image: for query 0 the other caption is as right as its own.
    assert ranks([[0.1, 0.9, 0.5], [0.2, 0.2, 0.2], [0.7, 0.8, 0.6]], groups=[0, 0, 1]) == [1, 2, 3]


def test_queries_are_ranked_alike_however_many_at_once(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(10, 10))
    together = ranks(scores, np.arange(10))
    monkeypatch.setattr(sparc.evaluation.retrieval, "MAX_QUERIES", 3)
    assert ranks(scores, np.arange(10)) == together


def test_a_code_without_active_latents_ranks_last():
    dark = codes([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    bright = codes([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert rank(on_latents(dark, bright), right(ALONE)).tolist() == [3, 2, 1]
    assert rank(on_latents(bright, dark), right(ALONE))[0] == 3


def test_latents_are_compared_by_angle():
    query = codes([[3.0, 4.0]])
    scores = on_latents(query, codes([[30.0, 40.0], [1.0, 0.0], [0.0, 2.0]]))(slice(0, 1))
    assert scores.numpy() == pytest.approx(np.array([[1, 3 / 5, 4 / 5]]))


def test_cross_reconstruction_compares_what_the_code_says_in_the_target_stream(plain_space):
    space = plain_space()
    with torch.no_grad():
        space.decoder[:, 2:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # stream b has its features swapped
    query = codes([[2.0, 0.0]])
    with torch.inference_mode():
        score = between(on_decoded(space, query, "b"), torch.tensor([[0.0, 1.0], [1.0, 0.0], [3 / 5, 4 / 5]]))
        scores = score(slice(0, 1)).numpy()
    assert scores == pytest.approx(np.array([[1, 0, 4 / 5]]))


def test_recall_median_and_mrr_of_ranks():
    found = summarize(np.array([1, 2, 6, 11]))
    assert (found.r1, found.r5, found.r10) == (0.25, 0.5, 0.75)
    assert found.median == 4
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4)


def test_chance_of_single_answers_is_k_of_n():
    found = chance(np.ones(20, int), 20)
    assert (found.r1, found.r5, found.r10) == pytest.approx((1 / 20, 5 / 20, 10 / 20))
    assert found.median == 10
    assert found.mrr == pytest.approx(sum(1 / rank for rank in range(1, 21)) / 20)


@pytest.mark.parametrize("groups", [[0], [0, 0], [0, 1, 2, 3, 4], [0, 0, 1, 2, 2, 2], [0, 0, 0, 0, 1, 2, 3]])
def test_chance_with_groups_is_the_mean_over_every_order(groups):
    recall, mrr = oracle.chance(groups)
    found = chance(np.bincount(groups)[groups], len(groups))
    assert {1: found.r1, 5: found.r5, 10: found.r10} == pytest.approx(recall)
    assert found.mrr == pytest.approx(mrr)


def test_each_stream_is_searched_with_each_other_in_the_order_of_the_space(random_space, held):
    space = random_space("cab")
    encodings = encode(space, held.features)
    found = retrieval(encodings, held.groups)
    expected = [("c", "a"), ("c", "b"), ("a", "c"), ("a", "b"), ("b", "c"), ("b", "a")]
    assert [(pair.query, pair.target) for pair in found] == expected


def test_samples_that_lack_a_side_are_neither_query_nor_candidate(random_space, held):
    space = random_space("ab")
    features = {name: held.features[name] for name in "ab"}
    lacking = [row for row, there in enumerate(held.present["b"]) if not there]
    found = retrieval(encode(space, features), held.groups)
    kept = [row for row in range(50) if row not in lacking]
    fewer = {name: rows[kept] for name, rows in features.items()}
    again = retrieval(encode(space, fewer), [held.groups[row] for row in kept])
    assert found == again
    assert found[0].candidates == 47


def test_pairs_that_no_sample_has_are_left_out(plain_space):
    features = {"a": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([[0.0, 0.0], [1.0, 0.0]])}
    space = plain_space()
    assert retrieval(encode(space, features), ["x", "y"]) == ()


def test_a_joint_encoding_would_leak_the_match_and_a_solo_one_does_not():
    """Independent streams in an untrained space: only a leak can find the match."""
    torch.manual_seed(0)
    features = {"a": torch.randn(200, 16), "b": torch.randn(200, 16)}
    space = LatentSpace({"a": 16, "b": 16}, n_latents=256, k=8, seed=1)
    groups = [str(row) for row in range(200)]
    honest = retrieval(encode(space, features), groups)
    joint = encode_joint(space, features)
    leaking = retrieval(Encodings(space, features, joint, joint), groups)
    assert all(pair.latents.r1 < 0.03 for pair in honest)
    assert all(pair.latents.r1 > 0.5 for pair in leaking)


def test_perfect_streams_find_each_other():
    torch.manual_seed(0)
    same = torch.randn(40, 16)
    space = LatentSpace({"a": 16, "b": 16}, n_latents=64, k=8, seed=1)
    with torch.no_grad():
        space.encoders[1].copy_(space.encoders[0])
    features = {"a": same, "b": same}
    for pair in retrieval(encode(space, features), [str(row) for row in range(40)]):
        assert pair.latents.r1 == 1
        assert pair.latents.median == 1


def test_what_several_samples_show_is_one_query_and_one_candidate(random_space, held):
    """Each image has two captions. If copies of images counted as candidates, ranks would be twice as high."""
    space = random_space("ab")
    image, caption = held.features["a"][9:19], held.features["b"][9:29]
    twice = torch.arange(10).repeat_interleave(2)
    features = {"a": image[twice], "b": caption}
    groups = [f"image {row}" for row in twice.tolist()]
    encodings = encode(space, features)
    to_captions, to_images = retrieval(encodings, groups, rows={"a": twice, "b": torch.arange(20)})
    assert (to_captions.queries, to_captions.candidates) == (10, 20)
    assert (to_images.queries, to_images.candidates) == (20, 10)
    assert to_images.chance.r1 == pytest.approx(1 / 10)
    assert to_captions.chance.r1 == pytest.approx(2 / 20)
    codes_of = {name: code.to_dense().tolist() for name, code in encodings.solo.items()}
    expected = oracle.ranks_among(codes_of["b"], codes_of["a"][::2], twice.tolist(), list(range(10)))
    assert to_images.latents.mrr == pytest.approx(np.mean([1 / rank for rank in expected]))


def test_a_caption_of_two_images_finds_either(plain_space):
    """The caption of samples 0 and 1 is one query; both images are right."""
    features = {"a": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), "b": torch.eye(2)[[0, 0, 1]]}
    space = plain_space()
    rows = {"a": torch.arange(3), "b": torch.tensor([0, 0, 1])}
    _, to_images = retrieval(encode(space, features), ["x", "y", "z"], rows=rows)
    assert to_images.queries == 2
    # Query 0 means latent 0: images x and z match it, x is right, z is wrong and level. Query 1 finds y: wrong.
    assert to_images.latents.mrr == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_features_are_compared_only_where_backbones_share_a_space(random_space, held):
    space = LatentSpace({"a": 7, "b": 7, "c": 6}, 16, 3, seed=4).double()
    features = {"a": held.features["a"], "b": held.features["a"] * 2, "c": held.features["c"]}
    encodings = encode(space, features)
    spaces = {"a": "clip", "b": "clip", "c": "other"}
    found = retrieval(encodings, [str(row) for row in range(50)], shared_spaces=spaces)
    assert {(pair.query, pair.target) for pair in found if pair.raw is not None} == {("a", "b"), ("b", "a")}
    assert found[0].raw.r1 == 1
    assert all(pair.raw is None for pair in retrieval(encodings, [str(row) for row in range(50)]))


def test_reconstruction_compares_what_both_codes_say_in_the_target_stream(random_space, held):
    space = random_space("ab")
    features = {name: held.features[name][9:19] for name in "ab"}
    encodings = encode(space, features)
    found = retrieval(encodings, [str(row) for row in range(10)])[0]
    with torch.no_grad():
        said, meant = (space.decode(encodings.solo[name], "b").tolist() for name in "ab")
    expected = oracle.ranks(said, meant, list(range(10)))
    assert found.reconstruction.mrr == pytest.approx(np.mean([1 / rank for rank in expected]))
