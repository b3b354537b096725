"""Open Images with Localized Narratives: small copies of the official files, valid and broken."""

import gzip
import json
import os
import pickle  # noqa: TID251
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData
from sparc.plugins import same_name
from sparc.plugins.checks import check_dataset
from sparc.plugins.registry import discover
from sparc_plugins.open_images import OpenImages, OpenImagesParams, _identify, read_hierarchy
from sparc_plugins.open_images.labels import display, read_labels, read_names
from sparc_plugins.open_images.narratives import read_narratives

NARRATIVES = "open_images_{}_localized_narratives.jsonl"
SHARD = "open_images_train_v6_localized_narratives-{:05d}-of-00010.jsonl"
TRAIN_LABELS = "train-annotations-human-imagelabels-boxable.csv"
HEADER = "ImageID,Source,LabelName,Confidence"
A, B, C = "000000000000000a", "000000000000000b", "000000000000000c"

# Entity > animal > dog, entity > pet > house dog > dog, entity > pet. A dog has a tail, which is nothing but a part
# and comes as a bushy one; a leg is a part of a dog and a kind of thing too.
TAIL = {"LabelName": "/m/tail", "Subcategory": [{"LabelName": "/m/bushy"}]}
DOG = {"LabelName": "/m/dog", "Part": [TAIL, {"LabelName": "/m/leg"}]}
HIERARCHY = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {"LabelName": "/m/animal", "Subcategory": [DOG]},
        {"LabelName": "/m/pet", "Subcategory": [{"LabelName": "/m/house", "Subcategory": [{"LabelName": "/m/dog"}]}]},
        {"LabelName": "/m/thing", "Subcategory": [{"LabelName": "/m/leg"}]},
    ],
}
NAMES = ["/m/animal,Animal", "/m/pet,Pet", '/m/house,"Dog, of the house"', "/m/dog,Dog", "/m/thing,Thing"]
NAMES += ["/m/leg,Leg", "/m/tail,Tail", "/m/bushy,Tail", "/m/other,Other"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "open-images"


def narrative(image, caption, **changes):
    """Return a record in the format of the official files."""
    record = {
        "dataset_id": "open_images_train",
        "image_id": image,
        "annotator_id": 93,
        "caption": caption,
        "timed_caption": [{"utterance": "In this", "start_time": 0.0, "end_time": 0.4}],
        "traces": [[{"x": 0.2086, "y": -0.0533, "t": 0.022}]],
        "voice_recording": f"open_images_train/open_images_train_{image}_93.ogg",
    }
    return json.dumps(record | changes)


@pytest.fixture
def root(tmp_path):
    """A folder with one image in each of train and test."""
    for split, image in (("train", A), ("train", B), ("test", C)):
        (tmp_path / "oi" / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(tmp_path / "oi" / split / f"{image}.jpg")
    lines = [narrative(A, "a dog"), narrative(B, "a leg"), narrative(A, "the same dog")]
    write(tmp_path / "oi" / SHARD.format(0), *lines)
    write(tmp_path / "oi" / NARRATIVES.format("test"), narrative(C, "a tail"))
    return tmp_path / "oi"


@pytest.fixture
def labelled(root):
    """The same folder with labels of A and of an image without a narrative, but none of B."""
    (root / "bbox_labels_600_hierarchy.json").write_text(json.dumps(HIERARCHY))
    write(root / "class-descriptions-boxable.csv", *NAMES)
    rows = [f"{A},verification,/m/dog,1", f"{A},verification,/m/leg,0", f"{C},verification,/m/leg,1"]
    write(root / TRAIN_LABELS, HEADER, *rows)
    write(root / "test-annotations-human-imagelabels-boxable.csv", HEADER, f"{C},verification,/m/tail,1")
    return root


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def opened(root, split="train", **params):
    return OpenImages(OpenImagesParams(root=str(root), **params), split)


def captions(dataset):
    return [dataset[index].caption for index in range(len(dataset))]


def test_it_keeps_the_contract(labelled):
    check_dataset(discover().dataset("open-images"), {"root": str(labelled)})


def test_a_narrative_is_a_sample_and_those_of_one_image_are_a_group(root):
    dataset = opened(root)
    assert list(dataset.ids) == [f"{A}#0", f"{B}#0", f"{A}#1"]
    assert list(dataset.groups) == [A, B, A]
    assert captions(dataset) == ["a dog", "a leg", "the same dog"]
    assert [dataset[index].id for index in range(3)] == list(dataset.ids)
    assert [dataset[index].image_id for index in range(3)] == [A, B, A]
    assert dataset[1].image().size == (8, 6)
    assert dataset.ids[1:] == [f"{B}#0", f"{A}#1"]
    assert dataset.ids[-1] == f"{A}#1"
    assert captions(opened(root, "test")) == ["a tail"]


def test_shards_are_read_in_the_order_of_their_numbers_and_ids_go_on_through_them(root):
    write(root / SHARD.format(2), narrative(A, "third"))
    write(root / SHARD.format(1), narrative(B, "second"))
    dataset = opened(root)
    assert captions(dataset)[3:] == ["second", "third"]
    assert list(dataset.ids)[3:] == [f"{B}#1", f"{A}#2"]


def test_many_narratives_of_an_image_are_numbered_in_the_order_of_the_file(root):
    write(root / SHARD.format(0), *(narrative((A, B, A)[number % 3], f"{number}") for number in range(300)))
    dataset = opened(root)
    assert captions(dataset) == [str(number) for number in range(300)]
    assert [name for name in dataset.ids if name.startswith(A)] == [f"{A}#{number}" for number in range(200)]
    assert [name for name in dataset.ids if name.startswith(B)] == [f"{B}#{number}" for number in range(100)]


def test_the_file_of_captions_alone_is_read_rather_than_the_long_ones(root):
    short = {"dataset_id": "open_images_train", "image_id": B, "annotator_id": 1, "caption": "short"}
    write(root / "open_images_train_v6_captions.jsonl", json.dumps(short))
    assert captions(opened(root)) == ["short"]


def test_validation_can_be_opened_too_and_other_splits_cannot(root):
    write(root / NARRATIVES.format("validation"), narrative(B, "x"))
    (root / "train").rename(root / "images")
    assert list(opened(root, "validation").ids) == [f"{B}#0"]
    with pytest.raises(InvalidConfig, match="no split 'dev'"):
        opened(root, "dev")


@pytest.mark.parametrize(
    "lines",
    [
        [narrative(A, 'says "hi" \\ \n in Zürich 🐕')],
        [json.dumps(json.loads(narrative(A, 'says "hi" \\ \n in Zürich 🐕')), ensure_ascii=False)],
        [json.dumps(json.loads(narrative(A, 'says "hi" \\ \n in Zürich 🐕')), separators=(",", ":"))],
        [json.dumps(json.loads(narrative(A, 'says "hi" \\ \n in Zürich 🐕')), sort_keys=True)],
        ["", narrative(A, 'says "hi" \\ \n in Zürich 🐕'), "  "],
    ],
    ids=["official", "not escaped", "compact", "other order", "blank lines"],
)
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_caption_is_the_same_however_its_record_is_written(root, lines, start, end):
    content = start + end.join(lines).encode()
    (root / SHARD.format(0)).write_bytes(content)
    assert captions(opened(root)) == ['says "hi" \\ \n in Zürich 🐕']
    (root / SHARD.format(0)).unlink()
    (root / f"{SHARD.format(0)}.gz").write_bytes(gzip.compress(content + end.encode()))
    assert captions(opened(root)) == ['says "hi" \\ \n in Zürich 🐕']


def test_what_a_trace_or_a_caption_says_is_not_taken_for_a_caption(root):
    fooled = '", "caption": "fooled", "timed'
    write(root / SHARD.format(0), narrative(A, f"x{fooled}"), narrative(B, "y", voice_recording=fooled))
    assert captions(opened(root)) == [f"x{fooled}", "y"]


def test_an_empty_caption_stays_a_sample_that_says_so(root):
    write(root / SHARD.format(0), narrative(A, ""), narrative(B, "b"))
    dataset = opened(root)
    assert captions(dataset) == ["", "b"]
    with pytest.raises(BadSample, match=rf"'{A}#0' has an empty caption"):
        dataset[0].text()


@pytest.mark.parametrize(
    "line",
    [
        narrative(B, "cut off")[:-20],
        narrative(B, "cut off")[:40],
        json.dumps({"image_id": B}),
        json.dumps({"image_id": 7, "caption": "x"}),
        json.dumps({"image_id": "", "caption": "x"}),
        narrative(B, 7),
        narrative("half \ud800", "x"),
        "[1, 2]",
        narrative(B, "x").replace('"x"', r'"\x"'),
        narrative(B, "x").replace('"x"', '"a\tb"'),
    ],
)
def test_a_line_that_is_no_narrative_is_named(root, line):
    write(root / SHARD.format(0), narrative(A, "fine"), line)
    with pytest.raises(CorruptFile, match=r"v6_localized_narratives-00000-of-00010.jsonl, line 2: expected a JSON"):
        opened(root)


def test_bytes_that_are_not_utf8_are_named_by_line(root):
    bad = narrative(B, "x").encode().replace(b'"x"', b'"\xff\xfe"')
    (root / SHARD.format(0)).write_bytes(narrative(A, "fine").encode() + b"\n" + bad)
    with pytest.raises(CorruptFile, match=r"line 2: expected a JSON"):
        opened(root)


def test_a_truncated_gzip_is_named(root):
    whole = gzip.compress("\n".join(narrative(A, f"{number} {os.urandom(9)}") for number in range(99)).encode())
    (root / SHARD.format(0)).unlink()
    (root / f"{SHARD.format(0)}.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptFile, match=r"00010.jsonl.gz is truncated or altered"):
        opened(root)


def test_a_file_that_is_there_plain_and_gzipped_is_read_once(root):
    (root / f"{SHARD.format(0)}.gz").write_bytes(gzip.compress((root / SHARD.format(0)).read_bytes()))
    assert len(opened(root)) == 3


def test_a_file_is_parsed_once_and_anew_when_it_or_its_cache_changes(root, cache):
    path = root / SHARD.format(0)
    opened(root)
    (cached,) = cache.glob(f"{path.name}-*.npz")
    kept = cached.read_bytes()
    assert captions(opened(root))[0] == "a dog"
    assert [one.read_bytes() for one in cache.glob(f"{path.name}-*.npz")] == [kept]
    path.write_bytes(path.read_bytes().replace(b"a dog", b"a cat"))
    assert captions(opened(root))[0] == "a cat"
    (anew,) = set(cache.glob(f"{path.name}-*.npz")) - {cached}
    for damaged in (kept[:-30], kept[:50], b""):
        anew.write_bytes(damaged)
        assert captions(opened(root))[0] == "a cat"


def test_narratives_without_an_image_are_an_error_that_counts_them(root):
    write(root / SHARD.format(1), *(narrative(f"{number:016x}", "x") for number in range(100, 105)))
    with pytest.raises(
        MissingData, match=r"5 of 8 narratives of the split 'train' have no image in .*train, such as"
    ) as e:
        opened(root)
    assert "0000000000000064.jpg, 0000000000000065.jpg, 0000000000000066.jpg" in e.value.message
    assert "0000000000000067" not in e.value.message
    assert "missing=skip" in e.value.hint


def test_narratives_without_an_image_can_be_left_out_and_then_the_others_keep_their_ids(labelled):
    (labelled / "train" / f"{B}.jpg").unlink()
    with pytest.warns(UserWarning, match=r"left out 1 of 3 narratives of the split 'train'"):
        dataset = opened(labelled, missing="skip")
    assert list(dataset.ids) == [f"{A}#0", f"{A}#1"]
    assert captions(dataset) == ["a dog", "the same dog"]
    assert dataset.labels().shape == (2, 9)


def test_leaving_out_everything_is_an_error(root):
    for image in (root / "train").iterdir():
        image.unlink()
    with pytest.raises(MissingData, match="3 of 3 narratives"):
        opened(root, missing="skip")


def test_an_image_without_a_narrative_is_no_sample(root):
    Image.new("RGB", (8, 6)).save(root / "train" / f"{C}.jpg")
    assert C not in list(opened(root).groups)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".PNG"])
def test_an_image_may_have_another_suffix(root, suffix):
    (root / "train" / f"{B}.jpg").rename(root / "train" / f"{B}{suffix}")
    shutil.copy(root / "train" / f"{A}.jpg", root / "train" / f"{A}.JPEG")  # the published name wins
    (root / "train" / ".DS_Store").write_bytes(b"what macOS leaves")
    dataset = opened(root)
    assert dataset[1].image().size == (8, 6)
    (root / "train" / f"{A}.JPEG").write_bytes(b"")
    assert dataset[0].image().size == (8, 6)
    assert pickle.loads(pickle.dumps(dataset))[1].image().size == (8, 6)


def test_an_image_that_is_gone_after_opening_is_a_bad_sample(root):
    dataset = opened(root)
    (root / "train" / f"{A}.jpg").unlink()
    with pytest.raises(BadSample, match=rf"image not found: .*{A}.jpg"):
        dataset[0].image()


@pytest.mark.parametrize("image", ["../test/000000000000000c", "train/x", "."])
def test_an_id_that_is_a_path_finds_no_image(root, image):
    write(root / SHARD.format(0), narrative(image, "x"))
    with pytest.raises(MissingData, match="1 of 1 narratives"):
        opened(root)


def test_files_that_are_not_there_are_named_and_where_they_come_from(tmp_path, root):
    with pytest.raises(MissingData, match=r"no folder at .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(MissingData, match=r"has no open_images_validation_localized_narratives\*.jsonl or") as error:
        opened(root, "validation")
    assert error.value.hint == "download it from the site of Localized Narratives"
    write(root / NARRATIVES.format("validation"), narrative(B, "x"))
    with pytest.raises(MissingData, match=r"has no folder validation or images, with validation/<image id>.jpg"):
        opened(root, "validation")
    (root / NARRATIVES.format("test")).write_text("")
    with pytest.raises(MissingData, match=r"open_images_test_localized_narratives.jsonl has no narratives"):
        opened(root, "test")


def test_narratives_of_other_data_are_not_read(root):
    write(root / "coco_train_localized_narratives-00000-of-00004.jsonl", narrative(B, "coco"))
    write(root / f"{SHARD.format(3)}.part", narrative(B, "half"))
    assert len(opened(root)) == 3


def test_each_occurrence_of_a_class_adds_a_parent_and_parts_are_no_kinds(labelled):
    taxonomy = read_hierarchy(labelled / "bbox_labels_600_hierarchy.json")
    assert taxonomy.parents == {
        "/m/0bl9f": (),
        "/m/animal": ("/m/0bl9f",),
        "/m/dog": ("/m/animal", "/m/house"),
        "/m/tail": (),
        "/m/bushy": ("/m/tail",),
        "/m/leg": ("/m/thing",),
        "/m/pet": ("/m/0bl9f",),
        "/m/house": ("/m/pet",),
        "/m/thing": ("/m/0bl9f",),
    }
    assert taxonomy.depth("/m/dog") == 3
    assert taxonomy.lift("/m/dog", 1) == "/m/pet"
    assert taxonomy.lift("/m/bushy", 0) == "/m/tail"
    assert taxonomy.depth("/m/leg") == 2


def node(label, *below, part=()):
    return {"LabelName": label, "Subcategory": list(below), "Part": list(part)}


BRUSH = node("brush")


@pytest.mark.parametrize(
    ("below_root", "parents"),
    [
        # root > building, root > care > brush, root > tool > brush; a tool is also part of a building.
        (
            [node("building", part=[node("tool", BRUSH)]), node("care", BRUSH), node("tool", BRUSH)],
            ("care", "tool"),
        ),
        # The part holds the brush in a class that the file has nowhere else; that class is no deeper than `care`.
        ([node("building", part=[node("handle", node("grip", BRUSH))]), node("care", BRUSH)], ("care", "grip")),
        # Parents outside of parts keep the order of the file.
        ([node("tool", BRUSH), node("building", part=[node("tool", BRUSH)]), node("care", BRUSH)], ("tool", "care")),
        # A part of a part.
        ([node("a", part=[node("b", part=[node("tool", BRUSH)])]), node("care", BRUSH)], ("care", "tool")),
    ],
)
def test_parents_outside_of_parts_come_before_those_in_parts(tmp_path, below_root, parents):
    path = tmp_path / "hierarchy.json"
    path.write_text(json.dumps(node("root", *below_root)))
    taxonomy = read_hierarchy(path)
    assert taxonomy.parents["brush"] == parents
    assert taxonomy.lift("brush", 1) == parents[0]


@given(st.data())
def test_a_hierarchy_that_was_written_comes_back_whole(tmp_path_factory, data):
    """Each class has one or two places: below an earlier class, or as a part of one."""
    names = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=6, unique=True))
    places = {
        number: data.draw(st.dictionaries(st.integers(0, number - 1), st.booleans(), min_size=1, max_size=2))
        for number in range(1, len(names))
    }
    edges = {True: set(), False: set()}
    for number, above in places.items():
        for parent, is_part in above.items():
            edges[is_part].add((parent, number))

    def written(number):
        below, parts = (
            [written(child) for parent, child in sorted(edges[is_part]) if parent == number]
            for is_part in (False, True)
        )
        return {"LabelName": names[number], "Subcategory": below, "Part": parts}

    path = tmp_path_factory.mktemp("written") / "hierarchy.json"
    text = json.dumps(written(0), ensure_ascii=data.draw(st.booleans()))
    path.write_bytes(text.encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))))
    taxonomy = read_hierarchy(path)
    outside = {0}  # classes that some path reaches without a part
    for parent, number in sorted(edges[False], key=lambda edge: edge[1]):
        outside |= {number} if parent in outside else set()
    assert set(taxonomy.labels) == set(names)
    for number, name in enumerate(names):
        above = [names.index(parent) for parent in taxonomy.parents[name]]
        assert sorted(above) == sorted(parent for parent, child in edges[False] if child == number)
        assert [parent in outside for parent in above] == sorted((parent in outside for parent in above), reverse=True)


