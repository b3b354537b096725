"""What latents mean: agreement between streams, names from the taxonomy, and the picture."""

import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from scipy.sparse import csr_array

import sparc.explorer.meanings
from sparc.core.space import LatentSpace
from sparc.errors import InvalidConfig
from sparc.explorer.meanings import Meaning, correlations, meanings, often, picture
from sparc.plugins.contracts import Sample, Taxonomy

TAXONOMY = Taxonomy({"thing": (), "animal": ("thing",), "cat": ("animal",), "dog": ("animal",), "car": ("thing",)})
KINDS = ["cat", "dog", "car"]


def labels_of(names):
    column = {label: number for number, label in enumerate(TAXONOMY.labels)}
    dense = np.zeros((len(names), len(column)))
    for row, name in enumerate(names):
        dense[row, column[name]] = 1
    return csr_array(dense)


def activations(*columns):
    return csr_array(np.array(columns, dtype=np.float32).T)


@pytest.fixture
def space():
    """Streams `a` and `b` of width 4: a latent per feature, encoders and decoders the identity, one latent kept."""
    space = LatentSpace({"a": 4, "b": 4}, 4, 1, normalization="none")
    with torch.no_grad():
        for encoder in space.encoders:
            encoder.copy_(torch.eye(4))
    return space


