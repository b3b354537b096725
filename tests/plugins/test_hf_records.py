"""Rows of a Hugging Face dataset as people have them: each becomes a sample, is counted, or is an error."""

import csv
import http.server
import io
import json
import threading
import unicodedata
import warnings
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData, StorageError
from sparc_plugins.hf_dataset import HFDataset, HFParams, identify
from sparc_plugins.hf_dataset.columns import empty_captions
from sparc_plugins.hf_dataset.commits import commit_of
from sparc_plugins.hf_dataset.folders import check_arrow, folder_files

datasets = pytest.importorskip("datasets")
NFC, NFD = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch):
    """No network, and no file in the user's folders."""
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def picture():
    file = io.BytesIO()
    Image.new("RGB", (16, 12), "red").save(file, "PNG")
    return file.getvalue()


def stored():
    return {"bytes": picture(), "path": None}


def parquet(path, columns, features=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))


def opened(root, split="train", **params):
    return HFDataset(HFParams(root=str(root), holdout=0, **params), split)


def both_ways(test):
    return pytest.mark.parametrize("streaming", [False, True])(test)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,caption\n0.jpg,a dog, running\n1.jpg,a cat, asleep\n",
            r"line 2: expected 2 fields \(image, caption\), f",
        ),
        (
            "image,caption\n0.jpg,a dog\n\n1.jpg,a cat, asleep\n",
            r"line 4: expected 2 fields .*, found 3: 1.jpg \| a cat",
        ),
        (
            "image,caption,id\n0.jpg,a dog,0\n1.jpg,a cat\n",
            r"line 3: expected 3 fields \(image, caption, id\), found 2",
        ),
        ("image,caption,caption\n0.jpg,a dog,0\n", r"line 1: expected columns of different names"),
    ],
)
def test_a_csv_record_that_does_not_fit_its_header_is_refused_with_its_line(root, text, message):
    (root / "train.csv").write_text(text)
    with pytest.raises(InvalidConfig, match=rf"train.csv, {message}"):
        opened(root)
    (root / "train.csv").unlink()
    (root / "train").mkdir()
    (root / "train" / "0.jpg").write_bytes(picture())
    (root / "train" / "metadata.csv").write_text(text.replace("image,", "file_name,"))
    with pytest.raises(InvalidConfig, match=rf"metadata.csv, {message.replace('image', 'file_name')}"):
        opened(root)


@both_ways
def test_texts_of_a_csv_file_stay_what_they_are(root, tmp_path, streaming):
    image = tmp_path / "a.png"
    image.write_bytes(picture())
    rows = [["image", "caption", "id", "cls"], [image, "NA", "007", "1"], [image, "null", "None", ""]]
    with (root / "train.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    dataset = opened(root, id="id", labels="cls", streaming=streaming)
    assert list(dataset.ids) == ["007", "None"]
    assert [dataset[n].caption for n in range(2)] == ["NA", "null"]
    assert dataset.taxonomy.labels == ("1",)
    assert dataset[1].image().size == (16, 12)


def test_csv_files_of_other_columns_are_refused_and_those_of_another_order_are_not(root):
    (root / "train-0.csv").write_text("image,caption\n0.jpg,a\n")
    (root / "train-1.csv").write_text("image,text\n0.jpg,a\n")
    with pytest.raises(InvalidConfig, match=r"same columns in all CSV files, found columns image, caption in .*-0.csv"):
        opened(root)
    (root / "train-1.csv").write_text("caption,image\nb,0.jpg\n")
    assert [one.caption for one in map(opened(root).__getitem__, range(2))] == ["a", "b"]


@both_ways
def test_rows_without_image_or_caption_are_counted_and_said_when_they_are_read(root, streaming):
    captions = [["a", None, ""], [], None, ["b"]]
    parquet(root / "train.parquet", {"image": [stored(), None, stored(), stored()], "caption": captions})
    message = r"^hf: in the train split 1 of 4 rows have no image \(row 1\); 4 of 6 captions are empty \(row 0, 1, 2\)$"
    with pytest.warns(UserWarning, match=message):
        dataset = opened(root, streaming=streaming)
    assert list(dataset.ids) == [f"train/{name}" for name in ("0#0", "0#1", "0#2", "1#0", "2#0", "3#0")]
    assert [dataset[n].caption for n in range(6)] == ["a", None, "", None, None, "b"]
    with pytest.raises(BadSample, match="sample 'train/1#0' has no image") as raised:
        dataset[3].image()
    assert "--skip-bad" in raised.value.hint


@both_ways
def test_images_may_be_bytes_alone(root, streaming):
    parquet(root / "train.parquet", {"image": [picture(), b""], "caption": ["a", "b"]})
    dataset = opened(root, streaming=streaming)
    assert dataset[0].image().size == (16, 12)
    with pytest.raises(BadSample, match="image of sample 'train/1' does not decode: its bytes are empty"):
        dataset[1].image()


@both_ways
def test_relative_paths_lead_into_the_folder_whatever_unicode_form_they_have(root, streaming):
    (root / "images").mkdir()
    (root / "images" / f"{NFD}.bin").write_bytes(picture())
    rows = [{"image": f"images/{name}.bin", "caption": "x"} for name in (NFC, "gone")]
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dataset = opened(root, streaming=streaming)
    said = [str(one.message) for one in found]
    assert said[0] == f"hf: 1 images that rows name are not in {root}: images/gone.bin"
    assert said[1:] == (["hf: in the train split 1 of 2 rows have no image (row 1)"] if streaming else [])
    assert dataset[0].image().size == (16, 12)
    with pytest.raises(BadSample, match=r"image not found: images/gone.bin|sample 'train/1' has no image"):
        dataset[1].image()


@both_ways
def test_images_that_no_row_names_are_counted(root, streaming):
    (root / "train").mkdir()
    for name in ("0.jpg", "1.jpg", "2.JPG"):
        (root / "train" / name).write_bytes(picture())
    (root / "train" / "metadata.jsonl").write_text('{"file_name": "0.jpg", "caption": "x"}\n')
    with pytest.warns(UserWarning, match=r"^hf: 2 images of .* are in no row: train/1.jpg, train/2.JPG$"):
        assert len(opened(root, streaming=streaming)) == 1


@both_ways
def test_a_line_that_is_no_json_is_named(root, streaming):
    (root / "train.jsonl").write_text('{"image": "a.png", "caption": "x"}\n\n{"image": "b.png", "cap')
    with pytest.raises(CorruptFile, match=r"expected a JSON record in each line: .*train.jsonl, line 3: Unterminated"):
        opened(root, streaming=streaming)


@both_ways
def test_splits_that_are_not_used_are_named(root, streaming):
    for split in ("train", "validation"):
        parquet(root / f"{split}.parquet", {"image": [stored()], "caption": [split]})
    with pytest.warns(UserWarning, match=r"^hf: splits that are not used: validation; 'test_split' chooses one$"):
        opened(root, streaming=streaming)
    assert opened(root, "test", test_split="validation", streaming=streaming)[0].caption == "validation"


@both_ways
@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"caption": ["b"], "more": [1]}, r"differ: there are 1 new columns \({'more'}\)"),
        ({"text": ["b"]}, r"differ: there are 1 new columns \({'text'}\) and 1 missing columns \({'caption'}\)"),
    ],
)
def test_files_with_other_columns_are_no_damaged_files(root, streaming, second, message):
    parquet(root / "train-0.parquet", {"image": [stored()], "caption": ["a"]})
    parquet(root / "train-1.parquet", {"image": [stored()], **second})
    with pytest.raises(InvalidConfig, match=message):
        opened(root, streaming=streaming)