def test_a_hierarchy_may_be_gzipped_and_have_a_bom_and_crlf(tmp_path):
    path = tmp_path / "bbox_labels_600_hierarchy.json.gz"
    path.write_bytes(gzip.compress(json.dumps(HIERARCHY, indent=1).replace("\n", "\r\n").encode("utf-8-sig")))
    assert len(read_hierarchy(path).labels) == 9


@pytest.mark.parametrize(
    "content",
    [
        '{"LabelName": "/m/a", "Subcat',
        '{"Subcategory": []}',
        "[1]",
        '{"LabelName": ["/m/a"]}',
        '{"LabelName": "/m/a", "Subcategory": [{"LabelName": "/m/b", "Subcategory": [{"LabelName": "/m/a"}]}]}',
    ],
)
def test_what_is_no_hierarchy_is_refused(tmp_path, content):
    (tmp_path / "h.json").write_text(content)
    with pytest.raises(CorruptFile, match=r"h.json is not a hierarchy"):
        read_hierarchy(tmp_path / "h.json")


def test_labels_are_shown_by_name_and_classes_of_one_name_are_kept_apart(labelled):
    taxonomy = opened(labelled).taxonomy
    assert taxonomy.labels == (
        *("Entity", "Animal", "Dog", "Tail (/m/tail)", "Tail (/m/bushy)"),
        *("Leg", "Pet", "Dog, of the house", "Thing"),
    )
    assert taxonomy.parents["Dog"] == ("Animal", "Dog, of the house")
    assert taxonomy.parents["Tail (/m/bushy)"] == ("Tail (/m/tail)",)


