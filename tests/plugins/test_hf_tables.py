"""Tables of texts in a local folder, for the dataset `hf`: which files are read, and that no cell changes."""

import base64
import gzip
import io
import json
import os
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData
from sparc_plugins.hf_dataset import HFDataset, HFParams, open_image
from sparc_plugins.hf_dataset.choice import _listed_splits, _splits
from sparc_plugins.hf_dataset.folders import folder_files, visible

datasets = pytest.importorskip("datasets")
NFC, NFD = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
CSV = "image,caption,id\nx.png,NA,007\nx.png,1.50,008\n"
MAC = b"\0\5\x16\7\0\2\0\0Mac OS X        " + b"\xff" * 50


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch):
    """No network, and no file in the user's folders."""
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def picture(red=255):
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def put(tmp_path):
    """A function that writes files into a folder and returns it."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            elif isinstance(content, list):
                path.write_text("".join(json.dumps(row) + "\n" for row in content))
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "data"

    return write


def opened(root, split="train", **params):
    return HFDataset(HFParams(root=str(root), holdout=0, **params), split)


def captions(dataset):
    return [dataset[n].caption for n in range(len(dataset))]


def said(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in found]


def table(*texts, **more):
    return pa.table({"image": [{"bytes": picture(), "path": None}] * len(texts), "caption": pa.array(texts), **more})


quiet = pytest.mark.filterwarnings("ignore:hf. :UserWarning")


def both_ways(test):
    return pytest.mark.parametrize("streaming", [False, True])(test)


@both_ways
def test_whole_numbers_of_any_size_and_texts_like_times_stay_as_written_in_json(put, streaming):
    rows = [{"image": "x.png", "caption": f"2020-01-0{n + 1}", "id": 12345678901234567890 + n} for n in range(2)]
    root = put({"d.jsonl": [{**row, "g": f"2021-03-0{n + 1}"} for n, row in enumerate(rows)], "x.png": picture()})
    dataset = opened(root, id="id", group="g", streaming=streaming)
    assert list(dataset.ids) == ["12345678901234567890", "12345678901234567891"]
    assert list(dataset.groups) == ["2021-03-01", "2021-03-02"]
    assert captions(dataset) == ["2020-01-01", "2020-01-02"]


@pytest.mark.parametrize("number", [2.0**53, 1.5, float("inf")])
def test_floats_that_may_stand_for_several_numbers_are_no_ids_and_no_groups(put, number):
    root = put({"d.parquet": table("a", "b", key=[7.0, number])})
    for parameter in ("id", "group"):
        with pytest.raises(InvalidConfig, match=r"whole numbers in 'key', found the float .* in row 1, in"):
            opened(root, **{parameter: "key"})


def test_whole_floats_are_ids_and_nan_is_an_empty_cell(put):
    assert list(opened(put({"d.parquet": table("a", "b", key=[7.0, 8.0])}), id="key").ids) == ["7", "8"]
    with pytest.raises(InvalidConfig, match="found 1 empty cells, the first in row 1"):
        opened(put({"d.parquet": table("a", "b", key=[7.0, float("nan")])}), id="key")


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (("train.parquet", "test.parquet", "extra.parquet"), "1 files of .* are in no split and are not read: extra.p"),
        (("train.csv", "part2.csv"), "1 files of .*: part2.csv"),
        (("train/a.csv", "more/b.csv"), "1 files of .*: more/b.csv"),
        (("a.parquet", "b.csv"), "1 files of .*: b.csv"),
        (("data.csv", "info.json"), "1 files of .*: info.json"),
    ],
)
def test_files_that_no_split_uses_are_counted_and_named(put, files, left):
    root = put({name: table("a") if name.endswith("parquet") else "image,caption\nx.png,a\n" for name in files})
    with pytest.warns(UserWarning, match=f"^hf: {left}"):
        assert captions(opened(root)) == ["a"]


def test_each_split_may_have_its_own_format(put):
    root = put({"train.parquet": table("a"), "test.jsonl": [{"image": "x.png", "caption": "b"}]})
    assert captions(opened(root)) + captions(opened(root, "test")) == ["a", "b"]


@quiet
@both_ways
def test_no_image_comes_from_the_working_directory(put, tmp_path, monkeypatch, streaming):
    root = put({"d.csv": "image,caption\npics/a.png,a\n"})
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a.png").write_bytes(picture())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSample, match=r"image not found: pics/a.png|'train/0' has no image"):
        opened(root, streaming=streaming)[0].image()
    images = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": "pics/a.png"}]})
    with pytest.raises(BadSample, match=r"image not found: pics/a.png"):
        open_image(images, 0, "image", None)


@quiet
@both_ways
@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "DATA.CSV", "train/metadata.csv"])
def test_csv_cells_stay_texts_beside_images_gzipped_and_as_metadata(put, name, streaming):
    folder = os.path.dirname(name)
    text = CSV.replace("image", "file_name") if folder else CSV
    content = gzip.compress(text.encode()) if name.endswith("gz") else text
    root = put({name: content, **{os.path.join(folder, f"{n}.png"): picture() for n in ("x", "y", "z")}})
    dataset = opened(root, id="id", streaming=streaming)
    assert list(dataset.ids) == ["007", "008"]
    assert captions(dataset) == ["NA", "1.50"]
    assert dataset[1].image().size == (16, 12)


@pytest.mark.parametrize("name", ["d.csv.gz", "metadata.csv", "d.csv"])
def test_csv_records_are_checked_beside_images_gzipped_and_as_metadata(put, name):
    text = "image,caption\n0.png,a dog, running\n"
    root = put({name: gzip.compress(text.encode()) if name.endswith("gz") else text, "0.png": picture()})
    with pytest.raises(InvalidConfig, match=rf"{name}, line 2: expected 2 fields \(image, caption\), found 3"):
        opened(root)


def test_a_quote_that_is_never_closed_swallows_no_records(put):
    root = put({"d.csv": 'image,caption\nx.png,"a\nx.png,b\n'})
    with pytest.raises(InvalidConfig, match=r"d.csv, the record after line 1: unexpected end of data"):
        opened(root)


def test_a_packed_table_is_named(put):
    with pytest.raises(InvalidConfig, match=r"d.csv.xz is a packed table"):
        opened(put({"d.csv": CSV, "d.csv.xz": b"x"}))


def test_labels_that_look_the_same_are_one_label(put):
    root = put({"d.parquet": table("a", "b", "c", "d", label=[NFC, NFD, f" {NFC}\t", " "])})
    dataset = opened(root, labels="label")
    assert dataset.taxonomy.labels == (NFC,)
    assert dataset.labels().toarray().tolist() == [[1], [1], [1], [0]]


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (pa.array([True, False, None]), ("false", "true")),
        (pa.array([1.0, float("nan"), 2.0]), ("1", "2")),
        (pa.array(["a", "b", "a"]).cast(pa.string_view()), ("a", "b")),
    ],
)
def test_labels_may_be_truth_values_whole_floats_with_nan_and_views_of_texts(put, column, names):
    assert opened(put({"d.parquet": table("a", "b", "c", label=column)}), labels="label").taxonomy.labels == names


def test_captions_and_ids_may_be_views_of_texts(put):
    texts = pa.array(["a", "b"]).cast(pa.string_view())
    root = put(
        {"d.parquet": pa.table({"image": [{"bytes": picture(), "path": None}] * 2, "caption": texts, "id": texts})}
    )
    dataset = opened(root, id="id")
    assert captions(dataset) == list(dataset.ids) == ["a", "b"]


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_a_changed_file_of_the_same_size_and_time_is_read_again(put, name):
    for caption in ("one", "two"):
        row = {"image": "x.png", "caption": caption}
        root = put({name: {"d.csv": f"image,caption\nx.png,{caption}\n", "d.jsonl": [row]}.get(name, table(caption))})
        os.utime(root / name, (0, 0))
        assert captions(opened(root)) == [caption]


def test_json_in_windows_1252_names_line_and_byte_and_utf_16_is_read(put):
    text = f'{{"image": "a.png", "caption": "x"}}\n{{"image": "a.png", "caption": "{NFC}"}}\n'
    with pytest.raises(InvalidConfig, match=r"d.jsonl is not UTF-8 text: line 2, byte 35 is 0xe9"):
        opened(put({"d.jsonl": text.encode("cp1252")}))
    assert captions(opened(put({"d.jsonl": text.encode("utf-16")}))) == ["x", NFC]


def test_the_index_that_pandas_writes_and_another_separator_are_understood(put):
    assert captions(opened(put({"d.csv": ",image,caption\n0,x.png,a\n"}))) == ["a"]
    assert captions(opened(put({"d.csv": "image; caption\nx.png;a, b\n"}))) == ["a, b"]


@pytest.mark.parametrize("name", ["__MACOSX/._d.csv", "._d.csv", ".git/d.csv", ".ipynb_checkpoints/d-checkpoint.csv"])
def test_files_that_other_programs_leave_behind_are_passed_over(put, name):
    root = put({"d.csv": "image,caption\nx.png,a\n", name: MAC})
    assert said(lambda: opened(root)) == []
    root = put({"p/d.parquet": table("b"), f"p/{name.replace('csv', 'parquet')}": MAC}) / "p"
    assert captions(opened(root)) == ["b"]


@quiet
@both_ways
def test_images_may_be_base64_texts_and_a_damaged_one_can_be_skipped(put, streaming):
    text = base64.b64encode(picture(7)).decode()
    cells = [text, f"data:image/png;base64,{text}", {"bytes": text}, f"data:image/png;base64,{text}!", "y" * 5000]
    root = put({"d.jsonl": [{"image": cell, "caption": "a"} for cell in cells]})
    dataset = opened(root, streaming=streaming)
    assert [dataset[n].image().getpixel((0, 0)) for n in range(3)] == [(7, 0, 0)] * 3
    for n, message in ((3, "its base64 text is damaged"), (4, r"found y{40}\.\.\. \(5000 characters\)")):
        with pytest.raises(BadSample, match=f"{message}|has no image"):
            dataset[n].image()


@quiet
def test_numbers_and_nan_are_captions_as_written_and_none(put):
    lines = '{"image": "x.png", "caption": %s}\n'
    root = put({"d.jsonl": "".join(lines % one for one in ('"x"', "5", "1.50", "NaN", "true", "null"))})
    assert captions(opened(root)) == ["x", "5", "1.50", None, "true", None]
    with pytest.raises(InvalidConfig, match=r"d.jsonl, line 1: expected a text, .* in the column 'caption', f"):
        opened(put({"d.jsonl": lines % '{"en": "x"}'}))


@quiet
def test_a_table_beside_photos_and_texts_is_the_dataset(put):
    files = {f"{n}.{end}": picture() if end == "png" else "x" for n in range(3) for end in ("png", "txt")}
    assert captions(opened(put({**files, "data.csv": "image,caption\n0.png,a\n", "m.json": "{}"}))) == ["a"]
    with pytest.raises(InvalidConfig, match=r"expected a table of images and captions in .*, found 3 .txt files"):
        opened(put({f"p/{name}": content for name, content in files.items()}) / "p")


def test_a_table_outside_the_folders_of_the_splits_is_named(put):
    root = put({"train/0.png": picture(), "captions.csv": "image,caption\ntrain/0.png,a\n"})
    with pytest.raises(InvalidConfig, match=r"each split \(train\), found it outside of them: captions.csv"):
        opened(root)


def test_paths_may_be_written_on_windows(put):
    root = put({"d.csv": "image,caption\npics\\0.png,a\n", "pics/0.png": picture()})
    assert said(lambda: opened(root)[0].image()) == []


def test_suffixes_may_be_in_capitals(put):
    root = put({"metadata.jsonl": [{"file_name": "1.PNG", "caption": "a"}], "1.png": picture()})
    assert said(lambda: opened(root)[0].image()) == []
    assert captions(opened(put({"p/A.PARQUET": table("a")}) / "p")) == ["a"]


def test_a_card_may_name_files_and_their_separator_and_cells_stay_texts(put):
    card = "---\nconfigs:\n- config_name: default\n  data_files: d.txt.csv\n  sep: '|'\n---\n"
    root = put({"README.md": card, "d.txt.csv": CSV.replace(",", "|"), "e.csv": "x\n1\n"})
    with pytest.warns(UserWarning, match=r"1 files of .* are in no split and are not read: e.csv"):
        assert list(opened(root, id="id").ids) == ["007", "008"]


def test_a_card_may_name_classes_and_what_it_asks_else_is_refused(put):
    kinds = "  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': cat\n          '1': dog\n"
    columns = "".join(f"  - name: {name}\n    dtype: string\n" for name in ("image", "caption"))
    root = put({"README.md": f"---\ndataset_info:\n  features:\n{columns}{kinds}---\n"})
    put({"d.csv": "image,caption,label\nx.png,NA,1\nx.png,b,cat\nx.png,c,-1\n"})
    dataset = opened(root, labels="label")
    assert captions(dataset) == ["NA", "b", "c"]
    assert dataset.taxonomy.labels == ("cat", "dog")
    assert dataset.labels().toarray().tolist() == [[0, 1], [1, 0], [0, 0]]
    put({"d.csv": "image,caption,label\nx.png,a,2\n"})
    with pytest.raises(InvalidConfig, match=r"d.csv, line 2: expected a class from 0 to 1 or its name"):
        opened(root, labels="label")
    card = "---\nconfigs:\n- config_name: default\n  data_files: d.csv\n  skiprows: 1\n---\n"
    with pytest.raises(InvalidConfig, match=r"says how to read its tables: skiprows"):
        opened(put({"README.md": card}))


@pytest.mark.parametrize("place", ["relative", "link", "[1] \N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_the_folder_may_have_any_name(put, tmp_path, monkeypatch, place):
    put({"train/metadata.csv": "file_name,caption\n0.png,a\n", "train/0.png": picture(3)})
    monkeypatch.chdir(tmp_path)
    if place == "link":
        (tmp_path / place).symlink_to("data")
    else:
        (tmp_path / "data").rename(tmp_path / place)
    assert opened(place)[0].image().getpixel((0, 0)) == (3, 0, 0)
    pq.write_table(table("b"), tmp_path / place / "train" / "d.parquet")
    (tmp_path / place / "train" / "metadata.csv").unlink()
    assert captions(opened(place)) == ["b"]


@quiet
def test_a_list_of_captions_may_come_after_a_thousand_texts(put):
    root = put({"d.jsonl": [{"image": "x.png", "caption": one} for one in ["a"] * 1200 + [["b", "c"], None]]})
    dataset = opened(root)
    assert captions(dataset) == ["a"] * 1200 + ["b", "c", None]
    assert list(dataset.ids[1199:]) == ["train/1199#0", "train/1200#0", "train/1200#1", "train/1201#0"]


def test_what_is_no_data_is_named(put):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
    with pytest.raises(MissingData, match=r"d.parquet is a Git LFS pointer, not the data"):
        opened(put({"lfs/d.parquet": pointer}) / "lfs")
    with pytest.raises(MissingData, match=r"a Parquet file of .* has no rows"):
        opened(put({"none/d.parquet": table("a").slice(0, 0)}) / "none")
    with pytest.raises(MissingData, match=r"expected a folder, found the file .*d.zip"):
        opened(put({"d.zip": "x"}) / "d.zip")
    with pytest.raises(MissingData, match="no folder at "):
        opened("x" * 5000)
    for rows in (0, -1):
        with pytest.raises(ValidationError, match="greater than 0"):
            HFParams(rows=rows)


def test_records_that_are_not_samples_are_counted_or_named(put):
    root = put({"d.csv": "image,caption\nx.png,a\n,\n", "e.csv": "image,caption\n"})
    messages = said(lambda: opened(root))
    assert [message.replace(str(root), "") for message in messages] == [
        "hf: 1 records of /d.csv are empty in all cells and no samples",
        "hf: /e.csv has no records",
    ]
    with pytest.raises(CorruptFile, match=r"d.jsonl, line 1: it names 'caption' twice"):
        opened(put({"p/d.jsonl": '{"image": "a", "caption": "x", "caption": "y"}'}) / "p")
    with pytest.raises(InvalidConfig, match=r"metadata.csv, line 2: expected a file name inside the folder"):
        opened(put({"m/metadata.csv": "file_name,caption\n../x.png,a\n"}) / "m")


cells = st.none() | st.text(st.characters(codec="utf-8"), max_size=8) | st.integers() | st.booleans()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(cells | st.lists(cells, min_size=1, max_size=3), min_size=1, max_size=5), st.booleans())
@pytest.mark.filterwarnings("ignore:hf. in the train split:UserWarning")
def test_every_json_cell_comes_back_as_written(tmp_path_factory, rows, in_a_list):
    root = tmp_path_factory.mktemp("rows")
    records = [{"image": "x.png", "caption": row} for row in rows]
    text = json.dumps(records) if in_a_list else "\n".join(map(json.dumps, records))
    (root / "d.json").write_text(text)
    texts = [one if one is None or isinstance(one, str) else json.dumps(one) for row in rows for one in listed(row)]
    assert captions(opened(root)) == texts


def listed(row):
    return row if isinstance(row, list) else [row]


NAMES = "train test validation valid dev eval data a.b trainer my-test test_2 Train __x 0 [1]"
WORDS = st.sampled_from(NAMES.split(" "))
PLACES = st.lists(WORDS, min_size=1, max_size=3).map("/".join)


@settings(max_examples=25)
@given(st.sets(st.tuples(PLACES, st.sampled_from([".csv", ".jsonl.gz", ".jpg", "", "-00000-of-00002.csv"]))))
@example({("0-1/a", ".csv"), ("0/a", ".csv")})
def test_files_make_the_splits_that_the_library_makes_of_them(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("data")
    for name in ("first.csv", *("".join(name) for name in names)):
        if all(not above.is_file() for above in (root / name).parents) and not (root / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    found = _splits(root, visible(folder_files(str(root)), root))
    assert list(found.items()) == list(_listed_splits(root).items())
