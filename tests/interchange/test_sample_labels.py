"""Labels of imported samples: read from files, matched by id, kept beside the features."""

import csv
import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.interchange.feature_files import open_source
from sparc.interchange.import_features import import_features
from sparc.interchange.sample_labels import ImportedSamples, labelling, read_labels
from sparc.storage.store import open_streams
from sparc.system.names import same_name

FOUND = {"one": ("cat", "dog"), "two": (), "três": ("a, b",)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", 'id,labels\none,cat;dog\ntwo,\ntrês,"[\'a, b\']"\n'),
        ("l.csv", "\ufeffimage;ID; Labels\r\nx;one;['cat' 'dog']\r\ny;two;nan\r\nz;tre\u0302s;[\"a, b\"]\r\n"),
        ("l.tsv", 'id\tlabels\none\tcat; dog;cat\ntwo\t\ntrês\t["a, b"]\n'),
        ("l.jsonl", '{"id": "one", "labels": ["cat", "dog", null]}\n\n{"id": "two", "labels": null}\n{"labels": ["a, b"], "id": "três"}'),  # noqa: E501
        ("l.json", '{"one": "cat;dog", "two": [], "três": ["a, b"]}'),
    ],
)  # fmt: skip
def test_labels_are_read_from_each_form(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == FOUND
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert read_labels(tmp_path / f"{name}.gz") == FOUND


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(lambda text: same_name(text.strip()))
IDS = TEXTS.filter(lambda text: text.strip("\ufeff ") == text != "")
LABELS = st.lists(TEXTS.filter(lambda text: bool(text)), unique=True, max_size=3)


@given(found=st.dictionaries(IDS, LABELS, min_size=1).filter(lambda found: any(found.values())))
def test_what_a_writer_of_tables_wrote_comes_back_whole(tmp_path_factory, found):
    """csv and json quote whatever ids and labels hold; a list in a cell is written as JSON."""
    folder = tmp_path_factory.mktemp("labels")
    with (folder / "l.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "labels"])
        writer.writerows([one, json.dumps(labels)] for one, labels in found.items())
    expected = {one: tuple(labels) for one, labels in found.items()}
    assert read_labels(folder / "l.csv") == expected
    (folder / "l.json").write_text(json.dumps(found))
    assert read_labels(folder / "l.json") == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "name,labels\na,b\n", "l.csv, line 1: expected a header with columns id and labels, found 'name,lab"),
        ("l.csv", "", "l.csv, line 1: expected a header"),
        ("l.csv", "id,id,labels\na,b,c\n", "line 1: expected one column 'id', found 2"),
        ("l.csv", "id,labels\na,b\nc\nd,e,f\n", r"line 3: expected 2 cells, found 1: 'c'; and 1 more problem"),
        ("l.csv", "id,labels\na,b\n,c\n", "line 3: expected an id, found ''"),
        ("l.csv", "id,labels\na,b\nc,d\na,e\n", "line 4: found the id 'a' in line 2 too"),
        ("l.csv", 'id,labels\na,"b\nc,d\n', "line 2: a quote opens here and is not closed"),
        ("l.csv", "id,labels\na,\nb,nan\n", "expected labels, found none"),
        ("l.jsonl", '{"id": 3, "labels": ["a"]}\n{"id": "x"}\n[1]\n', "line 2: expected an object with 'id' and 'labels'.*; and 1 more"),  # noqa: E501
        ("l.jsonl", '{"id": "a", "labels": {"b": 1}}\n', "line 1: the labels of 'a': expected a text or a list"),
        ("l.json", '["a"]', "holds no labels: expected an object that maps ids to labels, found a list"),
        ("l.json", '{"a": ["b"], " a": ["c"]}', "holds no labels: 'a' is there twice"),
        ("l.json", '{"a": ["b"', "holds no labels: "),
        ("l.npy", "", "expected a file of labels, found '.npy'"),
    ],
)  # fmt: skip
def test_files_that_hold_no_labels_are_refused_with_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        read_labels(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingData, match=r"labels not found: .*l\.csv"):
        read_labels(tmp_path / "l.csv")


def test_commas_and_empty_rows_are_said(tmp_path):
    (tmp_path / "l.csv").write_text('id,labels\n,\na,"b, c"\n')
    commas = pytest.warns(UserWarning, match=r"with a comma and no ';', .*: 1, such as 'b, c'; write several as a;b")
    with commas, pytest.warns(UserWarning, match=r"left out rows of .*l\.csv without any text: 1"):
        assert read_labels(tmp_path / "l.csv") == {"a": ("b, c",)}