def test_a_class_without_a_name_is_shown_by_its_id(labelled):
    hierarchy = read_hierarchy(labelled / "bbox_labels_600_hierarchy.json")
    assert display(hierarchy, {"/m/dog": "Dog"}).labels[1:3] == ("/m/animal", "Dog")


@pytest.mark.parametrize("header", [[], ["LabelName,DisplayName"]], ids=["V4", "V6"])
def test_class_descriptions_have_a_header_or_not_and_names_in_utf8(tmp_path, header):
    path = tmp_path / "oidv6-class-descriptions.csv"
    path.write_bytes("\r\n".join([*header, "/m/a,Café", '/m/b,"Dog, wild"', "/m/a,again", ""]).encode("utf-8-sig"))
    assert read_names([path]) == {"/m/0bl9f": "Entity", "/m/a": "Café", "/m/b": "Dog, wild"}


def test_a_class_description_without_a_name_is_named_by_its_line(tmp_path):
    write(tmp_path / "names.csv", "/m/a,Cat", "/m/b")
    with pytest.raises(CorruptFile, match=r"names.csv, line 2: expected LabelName,DisplayName, found '/m/b'"):
        read_names([tmp_path / "names.csv"])


def test_labels_follow_the_samples_and_only_what_is_verified_to_be_there_counts(labelled):
    dataset = opened(labelled)
    column = {label: number for number, label in enumerate(dataset.taxonomy.labels)}
    labels = dataset.labels().toarray()
    assert labels.shape == (3, 9)
    assert labels[:, column["Dog"]].tolist() == [1, 0, 1]
    assert labels.sum() == 2
    (other,) = opened(labelled, "test").labels().toarray()
    assert other.nonzero()[0].tolist() == [column["Tail (/m/tail)"]]