def test_labels_are_classes_that_exist_or_whole_numbers(root):
    kinds = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.Value("string"), "kind": datasets.ClassLabel(names=["x", "y"])}
    )
    columns = {"image": [stored()] * 3, "caption": ["a"] * 3, "kind": [1, -1, None], "number": [1.0, None, 7.0]}
    parquet(root / "train.parquet", {name: columns[name] for name in ("image", "caption", "kind")}, kinds)
    dataset = opened(root, labels="kind")
    assert dataset.taxonomy.labels == ("y",)
    assert dataset.labels().toarray().tolist() == [[1], [0], [0]]
    table = pq.read_table(root / "train.parquet")
    place = table.column_names.index("kind")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array([0, 2, -1])), root / "train.parquet")
    with pytest.raises(
        InvalidConfig, match=r"expected classes from 0 to 1 in 'kind', or -1 for none, found 2 in row 1"
    ):
        opened(root, labels="kind")
    parquet(root / "train.parquet", {name: columns[name] for name in ("image", "caption", "number")})
    assert opened(root, labels="number").labels().toarray().tolist() == [[1, 0], [0, 0], [0, 1]]


def test_ids_that_look_the_same_are_the_same_and_a_blank_one_is_none(root):
    parquet(
        root / "train.parquet", {"image": [stored()] * 2, "caption": ["a", "b"], "id": [NFC, NFD], "no": ["x", " "]}
    )
    with pytest.raises(InvalidConfig, match=f"expected unique ids, found '{NFC}' in the rows 0 and 1"):
        opened(root, id="id")
    with pytest.raises(
        InvalidConfig, match="expected a name in each row of 'no', found 1 empty cells, the first in row 1"
    ):
        opened(root, id="no")
    assert list(opened(root, group="id").groups) == [NFC, NFC]


@both_ways
def test_a_saved_dataset_that_is_cut_between_two_batches_is_refused(root, streaming):
    made = datasets.Dataset.from_dict({"image": [stored()] * 30, "caption": [str(n) for n in range(30)]})
    made.save_to_disk(str(root), num_shards=1)
    (path,) = root.glob("*.arrow")
    whole = path.read_bytes()
    assert len(opened(root)) == 30
    path.write_bytes(whole[:-8])  # the library reads this without a word, as all that was written
    assert len(datasets.load_from_disk(str(root))) == 30
    with pytest.raises(CorruptFile, match=r"arrow is truncated: expected the end mark of an Arrow stream"):
        opened(root, streaming=streaming)


