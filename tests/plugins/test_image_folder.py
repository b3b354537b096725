"""A folder of images with an index, valid and broken."""

import csv
import gzip
import io
import json
import math
import os
import pickle  # noqa: TID251
import shutil
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparc.errors import BadSample, InvalidConfig, MissingData
from sparc.plugins import images
from sparc.plugins.images import ImageLimits
from sparc.plugins.label_lists import listed
from sparc.plugins.registry import discover
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams, _identify, read_index
from sparc_plugins.image_folder import images as images_of_folder


def png(size=(1, 1)):
    content = io.BytesIO()
    Image.new("L", size).save(content, "PNG")
    return content.getvalue()


PNG = png()
COMPOSED, DECOMPOSED = "caf\u00e9.png", "cafe\u0301.png"


def opened(root, split="train", **params):
    return ImageFolder(ImageFolderParams(root=str(root), **params), split)


def rows_of(root, **params):
    return [(row.image, row.caption, row.labels) for row in read_index(ImageFolderParams(root=str(root), **params))]


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
    assert [row._replace(line=0) for row in csv.rows] == [row._replace(line=0) for row in jsonl.rows]
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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_labels_are_found_in_a_taxonomy_of_another_encoding_and_unicode_form(folder, encoding):
    root = folder("image,caption,labels,split", f"a.png,x,{COMPOSED};{DECOMPOSED},train")
    text = json.dumps({"food": [], DECOMPOSED: ["food"]}, ensure_ascii=False)
    (root / "taxonomy.json").write_text(text, encoding=encoding)
    dataset = opened(root)
    assert dataset.taxonomy.parents == {"food": (), COMPOSED: ("food",)}
    assert dataset.labels().toarray().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"animal": [], "pet": [], "dog": ["animal"], "dog": ["pet"]}', "it has the label 'dog' twice"),
        ('{"animal": {"dog": {}}, "dog": {}}', "label 'animal' has .* where a list of parents is expected"),
        ('{"dog": null}', "label 'dog' has None where a list of parents is expected"),
        ('["dog"]', "expected an object, found list"),
        ('{"dog": []', "Expecting"),
    ],
)
def test_what_is_no_taxonomy_is_refused(folder, content, message):
    root = folder("image,caption,labels,split", "a.png,x,dog,train")
    (root / "taxonomy.json").write_text(content)
    with pytest.raises(InvalidConfig, match=f"taxonomy.json is not a taxonomy: {message}"):
        opened(root)


def test_without_labels_there_is_no_taxonomy(folder):
    dataset = opened(folder("image,caption,split", "a.png,x,train"))
    assert dataset.taxonomy is None
    assert dataset.labels() is None


def test_editing_the_index_changes_the_identity(folder):
    root = folder("image,caption", "a.png,x")
    (root / "a.png").write_bytes(PNG)
    before = _identify(ImageFolderParams(root=str(root)))
    folder("image,caption", "a.png,y")
    assert _identify(ImageFolderParams(root=str(root))) != before