def test_labels_of_all_files_count_once_whatever_their_version(labelled):
    write(labelled / "oidv7-train-annotations-human-imagelabels.csv", HEADER, f"{A},verification,/m/dog,1.0")
    write(labelled / "oidv6-train-annotations-human-imagelabels.csv", HEADER, f"{B},crowdsource,/m/leg,1")
    write(labelled / "oidv6-train-annotations-machine-imagelabels.csv", HEADER, f"{B},machine,/m/tail,1")
    labels = opened(labelled).labels()
    assert labels.data.tolist() == [1, 1, 1]
    assert labels.sum(axis=1).tolist() == [1, 1, 1]


def test_columns_may_come_in_another_order(labelled):
    write(labelled / TRAIN_LABELS, "Confidence, LabelName ,ImageID,Source", f"1,/m/leg,{B},x", f"0,/m/dog,{A},x")
    write(labelled / "class-descriptions-boxable.csv", "DisplayName,LabelName", "The leg,/m/leg")
    dataset = opened(labelled)
    column = dataset.taxonomy.labels.index("The leg")
    assert dataset.labels().toarray()[:, column].tolist() == [0, 1, 0]
    assert dataset.labels().sum() == 1


def test_files_are_found_in_any_case_of_their_names(labelled):
    (labelled / TRAIN_LABELS).rename(labelled / TRAIN_LABELS.upper())
    path = labelled / f"{SHARD.format(0).replace('.jsonl', '.JSONL')}.GZ"
    path.write_bytes(gzip.compress((labelled / SHARD.format(0)).read_bytes()))
    (labelled / SHARD.format(0)).unlink()
    assert captions(opened(labelled)) == ["a dog", "a leg", "the same dog"]
    assert opened(labelled).labels().sum() == 2


