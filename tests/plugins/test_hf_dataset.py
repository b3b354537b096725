"""Datasets of the Hugging Face library, from files in every format that it reads, without the hub."""

import io
import json
import os
import pickle  # noqa: TID251
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData
from sparc.plugins import install
from sparc.plugins.checks import check_dataset
from sparc.plugins.registry import discover
from sparc_plugins.hf_dataset import HFDataset, HFParams, identify

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch):
    """No network, and no file in the user's folders."""
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def picture(colour="red", mode="RGB", form="PNG"):
    file = io.BytesIO()
    Image.new(mode, (16, 12), colour).save(file, form)
    return file.getvalue()


def table(start, stop, **more):
    rows = range(start, stop)
    columns = {
        "image": [{"bytes": picture((n, 0, 0)), "path": None} for n in rows],
        "caption": [f"caption {n}" for n in rows],
    }
    return {**columns, "number": list(rows), **more}


def features(**more):
    return datasets.Features(
        {"image": datasets.Image(), "caption": datasets.Value("string"), "number": datasets.Value("int64"), **more}
    )


@pytest.fixture
def parquet(tmp_path):
    """Parquet files as on the hub, with four rows to train on and two to evaluate on."""
    folder = tmp_path / "parquet"
    folder.mkdir()
    classes = datasets.Sequence(datasets.ClassLabel(names=["dog", "cat", "bird"]))
    for name, rows in (("train", (0, 4)), ("test", (4, 6))):
        labels = [[0, 1], [], [1, 1], None] if name == "train" else [[0], [-1]]
        made = datasets.Dataset.from_dict(table(*rows, labels=labels), features=features(labels=classes))
        made.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    return folder


@pytest.fixture
def image_folder(tmp_path):
    """A folder for the library's `imagefolder`."""
    folder = tmp_path / "images"
    (folder / "train").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / "train" / name).write_bytes(picture((9, 8, 7)))
    lines = [{"file_name": "a.png", "caption": "größer"}, {"file_name": "b.png", "caption": " "}]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def saved(tmp_path, columns, kinds=None):
    """A folder with one split, written by `save_to_disk`."""
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict(columns, features=kinds).save_to_disk(str(folder))
    return folder


def opened(root, split="train", **params):
    return HFDataset(HFParams(root=str(root), **params), split)


def both_ways(test):
    return pytest.mark.parametrize("streaming", [False, True])(test)


@both_ways
def test_it_keeps_the_contract(parquet, streaming):
    params = {"root": str(parquet), "labels": "labels", "streaming": streaming}
    check_dataset(discover().dataset("hf"), params)


@both_ways
def test_parquet_files_of_two_splits_are_read_in_order(parquet, streaming):
    train, test = (opened(parquet, split, streaming=streaming) for split in ("train", "test"))
    assert list(train.ids) == list(train.groups) == ["train/0", "train/1", "train/2", "train/3"]
    assert list(test.ids) == ["test/0", "test/1"]
    assert [train[n].caption for n in range(4)] == [f"caption {n}" for n in range(4)]
    assert train[3].id == train.ids[-1] == "train/3"
    assert train.ids[1:3] == ["train/1", "train/2"]
    assert [test[n].image().getpixel((0, 0)) for n in range(2)] == [(4, 0, 0), (5, 0, 0)]
    assert train[0].image_id is None
    assert train.taxonomy is None
    assert train.labels() is None


@both_ways
def test_classes_are_called_by_their_names(parquet, streaming):
    train, test = (opened(parquet, split, labels="labels", streaming=streaming) for split in ("train", "test"))
    assert train.taxonomy.labels == test.taxonomy.labels == ("cat", "dog")
    assert train.labels().toarray().tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]
    assert test.labels().toarray().tolist() == [[0, 1], [0, 0]]


@both_ways
def test_a_folder_of_images_is_read_whole_and_captions_may_be_blank(image_folder, streaming):
    with pytest.warns(UserWarning, match=r"^hf: in the train split 1 of 2 captions are empty \(row 1\)$"):
        dataset = opened(image_folder, holdout=0, streaming=streaming)
    assert [dataset[n].caption for n in range(2)] == ["größer", " "]
    assert dataset[1].image().getpixel((0, 0)) == (9, 8, 7)
    with pytest.raises(BadSample, match=r"sample 'train/1' has an empty caption"):
        dataset[1].text()


