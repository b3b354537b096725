"""MS-COCO in its published layout, valid and broken."""

import gzip
import json
import pickle  # noqa: TID251
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as tools

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData
from sparc.localization.benchmark import cases_of
from sparc.plugins import SegmentedDataset, install
from sparc.plugins.checks import check_dataset
from sparc.plugins.images import DEFAULT_LIMITS, ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc_plugins.coco import Coco, CocoParams, _identify, read_captions
from sparc_plugins.coco.outlines import draw_mask

CATEGORIES = {
    18: ("animal", "dog"),
    1: ("person", "person"),
    3: ("vehicle", "car"),
    2: ("vehicle", "bicycle"),
}
LABELS = ("person", "vehicle", "bicycle", "car", "animal", "dog")
WIDTH, HEIGHT = 8, 6
BOX = [[2, 1, 6, 1, 6, 4, 2, 4]]
"""Left 2, top 1, right 6, bottom 4: columns 2 to 5 and rows 1 to 3."""
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:coco. [0-9]+ of [0-9]+ images do not exist:UserWarning"),
    pytest.mark.filterwarnings("ignore:coco. [0-9]+ images in .* are not listed:UserWarning"),
]
PREFIX = {2017: "", 2014: "COCO_train2014_"}


def opened(root, split="train", **params):
    return Coco(CocoParams(root=str(root), **params), split)


def inside(rows, columns):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[rows, columns] = True
    return mask.tolist()


def annotations(key, numbers, found, *, year=2017, **more):
    """Return an annotation file with all published fields, including those that nobody reads."""
    images = [
        {
            "license": 3,
            "file_name": f"{PREFIX[year]}{number:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/train{year}/{number:012d}.jpg",
            "height": HEIGHT,
            "width": WIDTH,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": "http://farm9.staticflickr.com/1/2.jpg",
            "id": number,
        }
        for number in numbers
    ]
    return {
        "info": {"description": f"COCO {year} Dataset", "version": "1.0", "year": year},
        "images": images,
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "annotations": [{**one, "id": 100 + place} for place, one in enumerate(found)],
        **more,
    }


def captions_of(texts, **more):
    found = [{"image_id": number, "caption": text} for number, several in texts.items() for text in several]
    return annotations("captions", texts, found, **more)


def instances_of(numbers, objects, **more):
    """Return an instances file. An object is (image, category, outline, is it a crowd)."""
    found = [
        {
            "segmentation": outline,
            "area": 12.0,
            "iscrowd": crowd,
            "image_id": image,
            "bbox": [2, 1, 4, 3],
            "category_id": n,
        }
        for image, n, outline, crowd in objects
    ]
    categories = [{"supercategory": above, "id": n, "name": name} for n, (above, name) in CATEGORIES.items()]
    return annotations("instances", numbers, found, **{"categories": categories, **more})