@pytest.mark.parametrize("line", [f'{A},verification,"/m/dog,1', f"{A},verification,/m/dog,1,1", f'{A},x,"/m/"dog,1'])
def test_a_label_line_of_another_shape_never_swallows_others(labelled, line):
    write(labelled / TRAIN_LABELS, HEADER, line, f"{B},verification,/m/leg,1")
    with pytest.raises(CorruptFile, match=r"boxable.csv"):
        opened(labelled).labels()


def test_validation_labels_of_v7_are_called_val(labelled):
    write(labelled / NARRATIVES.format("validation"), narrative(B, "x"))
    (labelled / "train").rename(labelled / "images")
    write(labelled / "oidv7-val-annotations-human-imagelabels.csv", HEADER, f"{B},verification,/m/leg,1.0")
    assert opened(labelled, "validation").labels().sum() == 1


def test_labels_outside_the_hierarchy_are_left_out_and_counted(labelled, tmp_path):
    rows = [f"{A},verification,/m/other,1", f"{A},verification,/m/nobody-knows,1", f"{A},verification,/m/other,0"]
    write(labelled / TRAIN_LABELS, HEADER, *rows, f"{A},verification,/m/leg,1")
    dataset = opened(labelled)
    assert dataset.labels().sum() == 2
    matrix, outside = read_labels(dataset.files.labels, np.array([A, B], np.bytes_), {"/m/leg": 0})
    assert (matrix.toarray().tolist(), outside) == ([[1], [0]], 2)


