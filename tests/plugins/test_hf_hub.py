"""Datasets on the hub, for the dataset `hf`: tables of texts are read as those of a folder are."""

import gzip
import shutil
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc_plugins.hf_dataset import HFDataset, HFParams
from sparc_plugins.hf_dataset.commits import commit_of

datasets = pytest.importorskip("datasets")
OLD, NEW = "a" * 40, "b" * 40
RED = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
CSV = f"image,caption,id\n{RED},2021-03-01,007\n{RED},NA,1.50\n"
LINE = (
    f'{{"image": "{RED}", "caption": "2021-03-01", "id": "007"}}\n{{"image": "{RED}", "caption": "NA", "id": 1.50}}\n'
)
LISTED = f"[{LINE.strip().replace(chr(10), ',')}]"


@pytest.fixture(autouse=True)
def nothing_outside(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    datasets.disable_progress_bars()


@pytest.fixture
def put(hub):
    """A function that makes the files of the repository lab/set at a commit."""

    def write(files, commit=OLD):
        content = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        hub.repos.setdefault("datasets/lab/set", []).append((commit, content))

    return write


def opened(split="train", **params):
    commit_of.cache_clear()  # a command asks once
    return HFDataset(HFParams(**{"path": "lab/set", "holdout": 0, "id": "id", **params}), split)


def cells(dataset):
    return [(one.id, one.caption) for one in map(dataset.__getitem__, range(len(dataset)))]


def said(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in found]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", CSV),
        ("data/train.tsv", CSV.replace(",", "\t")),
        ("train.csv.gz", gzip.compress(CSV.encode())),
        ("train.jsonl", LINE),
        ("some.json", LISTED),
    ],
)
def test_cells_of_text_files_stay_as_written(put, name, content):
    put({name: content, "README.md": "# A set"})
    found = opened()
    assert cells(found) == [("007", "2021-03-01"), ("1.50", "NA")]
    assert found[0].image().getpixel((0, 0)) == (255, 0, 0)


def test_a_stream_is_read_so_too(put):
    put({"data.csv": CSV})
    assert cells(opened(streaming=True, rows=1)) == [("007", "2021-03-01")]


@pytest.mark.filterwarnings("ignore:hf. splits that are not used")
def test_names_and_folders_make_the_splits_and_only_those_in_use_are_downloaded(put, hub):
    put({f"{name}.jsonl": LINE.replace("NA", name) for name in ("train/a", "validation/a", "test/a", "test/b")})
    assert cells(opened("test", test_split="validation"))[1] == ("1.50", "validation/a")
    assert not any("GET" in asked and "/test/" in asked and "resolve" in asked for asked in hub.asked)
    with pytest.raises(InvalidConfig, match="unique ids, found '007' in the rows 0 and 2"):
        opened("test")


def test_without_a_connection_it_is_read_from_the_cache_or_said_to_be_missing_at_once(put, hub, monkeypatch):
    put({"data.csv": CSV})
    before = cells(opened())
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nobody)
    template = f"{nobody}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", nobody)
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    assert cells(opened()) == before
    with pytest.raises(MissingData, match="hf: lab/other is not available: no connection to the hub") as raised:
        opened(path="lab/other")
    assert "check the connection" in raised.value.hint
    assert not waited


CARD = """---
configs:
- config_name: one
  sep: ";"
  data_files:
  - split: train
    path: tables/a.csv
- config_name: two
  data_files: "tables/b.csv"
dataset_info:
- config_name: one
  features:
  - {name: image, dtype: string}
  - {name: caption, dtype: string}
  - {name: id, dtype: string}
  - name: kind
    dtype: {class_label: {names: {'0': cat, '1': dog}}}
---
"""


@pytest.mark.filterwarnings("ignore:hf. 2 files of lab/set are in no split")
def test_the_card_names_files_separator_and_classes(put):
    rows = f"image;caption;id;kind\n{RED};a;07;1\n{RED};b;08;0\n"
    put({"README.md": CARD, "tables/a.csv": rows, "tables/b.csv": CSV, "tables/c.csv": CSV})
    found = opened(name="one", labels="kind")
    assert [found.taxonomy.labels[column] for column in found.labels().argmax(axis=1)] == ["dog", "cat"]
    assert cells(found) == [("07", "a"), ("08", "b")]
    assert said(lambda: cells(opened(name="two"))) == [
        "hf: 2 files of lab/set are in no split and are not read: tables/a.csv, tables/c.csv; a split is one format, "
        "named by file or folder"
    ]
    with pytest.raises(InvalidConfig, match=r"lab/set: .*one.*two") as raised:
        opened(name="three")
    assert raised.value.hint == "set 'name' to a configuration of the dataset"


def test_what_only_the_library_understands_it_reads_and_that_is_said(put):
    put(
        {
            "README.md": '---\nconfigs:\n- config_name: a\n  skiprows: 1\n  data_files: "*.csv"\n---\n',
            "a.csv": f"#\n{CSV}",
        }
    )
    assert said(lambda: opened(id=None)) == [
        "hf: the card of lab/set says how to read its tables, skiprows: the library 'datasets' reads them, and may "
        "turn texts such as 007 into numbers or times",
        "hf: in the train split 1 of 2 captions are empty (row 1)",
    ]


def test_other_formats_are_read_by_the_library(put):
    table = pa.table({"image": [{"bytes": b"", "path": None}], "caption": ["parquet"], "id": ["a"]})
    pq.write_table(table, file := pa.BufferOutputStream())
    put({"data/train-00000-of-00001.parquet": file.getvalue().to_pybytes()})
    assert cells(opened()) == [("a", "parquet")]


def test_the_files_are_those_of_the_commit_that_identifies_them_also_without_a_connection(put, monkeypatch):
    put({"train.csv": CSV.replace("NA", "old")})
    assert cells(opened())[1] == ("1.50", "old")
    put({"train.csv": CSV.replace("NA", "new")}, NEW)
    assert cells(opened())[1] == ("1.50", "new")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert cells(opened())[1] == ("1.50", "new")
    assert cells(opened(revision=OLD))[1] == ("1.50", "old")


def test_records_are_checked_and_errors_name_repository_or_line(put, hub):
    put({"train.csv": f"{CSV}x.png,a dog, running,3\n", "test.csv": CSV})
    with pytest.raises(InvalidConfig, match=r"train.csv, line 4: expected 3 fields \(image, caption, id\), found 4"):
        opened()
    put({"train.jsonl": LINE + "{"}, NEW)
    with pytest.raises(CorruptFile, match=r"train.jsonl, line 3: "):
        opened()
    with pytest.raises(MissingData, match="no/where is not available"):
        opened(path="no/where")


def test_a_file_that_cannot_be_downloaded_is_no_damaged_file(put, hub):
    put({"train.csv": CSV})
    opened()
    hub.repos["datasets/lab/set"] = [(OLD, {})]
    shutil.rmtree(hub.cache)
    with pytest.raises(MissingData, match=r"lab/set is not available: .*404"):
        opened()
