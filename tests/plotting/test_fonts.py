"""Names and captions in any script are drawn with a font that has their characters."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sparc.plotting import figures, fonts
from sparc.plotting.fonts import Pen

pytest.importorskip("manimgx_fonts", reason="needs the extra 'fonts'")

SCRIPTS = {
    "Latin": "légende naïve Łódź",
    "Greek": "Ελληνικά",
    "Cyrillic": "русский",
    "Arabic": "قطة على أريكة",
    "Hebrew": "שלום עולם",
    "Devanagari": "नमस्ते दुनिया",
    "Bengali": "বাংলা",
    "Tamil": "தமிழ்",
    "Thai": "สวัสดี",
    "Georgian": "ქართული",
    "Chinese": "沙发上的猫",
    "Japanese": "猫がソファーで眠る",
    "Korean": "고양이 한 마리",
    "symbols": "→ ∑ 🐈",
}


def ink(text, size=40):
    image = Image.new("L", (1200, 80), 255)
    Pen(size).write(ImageDraw.Draw(image), (10, 10), text, "black")
    return np.asarray(image) < 128


@pytest.fixture(autouse=True)
def _no_warning():
    fonts._warn.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_every_script_has_a_font_and_its_words_are_told_apart(text):
    words = [word for word in text.split() if word != fonts.BOX]
    assert all(fonts.BOX not in run for _, run in fonts._runs(text))
    assert ink(text).any()
    for word in words:  # two letters of one word are no two equal boxes
        assert len({ink(letter).tobytes() for letter in set(word)}) > 1 or len(set(word)) == 1


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_the_length_of_a_text_is_where_its_ink_ends(text):
    last = np.flatnonzero(ink(text).any(axis=0))[-1]
    assert last == pytest.approx(10 + Pen(40).length(text), abs=10)


def test_both_forms_of_an_accent_are_drawn_alike():
    assert (ink("cafe\u0301") == ink("caf\u00e9")).all()


def test_plain_text_is_drawn_in_one_font():
    assert [run for _, run in fonts._runs("a dog, on grass - ‘so’")] == ["a dog, on grass - ‘so’"]
    assert [run for _, run in fonts._runs("قطة على")] == ["قطة على"]


def test_control_characters_become_spaces():
    assert (ink("a\t\x00b") == ink("a b")).all()


def test_a_character_without_a_font_is_one_box_and_one_warning(monkeypatch):
    monkeypatch.setattr(fonts, "_machine_files", tuple)
    with pytest.warns(UserWarning, match="drawn as boxes: add the extra 'fonts'") as said:
        drawn = ink("a \U00012000 \U00012001")
    assert len(said) == 1
    assert (drawn == ink(f"a {fonts.BOX} {fonts.BOX}")).all()


def test_a_figure_in_many_scripts_is_saved_without_a_warning(tmp_path):
    figure = figures.new_figure(4, 4)
    axes = figure.subplots()
    axes.set_yticks(range(len(SCRIPTS)), list(SCRIPTS.values()))
    axes.set_title("猫")
    assert [path.stat().st_size > 1000 for path in figures.save(figure, tmp_path / "scripts")] == [True, True]


def test_a_figure_of_latin_names_keeps_its_font(tmp_path):
    figure = figures.new_figure(2, 2)
    text = figure.suptitle("légende")
    figures.save(figure, tmp_path / "latin")
    assert text.get_fontfamily() == figures.new_figure(2, 2).suptitle("x").get_fontfamily()