def test_labels_that_all_lie_outside_the_hierarchy_are_refused(labelled):
    write(labelled / TRAIN_LABELS, HEADER, f"{A},verification,/m/other,1")
    with pytest.raises(InvalidConfig, match=r"hierarchy.json has none of the 1 labels in .*boxable.csv"):
        opened(labelled).labels()


def test_no_labels_at_all_are_fine(labelled):
    write(labelled / TRAIN_LABELS, HEADER)
    assert opened(labelled).labels().nnz == 0


def test_labels_are_read_gzipped_with_a_bom_and_crlf(labelled):
    content = (labelled / TRAIN_LABELS).read_text().replace("\n", "\r\n").encode("utf-8-sig")
    (labelled / TRAIN_LABELS).unlink()
    (labelled / f"{TRAIN_LABELS}.gz").write_bytes(gzip.compress(content))
    assert opened(labelled).labels().sum() == 2
    (labelled / f"{TRAIN_LABELS}.gz").write_bytes(gzip.compress(content)[:40])
    with pytest.raises(CorruptFile, match="truncated or altered"):
        opened(labelled).labels()


def test_a_label_line_that_makes_no_sense_is_named(labelled):
    write(labelled / TRAIN_LABELS, HEADER, f"{A},verification,/m/dog,1", f"{A},verif")
    with pytest.raises(CorruptFile, match=r"boxable.csv, line 3: expected ImageID,Source,LabelName,Confidence, found"):
        opened(labelled).labels()
    write(labelled / TRAIN_LABELS, f"{A},verification,/m/dog,1")
    with pytest.raises(CorruptFile, match=r"boxable.csv, line 1: expected ImageID"):
        opened(labelled).labels()