def test_a_copy_with_other_times_is_the_same_data(photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "copy", copy_function=shutil.copy)
    for path in copy.rglob("*"):
        os.utime(path, (0, 0))
    for digest in ("sample", "all"):
        one, other = (_identify(ImageFolderParams(root=str(root), digest=digest)) for root in (photos, copy))
        assert one == other


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
        (["image,text", "a.png,x"], "line 1: expected a header with columns image and caption, .* found 'image,text'"),
        (["caption", "x"], "line 1: expected a header with columns image and caption, .* found 'caption'"),
        (
            ["image|caption", "a.png|x"],
            "line 1: expected a header .* separated by ',', ';' or tab, found 'image|caption'",
        ),
        (["a.png,a dog"], "line 1: expected a header .* found 'a.png,a dog'"),
        (["image,caption,Caption", "a.png,x,y"], "line 1: expected one column 'caption', found 2"),
        (
            ["image,caption", "a.png,a dog, running"],
            r"line 2: expected 2 cells \(image, caption\), found 3: 'a.png,a dog,",
        ),
        (
            ["image,caption,labels", "a.png,a dog, running"],
            "line 2: the cell 'labels' begins with a space, as the rest of",
        ),
        (["image,caption,", "a.png,a dog,running"], "line 2: cell 3 holds running, and that column has no name"),
        (
            ["image,caption,labels", "a.png,x,", "b.png,y"],
            r"line 3: expected 3 cells \(image, caption, labels\), found 2",
        ),
        (["image,caption", "a.png,x", "b.png,y\rc.png,z"], "line 3: a cell holds a line end"),
        (["image,caption", '"a\nb.png",x', "c.png"], "line 4: expected 2 cells"),
        (["image,caption", "a.png,x", ",y"], "line 3: the cell 'image' is empty"),
        (["image,caption", "a.png,x", 'b.png,"a dog', "c.png,z"], "line 3: a quote opens here and is not closed"),
        (["image,caption", "a.png,x", 'b.png,"Hi" he said'], "line 3: a cell begins with a quote and goes on behind"),
        (["image,caption", f"a.png,{'x' * 140_000}"], "line 2: a cell has more than 131,072 characters"),
        (["image,caption,id", "a.png,x,1", "b.png,y,"], "line 3: the cell 'id' is empty, and earlier lines have one"),
        (["image,caption,id", "a.png,x,", "b.png,y,7"], "line 3: the cell 'id' is 7, and earlier lines have none"),
        (["image,caption,split", "a.png,x,train", "b.png,y,"], "line 3: the cell 'split' is empty"),
        (
            ["image,caption,id", "a.png,x,caf\u00e9", "b.png,y,cafe\u0301"],
            "line 3: expected unique ids, .* in line 2 too",
        ),
        (["image,caption,split", "a.png,x,trial"], "line 2: expected split train or test, found 'trial'"),
        (["image,caption,split", "a.png,x,train", "./a.png,y,test"], "line 3: expected one split per image, found"),
        (["image,caption,id", "a.png,x,1", "b.png,y,1"], "line 3: expected unique ids, found '1' in line 2 too"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(folder, lines, message):
    with pytest.raises(InvalidConfig, match=message):
        opened(folder(*lines))


@pytest.mark.filterwarnings("ignore:image-folder.*which is not read")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png", "capt', "line 1: expected a JSON object, found"),
        ("[1, 2]", "line 1: expected a JSON object"),
        ("[", r"line 1: expected a JSON object, found '\['"),
        ('{"image": "a.png", "text": "x"}', "line 1: expected a text 'caption', found columns image, text"),
        ('{"image": "a.png", "caption": "x", "labels": {"a": 1}}', "line 1: expected labels as a list of texts"),
        ('{"image": "a.png", "caption": "x", "labels": [["a"]]}', r"line 1: expected labels .* found \[\[\"a\"\]\]"),
        ('{"image": "a.png", "caption": true}', "line 1: expected a text in 'caption', found true"),
        ('{"image": "a.png", "caption": ["x", "y"]}', r"line 1: expected a text in 'caption', found \["),
        ('{"image": null, "caption": "x"}', "line 1: the cell 'image' is empty"),
        ('{"image": "a.png", "caption": "x", "caption": "y"}', "line 1: expected one column 'caption', found 2"),
        ('{"image": "a.png", "caption": "\\u0000"}', "line 1: the cell 'caption' holds a zero byte"),
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


ROWS = [("a.png", "a dog, running", ("x", "y")), ("b.png", "", ())]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("samples.csv", ["image,caption,labels", 'a.png,"a dog, running",x;y', "b.png,,"]),
        ("samples.csv", ["\u200b Image\u00a0,CAPTION,Labels", 'a.png,"a dog, running",x; y', "b.png,,"]),
        ("samples.csv", ["image, caption, labels", 'a.png, "a dog, running", x;y', "b.png, ,"]),
        ("samples.csv", ["image;caption;labels", 'a.png;a dog, running;"x;y"', "b.png;;"]),
        ("samples.csv", ["sep=;", "image;caption;labels", 'a.png;a dog, running;"x;y"', "b.png;;"]),
        ("Samples.CSV", ["image\tcaption\tlabels", "a.png\ta dog, running\tx;y", "b.png\t\t"]),
        ("samples.tsv", ["labels\tcaption\timage\tmore", "x;y\ta dog, running\ta.png\t3", "\t\tb.png\t"]),
        ("samples.csv", [",image,caption,labels", '0,a.png,"a dog, running","[\'x\', \'y\']"', "1,b.png,,"]),
        ("samples.csv", ["image,caption,labels,,", 'a.png,"a dog, running",x;y,,', "b.png,,,,"]),
        ("samples.csv", ["", "\ufeffimage,caption,labels", 'a.png,"a dog, running",x;y', "", "b.png,,"]),
        ("samples.jsonl", ['{"image": "a.png", "caption": "a dog, running", "labels": ["x", "y"]}',
                           '{"caption": null, "image": "b.png", "labels": null}']),
        ("samples.JSONL", ['{"Image": "a.png", "Caption ": "a dog, running", "labels": "x;y"}', "",
                           '{"image": "b.png", "caption": NaN, "more": {"A": 1, "a": 2}}']),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_every_dialect_of_a_table_says_the_same(tmp_path, name, lines, encoding, end):
    (tmp_path / name).write_bytes((end.join(lines) + end).encode(encoding))
    assert rows_of(tmp_path) == ROWS


def test_an_index_may_be_gzipped(tmp_path):
    (tmp_path / "all.CSV.gz").write_bytes(gzip.compress(b"image,caption\na.png,x\n"))
    assert rows_of(tmp_path, index="all.CSV.gz") == [("a.png", "x", ())]


def test_numbers_are_the_texts_that_they_are_written_as(folder):
    lines = ('{"image": "a.png", "caption": 7, "id": 0, "labels": [3, 5]}',
             '{"image": "b.png", "caption": 1.50, "id": 12345678901234567890.0, "labels": 4}')  # fmt: skip
    rows = read_index(ImageFolderParams(root=str(folder(*lines, name="samples.jsonl"))))
    assert [(row.id, row.caption, row.labels) for row in rows] == [
        ("0", "7", ("3", "5")),
        ("12345678901234567890.0", "1.50", ("4",)),
    ]


def test_a_text_that_says_nan_is_a_text(folder):
    assert [caption for _, caption, _ in rows_of(folder("image,caption", "a.png,nan", "b.png,None"))] == ["nan", "None"]


def test_rows_that_hold_no_sample_are_counted(folder):
    root = folder("image,caption", "a.png,x", ",", " , ", "image,caption", "b.png,y")
    with pytest.warns(UserWarning, match="left out rows") as warned:
        assert [image for image, _, _ in rows_of(root)] == ["a.png", "b.png"]
    assert [str(one.message).replace(str(root), "ROOT") for one in warned] == [
        "image-folder: left out rows of ROOT/samples.csv without any text: 2 (lines 3, 4)",
        "image-folder: left out rows of ROOT/samples.csv that repeat its header: 1 (lines 5)",
    ]


def test_labels_with_commas_are_one_label_each_which_is_said_or_they_are_split(folder):
    root = folder("image,caption,labels", 'a.png,x,"dog, cat"', 'b.png,y,"bird, fish;tree"')
    with pytest.warns(
        UserWarning, match=r"a comma and no ';', each of which is one label: 1, such as 'dog, cat'; to sp"
    ):
        assert [labels for _, _, labels in rows_of(root)] == [("dog, cat",), ("bird, fish", "tree")]
    assert [labels for _, _, labels in rows_of(root, label_separator=",")] == [("dog", "cat"), ("bird", "fish;tree")]


def test_half_a_character_is_counted(folder):
    root = folder('{"image": "a.png", "caption": "x \\ud83d"}', name="samples.jsonl")
    with pytest.warns(UserWarning, match=r"half of a character .* becomes '\?': 1 \(lines 1\)"):
        assert rows_of(root) == [("a.png", "x ?", ())]


def test_an_index_that_is_not_read_is_named(folder):
    folder('{"image": "b.png", "caption": "y"}', name="samples.jsonl")
    with pytest.warns(UserWarning, match=r"those of .*samples.csv; samples.jsonl beside it is not read"):
        assert len(rows_of(folder("image,caption", "a.png,x"))) == 1


def test_an_index_of_another_name_is_offered(folder):
    with pytest.raises(MissingData, match=r"has no samples.csv or samples.jsonl") as error:
        opened(folder("image,caption", "a.png,x", name="captions.csv"))
    assert "index=captions.csv" in error.value.hint


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("sub\\a.png", "sub/a.png"),
        ("./sub//a.png", "sub/a.png"),
        (" sub/a.png ", "sub/a.png"),
        ("{root}/sub/a.png", "sub/a.png"),
        ("../{name}/sub/a.png", "sub/a.png"),
        ("sub/../a.png", "a.png"),
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        ("a.jpg", "a.JPG"),
        ("sub\\a.png", "sub\\a.png"),
        ("a.png", " a.png"),
    ],
)
def test_an_image_is_found_however_its_path_is_written(photos, tmp_path, written, stored):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    shutil.copy(photos / "red-bar-0.png", root / stored)
    written = written.format(root=root, name=root.name)
    (root / "samples.csv").write_text(f"image,caption\n{written},x\n", encoding="utf-8")
    _identify(ImageFolderParams(root=str(root)))  # warns of images that are missing or not listed
    assert opened(root, holdout=0.0)[0].image().size == (64, 64)


