"""Planted data: the same bits whatever is around a sample, and features that are made as the truth says."""

import json
import subprocess
import sys
import time
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparc
from sparc.plugins import BadSample, Sample, discover
from sparc.plugins.checks import check_backbone, check_dataset
from sparc_plugins.synthetic.dataset import PlantedSamples, SyntheticParams
from sparc_plugins.synthetic.draws import ranked
from sparc_plugins.synthetic.stream import StreamParams, load, words

PURE = {"noise": 0.0, "private": 0}


def captions(split="train", **params):
    dataset = PlantedSamples(SyntheticParams(**params), split)
    return [dataset[number].caption for number in range(len(dataset))]


def features(samples, **params):
    return load(StreamParams(**params), "cpu").preprocess(samples)


def said(*texts):
    return [Sample(str(number), caption=text) for number, text in enumerate(texts)]


def test_a_sample_is_the_same_whatever_the_size_the_order_and_the_process():
    many = captions(samples=30)
    assert captions(samples=5) == many[:5]
    dataset = PlantedSamples(SyntheticParams(samples=30), "train")
    assert [dataset[number].caption for number in reversed(range(30))] == many[::-1]
    code = (
        "import json; from sparc_plugins.synthetic.dataset import *;"
        "d = PlantedSamples(SyntheticParams(samples=30), 'train'); print(json.dumps([d[29].caption, d[0].caption]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [many[29], many[0]]


def test_seeds_and_splits_have_samples_of_their_own():
    every = captions(samples=20) + captions(samples=20, seed=1) + captions("test", held_out=20)
    assert len(set(every)) == 60


def test_features_are_the_same_bits_alone_and_among_others():
    dataset = PlantedSamples(SyntheticParams(samples=9), "train")
    samples = [dataset[number] for number in range(9)]
    together = features(samples)
    assert torch.equal(together, torch.cat([features([sample]) for sample in samples]))
    assert torch.equal(together.flip(0), features(samples[::-1]))


def test_a_sample_shows_what_is_above_its_leaves_and_is_labelled_by_its_leaves():
    dataset = PlantedSamples(SyntheticParams(samples=50, active=3), "train")
    labels = dataset.labels().toarray()
    for number in range(50):
        concepts = dataset.concepts(number)
        leaves = [concept for concept in concepts if dataset.taxonomy.depth(concept) == 3]
        assert len(leaves) == 3
        above = {dataset.taxonomy.lift(leaf, depth) for leaf in leaves for depth in (1, 2)}
        assert set(concepts) == above | set(leaves)
        assert [dataset.taxonomy.labels[column] for column in labels[number].nonzero()[0]] == sorted(leaves)
        assert all(0.5 <= strength <= 1.5 for strength in concepts.values())


def test_frequencies_are_those_of_zipf():
    random = Random(0)
    drawn = Counter(ranked(random, 3) for _ in range(20_000))
    assert [drawn[number] / 20_000 for number in range(3)] == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.015)


def test_leaves_of_a_sample_are_related():
    """Two leaves share a subcategory with 1/3 + 1/3 * 5/9 + 1/3 * 25/81 = 0.62, less 8 % for drawing one leaf twice."""
    dataset = PlantedSamples(SyntheticParams(samples=4000, categories=2, subcategories=2, leaves=50, active=2), "train")
    together = [sum(concept.count(".") == 1 for concept in dataset.concepts(number)) == 1 for number in range(4000)]
    assert np.mean(together) == pytest.approx(0.60, abs=0.025)


def test_features_are_the_strengths_times_the_directions():
    (a, b, both) = features(said("a", "b", "a=2 b=0.5 a"), **PURE)
    assert a.norm() == pytest.approx(1, abs=1e-6)
    assert abs(float(a @ b)) < 0.3  # independent: a standard deviation of 1/16
    torch.testing.assert_close(both, 3 * a + 0.5 * b)


def test_the_truth_gives_the_features_up_to_the_noise():
    dataset = PlantedSamples(SyntheticParams(samples=400), "train")
    samples = [dataset[number] for number in range(400)]
    silent = load(StreamParams(width=32, noise=0), "cpu")
    truth = silent.planted(samples)
    exact = torch.from_numpy(truth.strengths @ truth.directions)
    torch.testing.assert_close(silent.preprocess(samples).double(), exact, rtol=0, atol=1e-5)
    noise = features(samples, width=32, noise=3.0).double() - exact
    assert float(noise.square().sum(dim=1).mean()) == pytest.approx(9, rel=0.06)
    found = [dict(zip(truth.concepts, row, strict=True)) for row in truth.strengths.toarray()]
    shared = [{name: s for name, s in one.items() if s and not name.startswith("private")} for one in found]
    assert shared == [dataset.concepts(number) for number in range(400)]


def test_no_other_stream_shows_private_concepts_and_noise():
    samples = said(*captions(samples=40))
    one, other = (load(StreamParams(view=view), "cpu").planted(samples) for view in (0, 1))
    common = set(one.concepts) & set(other.concepts)
    assert common == {concept for concept in one.concepts if concept.startswith("c")}
    assert 0 < len(set(one.concepts) - common) <= 64
    assert ((one.strengths > 0).sum(axis=1) - (other.strengths > 0).sum(axis=1) == 0).all()  # four each
    alone = features(samples) - features(samples, **PURE)
    beside = features(samples, view=1) - features(samples, view=1, **PURE)
    assert torch.cosine_similarity(alone, beside, dim=1).abs().max() < 0.3


@pytest.mark.parametrize("word", ["a=0", "a=-1", "a=x", "a=", "a=nan", "a=inf", "=1", "a=1=2"])
def test_a_strength_that_is_no_positive_number_names_the_sample(word):
    with pytest.raises(BadSample, match=r"the caption of sample '7'.*CONCEPT=STRENGTH, found '" + word):
        words(Sample("7", caption=f"b=1 {word}"))


names = st.text(min_size=1).filter(lambda name: "=" not in name and not any(one.isspace() for one in name))


@settings(max_examples=25)
@given(st.dictionaries(names, st.floats(min_value=1e-300, allow_infinity=False), min_size=1))
def test_what_a_caption_says_is_read_whole(concepts):
    caption = "  ".join(f"{name}={strength!r}" for name, strength in concepts.items())
    assert words(Sample("0", caption=caption)) == concepts


def test_more_leaves_than_there_are_is_refused():
    with pytest.raises(ValueError, match="active: expected at most the 6 leaves that there are, found 7"):
        SyntheticParams(categories=1, subcategories=2, leaves=3, active=7)


def test_they_keep_the_contract():
    registry = discover()
    check_dataset(registry.dataset("synthetic"), {"samples": 60, "held_out": 20})
    check_backbone(registry.backbone("synthetic"))


@pytest.mark.parametrize("name", ["samples", "held_out", "categories", "subcategories", "leaves"])
def test_more_than_the_memory_holds_is_refused_before_any_of_it_is_allocated(name):
    params = SyntheticParams(**{name: 10**12})
    began = time.monotonic()
    with pytest.raises(sparc.OutOfMemory, match=r"would take .* GiB of memory") as error:
        PlantedSamples(params, "test" if name == "held_out" else "train")
    assert name in error.value.hint
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["width", "private"])
def test_a_stream_wider_than_the_memory_is_refused(name):
    with pytest.raises(sparc.OutOfMemory, match=f"{name}: .* would take"):
        load(StreamParams(**{name: 10**12}), "cpu")