def test_without_any_file_of_labels_the_dataset_is_not_labelled(root):
    dataset = opened(root)
    assert dataset.taxonomy is None
    assert dataset.labels() is None


def test_a_part_of_what_labels_take_is_an_error_that_names_the_rest(labelled):
    (labelled / TRAIN_LABELS).unlink()
    with pytest.raises(MissingData, match=rf"has no {TRAIN_LABELS} or oidv7-train-annotations-human-imagelabels.csv"):
        opened(labelled).labels()
    (labelled / "class-descriptions-boxable.csv").rename(labelled / "kept")
    with pytest.raises(MissingData, match=r"has no class-descriptions-boxable.csv or"):
        opened(labelled)
    (labelled / "kept").rename(labelled / "class-descriptions-boxable.csv")
    (labelled / "bbox_labels_600_hierarchy.json").unlink()
    with pytest.raises(MissingData, match=r"has no bbox_labels_600_hierarchy.json"):
        opened(labelled)


def test_the_dataset_can_be_sent_to_a_worker_process(labelled):
    dataset = opened(labelled)
    copy = pickle.loads(pickle.dumps(dataset))
    assert list(copy.ids) == list(dataset.ids)
    assert captions(copy) == captions(dataset)
    assert copy[0].image().size == (8, 6)
    assert copy.labels().sum() == 2


def identity(root, **params):
    return _identify(OpenImagesParams(root=str(root), **params))


def test_editing_narratives_changes_the_identity_and_moving_the_folder_or_adding_labels_does_not(root, tmp_path):
    before = identity(root)
    (root / "bbox_labels_600_hierarchy.json").write_text(json.dumps(HIERARCHY))
    write(root / "class-descriptions-boxable.csv", *NAMES)
    write(root / "test-annotations-human-imagelabels-boxable.csv", HEADER)
    assert identity(root) == before
    moved = root.rename(tmp_path / "moved")
    assert identity(moved) == before
    write(moved / NARRATIVES.format("test"), narrative(C, "another tail"))
    assert identity(moved) != before