def write(root, kind, content, split="train2017"):
    (root / split).mkdir(exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"{kind}_{split}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def pets(tmp_path):
    """Two images out of order, with three captions and one. The first has two dogs, a crowd of people and a car."""
    texts = {9: ["a dog runs", "two dogs ", "\ndogs and\npeople"], 4: ["a car"]}
    people = {"counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)], "size": [HEIGHT, WIDTH]}
    objects = [(9, 18, BOX, 0), (9, 18, [[0, 5, 2, 5, 2, 6, 0, 6]], 0), (9, 1, people, 1), (4, 3, BOX, 0)]
    write(tmp_path, "captions", captions_of(texts))
    write(tmp_path, "instances", instances_of(texts, objects))
    write(tmp_path, "captions", captions_of({5: ["a bicycle"]}), "val2017")
    for number in texts:
        Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "train2017" / f"{number:012d}.jpg")
    return tmp_path


def test_it_keeps_the_contract(pets):
    write(pets, "instances", instances_of([5], [(5, 2, BOX, 0)]), "val2017")
    Image.new("L", (WIDTH, HEIGHT)).save(pets / "val2017" / "000000000005.jpg")
    check_dataset(discover().dataset("coco"), {"root": str(pets), "captions": "all"})


def test_images_come_in_order_of_their_ids_with_their_first_caption(pets):
    dataset = opened(pets)
    assert list(dataset.ids) == ["000000000004", "000000000009"]
    assert [sample.text() for sample in dataset] == ["a car", "a dog runs"]
    assert dataset[1].image().size == (WIDTH, HEIGHT)
    assert dataset[1].image_id == dataset.groups[1] == "000000000009"
    assert list(opened(pets, "test").ids) == ["000000000005"]


def test_in_2014_the_files_of_images_are_called_otherwise(tmp_path):
    write(tmp_path, "captions", captions_of({9: ["a dog"]}, year=2014), "train2014")
    Image.new("RGB", (4, 3)).save(tmp_path / "train2014" / "COCO_train2014_000000000009.jpg")
    dataset = Coco(CocoParams.model_validate({"root": str(tmp_path), "year": "2014"}), "train")
    assert dataset.ids[0] == "000000000009"
    assert dataset[0].image().size == (4, 3)


def test_all_captions_make_a_sample_each_which_share_their_image(pets):
    dataset = opened(pets, captions="all")
    assert list(dataset.ids) == [f"000000000009#{n}" if n >= 0 else "000000000004#0" for n in (-1, 0, 1, 2)]
    assert [sample.caption for sample in dataset] == ["a car", "a dog runs", "two dogs", "dogs and people"]
    assert [sample.image_id for sample in dataset] == list(dataset.groups) == ["000000000004", *["000000000009"] * 3]
    assert dataset.labels().toarray().tolist() == [[0, 0, 0, 1, 0, 0], *[[1, 0, 0, 0, 0, 1]] * 3]


def test_joined_captions_are_one_text(pets):
    assert opened(pets, captions="joined")[1].caption == "a dog runs two dogs dogs and people"


def test_a_drawn_caption_depends_on_the_seed_and_on_its_image_alone(tmp_path):
    texts = {number: [f"{number} {word}" for word in "abcde"] for number in range(60)}
    write(tmp_path, "captions", captions_of(texts))
    drawn = {sample.id: sample.caption for sample in opened(tmp_path, captions="random")}
    assert drawn == {sample.id: sample.caption for sample in opened(tmp_path, captions="random")}
    assert {caption[-1] for caption in drawn.values()} == set("abcde")
    assert all(int(caption[:-2]) == int(name) for name, caption in drawn.items())
    other = {sample.id: sample.caption for sample in opened(tmp_path, captions="random", caption_seed=1)}
    assert 0 < sum(drawn[name] != other[name] for name in drawn) < 60
    write(tmp_path, "captions", captions_of({number: texts[number] for number in range(30, 60)}))
    fewer = {sample.id: sample.caption for sample in opened(tmp_path, captions="random")}
    assert fewer == {name: caption for name, caption in drawn.items() if int(name) >= 30}


def test_an_image_without_a_caption_is_left_out_and_a_blank_caption_is_none(tmp_path):
    write(tmp_path, "captions", captions_of({1: [], 2: [" \n"], 3: ["", "a dog", None, "a cat"]}))
    with pytest.warns(UserWarning, match="left out") as warned:
        assert [(sample.id, sample.caption) for sample in opened(tmp_path)] == [("000000000003", "a dog")]
    without, blank = (str(one.message) for one in warned if "left out" in str(one.message))
    assert without.endswith("captions_train2017.json: 2, such as 000000000001.jpg, 000000000002.jpg")
    assert "left out blank captions in" in blank
    assert blank.endswith(": 3")
    with pytest.warns(UserWarning, match="left out"):
        assert list(opened(tmp_path, captions="all").ids) == ["000000000003#1", "000000000003#3"]
    write(tmp_path, "captions", captions_of({1: [], 2: [" \n"]}))
    with pytest.raises(MissingData, match=r"captions_train2017.json has no image with a caption"):
        opened(tmp_path)


def test_captions_of_any_language_are_kept_and_half_a_character_is_not(tmp_path):
    content = captions_of({1: ["un café, 犬 🐕"], 2: ["half \ud83d of it"]})
    write(tmp_path, "captions", content)
    with pytest.warns(UserWarning, match=r"half of a character .* becomes '\?': 1"):
        assert [sample.caption for sample in opened(tmp_path)] == ["un café, 犬 🐕", "half ? of it"]
    write(tmp_path, "captions", json.dumps(captions_of({1: ["un café, 犬 🐕"]}), ensure_ascii=False))
    assert opened(tmp_path)[0].caption == "un café, 犬 🐕"


def test_ids_can_be_read_as_any_sequence(pets):
    ids = opened(pets, captions="all").ids
    assert ids[-1] == ids[3] == "000000000009#2"
    assert ids[1:3] == ["000000000009#0", "000000000009#1"]
    assert len(ids) == len(list(ids)) == 4
    with pytest.raises(IndexError):
        ids[4]


def test_labels_are_the_categories_on_an_image_and_a_crowd_counts(pets):
    dataset = opened(pets)
    assert dataset.taxonomy.labels == LABELS
    assert dataset.labels().toarray().tolist() == [[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1]]


def test_a_category_called_as_its_supercategory_is_one_label(pets):
    taxonomy = opened(pets).taxonomy
    assert taxonomy.parents["dog"] == ("animal",)
    assert taxonomy.parents["person"] == ()
    assert [taxonomy.lift(label, 0) for label in ("person", "car", "bicycle")] == ["person", "vehicle", "vehicle"]
    assert taxonomy.max_depth == 1


def test_an_image_with_no_objects_has_no_labels_and_objects_of_other_images_are_passed_over(pets):
    for bare in ([7], [7, 99]):
        write(pets, "captions", captions_of({4: ["a car"], **{number: ["nothing"] for number in bare}}))
        dataset = opened(pets)
        assert dataset.labels().toarray().tolist() == [[0, 0, 0, 1, 0, 0], *[[0] * 6 for _ in bare]]
        assert dataset.masks(1) == {}


def test_without_instances_there_are_no_labels(pets):
    dataset = opened(pets, "test")
    assert dataset.taxonomy is None
    assert dataset.labels() is None
    with pytest.raises(MissingData, match=r"masks need .*instances_val2017.json"):
        dataset.masks(0)


def test_masks_hold_all_objects_of_a_category_together(pets):
    dataset = opened(pets)
    assert isinstance(dataset, SegmentedDataset)
    masks = dataset.masks(1)
    assert set(masks) == {"dog", "person"}
    assert masks["dog"].dtype == bool
    both = np.array(inside(slice(1, 4), slice(2, 6))) | np.array(inside(5, slice(0, 2)))
    assert masks["dog"].tolist() == both.tolist()
    assert masks["person"].tolist() == inside(slice(None), 0)
    assert opened(pets, captions="all").masks(3)["dog"].tolist() == both.tolist()


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        (BOX, (slice(1, 4), slice(2, 6))),
        ([*BOX, [0, 0, 1, 0, 1, 1, 0, 1]], ([0, *[1] * 4, *[2] * 4, *[3] * 4], [0, *[2, 3, 4, 5] * 3])),
        # Runs go down the columns and start outside: one and a half columns outside, half a column inside.
        ({"counts": [9, 3, 36], "size": [HEIGHT, WIDTH]}, (slice(3, 6), 1)),
        # In compressed runs, a number n below 16 is the character chr(48 + n); 36 = 4 + 1 * 32, low digits first.
        ({"counts": "93T1", "size": [HEIGHT, WIDTH]}, (slice(3, 6), 1)),
        ([[1, 1, 5, 5]], ([], [])),
        ([[1.5, 2.5], *BOX], (slice(1, 4), slice(2, 6))),
        ([], ([], [])),
    ],
    ids=["polygon", "two polygons", "runs", "compressed runs", "a line", "a point and a polygon", "nothing"],
)
def test_an_outline_of_any_kind_becomes_a_mask(pets, outline, expected):
    write(pets, "instances", instances_of([4, 9], [(4, 3, outline, 0)]))
    assert opened(pets).masks(0)["car"].tolist() == inside(*expected)


