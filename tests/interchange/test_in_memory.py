"""Features and labels in memory: described, kept in the store as an import keeps files, and trained on."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import sparc
from sparc.errors import BadFeatures, InvalidConfig
from sparc.interchange.import_features import import_features
from sparc.interchange.in_memory import held
from sparc.interchange.sample_labels import ImportedSamples
from sparc.plugins.datasets import held_out
from sparc.storage.run import Run
from sparc.storage.store import open_streams

X = np.arange(1.0, 13.0).reshape(6, 2)
SPLIT = ["train", "train", "train", "train", "test", "test"]


def kept(tmp_path, features, **beside):
    """Import what is in memory, and return the two splits as stores."""
    found = held(features, **{"split": SPLIT, **beside})
    import_features(found.sources, tmp_path, split=found.splits, labels=found.labels)
    return [open_streams({name: tmp_path / split / name for name in features}) for split in ("train", "test")]


@pytest.mark.parametrize(
    "value",
    [
        X,
        X.tolist(),
        X[:, None, :],
        torch.tensor(X, requires_grad=True),
        torch.tensor(X).to(torch.bfloat16),
        torch.tensor(X, dtype=torch.int64),
        list(torch.tensor(X)),
        [torch.tensor(X[:4]), torch.tensor(X[4:])],
        np.asfortranarray(X),
        torch.tensor(X.T.copy()).T,
    ],
    ids=["array", "lists", "one token", "gradient", "bfloat16", "int", "vectors", "batches", "fortran", "strided"],
)
def test_arrays_of_any_kind_come_back_as_float32(value, tmp_path):
    train, test = kept(tmp_path, {"a": value, "b": X[:, :1]})
    assert train.in_memory()["a"].tolist() == X[:4].tolist()
    assert test.in_memory()["a"].tolist() == X[4:].tolist()
    assert train.in_memory()["b"].tolist() == [[1], [3], [5], [7]]
    assert (train.ids, test.ids) == (("0", "1", "2", "3"), ("4", "5"))


def test_streams_with_ids_of_their_own_are_joined_by_id(tmp_path):
    ids = {"a": ["n", "é", 3], "b": [3, "n", "x"]}
    split = dict.fromkeys(["n", "3", "x"], "train") | {"é": "test"}
    with pytest.raises(InvalidConfig, match="none of the 1 samples of the split 'test' has two streams"):
        kept(tmp_path, {"a": X[:3], "b": X[3:]}, ids=ids, split=split)
    train, test = kept(tmp_path, {"a": X[:3], "b": X[3:]}, ids=ids, split=split | {"3": "test"}, labels={3: "cat"})
    assert train.ids == ("n", "x")
    assert train.in_memory()["a"].tolist() == [[1, 2], [0, 0]]
    assert train.in_memory()["b"].tolist() == [[9, 10], [11, 12]]
    assert test.in_memory()["b"].tolist() == [[0, 0], [7, 8]]
    assert ImportedSamples(test.ids, tmp_path / "test").labels().toarray().tolist() == [[0], [1]]
    mapped, _ = kept(
        tmp_path / "mapped", {"a": dict(zip("uvwxyz", X, strict=True)), "b": dict(zip("uvwxyz", X, strict=True))}
    )
    assert mapped.ids == ("u", "v", "w", "x")


@pytest.mark.parametrize(
    ("labels", "names", "rows"),
    [
        (np.array([0, 1, 1, 0, 10, 1]), ["0", "1", "10"], [["10"], ["1"]]),
        (torch.tensor([3, 3, 3, 3, 3, 4]), ["3", "4"], [["3"], ["4"]]),
        (["a", "b", "b", "a", " c;d ", ""], ["a", "b", "c;d"], [["c;d"], []]),
        ([["a"], [], None, ("b", "a"), {"c"}, float("nan")], ["a", "b", "c"], [["c"], []]),
        (np.eye(6)[:, :5].astype(bool), ["0", "1", "2", "3", "4"], [["4"], []]),
        (np.array(["a", "é", "a", "a", "e\u0301", "a"]), ["a", "é"], [["é"], ["a"]]),
        ({"4": ["z"], "0": "y"}, ["y", "z"], [["z"], []]),
    ],
)
def test_labels_are_read_in_the_forms_that_people_have(labels, names, rows, tmp_path):
    _, test = kept(tmp_path, {"a": X, "b": X}, labels=labels)
    samples = ImportedSamples(test.ids, tmp_path / "test")
    assert list(samples.taxonomy.labels) == names
    assert samples.labels().toarray().tolist() == [[float(name in row) for name in names] for row in rows]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": {"a": X, "b": X[:5]}}, "as many rows in each stream, since there are no ids, found a 6, b 5"),
        ({"features": {"a": X[0]}}, r"features of 'a': expected shape \(samples, width\), found \(2,\)"),
        ({"features": {"a": np.ones((2, 3, 4))}}, r"found \(2, 3, 4\)"),
        ({"features": {"a": np.ones((0, 3))}}, r"found \(0, 3\)"),
        ({"features": {"a": X > 2}}, "expected real numbers, found bool"),
        ({"features": {"a": torch.ones(2, 2, dtype=torch.complex64)}}, "expected real numbers, found torch.complex64"),
        ({"features": {"a": torch.eye(3).to_sparse()}}, "expected a dense tensor, found torch.sparse_coo"),
        ({"features": {"a": [[1.0], [1.0, 2.0]]}}, "features of 'a': expected rows of one width"),
        ({"features": {"a": [torch.ones(2), torch.ones(3)]}}, "expected vectors or batches of one width"),
        ({"ids": ["a", "b"]}, "ids: expected one for each of the 6 rows of 'a', found 2"),
        ({"ids": ["a"] * 6}, r"features\['a'\]: expected unique ids, found 'a' twice, in rows 0 and 1"),
        ({"ids": {"a": range(6)}}, "ids: found none for the stream 'b'"),
        ({"ids": {"c": range(6)}}, "ids: no stream 'c'"),
        ({"ids": [0.5] * 6}, "ids of 'a', row 0: expected an id, found float 0.5"),
        ({"ids": "names.txt"}, "expected a value for each row, found 'names.txt'"),
        ({"labels": [None] * 6}, "labels: expected labels, found none"),
        ({"labels": [1, 2]}, "labels: expected one for each of 6 rows, found 2"),
        ({"labels": X[:, 0]}, r"labels: expected class numbers or names, one per row, found float64 of shape \(6,\)"),
        ({"labels": X}, "labels: expected 0 and 1 in a matrix of a column per label, found 12"),
        ({"labels": {"x": "cat"}}, "labels: none of their 1 ids is that of a sample: 'x'; samples: '0', '1', '2'"),
        ({"labels": [1.5] * 6}, "labels: expected a name, a number or a list of them for '0', found 1.5"),
        ({"labels": list("aaaaab"), "taxonomy": {"a": []}}, "the label 'b' is not in taxonomy"),
        ({"labels": list("aaaaab"), "taxonomy": {"a": "b"}}, "taxonomy is not a taxonomy: label 'a' has the text 'b'"),
        ({"taxonomy": {"a": []}}, "taxonomy: expected labels too"),
        ({"split": ["train"] * 5 + ["val"]}, "split: expected train or test for the sample '5', found 'val'"),
        ({"split": {"0": "train"}}, "split: expected train or test for the sample '1', found None"),
    ],
)
def test_what_makes_no_sense_is_named(given, message):
    with pytest.raises(InvalidConfig, match=message):
        held(**{"features": {"a": X, "b": X}, **given})


def test_rows_that_are_no_features_are_named_by_array_and_row(tmp_path):
    with pytest.raises(BadFeatures, match=r"stream 'a' has a feature .* sample '4', row 4 of features\['a'\]"):
        kept(tmp_path, {"a": np.where(X == 10, np.nan, X)})
    with pytest.raises(
        BadFeatures, match=r"found rows of zeros, 1 in all, the first in row 1 of features\['a'\]"
    ) as error:
        kept(tmp_path, {"a": np.where(X < 5, X * (X < 3), X)})
    assert "ids={'a': [...], ...}" in error.value.hint
    assert not list(tmp_path.glob("*/*/manifest.json"))


def grouped(seed=0, samples=400):
    """Two streams that show one of four classes each."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 4, samples)
    causes = 2 * np.eye(4)[classes] + 0.2 * generator.standard_normal((samples, 4))
    return {name: causes @ generator.standard_normal((4, width)) for name, width in (("a", 12), ("b", 8))}, classes