@both_ways
def test_lines_of_json_name_images_by_path_and_each_caption_of_a_list_is_a_sample(tmp_path, streaming):
    (tmp_path / "red.png").write_bytes(picture())
    folder = tmp_path / "lines"
    folder.mkdir()
    rows = [
        {"file": str(tmp_path / "red.png"), "texts": ["one", "two"], "key": "a", "tag": "x"},
        {"file": str(tmp_path / "red.png"), "texts": [], "key": "b", "tag": ""},
        {"file": str(tmp_path / "red.png"), "texts": ["three"], "key": "c", "tag": "y"},
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match=r"^hf: in the train split 1 of 4 captions are empty \(row 1\)$"):
        dataset = opened(folder, image="file", caption="texts", id="key", labels="tag", holdout=0, streaming=streaming)
    assert list(dataset.ids) == ["a#0", "a#1", "b#0", "c#0"]
    assert list(dataset.groups) == ["a", "a", "b", "c"]
    assert [dataset[n].caption for n in range(4)] == ["one", "two", None, "three"]
    assert [dataset[n].image_id for n in range(4)] == ["a", "a", "b", "c"]
    assert dataset.labels().toarray().tolist() == [[1, 0], [1, 0], [0, 0], [0, 1]]
    assert dataset[3].image().getpixel((0, 0)) == (255, 0, 0)


def test_without_a_test_split_a_fraction_of_the_images_is_held_out(tmp_path):
    root = saved(tmp_path, table(0, 200, picture=[f"p{n // 2}" for n in range(200)]))
    train, test = opened(root, group="picture"), opened(root, "test", group="picture")
    assert not set(train.groups) & set(test.groups)
    assert len(train) + len(test) == 200
    assert 20 <= len(test) <= 60
    assert test[1].id == f"train/{test[1].caption.split()[1]}"
    assert [test.groups[n] for n in (0, 1)] == [test[0].image_id] * 2
    assert list(opened(root, "test", group="picture", split_seed=1).ids) != list(test.ids)
    assert len(opened(root, "test", group="picture", holdout=0.5)) > len(test)
    assert not set(opened(root).ids) & set(opened(root, "test").ids)


def test_a_saved_dataset_whose_rows_were_shuffled_keeps_their_order(tmp_path):
    made = datasets.Dataset.from_dict(table(0, 3), features=features()).select([2, 0, 1])
    datasets.DatasetDict({"fit": made, "dev": made.select([0])}).save_to_disk(str(tmp_path / "saved"))
    train = opened(tmp_path / "saved", train_split="fit", test_split="dev", id="number")
    assert list(train.ids) == ["2", "0", "1"]
    assert [(one.caption, one.image().getpixel((0, 0))[0]) for one in map(train.__getitem__, range(3))] == [
        ("caption 2", 2),
        ("caption 0", 0),
        ("caption 1", 1),
    ]


@both_ways
def test_rows_takes_the_first_of_each_split(parquet, streaming):
    for split, expected in (("train", ["train/0", "train/1", "train/2"]), ("test", ["test/0", "test/1"])):
        assert list(opened(parquet, split, rows=3, streaming=streaming).ids) == expected


def test_a_stream_is_walked_once_and_keeps_only_what_is_used(parquet, tmp_path, monkeypatch):
    opened(parquet, rows=2, streaming=True)
    (folder,) = (tmp_path / "cache" / "hf").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["test.arrow", "train.arrow"]
    assert datasets.Dataset.from_file(str(folder / "train.arrow")).column_names == ["image", "caption"]
    assert not list((tmp_path / "hf").rglob("*.arrow"))
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert opened(parquet, rows=2, streaming=True)[1].image().getpixel((0, 0)) == (1, 0, 0)


def test_a_stream_that_breaks_off_leaves_nothing_half_copied(tmp_path):
    folder = tmp_path / "parts"
    for number, start in enumerate((0, 150)):
        part = datasets.Dataset.from_dict(table(start, start + 150), features=features())
        part.to_parquet(str(folder / f"train-{number}.parquet"))
    whole = (folder / "train-1.parquet").read_bytes()
    (folder / "train-1.parquet").write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    with pytest.raises(CorruptFile, match=r"parts cannot be read: .*arquet"):
        opened(folder, streaming=True)
    assert not list((tmp_path / "cache").rglob("*.arrow*"))
    (folder / "train-1.parquet").write_bytes(whole)
    assert len(opened(folder, streaming=True, holdout=0)) == 300