@pytest.mark.parametrize(
    ("outline", "found"),
    [
        ({"counts": [9, 3, 36], "size": [WIDTH, HEIGHT]}, r"one of size \[8, 6\] on an image of \[6, 8\]"),
        ({"counts": [9, 3, 3600], "size": [HEIGHT, WIDTH]}, "runs of 3,612 pixels on an image of 48"),
        ({"counts": [9, -3, 42], "size": [HEIGHT, WIDTH]}, "no whole numbers from 0"),
        ({"counts": [9.5, 3, 35.5], "size": [HEIGHT, WIDTH]}, "no whole numbers from 0"),
        ({"counts": [float("inf")], "size": [HEIGHT, WIDTH]}, "no whole numbers from 0"),
        ({"counts": "oooooooooooooo", "size": [HEIGHT, WIDTH]}, "a run of pixels with the character 'o'"),
        ({"counts": "PPPYo1PPPYo1", "size": [HEIGHT, WIDTH]}, "runs of .* pixels on an image of 48"),
        ({"counts": "93T", "size": [HEIGHT, WIDTH]}, "ends early"),
        ({"counts": 7, "size": [HEIGHT, WIDTH]}, "not iterable"),
        ([[-9e5, -9e5, 9e5, 9e5] * 800], "an outline of 2,880,000,000 pixels; the limit is 4,194,304"),
        ({"size": [HEIGHT, WIDTH]}, "'counts'"),
        ([[2, 1, 6, 1, 1e300, 4]], "a point that is far from any image"),
        ([[2, 1, 6, 1, float("nan"), 4]], "a point that is far from any image"),
        (None, "None"),
        ("polygon", "'polygon'"),
    ],
)
def test_what_is_no_outline_is_named(pets, outline, found):
    write(pets, "instances", instances_of([4, 9], [(9, 3, BOX, 0), (4, 3, outline, 0)]))
    with pytest.raises(CorruptFile, match=rf"instances_train2017.json: .* annotations\[1\], found .*{found}"):
        opened(pets).masks(0)


