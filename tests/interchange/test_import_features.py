"""Features computed elsewhere: read in every format, joined by id, and used for training."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from sparc.config import PluginRef
from sparc.errors import BadFeatures, CorruptFile, InvalidConfig, MissingData, StorageError, UnknownName
from sparc.extraction import JobOptions
from sparc.extraction import imported as plan_imported
from sparc.interchange.feature_files import open_source
from sparc.interchange.import_features import import_features
from sparc.plugins.datasets import held_out
from sparc.storage.store import open_streams

IDS = ["b", "é", "a", "10"]
WIDTHS = (("one", 6), ("two", 4))
FEATURES = np.arange(8, dtype=np.float32).reshape(4, 2) + 1


def write(path, features=FEATURES, ids=IDS):
    """Write a file in the format of its suffix, in the usual way."""
    match path.suffix:
        case ".npy":
            np.save(path, features)
            (path.parent / "ids.txt").write_text("\r\n".join(ids), encoding="utf-8-sig")
        case ".npz":
            np.savez(path, features=features.astype(np.float16), ids=np.array(ids))
        case ".safetensors":
            save_file({"features": torch.from_numpy(features)}, path, metadata={"ids": json.dumps(ids)})
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.table({"ids": list(ids), "features": features.tolist()}), path)
        case ".h5":
            with h5py.File(path, "w") as file:
                file.create_dataset("features", data=features, compression="gzip")
                file["ids"] = [one.encode() for one in ids]
        case ".pt":
            torch.save(torch.from_numpy(features), path)  # noqa: TID251  # as others do
            (path.parent / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return path


def imported(out, sources, **kwargs):
    """Import files by stream."""
    return import_features({name: open_source(path) for name, path in sources.items()}, out, **kwargs)


def rows_of(source, room):
    """Return all features of a source, in storage order."""
    return np.concatenate(list(source.blocks(room))).tolist()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet", ".h5", ".pt"])
def test_every_format_gives_features_and_ids(tmp_path, suffix):
    path = write(tmp_path / f"some{suffix}")
    source = open_source(path, tmp_path / "ids.txt" if suffix in (".npy", ".pt") else None)
    assert source.ids == IDS
    assert source.width == 2
    assert rows_of(source, tmp_path) == FEATURES.tolist()


def test_the_layout_of_the_papers_authors_is_read(tmp_path):
    """HDF5 with `features` (N, d) and `indices` (N)."""
    with h5py.File(tmp_path / "paper.h5", "w") as file:
        file["features"] = FEATURES
        file["indices"] = np.array([30, 10, 20, 40])
    assert open_source(tmp_path / "paper.h5").ids == ["30", "10", "20", "40"]


def test_rows_are_joined_by_id_and_what_a_stream_lacks_is_listed(tmp_path):
    one = write(tmp_path / "one.npz")
    other = write(tmp_path / "other.h5", FEATURES[:3] * 10, ["a", "new", "b"])
    (found,) = imported(tmp_path / "out", {"one": one, "other": other}, split="train")
    assert found.samples == 5
    assert found.lacking == {"one": ["new"], "other": ["é", "10"]}
    store = open_streams({name: tmp_path / "out" / "train" / name for name in ("one", "other")})
    assert store.ids == ("b", "é", "a", "10", "new")
    assert store.in_memory()["one"].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [0, 0]]
    assert store.in_memory()["other"].tolist() == [[50, 60], [0, 0], [10, 20], [0, 0], [30, 40]]


def test_what_is_held_out_is_drawn_by_id_alone(tmp_path):
    ids = [str(number) for number in range(2000)]
    path = write(tmp_path / "many.npz", np.ones((2000, 1)), ids)
    train, test = imported(tmp_path / "out", {"s": path}, holdout=0.25)
    assert (train.split, test.split) == ("train", "test")
    assert abs(test.samples - 500) < 60
    again = write(tmp_path / "again.npz", np.ones((1999, 1)), ids[::-1][:-1])
    imported(tmp_path / "more", {"s": again}, holdout=0.25)
    first, second = (set(open_streams({"s": tmp_path / out / "test" / "s"}).ids) for out in ("out", "more"))
    assert first - {"0"} == second


def test_streams_without_a_sample_in_common_are_refused(tmp_path):
    one = write(tmp_path / "one.npz")
    other = write(tmp_path / "other.npz", FEATURES, ["001", "002", "003", "004"])
    with pytest.raises(
        InvalidConfig, match=r"stream 'one' has no sample in common with another: one: b, é, .*; other: 001"
    ):
        imported(tmp_path / "out", {"one": one, "other": other})


def test_a_split_in_which_no_sample_has_two_streams_is_refused_before_anything_is_written(tmp_path):
    one = write(tmp_path / "one.npz", np.ones((40, 2)), [str(n) for n in range(40)])
    shared = next(str(n) for n in range(40) if not held_out(str(n), 0.3))
    other = write(tmp_path / "other.npz", np.ones((1, 2)), [shared])
    with pytest.raises(InvalidConfig, match=r"none of the \d+ samples of the split 'test' has two streams"):
        imported(tmp_path / "out", {"one": one, "other": other}, holdout=0.3)
    assert not (tmp_path / "out").exists()
    assert imported(tmp_path / "out", {"one": one, "other": other}, split="train")[0].samples == 40


def test_a_feature_that_is_not_finite_names_stream_and_sample(tmp_path):
    features = FEATURES.copy()
    features[2, 1] = np.nan
    with pytest.raises(BadFeatures, match=r"stream 's' .* not finite at sample 'a', row 2 of .*one.npz") as error:
        imported(tmp_path / "out", {"s": write(tmp_path / "one.npz", features)}, split="train")
    assert "preprocessing" not in error.value.hint


def test_files_that_are_no_features_are_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones(4))
    np.savez(tmp_path / "named.npz", embeddings=FEATURES)
    np.savez(tmp_path / "short.npz", features=FEATURES, ids=np.array(["a"]))
    np.savez(tmp_path / "twice.npz", features=FEATURES, ids=np.array(["a", "b", "a", "c"]))
    np.savez(tmp_path / "none.npz", features=FEATURES)
    (tmp_path / "text.csv").write_text("1,2")
    for name, message in {
        "flat.npy": r"expected 'features' of shape \(samples, width\), found \(4,\)",
        "named.npz": r"expected 'features' of shape \(samples, width\), found none",
        "short.npz": "expected as many ids as features, found 1 and 4",
        "twice.npz": "expected unique ids, found 'a' twice",
        "none.npz": "has no ids: expected 'ids' or 'indices' in it",
        "text.csv": "found '.csv'",
    }.items():
        with pytest.raises(InvalidConfig, match=message):
            open_source(tmp_path / name)
    with pytest.raises(MissingData, match="features not found"):
        open_source(tmp_path / "gone.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet", ".h5", ".pt"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = write(tmp_path / f"some{suffix}", np.ones((500, 64), dtype=np.float32), [str(one) for one in range(500)])
    path.write_bytes(path.read_bytes()[:-700])
    ids = tmp_path / "ids.txt" if suffix in (".npy", ".pt") else None
    with pytest.raises(CorruptFile, match=rf"some{suffix} cannot be read"):
        open_source(path, ids)


STREAMS = ("--stream", "clip-img=one.npz", "--stream", "clip-txt=two.h5")


def test_imported_features_are_trained_on_and_evaluated(sparc_command, sparc_here, tmp_path):
    """Imported features do not share a space, even under the names of two backbones that do."""
    generator = np.random.default_rng(0)
    causes = generator.random((300, 5))
    ids = [f"sample {number}" for number in range(300)]
    write(tmp_path / "one.npz", causes @ generator.random((5, 12)), ids)
    write(tmp_path / "two.h5", causes[20:] @ generator.random((5, 7)), ids[20:])
    done = sparc_here("import", "features", *STREAMS, "--out", "mine")
    assert done.returncode == 0, done.stderr
    assert "lack clip-txt: sample" in done.stdout
    assert "sparc train --features mine" in done.stdout
    small = ("--n-latents", 32, "--k", 4, "--epochs", 2, "--batch-size", 32)
    done = sparc_command("train", "--features", "mine", *small)
    assert done.returncode == 0, done.stderr
    assert "samples lack the stream clip-txt" in done.stdout
    # Sums of positive numbers are similar; after centring they are not.
    assert (
        "of the features' squared norm is the same for all samples; --normalization standard removes it" in done.stdout
    )
    assert "Retrieval" in done.stdout
    done = sparc_here("train", "--features", "mine", *small, "--normalization", "standard", "--out", "centred")
    assert done.returncode == 0, done.stderr
    assert "the same for all samples" not in done.stdout
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert "error: --features: no folder at" in sparc_here("evaluate", "runs/imported").stderr
    done = sparc_here("evaluate", "runs/imported", "--features", "moved")
    assert done.returncode == 0, done.stderr
    (tmp_path / "moved").rename(tmp_path / "mine")
    done = sparc_here("explore", "runs/imported", "--sheet")
    assert done.returncode == 1
    assert "was trained on imported features, without images and captions to draw" in done.stderr
    done = sparc_here("explore", "runs/imported")
    assert done.stdout.splitlines()[-1] == "runs/imported/explore/index.html", done.stderr
    data = tmp_path / "runs" / "imported" / "explore" / "data"
    assert '"dataset":null' in (data / "run.js").read_text()
    assert '"modality":"unknown"' in (data / "run.js").read_text()
    assert '"caption":[null,null' in (data / "samples.js").read_text()


def test_the_command_takes_names_of_arrays_for_all_streams_or_for_one(sparc_here, tmp_path):
    """One file often holds the features of several streams."""
    np.savez(tmp_path / "clip.npz", img=FEATURES, txt=FEATURES[:, :1] * 2, names=np.array(IDS))
    write(tmp_path / "dino.h5")
    streams = ("--stream", "i=clip.npz", "--stream", "t=clip.npz", "--stream", "d=dino.h5", "--split", "train")
    keys = ("--features-key", "img", "--features-key", "t=txt", "--features-key", "d=features")
    done = sparc_here(
        "import", "features", *streams, *keys, "--ids-key", "i=names", "--ids-key", "t=names", "--out", "o"
    )
    assert done.returncode == 0, done.stderr
    store = open_streams({name: tmp_path / "o" / "train" / name for name in "itd"})
    assert {name: rows.tolist() for name, rows in store.in_memory().items()} == {
        "i": FEATURES.tolist(),
        "t": (FEATURES[:, :1] * 2).tolist(),
        "d": FEATURES.tolist(),
    }
    done = sparc_here("import", "features", *streams, "--features-key", "x=img", "--out", "p")
    assert done.stderr == "error: --features-key: no stream 'x'\nhint:  streams: i, t, d\n"


def test_lines_of_ids_that_no_file_needs_are_not_ignored(sparc_here, tmp_path):
    write(tmp_path / "one.npz")
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    done = sparc_here("import", "features", "--stream", "a=one.npz", "--ids", "ids.txt", "--out", "o")
    assert done.returncode == 1
    assert "error: --ids: expected files without ids, or with positions, found ids in one.npz" in done.stderr


def test_an_import_that_does_not_fit_on_the_disk_is_refused_before_it_starts(tmp_path):
    """The file claims 37,253 GiB in float32, and holds none: its chunks were never written.

    Its one shard does not fit into memory, so a temporary file of half the size, in float16, is beside the shard.
    """
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file.create_dataset("features", (1000, 10**10), np.float16, chunks=(1, 2**20))
        file["ids"] = [str(row) for row in range(1000)]
    with pytest.raises(StorageError, match=r"expected 57,220,[0-9]{3}.[0-9] MiB of free space for .*out, found"):
        imported(tmp_path / "out", {"s": tmp_path / "some.h5"}, split="train")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--features", "gone"), "error: --features: no folder at"),
        (("--features", "."), "no imported features of the split 'train' in"),
        (("--features", "gone", "--dataset", "openmoji"), "found --dataset too"),
    ],
)
def test_training_on_imported_features_refuses_what_makes_no_sense(sparc_here, arguments, message):
    done = sparc_here("train", *arguments)
    assert done.returncode == 1
    assert message in done.stderr


def test_ids_of_lines_are_for_files_that_have_none(tmp_path):
    """A file with ids is never joined by row number."""
    write(tmp_path / "one.npy")
    other = write(tmp_path / "other.npz", FEATURES[::-1], IDS[::-1])
    first, second = open_source(tmp_path / "one.npy", tmp_path / "ids.txt"), open_source(other, tmp_path / "ids.txt")
    assert (first.ids, first.from_lines) == (IDS, True)
    assert (second.ids, second.from_lines) == (IDS[::-1], False)


def test_a_folder_that_holds_other_features_is_not_mixed_with_them(tmp_path):
    one, two = write(tmp_path / "one.npz"), write(tmp_path / "two.npz", FEATURES[:2] + 1, ["y", "z"])
    imported(tmp_path / "out", {"s": one}, split="train")
    with pytest.raises(InvalidConfig, match="already holds imported features"):
        imported(tmp_path / "out", {"s": one}, split="train")
    with pytest.raises(InvalidConfig, match=r"expected the streams and widths of .*\{'s': 2\}, found \{'other': 2\}"):
        imported(tmp_path / "out", {"other": two}, split="test")
    with pytest.raises(InvalidConfig, match=r"the sample 'b' is in .*train too"):
        imported(tmp_path / "out", {"s": one}, split="test")
    imported(tmp_path / "out", {"s": two}, split="test")
    assert open_streams({"s": tmp_path / "out" / "test" / "s"}).ids == ("y", "z")


def test_an_import_that_breaks_off_counts_for_nothing(tmp_path):
    broken = FEATURES.copy()
    broken[3] = np.inf
    sources = {"a": write(tmp_path / "a.npz"), "b": write(tmp_path / "b.npz", broken)}
    with pytest.raises(BadFeatures):
        imported(tmp_path / "out", sources, split="train")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_a_file_is_not_taken_for_the_folder_to_write(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InvalidConfig, match="expected a folder, found the file"):
        imported(tmp_path / "out", {"s": write(tmp_path / "one.npz")})


def test_streams_of_the_splits_must_be_the_same(tmp_path):
    write(tmp_path / "one.npz")
    for split, name in (("train", "a"), ("train", "b"), ("test", "a")):
        path = write(tmp_path / f"{split}-{name}.npz", FEATURES, [f"{split} {one}" for one in IDS])
        imported(tmp_path / f"{split}-{name}", {name: path}, split=split)
        (tmp_path / "out" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{split}-{name}" / split / name).rename(tmp_path / "out" / split / name)
    with pytest.raises(UnknownName, match="no stream named 'b' was imported as 'test'"):
        plan_imported(tmp_path / "out", [], JobOptions())
    assert list(plan_imported(tmp_path / "out", [PluginRef(name="a", alias="a")], JobOptions())["test"]) == ["a"]


def test_arrays_of_python_objects_and_of_other_names_are_refused_with_the_line_to_write(tmp_path):
    objects = np.array(IDS, dtype=object)
    line = "np.savez(file, features=x, ids=ids)"
    for arrays, message, hint in (
        ({"features": FEATURES, "ids": objects}, "'ids' are Python objects", "save ids.astype(str)"),
        ({"features": FEATURES.astype(object)}, "'features' are Python objects", "save features.astype('float32')"),
        ({"x": FEATURES, "names": objects}, r"expected 'features' of .* found none", f"under that name: {line}"),
        ({"features": FEATURES, "names": objects}, "has no ids", f"or write them too: {line}"),
    ):
        np.savez(tmp_path / "some.npz", **arrays)
        with pytest.raises(InvalidConfig, match=message) as error:
            open_source(tmp_path / "some.npz")
        assert hint in error.value.hint
    np.savez(tmp_path / "some.npz", features=FEATURES, ids=objects.astype(str))
    assert open_source(tmp_path / "some.npz").ids == IDS


def test_arrays_of_other_machines_and_kinds_are_read_or_refused(tmp_path):
    np.savez(tmp_path / "big.npz", features=FEATURES.astype(">f4"), indices=np.arange(4, dtype=">i8"))
    source = open_source(tmp_path / "big.npz")
    assert source.ids == ["0", "1", "2", "3"]
    assert rows_of(source, tmp_path) == FEATURES.tolist()
    np.savez(tmp_path / "words.npz", features=np.array([["a", "b"]]), ids=np.array(["x"]))
    np.savez(tmp_path / "complex.npz", features=FEATURES * 1j, ids=np.array(IDS))
    np.savez(tmp_path / "column.npz", features=FEATURES, ids=np.arange(8).reshape(4, 2))
    np.savez(tmp_path / "reals.npz", features=FEATURES, ids=np.arange(4.0))
    for name, message in {
        "words": "expected real numbers",
        "complex": "expected real numbers",
        "column": "one per row",
        "reals": "as texts or whole numbers",
    }.items():
        with pytest.raises(InvalidConfig, match=message):
            open_source(tmp_path / f"{name}.npz")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "array.npy", FEATURES)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("empty.npy", "array.npz"):
        with pytest.raises(CorruptFile, match="cannot be read"):
            open_source(tmp_path / name)


def test_a_run_is_not_evaluated_on_other_samples(sparc_here, tmp_path):
    """The evaluation would be replaced by one on other samples than those of the training."""
    rows = np.random.default_rng(0).random((60, 6)).astype(np.float32)
    for folder, first in (("mine", 0), ("moved", 0), ("other", 1)):
        ids = [str(first + number) for number in range(60)]
        sources = {name: write(tmp_path / f"{folder}-{name}.npz", rows[:, :width], ids) for name, width in WIDTHS}
        imported(tmp_path / folder, sources)
    shape = ("--n-latents", 16, "--k", 2, "--batch-size", 16, "--epochs", 1)
    done = sparc_here("train", "--features", "mine", *shape, "--out", "run")
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "run" / "evaluation.json").read_bytes()
    done = sparc_here("evaluate", "run", "--features", "other")
    assert done.stderr.startswith("error: these samples are not the ones that run was trained on\nhint:  --data-root")
    assert (tmp_path / "run" / "evaluation.json").read_bytes() == before
    (tmp_path / "mine").rename(tmp_path / "gone")
    done = sparc_here("evaluate", "run", "--features", "moved")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "from sparc.interchange.feature_files import open_source; open_source(Path('nowhere.npz'))",
        "from sparc.interchange.feature_files import open_source; open_source(Path('ids.txt'))",
        "from sparc.interchange.feature_files import open_source; open_source(Path('some.npy'))",
        "from sparc.interchange.import_checkpoint import read_research_checkpoint as read; "
        "read(Path('nowhere.pth'), Path('config.json'))",
    ],
)
def test_a_missing_or_wrong_file_is_answered_without_torch(code, tmp_path):
    (tmp_path / "ids.txt").write_text("a")
    np.save(tmp_path / "some.npy", FEATURES)  # without ids
    (tmp_path / "config.json").write_text('{"args": {"n_latents": 8, "k": 2}}')
    program = f"""
import sys
from pathlib import Path
from sparc.errors import SparcError
try:
    {code}
except SparcError as error:
    print(type(error).__name__, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in ("MissingData", "InvalidConfig")
    assert done.stdout.split()[1] == "False"