def test_what_the_machine_refuses_is_neither_damage_nor_a_missing_connection(root):
    parquet(root / "train.parquet", {"image": [stored()], "caption": ["a"]})
    (root / "loop").symlink_to("loop")
    assert len(opened(root)) == 1
    with pytest.raises(MissingData, match="no folder at"):
        folder_files(str(root / "loop"))
    (root / "data.arrow").symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match=r"cannot read .*data.arrow"):
        check_arrow([root / "data.arrow"])


def test_a_folder_that_is_gone_is_no_bad_sample(root):
    (root / "a.bin").write_bytes(picture())
    (root / "train.jsonl").write_text('{"image": "a.bin", "caption": "x"}')
    dataset = opened(root)
    root.rename(root.parent / "moved")
    with pytest.raises(MissingData, match="is not there any more"):
        dataset[0].image()


def test_without_a_connection_the_setting_that_forbids_it_is_named():
    with pytest.raises(MissingData, match=r"nobody/nothing is not available: .*Offline") as raised:
        HFDataset(HFParams(path="nobody/nothing"), "train")
    assert "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE forbids connections" in raised.value.hint


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub that says which commit a revision of a dataset is."""

    commits: ClassVar[dict[str, str]] = {}

    def do_GET(self):
        """Answer with the commit of `/api/datasets/OWNER/NAME`, with or without `/revision/REVISION`."""
        revision = self.path.partition("?")[0].partition("/revision/")[2] or "main"
        found = self.commits.get(revision)
        content = json.dumps({"id": "some/where", "sha": found}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(Hub, "commits", {"main": "a" * 40, "v1": "b" * 40})
    yield server
    server.shutdown()
    server.server_close()


def identified(**params):
    commit_of.cache_clear()  # a command asks once
    return identify(HFParams(**params))


def test_a_dataset_on_the_hub_is_identified_by_its_commit_and_remembered_without_a_connection(hub, monkeypatch):
    assert identified(path="some/where") == f"hub:some/where@{'a' * 40}"
    assert (
        identified(path="some/where@v1") == identified(path="some/where", revision="v1") == f"hub:some/where@{'b' * 40}"
    )
    assert identified(path="some/where", revision="c" * 40) == f"hub:some/where@{'c' * 40}"
    assert identified(path="some/where", revision="gone") == "hub:some/where@gone"
    Hub.commits["main"] = "d" * 40
    assert identified(path="some/where") == f"hub:some/where@{'d' * 40}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert identified(path="some/where") == f"hub:some/where@{'d' * 40}"
    assert identified(path="other/where") == "hub:other/where@main"


def test_revisions_that_contradict_each_other_or_have_no_repository_are_refused(root):
    for params in ({"path": "a/b@v1", "revision": "v2"}, {"path": "a/b@"}, {"path": "@v1"}):
        with pytest.raises(
            InvalidConfig, match=r"names the revision 'v1', revision= names 'v2'|expected NAME@REVISION"
        ):
            identified(**params)
    with pytest.raises(InvalidConfig, match="revision=v1 is for a dataset on the hub, found a folder"):
        identified(root=str(root), revision="v1")


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
names = texts.filter(lambda text: text.strip())
fast = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def the_same(dataset, ids, captions):
    expected = [unicodedata.normalize("NFC", name) for name in ids]
    assert list(dataset.ids) == expected
    assert [dataset[n].caption or "" for n in range(len(dataset))] == captions


@fast
@given(st.dictionaries(names, texts, min_size=1, max_size=5), st.sampled_from(["csv", "jsonl", "parquet"]))
@pytest.mark.filterwarnings("ignore:hf. in the train split:UserWarning")
def test_what_was_written_comes_back_whole(tmp_path_factory, rows, form):
    root = tmp_path_factory.mktemp("rows")
    image = root / "a.png"
    image.write_bytes(picture())
    ids, captions = list(rows), list(rows.values())
    path = root / "data" / f"train.{form}"
    path.parent.mkdir()
    if form == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "id", "caption"])
            writer.writerows([image, name, text] for name, text in rows.items())
    elif form == "jsonl":
        lines = [{"image": str(image), "id": name, "caption": text} for name, text in rows.items()]
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    else:
        parquet(path, {"image": [stored()] * len(rows), "id": ids, "caption": captions})
    if len({unicodedata.normalize("NFC", name) for name in ids}) < len(ids):
        with pytest.raises(InvalidConfig, match="expected unique ids"):
            opened(path.parent, id="id")
        return
    the_same(opened(path.parent, id="id"), ids, captions)


@given(st.lists(st.none() | st.lists(st.none() | texts, max_size=3), max_size=6))
def test_empty_captions_are_found_wherever_they_are(rows):
    expected = [not (text or "").strip() for row in rows for text in (row or [None])]
    column = pa.chunked_array([pa.array([None, *rows], pa.list_(pa.string()))]).slice(1)
    assert empty_captions(column).tolist() == expected
    flat = [text for row in rows for text in row or []]
    found = empty_captions(pa.chunked_array([pa.array(flat, pa.string())]))
    assert np.array_equal(found, [not (text or "").strip() for text in flat])