@pytest.mark.parametrize("sides", [(2**31, 10), (2**31 - 1, 2**31 - 1), (-3, 10), (0, 8), (10**30, 10**30)])
@pytest.mark.parametrize("outline", [BOX, [], {"counts": [48], "size": [HEIGHT, WIDTH]}], ids=["box", "none", "runs"])
def test_an_image_of_a_size_that_no_image_has_is_named(pets, sides, outline):
    content = instances_of([4, 9], [(4, 3, outline, 0)])
    for image in content["images"]:
        image["height"], image["width"] = sides
    write(pets, "instances", content)
    with pytest.raises(CorruptFile, match=rf"annotations\[0\], found one on an image of {sides[0]} x {sides[1]}"):
        opened(pets).masks(0)


def test_as_many_polygons_as_one_likes_take_the_memory_of_one_mask(pets):
    write(pets, "instances", instances_of([4, 9], [(4, 3, BOX * 5_000, 0)]))
    assert opened(pets).masks(0)["car"].tolist() == inside(slice(1, 4), slice(2, 6))


@given(mask=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1)))
def test_compressed_runs_are_what_pycocotools_takes_them_for(mask):
    runs = tools.encode(np.asfortranarray(mask))
    outline = {"size": list(mask.shape), "counts": runs["counts"].decode()}
    assert (draw_mask(tools, outline, list(mask.shape)) == mask).all()


def test_an_outline_on_an_image_that_the_file_does_not_list_is_named(pets):
    write(pets, "instances", instances_of([9], [(4, 3, BOX, 0)]))
    with pytest.raises(CorruptFile, match=r"annotations\[0\], found one of an image that is not listed"):
        opened(pets).masks(0)


def test_its_masks_are_what_localisation_is_measured_on(pets):
    dataset = opened(pets, captions="all")
    cases = list(cases_of(dataset))
    assert [case.sample.image_id for case in cases] == list(dict.fromkeys(dataset.groups))  # once, not once per caption
    for number, case in enumerate(cases):
        masks = dataset.masks(list(dataset.groups).index(case.sample.image_id))
        assert {one.text: one.mask.tolist() for one in case.wanted} == {
            label: mask.tolist() for label, mask in masks.items() if mask.any()
        }, number