@pytest.fixture
def features():
    """Ten cats, ten dogs, ten cars, told apart by the first three features of both streams, ever more clearly."""
    strength = 1 + torch.arange(30).float() / 10
    rows = torch.eye(4)[torch.arange(30) // 10] * strength.unsqueeze(1)
    return {"a": rows, "b": rows * 2}


LABELS = labels_of([KINDS[row // 10] for row in range(30)])


def all_there(active):
    return [np.ones(matrix.shape[0], dtype=bool) for matrix in active]


def test_agreement_is_the_correlation_of_activations_mean_over_pairs_of_streams():
    generator = np.random.default_rng(0)
    dense = [np.maximum(generator.normal(size=(40, 3)), 0) for _ in range(3)]
    dense[1][:, 0] = dense[0][:, 0] * 5
    active = [csr_array(matrix) for matrix in dense]
    for latent, found in enumerate(correlations(active, all_there(active))):
        a, b, c = (matrix[:, latent] for matrix in dense)
        expected = np.mean([np.corrcoef(one, other)[0, 1] for one, other in ((a, b), (a, c), (b, c))])
        assert found == pytest.approx(expected, rel=1e-9)


def test_samples_that_lack_a_stream_say_nothing_of_agreement():
    a = [1, 2, 3, 4, 5, 6, 0, 0, 0, 0]
    b = [6, 5, 4, 3, 2, 1, 0, 0, 0, 0]  # the last four have no b: that both are silent there is no agreement
    active = [activations(a), activations(b)]
    there = [np.ones(10, dtype=bool), np.arange(10) < 6]
    assert correlations(active, there)[0] == pytest.approx(-1)


@pytest.mark.parametrize(("samples", "needed"), [(200, 5), (100, 5), (79, 3), (30, 2), (7, 2)])
def test_latents_that_are_active_in_few_samples_of_a_stream_do_not_rank(samples, needed):
    def first(count):
        return [1] * count + [0] * (samples - count)

    active = [activations(first(needed), first(needed)), activations(first(needed), first(needed - 1))]
    assert often(active).tolist() == [True, False]


def test_of_few_held_out_samples_the_best_latents_are_drawn_all_the_same(space, features):
    few = {name: rows[[0, 5, 9, 10, 19, 20, 29]] for name, rows in features.items()}
    assert [one.latent for one in meanings(space, few, None, None)] == [0, 1, 2]
    alone = {name: rows[[0, 10, 19, 20, 29]] for name, rows in features.items()}
    assert 0 not in [one.latent for one in meanings(space, alone, None, None)]
    (asked,) = meanings(space, alone, None, None, latent=0)
    assert asked.correlation == pytest.approx(1)  # for being seldom it is no less alike


def test_samples_of_one_image_take_one_place_among_those_that_activate_a_latent_most(space, features):
    images = {"a": torch.arange(30) // 2, "b": torch.arange(30)}  # two captions for each image
    (cats,) = meanings(space, features, None, None, latent=0, shared=images)
    assert [row for row, _ in cats.top["a"]] == [9, 7, 5, 3, 1]
    assert [row for row, _ in cats.top["b"]] == [9, 8, 7, 6, 5, 4]


def test_a_latent_that_never_varies_agrees_with_nothing():
    """Of many such latents, since rounding leaves some a little variance, alike in both streams."""
    steady = [[level / 100] * 100 for level in range(1, 200)]
    active = [activations(*steady), activations(*steady)]
    assert not correlations(active, all_there(active)).any()


def test_latents_of_a_single_stream_rank_by_how_much_they_are_active():
    active = [activations([1] * 6 + [0], [2] * 6 + [0], [9, 0, 0, 0, 0, 0, 0])]
    assert np.argsort(-correlations(active, all_there(active))).tolist() == [1, 2, 0]


def test_latents_are_named_by_the_label_that_fits_their_samples_best(space, features):
    found = {meaning.latent: meaning for meaning in meanings(space, features, LABELS, TAXONOMY)}
    assert {latent: meaning.concept for latent, meaning in found.items()} == {0: "cat", 1: "dog", 2: "car"}
    assert all((meaning.of_concept, meaning.active) == (10, 10) for meaning in found.values())
    assert all(meaning.correlation == pytest.approx(1) for meaning in found.values())


def test_a_latent_of_cats_and_dogs_is_named_by_what_both_are(space, features):
    both = {name: rows.clone() for name, rows in features.items()}
    for rows in both.values():
        rows[:20, 0] = rows[:20].sum(dim=1)
        rows[:20, 1] = 0
    (animal,) = meanings(space, both, LABELS, TAXONOMY, latent=0)
    assert (animal.concept, animal.of_concept, animal.active) == ("animal", 20, 20)


def test_there_is_at_most_one_latent_per_concept_the_one_that_agrees_best(space, features):
    split = {name: rows.clone() for name, rows in features.items()}
    for rows in split.values():
        rows[5:10] = rows[5:10].roll(3, dims=1)  # half of the cats have a latent of their own
    split["b"][0:5, 0] = split["b"][0:5, 0].flip(0)
    names = [meaning.concept for meaning in meanings(space, split, LABELS, TAXONOMY)]
    assert sorted(names) == ["car", "cat", "dog"]
    assert next(m.latent for m in meanings(space, split, LABELS, TAXONOMY) if m.concept == "cat") == 3


def test_at_most_as_many_are_found_as_asked_for_the_best_first(space, features):
    found = meanings(space, features, LABELS, TAXONOMY)
    assert len(found) == 3  # latent 3 is dead
    assert [m.correlation for m in found] == sorted((m.correlation for m in found), reverse=True)
    assert meanings(space, features, LABELS, TAXONOMY, count=2) == found[:2]


def test_without_labels_latents_have_no_names_and_none_is_left_out(space, features):
    found = meanings(space, features, None, None)
    assert sorted(m.latent for m in found) == [0, 1, 2]
    assert {(m.concept, m.of_concept) for m in found} == {("", 0)}


def test_top_samples_are_those_that_activate_most_and_the_silent_are_not_among_them(space, features):
    (cat,) = meanings(space, features, LABELS, TAXONOMY, latent=0)
    assert [row for row, _ in cat.top["a"]] == [9, 8, 7, 6, 5, 4]
    assert [value for _, value in cat.top["b"]] == pytest.approx([2 * (1 + row / 10) for row in (9, 8, 7, 6, 5, 4)])
    (dead,) = meanings(space, features, LABELS, TAXONOMY, latent=3)
    assert dead.top == {"a": [], "b": []}


def test_each_stream_is_encoded_alone(space, features):
    """Were they encoded together, b would speak for a: for a sample that a sees as a cat, the latent of cars."""
    misled = {"a": features["a"], "b": features["b"].roll(2, dims=1) * 10}
    (cat,) = meanings(space, misled, LABELS, TAXONOMY, latent=0)
    assert all(row < 10 for row, _ in cat.top["a"])
    assert len(cat.top["a"]) == 6


def test_samples_are_encoded_alike_however_many_at_once(space, features, monkeypatch):
    together = meanings(space, features, LABELS, TAXONOMY)
    monkeypatch.setattr(sparc.explorer.meanings, "CHUNK", 7)
    assert meanings(space, features, LABELS, TAXONOMY) == together


def test_a_latent_that_is_not_there_is_an_error_that_says_which_are(space, features):
    for latent in (-1, 4):
        with pytest.raises(InvalidConfig, match=re.escape(f"expected 0 to 3, found {latent}")):
            meanings(space, features, LABELS, TAXONOMY, latent=latent)


def test_exploring_does_not_change_the_space(space, features):
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    meanings(space, features, LABELS, TAXONOMY)
    assert all(torch.equal(before[name], tensor) for name, tensor in space.state_dict().items())


def sample(row):
    colour = (row * 40 % 256, 90, 200 - row * 5)
    return Sample(f"s{row}", open_image=lambda: Image.new("RGB", (64, 40), colour), caption=f"number {row}, " * 12)


def mute(row):
    return Sample(f"s{row}", caption=f"number {row}")


def paint(path, found, samples=sample, modalities=None):
    modalities = modalities or {"a": "image", "b": "text"}
    picture(found, samples, modalities, path, title="Latents", subtitle="Held-out samples.")
    with Image.open(path) as image:
        image.load()
        return image.convert("RGB")


def test_a_picture_grows_with_the_latents_and_stays_small_on_disk(space, features, tmp_path):
    found = meanings(space, features, LABELS, TAXONOMY)
    two, three = (paint(tmp_path / f"{count}.png", found[:count]) for count in (2, 3))
    assert two.width == three.width
    assert two.height < three.height
    assert (tmp_path / "3.png").stat().st_size < 300_000


def test_the_same_latents_give_the_same_picture(space, features, tmp_path):
    found = meanings(space, features, LABELS, TAXONOMY)
    paint(tmp_path / "one.png", found)
    paint(tmp_path / "two.png", found)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_images_are_seen_in_the_picture(space, features, tmp_path):
    found = meanings(space, features, LABELS, TAXONOMY, latent=0)
    colours = {colour for _, colour in paint(tmp_path / "cat.png", found).getcolors(maxcolors=1 << 20)}
    wanted = (9 * 40 % 256, 90, 200 - 9 * 5)
    assert min(sum(abs(p - q) for p, q in zip(wanted, colour, strict=True)) for colour in colours) < 12


def test_captions_need_no_image(space, features, tmp_path):
    found = meanings(space, features, LABELS, TAXONOMY)
    paint(tmp_path / "text.png", found, mute, {"a": "text", "b": "text"})


def test_a_stream_that_is_silent_has_a_place_too(tmp_path):
    silent = Meaning(1, 0.0, "", 0, 0, {"a": [(0, 1.0)], "b": []})
    paint(tmp_path / "silent.png", [silent])
    paint(tmp_path / "dead.png", [Meaning(1, 0.0, "", 0, 0, {"a": [], "b": []})])


ACCENT = (232, 115, 12)


def accents(image):
    return sum(
        count
        for count, colour in image.getcolors(maxcolors=1 << 20)
        if max(abs(p - q) for p, q in zip(colour, ACCENT, strict=True)) < 8
    )


def test_a_frame_says_that_a_sample_is_shown_in_every_stream(tmp_path):
    """Of ten samples kept per stream a picture shows fewer: one that is not seen elsewhere has no frame."""
    first, second = [(row, 1.0) for row in range(10)], [(row, 1.0) for row in range(9, -1, -1)]
    gallery = {"a": "image", "b": "image"}

    def drawn(a, b):
        meaning = Meaning(1, 0.5, "", 0, 0, {"a": a, "b": b})
        return accents(paint(tmp_path / "frames.png", [meaning] * 2, modalities=gallery))

    none = drawn(first, second)
    assert none == drawn(first[:5], second[:5])
    assert drawn(first[:1], first[:1]) > none


def test_nothing_is_framed_where_there_is_one_stream(tmp_path):
    alone = paint(tmp_path / "alone.png", [Meaning(1, 0.5, "", 0, 0, {"a": [(0, 1.0)]})], modalities={"a": "image"})
    assert accents(alone) == 0


def test_captions_in_any_script_are_drawn_without_empty_boxes(tmp_path):
    """The bundled font is English: accents are dropped, so that what is left can be read."""
    found = [Meaning(1, 0.5, "", 0, 0, {"a": [(0, 1.0)], "b": [(0, 1.0)]})]
    words = {"accented": "légende – naïve", "bare": "legende - naive", "other": "猫 🐈"}
    pictures = {
        key: paint(
            tmp_path / f"{key}.png",
            found,
            lambda row, text=text: Sample("s", caption=text),
            dict.fromkeys("ab", "text"),
        )
        for key, text in words.items()
    }
    assert pictures["accented"].tobytes() == pictures["bare"].tobytes()


def test_long_captions_stay_in_their_column(tmp_path):
    """Of three text streams the middle one has endless words: the one to its right looks as if it had none."""
    found = [Meaning(1, 0.5, "cat", 2, 2, {"a": [(0, 1.0)], "b": [(1, 1.0)], "c": [(2, 1.0)]})] * 2
    modalities = dict.fromkeys("abc", "text")

    def speak(caption):
        return lambda row: Sample(f"s{row}", caption=caption if row == 1 else "short")

    calm = paint(tmp_path / "calm.png", found, speak("short"), modalities)
    loud = paint(tmp_path / "loud.png", found, speak("https://example.org/" + "endless" * 60), modalities)
    left = calm.width * 2 // 3 + 8
    box = (left, 0, calm.width, calm.height)
    assert calm.size == loud.size
    assert max(high for _, high in ImageChops.difference(calm.crop(box), loud.crop(box)).getextrema()) < 16