def test_a_copy_with_other_times_is_the_same_data(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    for path in copy.rglob("*"):
        os.utime(path, (0, 0))
    for params in ({}, {"missing": "skip"}, {"digest": "all"}):
        assert identity(copy, **params) == identity(root, **params)


def test_adding_images_changes_the_identity_where_narratives_without_one_are_left_out(root):
    strict, lenient = identity(root), identity(root, missing="skip")
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "Thumbs.db").write_bytes(b"x")
    assert identity(root, missing="skip") == lenient
    (root / "train" / f"{C}.jpg").write_bytes(b"")
    assert identity(root) == strict
    assert identity(root, missing="skip") != lenient


def test_what_an_evaluation_will_miss_is_said_before_any_work(labelled):
    (labelled / "test-annotations-human-imagelabels-boxable.csv").unlink()
    with pytest.raises(MissingData, match=r"has no test-annotations-human-imagelabels-boxable.csv"):
        identity(labelled)


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.tuples(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), TEXTS), min_size=1, max_size=6),
    escaped=st.booleans(),
    separators=st.sampled_from([(", ", ": "), (",", ":")]),
    keys=st.permutations(["dataset_id", "image_id", "annotator_id", "caption", "traces"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_a_writer_of_narratives_writes_comes_back_whole(
    tmp_path_factory, records, escaped, separators, keys, end
):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    others = {"dataset_id": "x", "annotator_id": 1, "traces": [{"x": 1.0}]}
    lines = []
    for image, caption in records:
        fields = {**others, "image_id": image, "caption": caption}
        record = {key: fields[key] for key in keys}
        lines.append(json.dumps(record, ensure_ascii=escaped, separators=separators))
    path.write_bytes(end.join([*lines, ""]).encode())
    found = read_narratives([path])
    assert [(image.decode(), found.caption(place)) for place, image in enumerate(found.images)] == [
        (same_name(image), caption) for image, caption in records
    ]


@pytest.mark.parametrize("fast", [True, False])
def test_captions_that_are_null_or_have_half_a_character_are_counted_at_each_opening(root, fast):
    nan = narrative(A, "NOTHING").replace('"NOTHING"', "NaN")
    half = narrative(B, "half \ud800 of it") if fast else json.dumps({"caption": "half \ud800 of it", "image_id": B})
    write(root / SHARD.format(0), narrative(A, None), half, nan)
    for _ in range(2):
        with pytest.warns(UserWarning, match="captions of") as warned:
            assert captions(opened(root)) == ["", "half ? of it", ""]
        null, halves = sorted((str(one.message) for one in warned), key=len)
        assert null.endswith("captions of " + str(root / SHARD.format(0)) + " that are null, and are empty: 2")
        assert halves.endswith("(a lone surrogate), which becomes '?': 1")


@pytest.mark.parametrize("suffix", ["jpg", "PNG"])
@pytest.mark.parametrize(("written", "stored"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_an_id_of_another_unicode_form_finds_its_image_and_labels(labelled, suffix, written, stored):
    Image.new("RGB", (7, 5)).save(labelled / "train" / f"{stored}.{suffix}", "png")
    write(labelled / SHARD.format(0), narrative(written, "a dog"), narrative(A, "x"))
    write(labelled / TRAIN_LABELS, HEADER, f"{stored},verification,/m/dog,1")
    dataset = opened(labelled)
    assert list(dataset.ids) == ["caf\u00e9#0", f"{A}#0"]
    assert dataset[0].image().size == (7, 5)
    assert dataset.labels().sum(axis=1).tolist() == [1, 0]


def test_two_images_whose_names_look_the_same_are_refused_if_a_narrative_means_them(root):
    for name in ("caf\u00e9", "cafe\u0301"):
        Image.new("RGB", (7, 5)).save(root / "train" / f"{name}.jpg")
    assert len(opened(root)) == 3
    write(root / SHARD.format(0), narrative("cafe\u0301", "x"))
    with pytest.raises(InvalidConfig, match=r"two files 'caf\u00e9\.jpg', whose names look the same"):
        opened(root)