def test_masks_are_turned_with_their_image(pets):
    stored = opened(pets).masks(0)["car"]
    pixels = Image.fromarray(np.where(stored, 255, 0).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    pixels.save(pets / "train2017" / "000000000004.jpg", exif=exif, quality=100, subsampling=0)
    dataset = opened(pets)
    shown = np.asarray(dataset[0].image())[..., 0] > 127
    assert shown.shape == (WIDTH, HEIGHT)
    assert 0 < shown.sum() < shown.size
    np.testing.assert_array_equal(dataset.masks(0)["car"], shown)
    limit_images(ImageLimits(exif="ignore"))
    try:
        np.testing.assert_array_equal(dataset.masks(0)["car"], stored)
        assert dataset[0].image().size == (WIDTH, HEIGHT)
    finally:
        limit_images(DEFAULT_LIMITS)


def test_without_pycocotools_there_are_labels_but_no_masks(pets, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    dataset = opened(pets)
    assert dataset.labels().sum() == 3
    with pytest.raises(MissingData, match="pycocotools") as error:
        dataset.masks(0)
    assert error.value.hint == install("coco")


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_images_of_any_kind_are_read_as_rgb(pets, mode):
    format_of = "png" if mode in ("P", "RGBA") else "jpeg"
    Image.new(mode, (WIDTH, HEIGHT)).save(pets / "train2017" / "000000000004.jpg", format=format_of)
    assert opened(pets)[0].image().mode == "RGB"


def test_a_truncated_or_missing_image_is_a_bad_sample(pets):
    path = pets / "train2017" / "000000000009.jpg"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadSample, match="the image of sample '000000000009' does not decode"):
        opened(pets)[1].image()
    path.unlink()
    with pytest.raises(BadSample, match=r"image not found: .*000000000009.jpg") as error:
        opened(pets)[1].image()
    assert "--skip-bad" in error.value.hint


def test_compressed_files_and_those_with_windows_line_ends_say_the_same(pets):
    def everything():
        dataset = opened(pets)
        captions = [sample.caption for sample in dataset]
        return captions, dataset.labels().toarray().tolist(), dataset.masks(1)["dog"].tolist()

    expected = everything()
    paths = [pets / "annotations" / f"{kind}_train2017.json" for kind in ("captions", "instances")]
    for path in paths:
        text = json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert everything() == expected
    for path in paths:
        path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert everything() == expected


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_truncated_file_is_refused(pets, suffix):
    path = pets / "annotations" / "captions_train2017.json"
    content = path.read_bytes() if suffix == ".json" else gzip.compress(path.read_bytes())
    path.unlink()
    path.with_suffix(suffix).write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptFile, match=rf"captions_train2017{suffix}(: expected COCO's JSON, found| is trunc)"):
        opened(pets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected an object with a list of objects 'images', found NoneType"),
        ({"images": {}, "annotations": []}, "'images', found dict"),
        ({"images": [1], "annotations": []}, "'images', found list"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}]}, "'annotations', found NoneType"),
        ({"images": [{"id": 1.5, "file_name": "a"}]}, r"expected a whole number or a text 'id', found \{'id': 1.5"),
        ({"images": [{"id": True, "file_name": "a"}]}, "expected a whole number or a text 'id'"),
        ({"images": [{"id": "", "file_name": "a"}]}, "expected a whole number or a text 'id'"),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]},
            "unique ids in 'images', found 1",
        ),
        ({"images": [{"id": 1}]}, r"expected a text 'file_name', found \{'id': 1\}"),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]},
            "unique ids in 'images', found 1",
        ),
        (
            {"images": [], "annotations": [{"id": 5, "image_id": 3, "caption": "a dog"}]},
            "expected captions of its own images, found {'id': 5, 'image_id': 3",
        ),
        (
            {"images": [{"id": 3, "file_name": "a"}], "annotations": [{"id": 5, "image_id": 3, "caption": True}]},
            "expected a text 'caption', found {'id': 5",
        ),
    ],
)
def test_captions_of_another_shape_are_refused(pets, content, message):
    write(pets, "captions", content)
    with pytest.raises(CorruptFile, match=message):
        opened(pets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [{"id": 5, "image_id": 4, "category_id": 77}]},
            "expected one of its 4 categories, found .*77",
        ),
        ({"annotations": [{"id": 5, "category_id": 1}]}, "expected a whole number or a text 'image_id'"),
        ({"categories": [{"id": 1, "name": "dog", "supercategory": 3}]}, "expected a text 'supercategory'"),
        (
            {
                "categories": [
                    {"id": 1, "name": "dog", "supercategory": "pet"},
                    {"id": 2, "name": "pet", "supercategory": "dog"},
                ]
            },
            "expected categories below supercategories, found that these labels form a cycle",
        ),
    ],
)
def test_instances_of_another_shape_are_refused_when_labels_are_asked_for(pets, changes, message):
    write(pets, "instances", instances_of([4, 9], [], **changes))
    dataset = opened(pets)
    with pytest.raises(CorruptFile, match=message):
        dataset.labels()