def test_a_taxonomy_file_gives_labels_their_parents(tmp_path):
    root = saved(tmp_path, table(0, 2, kind=["poodle", None]))
    path = tmp_path / "taxonomy.json"
    path.write_text(json.dumps({"animal": [], "dog": ["animal"], "poodle": ["dog"]}))
    dataset = opened(root, labels="kind", taxonomy=str(path), holdout=0)
    assert dataset.taxonomy.lift("poodle", 0) == "animal"
    assert dataset.labels().toarray().tolist() == [[0, 0, 1], [0, 0, 0]]
    path.write_text(json.dumps({"animal": []}))
    with pytest.raises(InvalidConfig, match=r"the label 'poodle' is not in .*taxonomy.json"):
        opened(root, labels="kind", taxonomy=str(path))
    path.write_text("[]")
    with pytest.raises(InvalidConfig, match="is not a taxonomy"):
        opened(root, labels="kind", taxonomy=str(path))
    with pytest.raises(MissingData, match=r"no taxonomy at .*nowhere.json"):
        opened(root, labels="kind", taxonomy=str(tmp_path / "nowhere.json"))


@both_ways
def test_a_column_that_is_not_there_or_of_the_wrong_kind_is_named(parquet, streaming):
    columns = "columns: image, caption, number, labels"
    for name in ("image", "caption", "labels", "id", "group"):
        with pytest.raises(InvalidConfig, match=r"no column 'txt' in the t[a-z]+ split") as raised:
            opened(parquet, streaming=streaming, **{name: "txt"})
        assert raised.value.hint == f"set '{name}'; {columns}"
    for params, message in (
        ({"image": "number"}, "expected images in the column 'number', found .*int64"),
        ({"caption": "number"}, "expected texts in the column 'number', or lists of texts, found .*int64"),
        ({"labels": "image"}, "expected classes, texts or whole numbers as labels, found Image"),
        ({"id": "labels"}, "expected texts or numbers in the column 'labels', found"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            opened(parquet, streaming=streaming, **params)


def test_ids_that_repeat_or_are_empty_are_refused(tmp_path):
    root = saved(tmp_path, table(0, 3, key=["a", "b", "a"], maybe=["a", None, "c"]))
    with pytest.raises(InvalidConfig, match="expected unique ids, found 'a' in the rows 0 and 2"):
        opened(root, id="key")
    with pytest.raises(InvalidConfig, match=r"expected a name in each row of 'maybe', found 1 empty cells, .* row 1"):
        opened(root, id="maybe")


def test_splits_and_configurations_that_are_not_there_are_named(parquet):
    with pytest.raises(InvalidConfig, match="no split 'dev'") as raised:
        opened(parquet, test_split="dev")
    assert raised.value.hint == "set 'test_split'; splits: train, test"
    with pytest.raises(InvalidConfig, match="the split 'train' is used both to train and to evaluate"):
        opened(parquet, test_split="train")
    with pytest.raises(InvalidConfig, match=r"BuilderConfig 'de' not found. Available: .*default"):
        opened(parquet, name="de")
    with pytest.warns(UserWarning, match=r"^hf: splits that are not used: train; 'test_split' chooses one$"):
        assert len(opened(parquet, train_split="test", holdout=0)) == 2


def test_an_image_that_cannot_be_read_says_so_when_it_is_opened(tmp_path):
    images = [
        {"bytes": picture(form="JPEG")[:300], "path": None},
        None,
        {"bytes": picture(200, "L", "JPEG"), "path": None},
        {"bytes": picture((0, 255, 255, 0), "CMYK", "JPEG"), "path": None},
    ]
    root = saved(
        tmp_path,
        {"image": images, "caption": ["x"] * 4},
        datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")}),
    )
    with pytest.warns(UserWarning, match=r"^hf: in the train split 1 of 4 rows have no image \(row 1\)$"):
        dataset = opened(root, holdout=0)
    for n, message in ((0, "image of sample 'train/0' does not decode"), (1, "sample 'train/1' has no image")):
        with pytest.raises(BadSample, match=message):
            dataset[n].image()
    assert dataset[2].image().getpixel((0, 0)) == (200, 200, 200)
    assert dataset[3].image().getpixel((0, 0))[0] > 250
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "train.jsonl").write_text('{"image": "gone.jpg", "caption": "x"}')
    with pytest.raises(BadSample, match=r"image not found: gone.jpg"):
        opened(tmp_path / "lines", holdout=0)[0].image()


@both_ways
def test_files_that_are_cut_off_are_named(parquet, streaming):
    path = parquet / "train-00000-of-00001.parquet"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CorruptFile, match=r"train-00000-of-00001.parquet is truncated, or no Parquet file"):
        opened(parquet, streaming=streaming)