def said(root, *modalities, **params):
    """Return a line for each problem that is found before anything slow begins."""
    spec = discover().dataset("image-folder")
    given = ImageFolderParams(root=str(root), **params)
    spec.identify(given)
    return spec.check(given, set(modalities or ("image", "text"))).lines()


def samples_of(root):
    return (root / "samples.csv").read_text().splitlines()


def test_two_spellings_of_one_image_are_one_image(folder):
    root = folder("image,caption", f"{COMPOSED},x", f"{DECOMPOSED},y", f"./{COMPOSED},z")
    (root / DECOMPOSED).write_bytes(PNG)
    _identify(ImageFolderParams(root=str(root)))
    dataset = opened(root, holdout=0.0)
    assert dataset.ids == [f"{COMPOSED}#{number}" for number in range(3)]
    assert set(dataset.groups) == {COMPOSED}
    (root / DECOMPOSED).unlink()
    root = folder("image,caption", "a.jpg,x", "a.JPG,y")
    (root / "a.JPG").write_bytes(PNG)
    assert said(root, holdout=0.5)[-1:] == ["line 2: 'a.JPG' and 'a.jpg' are one file, a.JPG"]


def test_empty_captions_are_counted_before_any_work_and_can_be_skipped(folder):
    lines = ['{"image": "a.png", "caption": null, "id": "x"}', '{"image": "a.png", "caption": "y", "id": "y"}']
    root = folder(*lines, name="samples.jsonl")
    (root / "a.png").write_bytes(PNG)
    assert said(root, "text", holdout=0.5)[-1] == "line 1: the caption of 'x' is empty"
    assert not any("caption" in line for line in said(root, "image"))
    with pytest.raises(BadSample, match="'x' has an empty caption"):
        opened(root, holdout=0.0)[0].text()