def test_folders_and_files_that_are_not_there_are_named(tmp_path, pets):
    with pytest.raises(MissingData, match=r"coco: no folder at .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(MissingData, match=r"coco: no file .*captions_train2014.json") as error:
        opened(pets, year=2014)
    assert "annotations_trainval2014.zip" in error.value.hint
    (pets / "val2017").rmdir()
    with pytest.raises(MissingData, match=r"coco: no folder of images at .*val2017") as error:
        opened(pets, "test")
    assert "val2017.zip" in error.value.hint


def test_other_captions_change_the_identity_and_another_folder_or_other_labels_do_not(pets, tmp_path):
    before = _identify(CocoParams(root=str(pets)))
    write(pets, "instances", instances_of([4, 9], []))
    moved = pets.rename(tmp_path.with_name("moved"))
    assert _identify(CocoParams(root=str(moved))) == before
    for split in ("train2017", "val2017"):
        write(moved, "captions", captions_of({5: ["another"]}), split)
        after = _identify(CocoParams(root=str(moved)))
        assert after != before
        before = after


def test_a_worker_process_gets_samples_but_no_labels_and_no_outlines(tmp_path):
    numbers = range(300)
    write(tmp_path, "captions", captions_of({number: ["a dog"] for number in numbers}))
    outline = [[2, 1] * 100 + BOX[0][2:]]
    write(tmp_path, "instances", instances_of(numbers, [(number, 18, outline, 0) for number in numbers]))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train2017" / "000000000299.jpg")
    dataset = opened(tmp_path)
    before = len(pickle.dumps(dataset))
    assert dataset.labels().sum() == len(numbers)
    assert dataset.masks(299)["dog"].any()
    sent = pickle.dumps(dataset)
    assert len(sent) == before
    copy = pickle.loads(sent)
    assert copy[299].image().size == (WIDTH, HEIGHT)
    assert copy.masks(299)["dog"].any()


def test_the_plugin_offers_the_dataset(pets):
    spec = discover().dataset("coco")
    dataset = spec.open(spec.params(root=str(pets)), spec.splits[0])
    assert not set(dataset.groups) & set(spec.open(spec.params(root=str(pets)), spec.splits[1]).groups)


def text_ids(content):
    """Return annotations whose ids are texts, as other tools write them."""
    for key, fields in {"images": ["id"], "annotations": ["image_id", "category_id"], "categories": ["id"]}.items():
        for record in content.get(key, []):
            record.update({field: f"id-{record[field]}" for field in fields if field in record})
    return content


def test_ids_may_be_texts(pets):
    expected = opened(pets)
    labels, masks = (
        expected.labels().toarray().tolist(),
        {name: mask.tolist() for name, mask in expected.masks(1).items()},
    )
    for kind in ("captions", "instances"):
        path = pets / "annotations" / f"{kind}_train2017.json"
        path.write_text(json.dumps(text_ids(json.loads(path.read_text()))))
    dataset = opened(pets)
    assert list(dataset.ids) == list(dataset.groups) == ["id-4", "id-9"]
    assert [sample.text() for sample in dataset] == ["a car", "a dog runs"]
    assert dataset.labels().toarray()[:, [dataset.taxonomy.labels.index(label) for label in LABELS]].tolist() == labels
    assert {name: mask.tolist() for name, mask in dataset.masks(1).items()} == masks
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.masks(1)["dog"].tolist() == masks["dog"]


@pytest.mark.parametrize("convert", [str, float])
def test_a_number_is_the_same_id_as_a_text_or_a_float(pets, convert):
    path = pets / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for record in content["annotations"]:
        record["image_id"], record["category_id"] = convert(record["image_id"]), convert(record["category_id"])
    path.write_text(json.dumps(content))
    assert opened(pets).labels().toarray().tolist() == [[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1]]


def test_ids_that_look_the_same_are_the_same(pets):
    image = {"id": "caf\u00e9", "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}
    write(pets, "captions", {"images": [image], "annotations": [{"image_id": "cafe\u0301", "caption": "x"}]})
    found = [{"image_id": "cafe\u0301", "category_id": "cafe\u0301", "segmentation": BOX}]
    categories = [{"id": "caf\u00e9", "name": "dog"}]
    write(pets, "instances", {"images": [image], "annotations": found, "categories": categories})
    dataset = opened(pets)
    assert dataset.labels().toarray().tolist() == [[1]]
    assert dataset.masks(0)["dog"].sum() == 12


def test_numbers_sort_by_size_and_before_texts(tmp_path):
    images = [{"id": name, "file_name": f"{name}.jpg"} for name in ("b", 10, "10a", 9)]
    found = [{"image_id": one["id"], "caption": str(one["id"])} for one in images]
    write(tmp_path, "captions", {"images": images, "annotations": found})
    assert [sample.caption for sample in opened(tmp_path)] == ["9", "10", "10a", "b"]


@pytest.mark.parametrize("nothing", [{}, {"supercategory": None}, {"supercategory": ""}, {"supercategory": "none"}])
def test_a_category_without_a_supercategory_is_a_root(pets, nothing):
    categories = [{"id": 18, "name": "dog", **nothing}, {"id": 1, "name": "person", "supercategory": "being"}]
    write(pets, "instances", instances_of([4, 9], [(9, 18, BOX, 0), (4, 1, BOX, 0)], categories=categories))
    dataset = opened(pets)
    assert dataset.taxonomy.parents == {"being": (), "person": ("being",), "dog": ()}
    assert dataset.labels().toarray().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_categories_of_one_name_are_kept_apart(pets):
    categories = [{"id": 1, "name": "mouse", "supercategory": "animal"}, {"id": 2, "name": "mouse"}]
    write(pets, "instances", instances_of([4, 9], [(9, 1, BOX, 0), (4, 2, BOX, 0)], categories=categories))
    dataset = opened(pets)
    assert dataset.taxonomy.parents == {"animal": (), "mouse (1)": ("animal",), "mouse (2)": ()}
    assert dataset.labels().toarray().tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("large", [False, True])
def test_instances_of_held_out_images_are_checked_before_anything_is_extracted(pets, monkeypatch, large):
    monkeypatch.setenv("SPARC_CACHE", str(pets / "cache"))
    monkeypatch.setattr("sparc_plugins.coco.LARGE", 0 if large else 1 << 30)
    good = instances_of([5], [(5, 2, BOX, 0)])
    path = write(pets, "instances", good, "val2017")
    before = [_identify(CocoParams(root=str(pets))) for _ in range(2)]
    assert before[0] == before[1]
    write(pets, "instances", instances_of([5], [(5, 77, BOX, 0)]), "val2017")
    with pytest.raises(CorruptFile, match=r"instances_val2017.json: expected one of its 4 categories"):
        _identify(CocoParams(root=str(pets)))
    path.unlink()
    assert _identify(CocoParams(root=str(pets))) == before[0]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("caf\u00e9.jpg", "train2017/cafe\u0301.jpg"),
        ("cafe\u0301.jpg", "train2017/caf\u00e9.jpg"),
        ("a.jpg", "train2017/a.JPG"),
        ("sub/a.jpg", "train2017/sub/a.jpg"),
        ("sub\\a.jpg", "train2017/sub/a.jpg"),
        ("train2017/a.jpg", "train2017/a.jpg"),
        ("other/a.jpg", "other/a.jpg"),
    ],
)
def test_an_image_is_found_however_its_path_is_written(tmp_path, recwarn, written, stored):
    write(tmp_path, "captions", {"images": [{"id": 1, "file_name": written}],
                                 "annotations": [{"image_id": 1, "caption": "x"}]})  # fmt: skip
    (tmp_path / stored).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(tmp_path / stored)
    assert opened(tmp_path)[0].image().size == (4, 3)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["http://images.example/1.jpg", "x" * 3000, "gone.jpg", ".", "a.jpg/b.jpg"])
