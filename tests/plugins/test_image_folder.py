"""A folder of images with an index, valid and broken."""

import json
import pickle  # noqa: TID251

import pytest

from sparc.errors import BadSample, InvalidConfig, MissingData
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams, _identify


def opened(root, split="train", **params):
    return ImageFolder(ImageFolderParams(root=str(root), **params), split)


@pytest.fixture
def folder(tmp_path):
    """Write an index file of the given lines and return the folder."""

    def write(*lines, name="samples.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path

    return write


def test_csv_and_jsonl_say_the_same(folder):
    folder("image,caption,labels,split", 'a.png,"a red, round thing",red;round,train', "b.png,blue,blue,train")
    records = [
        {"image": "a.png", "caption": "a red, round thing", "labels": ["red", "round"], "split": "train"},
        {"image": "b.png", "caption": "blue", "labels": ["blue"], "split": "train"},
    ]
    root = folder(*map(json.dumps, records), name="other.jsonl")
    csv, jsonl = opened(root), opened(root, index="other.jsonl")
    assert csv.rows == jsonl.rows
    assert csv[0].caption == "a red, round thing"
    assert csv.ids == ["a.png#0", "b.png#0"]
    assert csv.labels().toarray().tolist() == [[0, 1, 1], [1, 0, 0]]
    assert csv.taxonomy.labels == ("blue", "red", "round")
    assert csv.taxonomy.max_depth == 0


def test_all_captions_of_an_image_are_on_one_side_and_form_a_group(folder):
    lines = [f"{number}.png,caption {caption}" for number in range(200) for caption in range(3)]
    root = folder("image,caption", *lines)
    train, test = opened(root, "train"), opened(root, "test")
    assert not set(train.groups) & set(test.groups)
    assert len(train) + len(test) == 600
    assert 25 <= len(set(test.groups)) <= 55
    assert test.ids[:3] == [f"{test.groups[0]}#{number}" for number in range(3)]
    assert opened(root, "test", split_seed=1).groups != test.groups
    assert len(opened(root, "test", holdout=0.5)) > len(test)


def test_the_images_are_found_relative_to_the_folder(photos):
    dataset = opened(photos)
    assert dataset[0].image().size == (64, 64)
    assert dataset.taxonomy is not None
    assert dataset.labels().sum() == 2 * len(dataset)


def test_a_taxonomy_file_gives_labels_their_parents(folder):
    root = folder("image,caption,labels,split", "a.png,x,poodle,train")
    (root / "taxonomy.json").write_text(json.dumps({"animal": [], "dog": ["animal"], "poodle": ["dog"]}))
    assert opened(root).taxonomy.lift("poodle", 0) == "animal"
    (root / "taxonomy.json").write_text(json.dumps({"animal": []}))
    with pytest.raises(InvalidConfig, match="the label 'poodle' is not in"):
        opened(root)
    (root / "taxonomy.json").write_text(json.dumps({"poodle": ["dog"]}))
    with pytest.raises(InvalidConfig, match="is not a taxonomy: label 'poodle' has the parent 'dog'"):
        opened(root)
    (root / "taxonomy.json").write_text(json.dumps({"animal": [], "poodle": "animal"}))
    with pytest.raises(InvalidConfig, match="is not a taxonomy: label 'poodle' has the text 'animal'"):
        opened(root)


def test_without_labels_there_is_no_taxonomy(folder):
    dataset = opened(folder("image,caption,split", "a.png,x,train"))
    assert dataset.taxonomy is None
    assert dataset.labels() is None


def test_editing_the_index_changes_the_identity(folder):
    root = folder("image,caption", "a.png,x")
    before = _identify(ImageFolderParams(root=str(root)))
    folder("image,caption", "a.png,y")
    assert _identify(ImageFolderParams(root=str(root))) != before


def test_exchanging_an_image_changes_the_identity_and_moving_the_folder_does_not(photos, tmp_path):
    before = _identify(ImageFolderParams(root=str(photos)))
    moved = photos.rename(tmp_path / "moved")
    assert _identify(ImageFolderParams(root=str(moved))) == before
    (moved / "red-bar-0.png").write_bytes((moved / "blue-bar-0.png").read_bytes())
    assert _identify(ImageFolderParams(root=str(moved))) != before


def test_one_image_by_two_spellings_of_its_path_is_one_image(folder):
    root = folder("image,caption", *(f"{dots}{n}.png,caption" for n in range(50) for dots in ("", "./")))
    train, test = opened(root, "train"), opened(root, "test")
    assert not set(train.groups) & set(test.groups)
    assert len(set(train.groups) | set(test.groups)) == 50


def test_a_jsonl_caption_may_hold_any_line_separator_of_unicode(folder):
    caption = "one\u2028two\x85three"
    record = json.dumps({"image": "a.png", "caption": caption, "split": "train"}, ensure_ascii=False)
    assert opened(folder(record, name="samples.jsonl"))[0].caption == caption


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,text", "a.png,x"], "line 2: expected a text 'caption', found columns image, text"),
        (["caption", "x"], "line 2: expected a text 'image', found columns caption"),
        (["image,caption,split", "a.png,x,dev"], "line 2: expected split train or test, found 'dev'"),
        (["image,caption,split", "a.png,x,train", "./a.png,y,test"], "line 3: expected one split per image, found"),
        (["image,caption,id", "a.png,x,1", "b.png,y,1"], "line 3: expected unique ids, found '1' in line 2 too"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(folder, lines, message):
    with pytest.raises(InvalidConfig, match=message):
        opened(folder(*lines))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png", "capt', "line 1: expected a JSON object, found"),
        ("[1, 2]", "line 1: expected a JSON object"),
        ('{"image": "a.png", "caption": "x", "labels": 3}', "line 1: expected labels as a list of texts"),
        ('{"image": "a.png", "caption": 3}', "line 1: expected a text 'caption'"),
    ],
)
def test_a_jsonl_line_that_makes_no_sense_is_named(folder, line, message):
    with pytest.raises(InvalidConfig, match=message):
        opened(folder(line, name="samples.jsonl"))


def test_folders_and_files_that_are_not_there_are_named(tmp_path, folder):
    with pytest.raises(MissingData, match=r"no folder at .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(MissingData, match=r"has no samples.csv or samples.jsonl"):
        opened(tmp_path)
    with pytest.raises(MissingData, match=r"samples.csv lists no samples"):
        opened(folder("image,caption"))
    with pytest.raises(MissingData, match="none of 1 samples is in the split 'test'"):
        opened(folder("image,caption,split", "a.png,x,train"), "test")
    with pytest.raises(BadSample, match=r"image not found: .*a.png"):
        opened(folder("image,caption,split", "a.png,x,train"))[0].image()


def test_an_index_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "samples.csv").write_bytes(b"image,caption\n\xff\xfe,x\n")
    with pytest.raises(InvalidConfig, match="not UTF-8"):
        opened(tmp_path)


def test_the_dataset_can_be_sent_to_a_worker_process(photos):
    copy = pickle.loads(pickle.dumps(opened(photos)))
    assert copy[0].image().size == (64, 64)