def test_labels_belong_to_the_split_of_their_samples_and_damage_is_found(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(6)[:, :3] + 1, ids=np.array(list("uvwxyz")))
    given_ = labelling({"u": ("cat",), "x": ("cat", "dog"), "q": ("dog",)}, None)
    split = dict.fromkeys("uvwz", "train") | dict.fromkeys("xy", "test")
    with pytest.warns(UserWarning, match="labels of ids that no sample has are left out: 1, such as 'q'"):
        train, test = import_features(
            {"a": open_source(tmp_path / "a.npz")}, tmp_path / "out", split=split, labels=given_
        )
    assert (train.labelled, test.labelled) == (1, 1)
    folder = tmp_path / "out" / "test"
    ids = open_streams({"a": folder / "a"}).ids
    samples = ImportedSamples(ids, folder)
    assert ids == ("x", "y")
    assert samples.labels().toarray().tolist() == [[1, 1], [0, 0]]
    assert ImportedSamples(ids, tmp_path).labels() is None
    with pytest.raises(CorruptFile, match=r"labels\.json is truncated or altered: its labels are not those"):
        ImportedSamples(("x", "z"), folder).labels()
    whole = (folder / "labels.json").read_text()
    others = [whole.replace("[0, 1]", other) for other in ("[0, 2]", "[0]", "[1, 1]", "[true, 1]")]
    for damage in (*others, whole.replace('"dog"', '"dig"'), whole.replace('"parents"', '"p"'), "[]", whole[:-9]):
        (folder / "labels.json").write_text(damage)
        with pytest.raises(CorruptFile, match=r"labels\.json"):
            ImportedSamples(ids, folder).labels()
    before = {key: value for key, value in json.loads(whole).items() if key != "sha256"}  # there were checksums
    (folder / "labels.json").write_text(json.dumps(before))
    assert ImportedSamples(ids, folder).labels().toarray().tolist() == [[1, 1], [0, 0]]


def test_positions_of_a_split_find_their_labels(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.eye(3) + 1, indices=np.arange(3))
    given_ = labelling({"1": ("cat",)}, {"cat": ["any"], "any": []})
    import_features({"a": open_source(tmp_path / "a.npz")}, tmp_path / "out", split="train", labels=given_)
    samples = ImportedSamples(("train/0", "train/1", "train/2"), tmp_path / "out" / "train")
    assert samples.labels().toarray().tolist() == [[0, 0], [1, 0], [0, 0]]
    assert samples.taxonomy.parents == {"cat": ("any",), "any": ()}
    with pytest.raises(InvalidConfig, match="none of their 1 ids is that of a sample: 'test/x'; samples: 'test/0'"):
        import_features(
            {"a": open_source(tmp_path / "a.npz")},
            tmp_path / "out",
            split="test",
            labels=labelling({"x": ("c",)}, None),
        )


@pytest.mark.slow
def test_the_command_takes_labels_and_a_taxonomy(tmp_path, sparc_here):
    generator = np.random.default_rng(0)
    ids = [f"s{number}" for number in range(200)]
    classes = generator.integers(0, 2, 200)
    for name in ("a", "b"):
        values = 2 * np.eye(2)[classes] @ generator.standard_normal((2, 6)) + 0.1 * generator.standard_normal((200, 6))
        np.savez(tmp_path / f"{name}.npz", features=values, ids=np.array(ids))
    rows = "".join(f"{one},{('cat', 'dog')[which]}\n" for one, which in zip(ids, classes, strict=True))
    (tmp_path / "labels.csv").write_text(f"id,labels\n{rows}")
    (tmp_path / "taxonomy.json").write_text('{"animal": [], "cat": ["animal"], "dog": ["animal"]}')
    streams = ("--stream", "a=a.npz", "--stream", "b=b.npz")
    refused = sparc_here("import", "features", *streams, "--taxonomy", "taxonomy.json", "--out", "imp")
    assert "--taxonomy: expected --labels too" in refused.stderr
    done = sparc_here(
        *("import", "features", *streams, "--labels", "labels.csv", "--taxonomy", "taxonomy.json", "--out", "imp")
    )
    assert done.returncode == 0, done.stderr
    assert "train: 156 samples, 156 with labels" in done.stdout
    trained = sparc_here("train", "--features", "imp", "--epochs", 5, "--out", "run")
    assert "Alignment: Jaccard of labels" in trained.stdout, trained.stderr
    shown = sparc_here("evaluate", "run")
    assert "animal" in (tmp_path / "run" / "evaluation" / "latents.csv").read_text() or "cat" in shown.stdout
