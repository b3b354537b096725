"""The whole evaluation, against the naive oracle; and properties of every report."""

import json
import pickle  # noqa: TID251  # processes exchange what they measured pickled

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import sparc.evaluation.encoding
from sparc.core.completion_fit import fit_completion
from sparc.core.moments import moments_of
from sparc.evaluation import HeldOut, Report, Work, alone, evaluate
from sparc.evaluation.alignment import shuffles
from sparc.plugins.contracts import Taxonomy
from tests.evaluation import oracle
from tests.evaluation.conftest import PARENTS


def measure(space, held, seed=0, **changes):
    features = {name: held.features[name] for name in space.streams}
    given = {"features": features, "labels": held.matrix, "taxonomy": held.taxonomy, "groups": held.groups, **changes}
    return evaluate(space, HeldOut(**given), seed=seed).report


def encode_both(space, features):
    """Return dense codes by stream, joint and solo, as lists."""
    with torch.no_grad():
        joint = {name: code.to_dense().tolist() for name, code in space.encode(features).items()}
        solo = {name: space.encode({name: rows})[name].to_dense().tolist() for name, rows in features.items()}
    return joint, solo


def permuted(features, seed):
    orders = shuffles(list(features), len(features["a"]), seed)
    return {name: rows[orders[name]] for name, rows in features.items()}


def decoded(space, codes, target):
    segments = dict(zip(space.streams, space.decoder.split(list(space.streams.values()), dim=1), strict=True))
    biases = dict(zip(space.streams, space.pre_bias.split(list(space.streams.values())), strict=True))
    with torch.no_grad():
        return (torch.tensor(codes, dtype=torch.float64) @ segments[target] + biases[target]).tolist()


def normalized(space, held):
    return {name: rows.tolist() for name, rows in space.normalize(held.features).features.items()}


@pytest.mark.parametrize("selection", ["global", "local"])
def test_codes_are_measured_as_the_oracle_measures_them(random_space, held, selection):
    space = random_space(selection=selection)
    report = measure(space, held)
    x = normalized(space, held)
    for found, codes in zip((report.joint, report.solo), encode_both(space, held.features), strict=True):
        assert (found.alive, found.dead, found.mixed) == oracle.liveness(codes, 16)
        for source in "abc":
            assert found.l0[source] == pytest.approx(oracle.l0(codes[source], held.present[source]), rel=1e-12)
            for target in "abc":
                y = decoded(space, codes[source], target)
                expected = oracle.reconstruction(y, x[target], held.present[source], held.present[target])
                assert found.nmse[source][target] == pytest.approx(expected[0], rel=1e-10)
                assert found.r2[source][target] == pytest.approx(expected[1], rel=1e-10)


def test_parts_that_other_processes_measure_in_another_order_give_the_same_numbers(random_space, held, monkeypatch):
    def elsewhere(work, parts):
        done = {number: pickle.dumps(work(part)) for number, part in reversed(list(enumerate(parts)))}
        sent.append(len(done))
        return (pickle.loads(done[number]) for number in range(len(done)))

    sent = []
    monkeypatch.setattr("sparc.evaluation.encoding.CHUNK", 7)
    monkeypatch.setattr("sparc.evaluation.alignment.COUNTS", 1)
    monkeypatch.setattr("sparc.evaluation.retrieval.MAX_QUERIES", 5)
    space = random_space(selection="global")
    held_out = HeldOut(held.features, held.groups, held.matrix, held.taxonomy)
    one, other = (evaluate(space, held_out, classifiers=True, work=Work(spread)) for spread in (alone, elsewhere))
    assert one.report == other.report
    assert one.latents == other.latents
    assert len(sent) > 20
    assert min(sent) > 1


