"""Data files: what a page reads is what was written, and no text in it ends the script."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparc.explorer.statements import clean, shortened, significant, statement, write_statement
from tests.explorer.site_data import parsed

ENDS = ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028", "\u2029"]
HOSTILE = [*ENDS, "\x00\x1b[31m\x7f", "'\"\\", "\u202eabc"]


def texts():
    return st.one_of(st.text(max_size=40), st.sampled_from(HOSTILE))


def contents():
    plain = st.one_of(texts(), st.integers(), st.none(), st.booleans())
    return st.recursive(plain, lambda one: st.lists(one) | st.dictionaries(texts(), one), max_leaves=8)


@given(contents())
def test_a_page_reads_what_was_written_and_no_text_ends_the_script(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    write_statement(folder, "sample/3", content)
    text = (folder / "sample-3.js").read_text(encoding="utf-8")
    assert parsed(folder / "sample-3.js") == ("sample/3", content)
    assert not set(text) & set("<>&\u2028\u2029\x00\x1b\x7f")
    assert text.count("\n") == 1


def test_a_number_that_is_none_is_null_and_never_nan():
    assert [significant(value) for value in (None, math.nan, math.inf, -math.inf)] == [None] * 4
    with pytest.raises(ValueError, match="not JSON compliant"):
        statement("x", math.nan)


def test_floats_keep_four_digits_and_integers_all():
    assert [significant(value) for value in (0.123456, 123456.0, -1e-7 / 3, 0.0)] == [0.1235, 123500.0, -3.333e-8, 0.0]
    assert significant(1234567) == 1234567


def test_half_a_surrogate_pair_becomes_a_replacement_and_whole_ones_stay():
    assert clean("a\ud83d b") == "a\ufffd b"
    assert clean("\ud83d\ude00 \U0001f600") == "\U0001f600 \U0001f600"


def test_a_text_is_not_cut_between_a_letter_and_its_accent_or_within_a_joined_emoji():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert shortened("abcde\u0301fgh", 6) == "abcd…"
    assert shortened("ab\U0001f469\u200d\U0001f680fgh", 5) == "ab…"
    assert len(shortened("\u0301" * 50, 6)) == 6