def test_images_that_do_not_exist_are_known_when_it_opens(tmp_path, name):
    write(tmp_path, "captions", {"images": [{"id": 1, "file_name": name}, {"id": 2, "file_name": "a.jpg"}],
                                 "annotations": [{"image_id": n, "caption": "x"} for n in (1, 2)]})  # fmt: skip
    Image.new("RGB", (4, 3)).save(tmp_path / "train2017" / "a.jpg")
    dataset = opened(tmp_path)
    assert dataset.image_fault(0).message.startswith("image of sample '000000000001' not found: ")
    assert dataset.image_fault(1) is None
    with pytest.raises(BadSample, match="image not found"):
        dataset[0].image()


def test_images_that_are_not_listed_are_counted_when_it_opens(pets):
    for name in ("a.jpg", "b.PNG", "notes.txt", "._a.jpg"):
        (pets / "train2017" / name).write_bytes(b"")
    with pytest.warns(
        UserWarning, match=r"2 images in .* are not listed in captions_train2017.json, such as a.jpg, b.P"
    ):
        opened(pets)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_another_encoding_say_the_same(pets, encoding):
    expected = opened(pets).labels().toarray().tolist()
    for kind in ("captions", "instances"):
        path = pets / "annotations" / f"{kind}_train2017.json"
        path.write_text(path.read_text(), encoding=encoding)
    assert opened(pets).labels().toarray().tolist() == expected