@pytest.mark.parametrize("selection", ["global", "local"])
def test_alignment_is_measured_as_the_oracle_measures_it(random_space, held, selection):
    space = random_space(selection=selection)
    report = measure(space, held, seed=7)
    joint, solo = encode_both(space, held.features)
    shuffled = permuted(held.features, seed=7)
    joint_null, solo_null = encode_both(space, shuffled)
    there_shuffled = {name: rows.any(dim=1).tolist() for name, rows in shuffled.items()}
    assert [row.depth for row in report.jaccard] == [0, 1, 2, 3, 4]
    for row in report.jaccard:
        for kind, codes in {
            "joint": joint,
            "solo": solo,
            "joint_null": joint_null,
            "solo_null": solo_null,
        }.items():
            found, present = getattr(row, kind), there_shuffled if kind.endswith("null") else held.present
            assert (found.all, found.alive) == pytest.approx(
                oracle.jaccard(codes, held.labels, PARENTS, row.depth, 16, present), rel=1e-12
            )


def test_retrieval_is_measured_as_the_oracle_measures_it(random_space, held):
    space = random_space()
    report = measure(space, held)
    x, (_, solo) = normalized(space, held), encode_both(space, held.features)
    for pair in report.retrieval:
        rows = [n for n in range(50) if held.present[pair.query][n] and held.present[pair.target][n]]
        groups = [held.groups[n] for n in rows]
        cross = decoded(space, solo[pair.query], pair.target)
        for found, queries, candidates in (
            (pair.latents, solo[pair.query], solo[pair.target]),
            (pair.cross, cross, x[pair.target]),
        ):
            ranks = oracle.ranks([queries[n] for n in rows], [candidates[n] for n in rows], groups)
            assert found.r1 == pytest.approx(sum(rank <= 1 for rank in ranks) / len(ranks))
            assert found.r10 == pytest.approx(sum(rank <= 10 for rank in ranks) / len(ranks))
            assert found.median == pytest.approx((sorted(ranks)[len(ranks) // 2] + sorted(ranks)[~len(ranks) // 2]) / 2)
            assert found.mrr == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))


def test_evaluating_does_not_change_the_space(random_space, held):
    space = random_space()
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    training = space.training
    measure(space, held)
    after = space.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in space.parameters())
    assert space.training == training


def test_features_are_left_as_they_were(random_space, held):
    before = {name: rows.clone() for name, rows in held.features.items()}
    measure(random_space(), held)
    assert all(torch.equal(before[name], held.features[name]) for name in before)


def test_the_same_seed_gives_the_same_report_and_another_another_null(random_space, held):
    space = random_space()
    first, again, other = measure(space, held), measure(space, held), measure(space, held, seed=1)
    assert first == again
    assert first.jaccard[0].solo.all == other.jaccard[0].solo.all
    assert first.jaccard[0].solo_null != other.jaccard[0].solo_null


def test_samples_are_measured_alike_however_many_at_once(random_space, held, monkeypatch):
    space = random_space()
    together = measure(space, held)
    monkeypatch.setattr(sparc.evaluation.encoding, "CHUNK", 7)
    apart = measure(space, held)
    assert apart.jaccard == together.jaccard
    assert apart.retrieval == together.retrieval
    for source in "abc":
        assert apart.solo.nmse[source] == pytest.approx(together.solo.nmse[source], rel=1e-12)
        assert apart.solo.r2[source] == pytest.approx(together.solo.r2[source], rel=1e-12)


def test_a_single_stream_has_nothing_to_align_with_and_nothing_to_search(random_space, held):
    report = measure(random_space("b"), held)
    assert (report.jaccard, report.retrieval, report.sharing) == ((), (), None)
    assert report.solo == report.joint
    assert report.solo.nmse.keys() == report.solo.nmse["b"].keys() == {"b"}
    assert report.solo.mixed == 0


def test_without_labels_all_but_the_overlap_is_measured(random_space, held):
    space = random_space()
    with_labels, without = measure(space, held), measure(space, held, labels=None, taxonomy=None)
    assert without == with_labels.model_copy(update={"jaccard": (), "concepts": None, "probes": None})


def test_streams_come_in_the_order_of_the_space(random_space, held):
    report = measure(random_space("cab"), held)
    assert report.streams == ("c", "a", "b")
    assert [list(report.joint.nmse), list(report.joint.nmse["a"]), list(report.solo.l0)] == [["c", "a", "b"]] * 3


