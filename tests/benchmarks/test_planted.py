"""Recovery of planted data, by values that follow from the data, and an oracle that is exact where it must be."""

import json

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.linear_model import orthogonal_mp

from sparc.benchmarks.planted import measure_planted, planted_streams
from sparc.benchmarks.pursuit import fitted_directions, oracle_codes, pursue
from sparc.benchmarks.recovery import (
    Directions,
    Supports,
    at_best_threshold,
    cosines,
    matched,
    score_directions,
    score_supports,
)
from sparc.plugins import Planted
from sparc.session import SILENT, Session
from sparc.storage.checkpoint import SharedLatentSpace

STRENGTHS = np.array([[1.0, 0.0, 0.5, 0.0], [0.0, 1.5, 0.0, 0.0], [0.7, 0.0, 0.9, 1.2]])
SHAPE = "categories=2,subcategories=1,leaves=3,active=1"


def planted(directions, concepts="abcd"):
    return Planted(tuple(concepts), csr_array(STRENGTHS), np.asarray(directions, np.float32))


def test_the_oracle_finds_orthogonal_concepts_exactly_alone_and_together():
    truth = {"one": planted(np.eye(4)), "other": planted(np.eye(5)[[4, 2, 0, 1]])}
    features = {name: torch.from_numpy(STRENGTHS @ one.directions) for name, one in truth.items()}
    for names in (["one"], ["other"], ["one", "other"]):
        concepts, codes = oracle_codes({name: features[name] for name in names}, truth, k=4)
        assert concepts == ["a", "b", "c", "d"]
        np.testing.assert_allclose(codes.to_dense(), STRENGTHS, atol=1e-9)


def test_the_oracle_takes_a_private_concept_from_its_stream_alone():
    truth = {"one": planted(np.eye(4)), "other": planted(np.eye(4), "abcx")}
    features = {"one": torch.zeros(1, 4), "other": torch.tensor([[0.0, 0.0, 0.0, 0.8]])}
    concepts, codes = oracle_codes(features, truth, k=1)
    assert dict(zip(concepts, codes.to_dense()[0].tolist(), strict=True)) == {
        **dict.fromkeys("abcd", 0),
        "x": pytest.approx(0.8),
    }


def test_the_pursuit_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    atoms = generator.standard_normal((30, 200))
    codes = np.zeros((50, 30))
    for row in codes:
        row[generator.permutation(30)[:5]] = generator.uniform(1, 2, 5)
    x = codes @ atoms + generator.standard_normal((50, 200))
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    expected = orthogonal_mp(unit.T, x.T, n_nonzero_coefs=5).T / np.linalg.norm(atoms, axis=1)
    found = pursue(torch.from_numpy(x), torch.from_numpy(atoms), 5)
    np.testing.assert_allclose(found.to_dense(), expected, atol=1e-6)


def test_what_is_left_over_is_orthogonal_to_the_directions_taken():
    """The first product is largest for a, which leaves (0, 0.3): c explains it by 0.3, and b by 0.18."""
    a, b, c = (1.0, 0.0), (0.8, 0.6), (0.0, 1.0)
    atoms = torch.tensor([a, b, c], dtype=torch.float64)
    found = pursue(torch.tensor([[2.0, 0.3]], dtype=torch.float64), atoms, 2)
    assert found.indices.tolist() == [[0, 2]]
    assert found.values[0].tolist() == pytest.approx([2.0, 0.3])


def test_two_equal_directions_and_fewer_dimensions_than_k_are_no_error():
    atoms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = pursue(torch.tensor([[1.0, 2.0]], dtype=torch.float64), atoms, 16)
    torch.testing.assert_close(found.to_dense() @ atoms, torch.tensor([[1.0, 2.0]], dtype=torch.float64))


def test_known_strengths_give_the_directions():
    directions = np.random.default_rng(0).standard_normal((4, 6))
    strengths = np.vstack([STRENGTHS, np.eye(4)])
    found = fitted_directions(torch.from_numpy(strengths @ directions), csr_array(strengths))
    np.testing.assert_allclose(found, directions, atol=1e-9)


def test_a_direction_is_recovered_whatever_its_sign_length_and_place():
    found = cosines(np.eye(3), -3 * np.eye(3)[[2, 0, 1]])
    assert matched(found).tolist() == [1, 2, 0]
    assert score_directions(found, matched(found)) == Directions(cosine=1.0, above=1.0)


def test_latents_are_matched_one_to_one_for_the_largest_sum():
    found = np.array([[0.9, 0.8], [0.95, 0.1]])
    assert matched(found).tolist() == [1, 0]
    assert score_directions(found, matched(found)) == Directions(cosine=pytest.approx(0.875), above=0.5)