def test_missing_and_unlisted_images_are_counted_before_anything_is_read(photos):
    for name in ("red-bar-0.png", "blue-bar-1.png"):
        (photos / name).rename(photos / f"other-{name}")
    (photos / "._red-bar-1.png").write_bytes(b"what macOS leaves on other disks")
    with pytest.warns(UserWarning, match=r"2 of 60 images in .* such as other-blue-bar-1.png, other-red-bar-0.png"):
        lines = said(photos)
    places = {line.partition(",")[0]: number for number, line in enumerate(samples_of(photos), start=1)}
    names = sorted(("red-bar-0.png", "blue-bar-1.png"), key=places.__getitem__)
    assert lines == [f"line {places[name]}: no image '{name}' in the folder" for name in names]


@pytest.mark.parametrize("image", ["https://example.org/a.png", "x" * 5000, ".", "a.png/b.png"])
def test_what_cannot_be_a_file_of_the_folder_is_missing(folder, image):
    root = folder("image,caption,id", f"{image},x,1")
    (root / "a.png").write_bytes(PNG)
    assert said(root)[-1].startswith("line 2: no image '")
    with pytest.raises(BadSample, match="image not found"):
        opened(root, holdout=0.0)[0].image()


def test_a_file_name_that_is_no_utf8_can_be_listed(folder, photos):
    name = os.fsdecode(b"caf\xe9.png")
    root = folder(json.dumps({"image": name, "caption": "x"}), name="samples.jsonl")
    shutil.copy(photos / "red-bar-0.png", root / name)
    _identify(ImageFolderParams(root=str(root)))
    dataset = opened(root, holdout=0.0)
    assert dataset.ids == ["caf\\udce9.png#0"]
    assert dataset[0].image().size == (64, 64)


def test_a_label_missing_in_the_taxonomy_is_an_error_before_any_work(folder):
    root = folder("image,caption,labels", "a.png,x,poodle;cat;dog")
    (root / "taxonomy.json").write_text(json.dumps({"dog": []}))
    taxonomy = root / "taxonomy.json"
    (root / "a.png").write_bytes(PNG)
    assert said(root)[1:] == [f"line 2: the label '{label}' is not in {taxonomy}" for label in ("poodle", "cat")]


def test_all_that_is_wrong_with_a_folder_is_in_one_list_by_line(folder):
    """Twelve faults in ten lines: each line may have several, and a line at fault is looked at whole."""
    root = folder(
        "id,image,caption,labels,split",
        "a,a.png,x,cat,train",
        "a,missing.png,,dog,trian",  # a repeated id, a missing image, an empty caption, an unknown split
        "c,,x,cat,train",  # no image
        "d,a.png,x, with a comma,cat,train",  # a cell too many
        "e,empty.png,x,cat,",  # an empty image, and no split
        "f,photo.heic,x,cat,train",  # HEIC
        "g,a.png,x,cat,test",  # an image in two splits
        "h,b.png, ,cat,test",  # a blank caption
        "i,b.png,x,fish,test",  # a label that the taxonomy lacks
        "j,b.png,x,bird,test",  # a label that the taxonomy lacks
    )
    for name in ("a.png", "b.png", "photo.heic"):
        (root / name).write_bytes(PNG)
    (root / "empty.png").touch()
    (root / "taxonomy.json").write_text('{"cat": [], "dog": []}')
    starts = [
        (3, "expected split train or test, found 'trian'"),
        (3, "expected unique ids, found 'a' in line 2 too"),
        (3, "no image 'missing.png' in the folder"),
        (3, "the caption of 'line 3' is empty"),
        (4, "the cell 'image' is empty"),
        (5, "expected 5 cells (id, image, caption, labels, split), found 6"),
        (6, "the cell 'split' is empty, and earlier lines have one"),
        (6, "the image 'empty.png' is empty"),
        (7, "the image 'photo.heic' is HEIC, which is not read"),
        (8, "expected one split per image, found 'a.png' in train and in test"),
        (9, "the caption of 'h' is empty"),
        (10, "the label 'fish' is not in"),
        (11, "the label 'bird' is not in"),
    ]
    lines = said(root)
    assert len(lines) == len(starts)
    wrong = [one for one, (at, start) in zip(lines, starts, strict=True) if not one.startswith(f"line {at}: {start}")]
    assert wrong == []
    spec = discover().dataset("image-folder")
    problems = spec.check(ImageFolderParams(root=str(root)), {"image", "text"})
    assert (len(problems.grave), type(problems.joined())) == (8, InvalidConfig)
    assert "--skip-bad alone leaves out the 5 samples that cannot be read" in problems.joined().hint
    assert spec.open_readable is not None
    assert list(spec.open_readable(ImageFolderParams(root=str(root)), "test").ids) == ["i", "j"]
    assert list(spec.open_readable(ImageFolderParams(root=str(root)), "train").ids) == ["a"]


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")).map(str)
SAMPLES = st.lists(
    st.fixed_dictionaries({
        "caption": TEXTS,
        "labels": st.lists(TEXTS.map(lambda text: text.replace(";", "").strip()).filter(bool), max_size=3),
        "split": st.sampled_from(["train", "test"]),
    }),
    min_size=1,
    max_size=8,
)  # fmt: skip


