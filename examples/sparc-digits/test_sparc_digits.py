"""The dataset keeps the contract of plugins, and its captions describe its images."""

import numpy as np
import sparc_digits

from sparc.plugins import Params
from sparc.plugins.checks import check_dataset


def test_it_keeps_the_contract():
    check_dataset(sparc_digits.sparc_datasets()[0])


def test_bold_sevens_have_more_ink_than_thin_ones():
    digits = sparc_digits.Digits(Params(), "train")
    samples = [digits[index] for index in range(len(digits))]

    def ink(words):
        return np.mean([np.asarray(one.image()).mean() for one in samples if one.caption.startswith(words)])

    assert ink("a bold seven") > ink("a seven") > ink("a thin seven")


def test_a_slash_leans_right_and_a_backslash_left():
    slash = np.fliplr(np.eye(8))
    slopes = sparc_digits._slant(np.stack([slash, np.eye(8)]))
    assert slopes.tolist() == [1, -1]


def test_two_is_even_and_prime():
    assert sparc_digits.taxonomy().parents["two"] == ("even", "prime")