def test_bytes_of_another_encoding_are_named(pets):
    path = write(pets, "captions", captions_of({9: ["a dog"]}))
    path.write_bytes(json.dumps(captions_of({9: ["a caf\u00e9"]}), ensure_ascii=False, indent=1).encode("latin-1"))
    with pytest.raises(InvalidConfig, match=r"captions_train2017.json is not UTF-8 text: line \d+, byte \d+ is 0xe9"):
        opened(pets)


NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.dictionaries(
        st.integers(0, 10**12 - 1) | NAMES.map("x{}".format), st.lists(NAMES, max_size=3), min_size=1, max_size=6
    ),
    escaped=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_whatever_a_writer_of_captions_writes_comes_back_whole(tmp_path_factory, texts, escaped, order):
    pictures = [{"id": name, "file_name": f"{place}.jpg"} for place, name in enumerate(texts)]
    found = [{"image_id": name, "caption": text} for name, several in texts.items() for text in several]
    order.shuffle(pictures)
    path = tmp_path_factory.getbasetemp() / "any-captions.json"
    path.write_text(json.dumps({"images": pictures, "annotations": found}, ensure_ascii=escaped), encoding="utf-8")
    expected = {
        unicodedata.normalize("NFC", str(name)): [" ".join(text.split()) for text in several]
        for name, several in texts.items()
    }
    assume(len(expected) == len(texts))
    assert {name: picture.captions for name, picture in read_captions(path).items()} == expected


def test_a_caption_that_is_a_number_is_a_text_and_nothing_is_no_caption(tmp_path):
    content = json.dumps(captions_of({1: ["FIRST"], 2: [7], 3: ["THIRD"], 4: [None], 5: ["a dog"], 6: ["1.50"]}))
    content = content.replace('"FIRST"', "1.50").replace('"THIRD"', "NaN")
    write(tmp_path, "captions", content)
    with pytest.warns(UserWarning, match="left out") as warned:
        found = {int(sample.id): sample.caption for sample in opened(tmp_path)}
    assert any(str(one.message).endswith(": 2, such as 000000000003.jpg, 000000000004.jpg") for one in warned)
    assert found == {1: "1.50", 2: "7", 5: "a dog", 6: "1.50"}


def taught(root):
    """Open the dataset and read its labels."""
    dataset = opened(root)
    assert dataset.taxonomy is not None
    return dataset


def test_names_of_categories_that_look_the_same_are_the_same_in_both_splits(pets):
    spelled = {"train2017": "caf\u00e9", "val2017": " cafe\u0301 "}
    for split, name in spelled.items():
        categories = [{"id": 1, "name": name, "supercategory": f"{name.strip()} house"}]
        write(pets, "instances", instances_of([4, 9], [], categories=categories), split)
        assert list(opened(pets, "train" if split == "train2017" else "test").taxonomy.labels) == [
            "caf\u00e9 house",
            "caf\u00e9",
        ]
    both = [{"id": number, "name": name} for number, name in enumerate(spelled.values())]
    write(pets, "instances", instances_of([4, 9], [(9, 0, BOX, 0), (4, 1, BOX, 0)], categories=both))
    with pytest.warns(UserWarning, match="names look like another's are taken for that one: 1, such as caf\u00e9"):
        dataset = taught(pets)
    assert list(dataset.taxonomy.labels) == ["caf\u00e9"]
    assert dataset.labels().toarray().tolist() == [[1], [1]]
    apart = [{**one, "supercategory": f"house {one['id']}"} for one in both]
    write(pets, "instances", instances_of([4, 9], [], categories=apart))
    assert "caf\u00e9 (1)" in opened(pets).taxonomy.labels


def test_half_a_character_in_an_id_or_a_name_is_escaped(pets):
    for kind in ("captions", "instances"):
        path = pets / "annotations" / f"{kind}_train2017.json"
        content = text_ids(json.loads(path.read_text()))
        path.write_text(json.dumps(content).replace("id-4", "id\\ud800").replace("vehicle", "\\udc00"))
    dataset = opened(pets)
    assert list(dataset.ids) == ["id-9", "id\\ud800"]
    assert "\\udc00" in dataset.taxonomy.labels
    assert dataset.labels().sum() == 3
