"""Words of captions in any script."""

import numpy as np
import pytest

from sparc.evaluation.words import MOST, READ, words_in, words_of


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A Red bus, a BUS!", {"a", "red", "bus"}),
        ("l'été -- naïve cafe\u0301", {"l'été", "naïve", "café"}),
        ("قطة حمراء", {"قطة", "حمراء"}),
        ("हिन्दी भाषा", {"हिन्दी", "भाषा"}),
        ("红色的猫", {"红", "色", "的", "猫", "红色", "色的", "的猫"}),
        ("ネコ", {"ネコ"}),
        ("แมว", {"แม", "มว"}),
        ("😀😀 cat👩\u200d🚀", {"😀", "cat", "👩\u200d🚀"}),
        (
            "🇫🇷🇩🇪 in 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            {"🇫🇷", "🇩🇪", "in", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"},
        ),
        ("a 👩🏽\u200d⚕\ufe0f, a 👍🏿!", {"a", "👩🏽\u200d⚕", "👍🏿"}),
        ("1\ufe0f\u20e3 heart ❤\ufe0f ❤ 12", {"1\u20e3", "heart", "❤", "12"}),
        ("straße STRASSE", {"strasse"}),
        ("42 cats <b>", {"42", "cats", "b"}),
        ("\u200d \ufe0f ' — …", set()),
        ("", set()),
    ],
)
def test_words_of_a_caption(caption, words):
    assert words_in(caption) == words


def test_terms_are_words_of_three_captions_or_more_the_most_frequent_first():
    found = words_of(["b a", "a b b", None, "a b c", "a c", ""])
    assert found.terms == ("a", "b")
    assert found.samples.toarray().tolist() == [[1, 1], [1, 1], [0, 0], [1, 1], [1, 0], [0, 0]]
    assert found.samples.dtype == np.float32


def test_terms_are_bounded():
    numbers = [f"w{number}" for number in range(MOST + 10)]
    many = words_of([" ".join(numbers[start : start + 500]) for start in range(0, len(numbers), 500)] * 3)
    assert len(many.terms) == MOST


def test_only_the_beginning_of_a_very_long_caption_is_read():
    assert words_in("cat " * (READ // 4) + "dog") == {"cat"}


def test_no_captions_give_no_terms():
    assert words_of([None] * 4).samples.shape == (4, 0)