def test_a_report_goes_to_json_and_back(random_space, held):
    report = measure(random_space(), held)
    content = json.dumps(report.to_json(), allow_nan=False)
    assert Report.from_json(json.loads(content)) == report


def test_a_space_that_went_astray_never_looks_good(random_space, held):
    space = random_space()
    with torch.no_grad():
        space.pre_bias.fill_(float("nan"))
    report = measure(space, held)
    json.dumps(report.to_json(), allow_nan=False)
    assert report.joint.nmse["a"]["b"] is report.joint.r2["a"]["b"] is None
    assert all(pair.cross.r10 == 0 for pair in report.retrieval)


def test_features_that_are_all_alike_have_no_r2(random_space):
    """Their spread is rounding error, so 1 - error / spread would be a huge number."""
    space = random_space("ab")
    features = {name: rows.repeat(9, 1) for name, rows in {"a": torch.rand(1, 7), "b": torch.rand(1, 5)}.items()}
    features = {name: rows.double() for name, rows in features.items()}
    report = evaluate(space, HeldOut(features, [str(row) for row in range(9)])).report
    assert report.solo.r2["a"]["b"] is None
    assert report.solo.nmse["a"]["b"] > 0


def test_a_taxonomy_without_labels_is_none(random_space, held):
    nothing = csr_array((50, 0))
    report = measure(random_space(), held, labels=nothing, taxonomy=Taxonomy({}))
    assert (report.jaccard, report.concepts, report.probes) == ((), None, None)


def test_a_space_that_went_astray_reads_no_labels(random_space, held):
    space = random_space("a")
    features = {"a": held.features["a"].repeat(2, 1)}
    groups = [str(row) for row in range(100)]
    labels = csr_array(np.random.default_rng(0).random((100, 8)) < 0.4, dtype=float)
    with torch.no_grad():
        space.pre_bias.fill_(float("nan"))
    found = evaluate(space, HeldOut(features, groups, labels, held.taxonomy), classifiers=True).report.probes
    rebuilt = next(one for one in found.classifiers if one.features == "reconstruction")
    assert rebuilt.linear < 0.7


def test_what_has_no_number_is_null_in_json(plain_space):
    space = plain_space()
    features = {"a": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([[0.0, 0.0], [0.0, 1.0]])}
    report = evaluate(space, HeldOut(features, ["x", "y"])).report
    content = json.dumps(report.to_json(), allow_nan=False)
    assert report.to_json()["solo"]["nmse"]["a"]["b"] is None
    assert Report.from_json(json.loads(content)) == report


def completed(space, held):
    """The space with a completion that is fitted to the held-out samples themselves."""
    batch = space.normalize({name: held.features[name] for name in space.streams})
    halves = moments_of([batch] * 2, space.streams, torch.arange(2 * len(held.groups)) >= len(held.groups))
    space.completion = fit_completion(*halves).to(space.decoder)
    return space


def test_a_space_with_a_completion_is_measured_both_ways(random_space, held):
    plain, both = measure(random_space(), held), measure(completed(random_space(), held), held)
    assert plain.uncompleted is None
    assert both.uncompleted.codes == plain.solo
    assert both.uncompleted.retrieval == plain.retrieval
    assert [(row.solo, row.solo_null) for row in both.uncompleted.jaccard] == [
        (row.solo, row.solo_null) for row in plain.jaccard
    ]
    assert both.solo != plain.solo
    # With all streams of a sample nothing is guessed; the samples that lack one are.
    joint, _ = encode_both(completed(random_space(), held), held.features)
    for name, rows in joint.items():
        active = [sum(value > 0 for value in row) for row, there in zip(rows, held.present[name], strict=True) if there]
        assert both.joint.l0[name] == pytest.approx(np.mean(active))


def test_both_ways_go_to_json_and_back(random_space, held):
    report = measure(completed(random_space(), held), held)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_without_labels_both_ways_have_no_overlap(random_space, held):
    report = measure(completed(random_space(), held), held, labels=None, taxonomy=None)
    assert report.uncompleted.jaccard == ()
    assert report.uncompleted.retrieval
