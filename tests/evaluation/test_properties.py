"""Properties of every evaluation, for any space and samples."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sparc.core.space import LatentSpace
from sparc.evaluation import HeldOut, evaluate
from sparc.plugins.contracts import Taxonomy

TAXONOMY = Taxonomy({"thing": (), "pet": ("thing",), "tool": ("thing",), "cat": ("pet",), "saw": ("tool",), "odd": ()})
WIDTHS = {"a": 6, "b": 5, "c": 4}
MANY = settings(max_examples=6, deadline=None, derandomize=True)
seeds = st.integers(0, 2**16)


def space_of(names, seed):
    space = LatentSpace({name: WIDTHS[name] for name in names}, 24, 4, seed=seed).double()
    with torch.no_grad():
        space.latent_bias += 0.05 * torch.randn(space.latent_bias.shape, generator=torch.Generator().manual_seed(seed))
    return space


def samples_of(names, seed, count=80):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(count, 3))
    features = {name: torch.from_numpy(common @ generator.normal(size=(3, WIDTHS[name]))) for name in sorted(names)}
    labels = csr_array((generator.random((count, 6)) < 0.25).astype(float))
    groups = [f"image {row // 2}" for row in range(count)]
    return HeldOut(features, groups, labels, TAXONOMY)


def permuted(samples, rows):
    features = {name: x[torch.from_numpy(rows)] for name, x in samples.features.items()}
    return HeldOut(features, [samples.groups[row] for row in rows], samples.labels[rows], TAXONOMY)


def told(report):
    """The content of a report without the nulls, which depend on the order of the samples."""
    content = report.to_json()
    for row in content["jaccard"]:
        del row["joint_null"], row["solo_null"]
    del content["sharing"]["cofiring_null"]
    for pair in content["sharing"]["overlaps"]:
        del pair["null"]
    return content


def without_ties(content):
    """The content of a report without the probes of single latents: of equally good ones the first is taken."""
    del content["probes"]["single"]
    return content


def alike(one, other, place="report"):
    """Compare numbers to 1e-6, because sums run in another order."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            alike(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            alike(left, right, f"{place}[{number}]")
    else:
        assert one == (pytest.approx(other, rel=1e-6, abs=1e-9) if isinstance(other, float) else other), place


@MANY
@given(seeds)
def test_the_order_of_the_samples_changes_nothing(seed):
    space, samples = space_of("abc", seed), samples_of("abc", seed)
    rows = np.random.default_rng(seed + 1).permutation(80)
    alike(told(evaluate(space, samples).report), told(evaluate(space, permuted(samples, rows)).report))


@MANY
@given(seeds)
def test_the_order_of_the_latents_changes_nothing(seed):
    space, samples = space_of("abc", seed), samples_of("abc", seed)
    before = evaluate(space, samples).report
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for weight_LD in space.encoders:
            weight_LD.copy_(weight_LD[order].clone())
        space.decoder.copy_(space.decoder[order].clone())
        space.latent_bias.copy_(space.latent_bias[:, order].clone())
    after = evaluate(space, samples).report
    alike(*(without_ties(report.to_json()) for report in (before, after)))


@MANY
@given(seeds, st.permutations("abc"))
def test_the_order_of_the_streams_changes_no_measure_of_a_pair(seed, names):
    straight = space_of("abc", seed)
    turned = space_of(names, seed)
    with torch.no_grad():
        for place, name in enumerate(names):
            old = "abc".index(name)
            turned.encoders[place].copy_(straight.encoders[old])
            turned.latent_bias[place] = straight.latent_bias[old]
            turned.decoder[:, turned.segments[name]] = straight.decoder[:, straight.segments[name]]
    samples = samples_of("abc", seed)
    one, other = evaluate(straight, samples).report, evaluate(turned, samples).report
    for field in ("nmse", "r2", "l0", "alive", "dead", "mixed", "dead_in"):
        alike(getattr(one.solo, field), getattr(other.solo, field), field)
        alike(getattr(one.joint, field), getattr(other.joint, field), field)
    alike([row["solo"] for row in told(one)["jaccard"]], [row["solo"] for row in told(other)["jaccard"]])
    ranks = [{(pair.query, pair.target): pair for pair in report.retrieval} for report in (one, other)]
    assert ranks[0] == ranks[1]
    assert one.concepts == other.concepts
    alike(one.probes.single, other.probes.single)


@MANY
@given(seeds)
def test_identical_streams_agree_in_everything(seed):
    space = LatentSpace({"a": 6, "b": 6}, 24, 4, seed=seed).double()
    with torch.no_grad():
        space.encoders[1].copy_(space.encoders[0])
    samples = samples_of("a", seed)
    twice = HeldOut(dict.fromkeys("ab", samples.features["a"]), samples.groups, samples.labels, TAXONOMY)
    report = evaluate(space, twice).report
    for row in report.jaccard:
        # A latent that is active in samples without labels alone overlaps 0 even with itself.
        assert row.solo.alive == row.joint.alive
        assert row.solo.alive > 0.9
    assert report.sharing.overlaps[0].overlap == 1
    assert (report.sharing.cofiring, report.sharing.entropy) == (1, pytest.approx(1))
    assert report.solo.mixed == 0


def test_of_streams_that_have_nothing_in_common_solo_measures_are_those_of_chance():
    """Joint overlaps stay high, as the joint null shows: the shared index set alone causes them."""
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(2000, 16, generator=generator) for name in "ab"}
    space = LatentSpace({"a": 16, "b": 16}, 128, 8, seed=1)
    labels = csr_array((np.random.default_rng(0).random((2000, 6)) < 0.25).astype(float))
    report = evaluate(space, HeldOut(features, [str(row) for row in range(2000)], labels, TAXONOMY)).report
    for row in report.jaccard:
        assert row.solo.all == pytest.approx(row.solo_null.all, abs=0.02)
        assert row.joint.all == pytest.approx(row.joint_null.all, abs=0.02)
    pair = report.sharing.overlaps[0]
    assert pair.overlap == pytest.approx(pair.null, abs=0.005)
    assert report.sharing.cofiring == pytest.approx(report.sharing.cofiring_null, abs=0.005)
    for ranked in report.retrieval:
        assert ranked.latents.r10 == pytest.approx(ranked.chance.r10, abs=0.01)
    assert report.probes.single["solo"]["a"] == pytest.approx(np.log(2), abs=0.02)
    assert report.concepts.confirmed < 0.1 * 128


def test_evaluating_twice_gives_the_same_numbers_and_draws_from_nobodys_generator(quick):
    space, samples = space_of("a", 3), samples_of("a", 3)
    before = torch.get_rng_state()
    first = evaluate(space, samples, classifiers=True)
    assert torch.equal(torch.get_rng_state(), before)
    again = evaluate(space, samples, classifiers=True)
    assert json.dumps(first.report.to_json()) == json.dumps(again.report.to_json())
    assert first.latents.columns == again.latents.columns