def kept(samples):
    import unicodedata

    return [
        (f"{number}.png", one["caption"], tuple(dict.fromkeys(unicodedata.normalize("NFC", x) for x in one["labels"])))
        for number, one in enumerate(samples)
    ]


@pytest.mark.filterwarnings("ignore:image-folder. cells of labels")
@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, separator=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_whatever_a_csv_writer_writes_comes_back_whole(tmp_path_factory, samples, separator, end):
    file = io.StringIO(newline="")
    # With one of the two line ends, Python's writer leaves the other one in texts without quotes.
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(["id", "image", "labels", "split", "caption"])
    for number, one in enumerate(samples):
        writer.writerow([number, f"{number}.png", ";".join(one["labels"]), one["split"], one["caption"]])
    root = tmp_path_factory.getbasetemp() / "any-csv"
    root.mkdir(exist_ok=True)
    (root / "samples.csv").write_bytes(file.getvalue().encode())
    assert rows_of(root) == kept(samples)


@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, escaped=st.booleans())
def test_whatever_a_json_writer_writes_comes_back_whole(tmp_path_factory, samples, escaped):
    root = tmp_path_factory.getbasetemp() / "any-jsonl"
    root.mkdir(exist_ok=True)
    lines = [json.dumps({"image": f"{n}.png", **one}, ensure_ascii=escaped) for n, one in enumerate(samples)]
    (root / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="")
    assert rows_of(root) == kept(samples)


@settings(max_examples=30, deadline=None)
@given(samples=SAMPLES, cut=st.floats(0, 1))
def test_a_truncated_csv_never_loses_a_sample_silently(tmp_path_factory, samples, cut):
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(["caption", "image"])
    writer.writerows([one["caption"], f"{number}.png"] for number, one in enumerate(samples))
    content = file.getvalue().encode()
    root = tmp_path_factory.getbasetemp() / "cut-csv"
    root.mkdir(exist_ok=True)
    (root / "samples.csv").write_bytes(content[: int(cut * len(content))])
    whole = [(image, caption) for image, caption, _ in kept(samples)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left out is counted in one
            found = [(image, caption) for image, caption, _ in rows_of(root)]
    except (InvalidConfig, MissingData):
        return
    assert found == whole[: len(found)]  # the cut was between two rows


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['cat' 'dog']", ("cat", "dog")),
        ("['cat' 'dog' 'very long'\n 'other']", ("cat", "dog", "very long", "other")),
        ("[\"it's\" 'a']", ("it's", "a")),
        ("['it\\'s', 'a']", ("it's", "a")),
        ("['a', None]", ("a",)),
        ("['a' nan]", ("a",)),
        ('["a", null]', ("a",)),
        ('["\\ud83d\\ude00"]', ("\U0001f600",)),
        ("('a', 'b')", ("a", "b")),
        ("{'a'}", ("a",)),
        ("[1 2]", ("1", "2")),
        ("[]", ()),
        ("nan", ()),
        ("NaN", ()),
        ("<NA>", ()),
        ("nanny;nan", ("nanny", "nan")),
        ("(unsure)", ("(unsure)",)),
        ("[cat]", ("[cat]",)),
        ("a 'b' c", ("a 'b' c",)),
    ],
)
def test_lists_of_labels_in_a_cell_are_split_as_the_program_wrote_them(tmp_path, cell, labels):
    with (tmp_path / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption", "labels"], ["a.png", "x", cell]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [row.labels for row in read_index(ImageFolderParams(root=str(tmp_path)))] == [labels]


@pytest.mark.parametrize("cell", ["['a' 'b' ... 'y' 'z']", "['a''b']", "['a' b 'c']"])
def test_a_list_of_labels_that_cannot_be_read_is_named(tmp_path, cell):
    with (tmp_path / "samples.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption", "labels"], ["a.png", "x", "ok"], ["b.png", "x", cell]])
    with pytest.raises(InvalidConfig, match=r"samples\.csv, line 3: expected labels, found a list that cannot be read"):
        read_index(ImageFolderParams(root=str(tmp_path)))


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text.strip() == text)


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, unique=True), st.sampled_from(["numpy", "list", "json"]))
def test_whatever_list_of_labels_a_program_writes_comes_back_whole(labels, program):
    import numpy as np

    with np.printoptions(threshold=sys.maxsize):
        cell = {"numpy": str(np.array(labels, object)), "list": repr(labels), "json": json.dumps(labels)}[program]
    assert listed(cell) == labels


def test_labels_that_are_missing_in_some_cells_are_counted(folder):
    root = folder("image,caption,labels", "a.png,x,nan", "b.png,x,cat", "c.png,x,nan")
    with pytest.warns(UserWarning, match=r"such as nan, and are no label: 2 \(lines 2, 4\)"):
        assert [labels for *_, labels in rows_of(root)] == [(), ("cat",), ()]


def test_null_in_a_list_of_labels_is_no_label(folder):
    root = folder('{"image": "a.png", "caption": "x", "labels": ["a", null, 5]}', name="samples.jsonl")
    assert [labels for *_, labels in rows_of(root)] == [("a", "5")]