@pytest.mark.parametrize("column", ["image", "caption", "id"])
def test_a_column_whose_texts_are_no_utf_8_is_refused_when_the_files_are_opened(tmp_path, column):
    texts = {
        name: pa.array([b"fine", b"\xff" if name == column else b"good"], pa.binary()).view(pa.string())
        for name in ("image", "caption", "id")
    }
    texts["image"] = pa.StructArray.from_arrays([pa.nulls(2, pa.binary()), texts["image"]], ["bytes", "path"])
    for split in ("train", "test"):
        pq.write_table(pa.table(texts), tmp_path / f"{split}.parquet")
    with pytest.raises(CorruptFile, match=f"the column '{column}' of train is damaged"):
        opened(tmp_path, id="id")


def test_rewriting_a_file_changes_the_identity_and_copying_the_folder_does_not(parquet, tmp_path):
    before = identify(HFParams(root=str(parquet)))
    moved = shutil.copytree(parquet, tmp_path / "moved", copy_function=shutil.copyfile)
    assert identify(HFParams(root=str(moved))) == before
    path = moved / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes().replace(b"caption 3", b"caption 4"))
    assert identify(HFParams(root=str(moved))) != before
    (tmp_path / "t.json").write_text("{}")
    taxonomy = str(tmp_path / "t.json")
    assert identify(HFParams(path="some/where", taxonomy=taxonomy)).startswith("hub:some/where@main tax")


@both_ways
def test_the_dataset_can_be_sent_to_a_worker_process_without_its_images(tmp_path, streaming):
    noise = Image.effect_noise((200, 200), 90)
    file = io.BytesIO()
    noise.save(file, "PNG")
    datasets.Dataset.from_dict(
        {"image": [{"bytes": file.getvalue(), "path": None}] * 20, "caption": ["x"] * 20},
        features=datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")}),
    ).to_parquet(str(tmp_path / "p" / "train.parquet"))
    sent = pickle.dumps(opened(tmp_path / "p", streaming=streaming))
    assert len(sent) < len(file.getvalue())
    assert pickle.loads(sent)[0].image().size == (200, 200)


def test_folders_datasets_and_libraries_that_are_not_there_are_named(tmp_path, monkeypatch):
    with pytest.raises(MissingData, match=r"no folder at .*nowhere"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="doesn't contain any data files"):
        opened(tmp_path / "empty")
    with pytest.raises(MissingData, match=r"nobody/nothing is not available: .*Offline"):
        HFDataset(HFParams(path="nobody/nothing"), "train")
    for params, found in (({}, "neither"), ({"path": "a", "root": "b"}, "both")):
        with pytest.raises(InvalidConfig, match=f"expected path=REPOSITORY or --data-root FOLDER, found {found}"):
            HFDataset(HFParams(**params), "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingData, match="'datasets' is not installed") as raised:
        opened(tmp_path)
    assert raised.value.hint == install("hf")


LEAVINGS = (".DS_Store", "._train.parquet", "Thumbs.db", "desktop.ini", "__MACOSX/._a", ".git/index", ".cache/x.lock")


def test_what_systems_leave_in_a_folder_is_no_part_of_its_identity(parquet):
    before = identify(HFParams(root=str(parquet)))
    for name in LEAVINGS:
        (parquet / name).parent.mkdir(exist_ok=True)
        (parquet / name).write_text("left")
    assert identify(HFParams(root=str(parquet))) == before
    (parquet / ".hidden.png").write_bytes(picture())  # which a row may name
    assert identify(HFParams(root=str(parquet))) != before