def test_a_concept_without_a_latent_counts_as_not_found():
    found = np.array([[0.5], [1.0]])
    assert matched(found).tolist() == [-1, 0]
    assert score_directions(found, matched(found)) == Directions(cosine=0.5, above=0.5)
    both = csr_array(np.array([[1.0, 1.0], [1.0, 0.0]]))
    active = csr_array(np.array([[1.0], [0.0]]))
    assert score_supports(both, active, matched(found)) == Supports(1.0, pytest.approx(1 / 3), pytest.approx(0.5))


def test_supports_count_activations_of_matched_latents():
    truth = csr_array(np.array([[1.0, 0.0], [1.0, 1.0]]))
    active = csr_array(np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))  # latent 0 is no concept's
    found = score_supports(truth, active, np.array([1, 2]))
    assert found == Supports(precision=pytest.approx(2 / 3), recall=pytest.approx(2 / 3), f1=pytest.approx(2 / 3))
    assert score_supports(truth, csr_array((2, 3)), np.array([1, 2])) == Supports(0.0, 0.0, 0.0)


def test_the_best_threshold_keeps_what_is_right():
    truth = csr_array(np.array([[1.0, 0.0], [1.0, 1.0]]))
    values = csr_array(np.array([[0.9, 0.3], [0.5, 0.4]]))
    assert at_best_threshold(truth, values).toarray().tolist() == [[1, 0], [1, 1]]
    assert at_best_threshold(truth, csr_array((2, 2))).nnz == 0


@pytest.fixture
def session(environment, quick, tmp_path, monkeypatch):
    """Two streams without noise and private concepts, which show three of ten concepts in each sample."""
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    streams = [f"{name}=synthetic[width={width},noise=0,private=0]" for name, width in (("a", 256), ("b", 300))]
    options = {"dataset": f"synthetic[samples=200,held_out=100,{SHAPE}]"}
    session = Session.begin({**options, "stream": streams, "n-latents": 10, "k": 3, "out": tmp_path / "run"}, SILENT)
    session.prepare()
    return session


def test_a_space_of_the_true_directions_recovers_everything(session):
    streams = planted_streams(session)
    space = SharedLatentSpace(session.config.space(session.data.train.widths))
    samples = [session.data.dataset[number] for number in range(100)]
    with torch.no_grad():
        for name, backbone in streams.items():
            directions = torch.from_numpy(backbone.planted(samples).directions)
            space.encoder(name)[0].copy_(directions)
            space.decoder[:, space.segments[name]] = directions
    found = measure_planted(session, space, streams)
    assert (found.train_samples, found.samples, found.concepts, found.active) == (200, 100, 10, 3.0)
    all_found, all_right = Directions(pytest.approx(1), 1.0), Supports(1.0, 1.0, 1.0)
    for stream in found.streams.values():
        assert stream.uncompleted is None  # this space has no completion
        for one in (stream.directions, stream.shared_directions, stream.fitted_directions):
            assert one == all_found
        assert [stream.joint.space, stream.joint.oracle, stream.solo.space, stream.solo.oracle] == [all_right] * 4
    assert [row.depth for row in found.agreement] == [0, 1, 2, 3]
    for row in found.agreement:
        assert (row.joint, row.joint_oracle, row.solo, row.solo_oracle) == (1, 1, 1, 1)
    assert found.agreement[2].solo_null < 0.9


SMALL = [
    *("--dataset", f"synthetic[samples=300,held_out=80,{SHAPE}]"),
    *("--stream", "a=synthetic[width=24]", "--stream", "b=synthetic[width=16]"),
    *("--n-latents", 32, "--k", 4, "--epochs", 2),
]


def test_the_command_measures_a_new_run_and_a_kept_one(sparc_here):
    done = sparc_here("bench", "planted", *SMALL, "--out", "kept", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["streams"]) == {"a", "b"}
    assert found["setting"]["n-latents"] == 32
    assert all(stream["uncompleted"]["space"]["recall"] > 0 for stream in found["streams"].values())
    assert all(row["uncompleted"] > 0 for row in found["agreement"])
    again = json.loads(sparc_here("bench", "planted", "kept", "--json").stdout)
    assert again["streams"] == found["streams"]
    assert again["agreement"] == found["agreement"]
    table = sparc_here("bench", "planted", "kept").stdout
    assert "300 training samples, 80 held-out samples with 3.0 of 10 shared concepts each" in table
    assert f"{found['streams']['a']['solo']['space']['f1']:.3f}" in table
    assert f"{found['agreement'][2]['solo_oracle']:.3f}" in table
    refused = sparc_here("bench", "planted", "kept", "--lr", "0.1")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[0] == "error: --lr: expected no options of training beside a run, found one"


def test_a_stream_whose_concepts_are_not_known_is_refused_before_the_work(sparc_here):
    done = sparc_here("bench", "planted", "--stream", "char-ngrams", "--stream", "synthetic")
    assert done.returncode == 1
    assert "stream 'char-ngrams': expected a planted stream, found char-ngrams" in done.stderr
    assert "extract" not in done.stderr
