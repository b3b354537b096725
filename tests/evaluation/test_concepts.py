"""Names of latents, worked by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, spearmanr

from sparc.core.codes import Codes
from sparc.evaluation import concepts as rule
from sparc.evaluation.concepts import concepts, count_halves, enriched, images_of, latent_names, word_names
from sparc.plugins.contracts import Taxonomy
from sparc.plugins.datasets import held_out
from tests.evaluation.conftest import multi_hot

PETS = Taxonomy({"animal": (), "vehicle": (), "cat": ("animal",), "dog": ("animal",), "car": ("vehicle",)})
NAMES = [f"image {row}" for row in range(400)]
CHECKING = np.array([held_out(f"concepts: {name}", 0.5) for name in NAMES])
KINDS = np.arange(400) % 4
LABELS = [({"cat"}, {"dog"}, {"car"}, set())[kind] for kind in KINDS]


def codes(active_NL):
    values = torch.from_numpy(np.asarray(active_NL, dtype=np.float32))
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def named(active_NL, labels=LABELS, groups=NAMES, taxonomy=PETS):
    """Name latents; return the labels, the summary and the names."""
    halves = count_halves({"a": codes(active_NL)}, multi_hot(labels, taxonomy), taxonomy, groups)
    found, names = concepts(halves)
    return [None if label < 0 else taxonomy.labels[label] for label in names.label], found, names


def test_a_latent_is_named_after_the_label_that_its_samples_have_more_often_than_others():
    active_NL = np.stack([KINDS == 0, KINDS <= 1, KINDS == 2, KINDS == 3], axis=1)
    called, found, names = named(active_NL)
    # Cars and vehicles are the same samples: the first of the taxonomy is taken.
    assert called == ["cat", "animal", "vehicle", None]
    assert names.confirmed.tolist() == [True, True, True, False]
    assert names.purity[:3].tolist() == [1, 1, 1]
    share = (KINDS[CHECKING] == 0).mean()
    assert names.lift[0] == pytest.approx(1 / share)
    assert (found.named, found.confirmed, found.purity) == (3, 3, 1)


def test_a_name_by_chance_alone_is_not_given_more_often_than_one_latent_in_twenty():
    generator = np.random.default_rng(0)
    called, found, _ = named(generator.random((400, 200)) < 0.1)
    assert sum(name is not None for name in called) < 0.1 * 200
    assert found.confirmed <= 3


def test_a_name_that_does_not_hold_on_the_other_half_is_not_confirmed():
    """Cats activate the latent in one half, dogs in the other."""
    active_NL = ((KINDS == 0) & ~CHECKING) | ((KINDS == 1) & CHECKING)
    called, found, names = named(active_NL[:, None])
    assert called == ["cat"]
    assert (found.named, found.confirmed) == (1, 0)
    assert names.purity[0] == 0
    assert found.purity == 0


def test_what_is_found_is_found_on_one_half_and_its_odds_are_binomial():
    """At the threshold: just enough cats among the samples for a name, and one fewer."""
    rows = np.flatnonzero(~CHECKING)
    cats, others = rows[KINDS[rows] == 0], rows[KINDS[rows] == 3]
    share = len(cats) / len(rows)
    tried = 3  # labels of its depth
    enough = next(k for k in range(1, 30) if binomtest(k, 20, share, "greater").pvalue * tried < 0.05)
    for count, expected in ((enough, True), (enough - 1, False)):
        active_N = np.zeros(400, dtype=bool)
        active_N[cats[:count]] = active_N[others[: 20 - count]] = True
        called, _, _ = named(active_N[:, None])
        assert (called == ["cat"]) == expected


def test_captions_of_one_image_count_once():
    """Noise on 300 images with five captions each, which share labels and activity, so samples agree five at once."""
    generator = np.random.default_rng(0)
    names = np.repeat([f"image {row}" for row in range(300)], 5).tolist()
    kinds = np.repeat(generator.integers(0, 4, 300), 5)
    active_NL = np.repeat(generator.random((300, 150)) < 0.05, 5, axis=0)
    labels = [({"cat"}, {"dog"}, {"car"}, set())[kind] for kind in kinds]
    _, found, _ = named(active_NL, labels=labels, groups=names)
    assert found.named < 0.1 * 150
    assert found.confirmed <= 3


def test_a_label_that_one_image_has_does_not_hide_one_that_all_have():
    rows = np.flatnonzero(~CHECKING & (KINDS == 1))[:6]
    taxonomy = Taxonomy({**PETS.parents, "rarity": ("animal",)})
    labels = [names | {"rarity"} if row == rows[0] else names for row, names in enumerate(LABELS)]
    active_N = np.zeros(400, dtype=bool)
    active_N[rows] = True
    called, _, _ = named(active_N[:, None], labels=labels, taxonomy=taxonomy)
    assert called == ["dog"]


def test_purity_and_lift_are_those_of_all_names_not_of_those_that_hold():
    """Latents that are half cats: those that happen to be purer are confirmed more often, which would bias the mean."""
    generator = np.random.default_rng(3)
    active_NL = generator.random((400, 300)) < np.where(KINDS[:, None] == 0, 0.09, 0.03)
    _, found, names = named(active_NL)
    named_L = names.label >= 0
    assert 0 < names.confirmed.sum() < named_L.sum()
    assert found.purity == pytest.approx(np.nanmean(names.purity[named_L]))
    assert found.purity < np.nanmean(names.purity[names.confirmed])


def test_a_name_that_no_image_of_the_other_half_has_counts_as_impure():
    """All images of 'rare' are in the finding half, so the checking half refutes the name."""
    rare_N = (np.cumsum((KINDS == 0) & ~CHECKING) <= 12) & (KINDS == 0) & ~CHECKING
    labels = [names | {"rare"} if rare else names for names, rare in zip(LABELS, rare_N, strict=True)]
    taxonomy = Taxonomy({**PETS.parents, "rare": ("cat",)})
    active_N = rare_N | ((KINDS == 1) & CHECKING & (np.arange(400) % 7 == 0))
    called, found, names = named(active_N[:, None], labels=labels, taxonomy=taxonomy)
    assert called == ["rare"]
    assert (names.purity[0], np.isnan(names.lift[0])) == (0, True)
    assert (found.purity, found.lift) == (0, None)


def test_a_latent_that_is_active_in_any_stream_is_active():
    one, other = (KINDS == 0) & (np.arange(400) < 200), (KINDS == 0) & (np.arange(400) >= 200)
    streams = {"a": codes(one[:, None]), "b": codes(other[:, None] * 0.1)}
    _, names = concepts(count_halves(streams, multi_hot(LABELS, PETS), PETS, NAMES))
    assert names.confirmed.tolist() == [True]
    assert names.purity.tolist() == [1]


def test_depths_say_how_many_labels_have_latents_and_how_evenly():
    cats, dogs, cars = KINDS == 0, KINDS == 1, KINDS == 2
    active_NL = np.stack([cats, cats, cats, dogs, cars, KINDS == 3], axis=1)
    _, found, _ = named(active_NL)
    roots, leaves = found.depths
    assert (roots.depth, roots.labels, roots.named, roots.taken) == (0, 2, 5, 2)
    assert (leaves.depth, leaves.labels, leaves.named, leaves.taken, leaves.confirmed) == (1, 3, 5, 3, 5)
    share = np.array([3, 1, 1]) / 5
    assert leaves.effective == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    # A tenth of three labels is one, the most frequent; all have 100 samples, so it is the first, the cat.
    assert leaves.frequent_share == pytest.approx(3 / 5)
    assert leaves.frequency_correlation is None


def test_frequent_labels_that_take_more_latents_show_in_the_correlation():
    kinds = np.repeat([0, 1, 2], [240, 120, 40])[np.random.default_rng(1).permutation(400)]
    labels = [({"cat"}, {"dog"}, {"car"})[kind] for kind in kinds]
    active_NL = np.stack([kinds == 0, kinds == 0, kinds == 0, kinds == 1, kinds == 1, kinds == 2], axis=1)
    _, found, _ = named(active_NL, labels=labels)
    assert found.depths[1].frequency_correlation == pytest.approx(spearmanr([240, 120, 40], [3, 2, 1]).statistic)
    assert found.depths[1].frequent_share == pytest.approx(3 / 6)


def test_a_label_that_nobody_has_names_nothing():
    taxonomy = Taxonomy({**PETS.parents, "ghost": ()})
    called, found, _ = named((KINDS == 0)[:, None], taxonomy=taxonomy)
    assert called == ["cat"]
    assert found.depths[0].labels == 2


def test_nothing_active_has_no_name():
    called, found, names = named(np.zeros((400, 2)))
    assert called == [None, None]
    assert (found.named, found.depths[0].effective, found.depths[0].frequent_share) == (0, 0, None)
    assert not names.confirmed.any()


def test_the_order_of_samples_and_latents_does_not_matter():
    generator = np.random.default_rng(2)
    active_NL = generator.random((400, 20)) < np.where(KINDS[:, None] == 0, 0.3, 0.1)
    called, found, _ = named(active_NL)
    rows, latents = generator.permutation(400), generator.permutation(20)
    again, same, _ = named(
        active_NL[rows][:, latents], labels=[LABELS[row] for row in rows], groups=[NAMES[row] for row in rows]
    )
    assert again == [called[latent] for latent in latents]
    assert (same.named, same.confirmed, same.depths) == (found.named, found.confirmed, found.depths)
    assert same.purity == pytest.approx(found.purity)


def test_samples_that_were_held_out_by_their_names_are_halved_all_the_same():
    names = [name for name in (f"image {row}" for row in range(4000)) if held_out(name, 0.1)]
    kinds = np.arange(len(names)) % 4
    labels = [({"cat"}, {"dog"}, {"car"}, set())[kind] for kind in kinds]
    _, found, _ = named((kinds == 0)[:, None], labels=labels, groups=names)
    assert (found.named, found.confirmed) == (1, 1)


def flat():
    """Active latents, and labels of one depth, as a taxonomy and as words."""
    active_NL = np.stack([KINDS == 0, KINDS <= 1, KINDS == 2, KINDS == 3, KINDS < 0], axis=1)
    taxonomy = Taxonomy(dict.fromkeys(("cat", "dog", "car"), ()))
    return {"a": codes(active_NL)}, multi_hot(LABELS, taxonomy), taxonomy


def test_words_name_latents_by_the_rule_of_labels_however_many_latents_at_a_time(monkeypatch):
    of_streams, terms, taxonomy = flat()
    by_labels = latent_names(concepts(count_halves(of_streams, terms, taxonomy, NAMES))[1], taxonomy)
    assert {latent: name.label for latent, name in by_labels.items()} == {0: "cat", 1: "cat", 2: "car"}
    for counts in (1, 4, 10**6):
        monkeypatch.setattr(rule, "COUNTS", counts)
        images = images_of(of_streams, terms, np.zeros(3, np.intp), NAMES)
        assert word_names(images, taxonomy.labels) == by_labels


def test_enriched_terms_are_counted_on_all_images_and_confirmed_as_a_name_is():
    of_streams, terms, taxonomy = flat()
    halves = count_halves(of_streams, terms, taxonomy, NAMES)
    found = enriched(halves, 10)
    assert [[(one.term, one.both, one.labelled, one.active, one.confirmed) for one in own] for own in found] == [
        [(0, 100, 100, 100, True)],
        [(0, 100, 100, 200, True), (1, 100, 100, 200, True)],
        [(2, 100, 100, 100, True)],
        [],
        [],
    ]
    assert found[1][0].purity == pytest.approx((KINDS[CHECKING] == 0).sum() / (KINDS[CHECKING] <= 1).sum())
    assert [len(own) for own in enriched(halves, 1)] == [1, 1, 1, 0, 0]


def test_an_enriched_term_that_does_not_hold_on_the_other_half_is_not_confirmed():
    active_NL = ((KINDS == 0) & ~CHECKING) | ((KINDS == 1) & CHECKING)
    halves = count_halves({"a": codes(active_NL[:, None])}, multi_hot(LABELS, PETS), PETS, NAMES)
    by_name = {PETS.labels[one.term]: one.confirmed for one in enriched(halves, 10)[0]}
    assert by_name == {"animal": True, "cat": False, "dog": False}
