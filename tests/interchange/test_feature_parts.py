"""Folders of parts: in the order of their numbers, complete, with the ids of clip-retrieval's metadata."""

from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparc.errors import InvalidConfig, MissingData
from sparc.interchange.feature_files import Keys, open_source
from sparc.interchange.import_features import import_features
from sparc.storage.store import open_streams
from sparc.system.names import same_name


def clip_retrieval(root, sizes, *, digits=1, stream="img_emb", width=4):
    """Write parts and metadata as clip-retrieval does; row r of all has the id `photo r.jpg` and the features r + 1."""
    done = 0
    for folder in (stream, "metadata"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for part, size in enumerate(sizes):
        number = str(part).zfill(digits)
        rows = np.arange(done, done + size)
        np.save(root / stream / f"{stream}_{number}.npy", np.repeat(rows[:, None] + 1, width, 1).astype(np.float16))
        table = pyarrow.table({"image_path": [f"photo {row}.jpg" for row in rows], "caption": ["a"] * size})
        pyarrow.parquet.write_table(table, root / "metadata" / f"metadata_{number}.parquet")
        done += size
    return root / stream


def test_parts_are_joined_in_the_order_of_their_numbers_with_the_ids_of_their_metadata(tmp_path):
    """Part 10 comes after part 9, not after part 1."""
    source = open_source(clip_retrieval(tmp_path, [2] * 12))
    assert source.ids == [f"photo {row}.jpg" for row in range(24)]
    assert np.concatenate(list(source.blocks(tmp_path)))[:, 0].tolist() == list(range(1, 25))


def test_the_two_towers_of_clip_retrieval_are_imported_together(tmp_path):
    image = clip_retrieval(tmp_path / "clip", [3, 2], digits=2)
    text = clip_retrieval(tmp_path / "clip", [3, 2], digits=2, stream="text_emb", width=2)
    import_features({"image": open_source(image), "text": open_source(text)}, tmp_path / "out", split="train")
    store = open_streams({name: tmp_path / "out" / "train" / name for name in ("image", "text")})
    assert store.ids == tuple(f"photo {row}.jpg" for row in range(5))
    assert store.in_memory()["image"].tolist() == [[row + 1.0] * 4 for row in range(5)]
    assert store.in_memory()["text"].tolist() == [[row + 1.0] * 2 for row in range(5)]


def test_another_column_of_the_metadata_can_be_named(tmp_path):
    folder = clip_retrieval(tmp_path, [2])
    pyarrow.parquet.write_table(pyarrow.table({"key": ["x", "y"]}), tmp_path / "metadata" / "metadata_0.parquet")
    with pytest.raises(InvalidConfig, match=r"metadata_0.parquet has no ids: .* it has key string \(2,\)"):
        open_source(folder)
    assert open_source(folder, keys=Keys(ids="key")).ids == ["x", "y"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("img_emb/img_emb_1.npy", r"no part 1 \(img_emb_0.npy, img_emb_2.npy\)"),
        ("img_emb/img_emb_0.npy", "expected a part for .*metadata_0.parquet, found none"),
        ("img_emb/img_emb_2.npy", r"expected a part for .*metadata_2.parquet, found none"),
        ("metadata/metadata_1.parquet", r"img_emb_1.npy has no ids: expected .*metadata_1.parquet"),
    ],
)
def test_a_missing_part_is_an_error_that_names_it(gone, message, tmp_path):
    folder = clip_retrieval(tmp_path, [2, 2, 2])
    (tmp_path / gone).unlink()
    with pytest.raises((InvalidConfig, MissingData), match=message):
        open_source(folder)


def test_parts_without_metadata_take_the_lines_of_a_text_file(tmp_path):
    for part, size in enumerate((1, 2)):
        np.save(tmp_path / f"part-{part:05d}-of-00002.npy", np.ones((size, 2)))
    with pytest.raises(InvalidConfig, match="has no ids"):
        open_source(tmp_path)
    (tmp_path / "ids.txt").write_text("a\nb\nc\n")
    assert open_source(tmp_path, tmp_path / "ids.txt").ids == ["a", "b", "c"]
    (tmp_path / "part-00001-of-00002.npy").unlink()
    with pytest.raises(InvalidConfig, match=r"expected 2 parts, as part-00000-of-00002.npy states, found 1"):
        open_source(tmp_path, tmp_path / "ids.txt")


def test_parts_that_do_not_belong_together_are_named(tmp_path):
    folder = clip_retrieval(tmp_path, [2, 2])
    np.save(folder / "img_emb_1.npy", np.ones((2, 5)))
    with pytest.raises(InvalidConfig, match=r"found 4 in img_emb_0.npy and 5 in img_emb_1.npy"):
        open_source(folder)
    np.save(folder / "img_emb_1.npy", np.ones((3, 4)))
    with pytest.raises(InvalidConfig, match=r"metadata_1.parquet: expected as many ids as features, found 2 and 3"):
        open_source(folder)
    (folder / "img_emb_1.npy").rename(folder / "img_emb_00.npy")
    with pytest.raises(InvalidConfig, match=r"found img_emb_0.npy and img_emb_00.npy|found img_emb_00.npy and"):
        open_source(folder)
    (folder / "img_emb_00.npy").rename(folder / "text_emb_1.npy")
    with pytest.raises(InvalidConfig, match=r"found img_emb_0.npy and text_emb_1.npy"):
        open_source(folder)
    with pytest.raises(MissingData, match="found the folders img_emb, metadata") as error:
        open_source(tmp_path)
    assert str(folder) in error.value.hint