@pytest.mark.parametrize("name", ["val", "Validation", "valid", "dev"])
def test_rows_of_a_third_split_are_left_out_and_counted(photos, name):
    for letter in "abc":
        shutil.copy(next(photos.glob("*.png")), photos / f"third-{letter}.png")
    lines = ["image,caption,labels,split", "third-a.png,x,l,train", f"third-b.png,x,m,{name}", "third-c.png,x,n,test"]
    (photos / "samples.csv").write_text("\n".join(lines))
    (photos / "taxonomy.json").unlink()
    with pytest.warns(UserWarning, match=rf"left out rows of .* with split '{name.lower()}': 1 \(lines 3\)"):
        train, test = opened(photos), opened(photos, "test")
    assert (train.ids, test.ids) == (["third-a.png#0"], ["third-c.png#0"])
    assert train.taxonomy.labels == ("l", "n")
    with pytest.warns(UserWarning, match="not listed|left out") as warned:
        _identify(ImageFolderParams(root=str(photos)))
    assert not any("third-b.png" in str(one.message) for one in warned)


@pytest.mark.parametrize("name", ["taxonomy.json", "Taxonomy.json", "TAXONOMY.JSON"])
def test_a_taxonomy_is_found_in_any_case_of_its_name(folder, name):
    root = folder("image,caption,labels", "a.png,x,cat")
    before = [opened(root, holdout=0).taxonomy.labels, identity_of(root)]
    (root / name).write_text('{"cat": ["animal"], "animal": []}')
    assert set(opened(root, holdout=0).taxonomy.labels) == {"cat", "animal"} != set(before[0])
    assert identity_of(root) != before[1]


def identity_of(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _identify(ImageFolderParams(root=str(root)))


@pytest.mark.parametrize(
    ("columns", "meant"), [("label", "labels"), ("Tags", "labels"), ("lables", "labels"), ("splits", "split")]
)
def test_a_column_that_is_not_read_is_named_if_one_that_is_looks_like_it(folder, columns, meant):
    expected = rf"a column '{columns.lower()}', which is not read; if it is the column '{meant}', rename it"
    root = folder(f"image,caption,{columns}", "a.png,x,cat")
    with pytest.warns(UserWarning, match=expected):
        rows_of(root)
    records = [{"image": "a.png", "caption": "x"}, {"image": "b.png", "caption": "x", columns: "c"}]
    folder(*map(json.dumps, records), name="b.jsonl")
    with pytest.warns(UserWarning, match=rf"{expected}: 1 \(lines 2\)"):
        rows_of(root, index="b.jsonl")


def test_other_columns_are_not_named(folder):
    assert len(rows_of(folder("image,caption,labels,label,width", "a.png,x,cat,3,4"))) == 1


def test_a_header_of_other_names_says_which_to_rename(folder):
    with pytest.raises(InvalidConfig, match="expected a header") as error:
        rows_of(folder("filename,text", "a.png,x"))
    assert "'filename', which is not read; if it is the column 'image', rename it" in error.value.hint
    assert "'text', which is not read; if it is the column 'caption', rename it" in error.value.hint


@pytest.mark.parametrize("other", [DECOMPOSED, f" {COMPOSED}", f"{COMPOSED} "])
def test_two_files_whose_names_look_the_same_are_not_read_as_one(folder, photos, other):
    root = folder("image,caption", f"{COMPOSED},x")
    for name in (COMPOSED, other):
        shutil.copy(next(photos.glob("*.png")), root / name)
    assert rows_of(root) == [(COMPOSED, "x", ())]
    folder("image,caption", f"{COMPOSED},x", f'"{other}",y')
    with pytest.raises(InvalidConfig, match=r"line 3: the folder has .* and another file .* look the same"):
        rows_of(root)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("samples.tsv", ["image\tcaption", '000.png\t"5 foot man', '001.png\ttree of 6"', "002.png\tx"]),
        ("samples.csv", ["image,caption", '000.png,"5 foot man', '001.png,tree of 6"', "002.png,x"]),
        ("samples.csv", ["caption,image", '"5 foot man,000.png', 'tree of 6",001.png', "x,002.png"]),
        ("samples.tsv", ["image\tcaption\tlabels", '000.png\t"5 foot\ta', '001.png\ttree of 6"\tb', "002.png\tx\tc"]),
        ("samples.tsv", ["image\tcaption", '000.png\t"5', "001.png\ttree", '002.png\tx"', "003.png\ty"]),
    ],
)
def test_a_quote_that_would_swallow_a_row_is_named(folder, name, lines):
    with pytest.raises(InvalidConfig, match=rf"{name}, line 2: a quote opens here and takes in .*001\.png"):
        rows_of(folder(*lines, name=name))


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_quoted_text_may_have_many_lines_and_separators(folder, separator):
    text = f"a{separator}b\nc{separator}d.png\n\ne{separator}f"
    root = folder(f"image{separator}caption", f'0.png{separator}"{text}"')
    assert rows_of(root) == [("0.png", text, ())]


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (["// by hand", '{"image": "a.png", "caption": "x"}'], "JSON has no comments"),
        (['{"image": "a.png", "caption": "x",}'], "remove the comma before the closing bracket"),
        (["{", '"image": "a.png",', '"caption": "x"', "}"], "jq -c . samples.jsonl"),
        (['{"image": "a.png", "caption": "x"}{"image": "b.png", "caption": "y"}'], "jq -c . samples.jsonl"),
        (['[{"image": "a.png", "caption": "x"}]'], "jq -c '.[]' samples.jsonl"),
    ],
)
def test_json_of_another_form_says_how_to_write_it(folder, lines, hint):
    with pytest.raises(InvalidConfig, match=r"samples\.jsonl, line 1: expected a JSON object") as error:
        rows_of(folder(*lines, name="samples.jsonl"))
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("captions.txt", "it has captions.txt; if that is a table with columns image, caption"),
        ("samples.json", "jq -c '.[]' samples.json > samples.jsonl"),
        ("samples.csv.txt", "rename it to samples.csv"),
        ("mine.csv.txt", "rename it to mine.csv"),
        ("samples.xlsx", "save it as samples.csv"),
        ("samples.csv.gz", "index=samples.csv.gz"),
        ("notes.txt", "write one: columns image, caption"),
    ],
)
def test_a_file_that_looks_like_the_index_is_offered(folder, name, hint):
    root = folder("image,caption", "a.png,x", name=name)
    with pytest.raises(MissingData, match=r"has no samples\.csv") as error:
        rows_of(root)
    assert hint in error.value.hint