@pytest.mark.slow
def test_a_run_on_arrays_is_measured_resumed_and_named_as_any_other(tmp_path, monkeypatch, sparc_here):
    monkeypatch.chdir(tmp_path)
    features, classes = grouped()
    options = {"store": "store", "epochs": 6, "batch_size": 32, "device": "cpu"}
    taxonomy = {"any": [], "even": ["any"], "odd": ["any"], "0": ["even"], "1": ["odd"], "2": ["even"], "3": ["odd"]}
    trained = sparc.train(features=features, labels=classes, taxonomy=taxonomy, **options)
    assert trained.path == Path("runs/imported")
    assert [depth.depth for depth in trained.report.jaccard] == [0, 1, 2]
    drawn = [number for number in range(400) if held_out(str(number), 0.2)]
    assert trained.report.samples == len(drawn)
    (kept,) = (tmp_path / "store").iterdir()
    assert Run(trained.path).provenance().options.features == kept
    test = open_streams({"a": kept / "test" / "a"})
    assert test.ids == tuple(map(str, drawn))
    assert np.array_equal(test.in_memory()["a"].numpy(), features["a"][drawn].astype(np.float32))

    tensors = {name: torch.tensor(array) for name, array in features.items()}
    again = sparc.train(features=tensors, labels=torch.tensor(classes), taxonomy=taxonomy, **options)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [kept.name]
    theirs = again.space.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in trained.space.state_dict().items())

    measured = sparc.evaluate(trained.path)
    assert measured.evaluation.report.concepts.confirmed > 0
    with (trained.path / "evaluation" / "latents.csv").open() as file:
        assert {row["name"] for row in csv.DictReader(file) if row["confirmed"] == "True"} <= set(taxonomy)
    assert sparc.explore(trained.path).is_file()
    done = sparc_here("info", trained.path)
    assert done.returncode == 0
    assert "imported test" in done.stdout


def test_mistakes_are_errors_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong, message in (
        ({"k": 64, "n_latents": 32}, "expected at most n_latents"),
        ({"dataset": "digits"}, "--features takes features that are already computed, found --dataset too"),
        ({"n_latent": 3}, "unknown parameter 'n_latent'"),
        ({"features": {}}, "features: expected arrays by the names of their streams"),
        ({"features": [X, X]}, "features: expected a folder, or arrays by the names of their streams, found list"),
        ({"features": X}, "features: expected a folder, or arrays by the names of their streams, found ndarray"),
        ({"features": {3: X}}, "features: expected arrays by the names of their streams"),
        ({"features": {"a/b": X}}, "features: "),
        ({"features": "folder", "labels": [1]}, "labels: expected features in memory too"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            sparc.train(**{"features": {"a": X, "b": X}, "store": "store", **wrong})
    with pytest.raises(InvalidConfig, match=r"found arrays in memory, which only sparc\.train takes"):
        sparc.extract(features={"a": X})
    assert not list(tmp_path.iterdir())