def test_positions_in_parts_and_parts_of_other_types_are_read(tmp_path):
    np.savez(tmp_path / "a_1.npz", features=np.ones((2, 3), np.float16), indices=np.array([2, 0]))
    np.savez(tmp_path / "a_2.npz", features=np.full((1, 3), 1 + 2**-20, np.float32), indices=np.array([1]))
    source = open_source(tmp_path)
    assert (source.ids, source.positions) == (["2", "0", "1"], True)
    import_features({"s": source}, tmp_path / "out", split="train")
    store = open_streams({"s": tmp_path / "out" / "train" / "s"})
    assert store.ids == ("train/2", "train/0", "train/1")
    assert store.in_memory()["s"][2].tolist() == [1 + 2**-20] * 3


VECTORS = {"b": [1.0, 2.0], "photo 1.5 a.jpg": [3.0, 4.0], "7": [5.0, 6.0], "10": [7.0, 8.0], "cafe\u0301": [9.0, 1.0]}


def save_vectors(folder, vectors, suffix=".npy"):
    for name, values in vectors.items():
        if suffix == ".npy":
            np.save(folder / f"{name}.npy", np.array(values, np.float32))
        else:
            torch.save(torch.tensor(values), folder / f"{name}.pt")  # noqa: TID251
    return folder


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_folder_of_vectors_holds_a_sample_in_each_file_named_by_it(tmp_path, suffix):
    (tmp_path / "notes.txt").write_text("about these features")
    source = open_source(save_vectors(tmp_path, VECTORS, suffix))
    rows = np.concatenate(list(source.blocks(tmp_path))).tolist()
    assert dict(zip(source.ids, rows, strict=True)) == {same_name(name): row for name, row in VECTORS.items()}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text("aé猫 .-_%", min_size=1, max_size=6).map(lambda name: f"x{name}x"), st.integers(-9, 9), min_size=2
    )
)
def test_vectors_of_any_names_come_back_whole_or_are_refused(tmp_path_factory, vectors):
    folder = save_vectors(tmp_path_factory.mktemp("v"), {name: [value, 1] for name, value in vectors.items()})
    source = open_source(folder)
    rows = np.concatenate(list(source.blocks(folder))).tolist()
    assert {one: row[0] for one, row in zip(source.ids, rows, strict=True)} == vectors


def test_vectors_with_a_file_of_ids_are_parts_of_one_row(tmp_path):
    folder = save_vectors(tmp_path, {f"f{number}": [number, 1.0] for number in range(11)})
    (tmp_path / "ids.txt").write_text("\n".join("abcdefghijk"))
    source = open_source(folder, tmp_path / "ids.txt")
    assert source.ids == list("abcdefghijk")
    assert np.concatenate(list(source.blocks(tmp_path)))[:, 0].tolist() == list(range(11))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("b", [0, 1.0], "expected unique ids, found 'b' twice"),
        ("c", [1.0, 2.0, 3.0], "expected parts of one width, found 2 in .* and 3 in c.pt"),
        ("c", [[1.0, 2.0]], r"c\.pt: expected one vector, of shape \(width,\), .* found \(1, 2\)"),
        ("c", 1.0, r"c\.pt: expected one vector, of shape \(width,\), .* found \(\)"),
        ("cafe\u0301", [1.0, 2.0], "expected unique ids, found 'caf\u00e9' twice"),
    ],
)
def test_vectors_that_collide_or_differ_are_refused(tmp_path, name, values, message):
    save_vectors(tmp_path, {"b": [1.0, 2.0], "caf\u00e9": [1.0, 2.0]})
    save_vectors(tmp_path, {name: values}, ".pt")
    with pytest.raises(InvalidConfig, match=message):
        open_source(tmp_path)


def test_one_vector_alone_is_no_folder_of_samples(tmp_path):
    with pytest.raises(InvalidConfig, match=r"expected 'features' of shape \(samples, width\), found \(2,\)"):
        open_source(save_vectors(tmp_path, {"a": [1.0, 2.0]}))


@pytest.mark.parametrize("kind", [Path, PurePosixPath, PureWindowsPath])
def test_ids_in_a_torch_file_may_be_paths(tmp_path, kind):
    ids = [kind("a/b.jpg"), kind("cafe\u0301.jpg")]
    for found in (ids, tuple(ids), [ids[:1], ids[1:]]):
        torch.save({"features": torch.ones(2, 3), "ids": found}, tmp_path / "x.pt")  # noqa: TID251
        assert open_source(tmp_path / "x.pt").ids == [str(ids[0]), "caf\u00e9.jpg"]
