"""Texts cut between what readers see as characters."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from sparc.system.graphemes import start_of


@pytest.mark.parametrize(
    ("text", "length", "start"),
    [
        ("plain", 3, "pla"),
        ("plain", 9, "plain"),
        ("e\u0301te\u0301", 4, "e\u0301t"),
        ("a👩🏽\u200d⚕\ufe0fb", 3, "a"),
        ("a👩🏽\u200d⚕\ufe0fb", 6, "a👩🏽\u200d⚕\ufe0f"),
        ("🇫🇷🇩🇪", 3, "🇫🇷"),
        ("👩🏽\u200d⚕", 2, "👩🏽"),  # a character that does not fit at all is cut
        ("e" + "\u0301" * 1000, 10, "e" + "\u0301" * 9),
        ("anything", 0, ""),
    ],
)
def test_a_text_is_cut_between_characters(text, length, start):
    assert start_of(text, length) == start


@given(st.text("ae\u0301👩🏽\u200d⚕\ufe0f🇫क\u094dषab", max_size=30), st.integers(0, 31))
def test_a_start_is_the_longest_run_of_whole_characters(text, length):
    found = start_of(text, length)
    ends = [0]
    for cluster in regex.findall(r"\X", text):
        ends.append(ends[-1] + len(cluster))
    assert found == text[: max(end for end in ends if end <= length) or length]