def test_an_image_is_no_index(folder):
    with pytest.raises(InvalidConfig, match=r"index=a\.png is an image, not a table"):
        rows_of(folder("image,caption", "a.png,x"), index="a.png")


@pytest.mark.parametrize("dataset", ["image-folder", "webdataset"])
@pytest.mark.parametrize("holdout", [-0.1, 1.5, math.nan, math.inf])
def test_a_fraction_that_is_none_is_refused(tmp_path, dataset, holdout):
    with pytest.raises(ValueError, match="holdout"):
        discover().dataset(dataset).params(root=str(tmp_path), holdout=holdout)


def test_images_that_are_empty_or_of_a_format_that_is_not_read_are_counted_before_any_work(photos):
    good = next(photos.glob("*.png"))
    lines = ["image,caption", f"{good.name},x"]
    for name in ("a.HEIC", "b.svg", "c.jpg"):
        (photos / name).write_bytes(b"" if name == "c.jpg" else b"x")
        lines.append(f"{name},x")
    (photos / "samples.csv").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="not listed"):
        lines = said(photos, holdout=0.5)
    assert [line for line in lines if "image-folder" not in line] == [
        "line 3: the image 'a.HEIC' is HEIC, which is not read",
        "line 4: the image 'b.svg' is SVG, which is not read",
        "line 5: the image 'c.jpg' is empty",
    ]


def test_without_a_test_split_a_third_one_is_offered_in_its_place(folder):
    root = folder("image,caption,split", "a.png,x,train", "b.png,x,val")
    with pytest.warns(UserWarning, match="left out rows"), pytest.raises(MissingData, match="split 'test'") as error:
        opened(root, "test")
    assert error.value.hint == "write test in place of val in the column 'split'"


def test_two_taxonomies_are_not_guessed_between(folder):
    root = folder("image,caption,labels", "a.png,x,cat")
    for name in ("Taxonomy.json", "TAXONOMY.json"):
        (root / name).write_text('{"cat": []}')
    with pytest.raises(InvalidConfig, match=r"has TAXONOMY\.json and Taxonomy\.json") as error:
        opened(root, holdout=0)
    assert error.value.hint == "call the one to read taxonomy.json"


WRONG = {
    2: "'',empty image,,train",
    4: "b.png,a caption, with a comma,x,train",
    5: "c.png,no more cells",
    7: "d.png,wrong split,,middle",
    9: "a.png,in another split,,test",
}


def test_all_lines_that_are_wrong_are_in_one_error_with_their_numbers(folder):
    lines = [f"{place}.png,fine,,train" for place in range(8)]
    lines[0] = "a.png,fine,,train"
    numbered = dict(enumerate(lines, start=2)) | {line: text.replace("''", "") for line, text in WRONG.items()}
    numbered[3] = "a.png,fine,,train"
    root = folder("image,caption,labels,split", *(numbered[line] for line in sorted(numbered)))
    with pytest.raises(InvalidConfig) as raised:
        read_index(ImageFolderParams(root=str(root)))
    assert raised.value.message == f"{root}/samples.csv, line 2: the cell 'image' is empty; and 4 more problems"
    assert [line.partition(":")[0] for line in raised.value.details] == ["line 4", "line 5", "line 7", "line 9"]
    again = pickle.loads(pickle.dumps(raised.value))
    assert (again.details, again.hint) == (raised.value.details, raised.value.hint)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_at_most_twenty_lines_are_shown_and_the_others_counted(folder, suffix):
    wrong = ["a.png,b,c"] * 50 if suffix == "csv" else ["{"] * 50
    root = folder(*(["image,caption"] if suffix == "csv" else []), *wrong, name=f"samples.{suffix}")
    with pytest.raises(InvalidConfig, match="; and 49 more problems") as raised:
        read_index(ImageFolderParams(root=str(root)))
    assert len(raised.value.details) == 20
    assert raised.value.details[-1] == "and 30 more"


def test_behind_a_quote_that_is_not_closed_nothing_is_called_wrong(folder):
    root = folder("image,caption", "a.png,b,c", 'b.png,"open', "c.png,d,e")
    with pytest.raises(InvalidConfig, match=r"line 2: expected 2 cells.*; and 1 more problem\n") as raised:
        read_index(ImageFolderParams(root=str(root)))
    assert raised.value.details == ("line 3: a quote opens here and is not closed",)


@given(st.sets(st.integers(0, 40)))
@settings(max_examples=30)
def test_exactly_the_lines_that_do_not_fit_are_named(tmp_path_factory, bad):
    root = tmp_path_factory.mktemp("index")
    lines = ["image,caption", *(f"{n}.png,{n}{',more' if n in bad else ''}" for n in range(41))]
    (root / "samples.csv").write_text("\n".join(lines))
    if not bad:
        assert len(read_index(ImageFolderParams(root=str(root)))) == 41
        return
    with pytest.raises(InvalidConfig) as raised:
        read_index(ImageFolderParams(root=str(root)))
    said = [raised.value.message.partition("samples.csv, ")[2], *raised.value.details]
    named = [int(one.partition(":")[0].removeprefix("line ")) for one in said[:20]]
    assert named == [n + 2 for n in sorted(bad)][:20]
    assert len(bad) <= 20 or said[20] == f"and {len(bad) - 20} more"


@pytest.mark.filterwarnings("ignore:image-folder")
def test_what_an_extraction_would_stop_at_is_known_before_with_its_lines(folder):
    root = folder("image,caption,split", "a.png,x,train", "b.png,,train", "c.heic,x,test", "d.png,x,test")
    for name in ("a.png", "b.png", "c.heic"):
        (root / name).write_bytes(PNG)
    spec = discover().dataset("image-folder")
    params = ImageFolderParams(root=str(root))
    spec.identify(params)
    lines = {
        "b": "line 3: the caption of 'b.png#0' is empty",
        "c": "line 4: the image 'c.heic' is HEIC, which is not read",
        "d": "line 5: no image 'd.png' in the folder",
    }
    assert spec.check(params, {"image", "text"}).lines() == list(lines.values())
    assert spec.check(params, {"text"}).lines() == [lines["b"]]
    assert spec.check(params, ["image"]).lines() == [lines["c"], lines["d"]]
    (root / "d.png").write_bytes(PNG)
    spec.identify(params)
    assert spec.check(params, ["image"]).lines() == [lines["c"]]
    assert discover().dataset("openmoji").check is None


def test_headers_of_images_say_what_is_no_image_and_what_is_too_large_before_an_extraction(folder, monkeypatch):
    monkeypatch.setattr(images, "_limits", ImageLimits(pixels=1000, side_ratio=20))
    names = ("good.png", "text.jpg", "page.jpg", "huge.png", "long.png", "cut.png")
    root = folder("image,caption,split", *(f"{name},x,train" for name in names), "deep/good.png,x,test")
    (root / "deep").mkdir()
    text, page = b"a caption in a file of the wrong name", b"<!doctype html><p>404"
    contents = (PNG, text, page, png((40, 30)), png((90, 3)), PNG[:-20], PNG)
    for name, content in zip((*names, "deep/good.png"), contents, strict=True):
        (root / name).write_bytes(content)
    spec, params = discover().dataset("image-folder"), ImageFolderParams(root=str(root))
    spec.identify(params)
    assert spec.check(params, ["text"]).lines() == []
    problems = spec.check(params, ["image"])
    assert problems.lines() == [
        "line 3: the image 'text.jpg' is a text, which is not read",
        "line 4: the image 'page.jpg' is a web page, as a failed download leaves it, which is not read",
        "line 5: the image 'huge.png' has 40 x 30 pixels, more than the limit of 1,000 in all",
        "line 6: the image 'long.png' has 90 x 3 pixels: its longer side is 30 times the shorter, more than the limit "
        "of 20",
    ]  # the pixels of cut.png are not read, so that its header says nothing
    assert "--max-pixels 1200" in problems.first[2].hint
    assert "--skip-bad" in problems.first[2].hint
    assert not problems.grave
    kept = spec.open_readable(params, "train")
    assert [kept[number].image_id for number in range(len(kept))] == ["good.png", "cut.png"]


def test_of_many_images_an_even_choice_of_headers_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr(images_of_folder, "HEADERS", 4)
    root = folder("image,caption", *(f"{number}.png,x" for number in range(8)))
    for number in range(8):
        (root / f"{number}.png").write_bytes(b"no image")
    assert list(images_of_folder.faults_of_heads(root, [f"{number}.png" for number in range(8)])) == [
        "0.png", "2.png", "4.png", "6.png"
    ]  # fmt: skip


def test_a_column_that_is_not_read_is_said_beside_what_is_wrong_with_the_rows(folder):
    root = folder("image,caption,label", "a.png,x,cat", "b.png,y")
    with pytest.warns(UserWarning, match=r"has a column 'label', which is not read; if it is the column 'labels'"):
        lines = said(root)
    assert [line for line in lines if line.startswith("line 3")] == [
        "line 3: expected 3 cells (image, caption, label), found 2: 'b.png,y'"
    ]
