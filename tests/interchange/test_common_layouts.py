"""Layouts of features and ids that people's own scripts write: read whole, or refused with what to do."""

import json
import re
import unicodedata
import zipfile

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sparc.errors import InvalidConfig, SparcError
from sparc.interchange import arrays as arrays_module
from sparc.interchange.feature_files import Keys, open_source

FEATURES = np.arange(8, dtype=np.float32).reshape(4, 2) + 1
IDS = ["b", "é", "a", "10"]
ROWS = dict(zip(IDS, FEATURES, strict=True))


def rows_of(source, room):
    return np.concatenate(list(source.blocks(room)))


def found_in(path, room, keys=None):
    source = open_source(path, keys=keys)
    return dict(zip(source.ids, rows_of(source, room).tolist(), strict=True))


def expected(rows=ROWS):
    return {one: row.tolist() for one, row in rows.items()}


def one_per_sample(path, rows, tail="", *, inside_out=False):
    """Write an array for each sample, under its id."""
    named = {f"{tail[1:]}/{one}" if inside_out else one + tail: row for one, row in rows.items()}
    match path.suffix:
        case ".npz":
            np.savez(path, **named)
        case ".safetensors":
            save_file({name: torch.from_numpy(row.copy()) for name, row in named.items()}, path)
        case ".h5":
            with h5py.File(path, "w") as file:
                for name, row in named.items():
                    file[name] = row
        case ".pt":
            torch.save({name: torch.from_numpy(row.copy()) for name, row in named.items()}, path)  # noqa: TID251
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".h5", ".pt"])
def test_an_array_for_each_sample_is_a_row(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays_module, "BLOCK_BYTES", 20)  # several blocks
    assert found_in(one_per_sample(tmp_path / f"some{suffix}", ROWS), tmp_path) == expected()
    batch = {one: row[None] for one, row in ROWS.items()}
    assert found_in(one_per_sample(tmp_path / f"batch{suffix}", batch), tmp_path) == expected()
    named = one_per_sample(tmp_path / f"named{suffix}", ROWS, "/features")
    assert found_in(named, tmp_path) == expected()
    nested = one_per_sample(tmp_path / f"nested{suffix}", ROWS, "/features", inside_out=True)
    assert found_in(nested, tmp_path) == expected()
    two = {f"{stream}/{one}": row + number for number, stream in enumerate(("img", "txt")) for one, row in ROWS.items()}
    both = one_per_sample(tmp_path / f"two{suffix}", two)
    assert found_in(both, tmp_path, Keys("img")) == found_in(both, tmp_path, Keys("img/*")) == expected()
    by_sample = {f"{one}/{stream}": row for one, row in ROWS.items() for stream in ("clip", "dino")}
    for path, key in (
        (both, "img"),
        (one_per_sample(tmp_path / f"group{suffix}", ROWS, "/group", inside_out=True), "group"),
        (one_per_sample(tmp_path / f"streams{suffix}", by_sample), "clip"),
    ):
        with pytest.raises(InvalidConfig, match="expected 'features' of shape") as error:
            open_source(path)
        assert error.value.hint.startswith(f"--features-key {key}, if each array is a sample")
        assert found_in(path, tmp_path, Keys(key)) == expected()
    tokens = one_per_sample(tmp_path / f"tokens{suffix}", {f"p{number}": FEATURES for number in range(9)})
    with pytest.raises(InvalidConfig, match="expected 'features' of shape") as error:
        open_source(tokens)
    assert error.value.hint.startswith("save one row (width) for each sample")
    other = one_per_sample(tmp_path / f"other{suffix}", ROWS | {"c": FEATURES[0]}, "/clip")
    assert found_in(other, tmp_path, Keys("clip")) == expected(ROWS | {"c": FEATURES[0]})


NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P"), exclude_characters="/."), min_size=1, max_size=9
)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".h5", ".pt"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(NAMES.map(lambda text: f"x{text}"), min_size=2, max_size=7, unique=True), seed=st.integers(0, 9))
def test_every_sample_of_a_file_with_an_array_for_each_comes_back_under_its_id(suffix, tmp_path, ids, seed):
    rows = dict(zip(ids, np.random.default_rng(seed).standard_normal((len(ids), 3)).astype(np.float32), strict=True))
    try:
        found = open_source(one_per_sample(tmp_path / f"some{suffix}", rows))
    except SparcError as error:  # two of the names may be one in Unicode's composed form
        assert "expected unique ids" in str(error)  # noqa: PT017
        return
    names = {unicodedata.normalize("NFC", one): row.tolist() for one, row in rows.items()}
    assert dict(zip(found.ids, rows_of(found, tmp_path).tolist(), strict=True)) == names


def test_arrays_that_may_be_something_else_are_no_samples(tmp_path):
    for arrays in (
        {"mean": FEATURES[0], "std": FEATURES[1]},
        {"labels": np.arange(4), "seen": np.arange(4)},
        {"a": FEATURES[0], "b": FEATURES[0, :1]},
        {"loss": np.ones(1), "accuracy": np.ones(1)},
        {"x": FEATURES[0]},
        {"a": FEATURES[0], "ids": np.array(["x", "y"])},
    ):
        np.savez(tmp_path / "some.npz", **arrays)
        with pytest.raises(InvalidConfig, match="expected 'features' of shape"):
            open_source(tmp_path / "some.npz")
    np.savez(tmp_path / "some.npz", mean=FEATURES[0], b=FEATURES[1])
    with pytest.raises(InvalidConfig) as error:
        open_source(tmp_path / "some.npz")
    assert "--features-key '*'" in error.value.hint
    assert open_source(tmp_path / "some.npz", keys=Keys("*")).ids == ["mean", "b"]


def test_ids_beside_arrays_with_names_of_their_own_are_not_ignored(tmp_path):
    """Arrays 0, 1, ... are read in the order of their names, in which 10 comes before 2: the ids have another order."""
    with h5py.File(tmp_path / "some.h5", "w") as file:
        for number in range(11):
            file[f"features/{number}"] = FEATURES[0] + number
        file["names"] = [f"photo {number}" for number in range(11)]
    with pytest.raises(InvalidConfig, match=r"names of the arrays features/\*, or in 'names' .* found both"):
        open_source(tmp_path / "some.h5", keys=Keys(ids="names"))
    assert open_source(tmp_path / "some.h5").ids[:3] == ["0", "1", "10"]
    with h5py.File(tmp_path / "some.h5", "a") as file:
        file.move("names", "ids")
    with pytest.raises(InvalidConfig, match="found both"):
        open_source(tmp_path / "some.h5")


def parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    "names", [["f0", "f1"], ["dim_1", "dim_2"], ["0", "1"], ["x.v2_00", "x.v2_01"]], ids=lambda names: names[0]
)
def test_a_column_for_each_dimension_is_read(names, tmp_path):
    columns = {names[1]: FEATURES[:, 1], "id": IDS, "label7": IDS, names[0]: FEATURES[:, 0].astype(np.float64)}
    path = parquet(tmp_path / "some.parquet", columns)
    assert found_in(path, tmp_path) == expected()


def test_columns_are_in_the_order_of_their_numbers(tmp_path):
    wide = np.arange(24, dtype=np.float32).reshape(2, 12)
    path = parquet(
        tmp_path / "some.parquet", {"ids": ["a", "b"], **{f"f{n}": wide[:, n] for n in sorted(range(12), key=str)}}
    )
    assert found_in(path, tmp_path) == {"a": wide[0].tolist(), "b": wide[1].tolist()}


def test_columns_that_are_not_the_dimensions_of_one_vector_are_not_joined(tmp_path):
    a, b = FEATURES.T
    for columns in (
        {"f0": a, "f2": b},
        {"f5": a, "f6": b},
        {"f1": a, "f01": b, "f2": b},
        {"f0": a, "f1": b, "g0": a, "g1": b},
        {"score0": a, "score1": b, "emb": list(FEATURES)},
        {"count0": np.arange(4), "count1": np.arange(4)},
    ):
        path = parquet(tmp_path / "some.parquet", {"ids": IDS, **columns})
        with pytest.raises(InvalidConfig, match="expected 'features' of shape") as error:
            open_source(path)
        assert "df['features'] = df[columns].to_numpy().tolist()" in error.value.hint
    path = parquet(tmp_path / "some.parquet", {"ids": IDS, "f0": a, "f1": b, "g0": b, "g1": a})
    assert found_in(path, tmp_path, Keys("g*")) == {one: row[::-1] for one, row in expected().items()}
    path = parquet(tmp_path / "some.parquet", {"ids": IDS, "f0": a, "f1": pyarrow.array([1.0, 2.0, None, 4.0])})
    with pytest.raises(InvalidConfig, match="row 2: expected a number in 'f1', found an empty cell"):
        rows_of(open_source(path), tmp_path)


def test_parquet_tensors_of_two_dimensions_are_not_flattened(tmp_path):
    def column(shape, **more):
        kind = pyarrow.fixed_shape_tensor(pyarrow.float32(), shape, **more)
        values = pyarrow.array(np.arange(16, dtype=np.float32) + 1)
        return pyarrow.ExtensionArray.from_storage(kind, pyarrow.FixedSizeListArray.from_arrays(values, 4))

    for more in ({}, {"permutation": [1, 0]}):
        path = parquet(tmp_path / "some.parquet", {"ids": IDS, "features": column([2, 2], **more)})
        with pytest.raises(InvalidConfig, match=r"of shape \(samples, width\), found \(4, 2, 2\)"):
            open_source(path)
        path = parquet(tmp_path / "some.parquet", {"ids": IDS, "features": column([1, 4], **more)})
        assert found_in(path, tmp_path)["é"] == [5.0, 6.0, 7.0, 8.0]


def test_parquet_faults_are_named_for_what_they_are(tmp_path):
    lists = [None, *FEATURES[1:].tolist()]
    path = parquet(tmp_path / "some.parquet", {"ids": IDS, "features": lists})
    with pytest.raises(InvalidConfig, match="row 0: expected a list of numbers in 'features', found an empty cell"):
        open_source(path)
    one, ids = pyarrow.array(FEATURES.tolist()), pyarrow.array(IDS)
    for names, message in (
        (["features", "features", "ids", "x"], "one column 'features', found 2"),
        (["features", "x", "ids", "ids"], "one column 'ids', found 2"),
    ):
        table = pyarrow.Table.from_arrays([one, one, ids, ids], names=names)
        pyarrow.parquet.write_table(table, path)
        with pytest.raises(InvalidConfig, match=f"expected {message}"):
            open_source(path)
    table = pyarrow.Table.from_arrays([one, ids, ids, ids], names=["features", "ids", "x", "x"])
    pyarrow.parquet.write_table(table, path)
    assert found_in(path, tmp_path) == expected()


def saved(path, content):
    torch.save(content, path)  # noqa: TID251
    return path


def test_two_arrays_of_one_name_are_not_chosen_between(tmp_path):
    tensor = torch.from_numpy(FEATURES)
    for content, name in (
        ({"a/b": tensor, "a": {"b": tensor + 1}, "ids": IDS}, "a/b"),
        ({0: tensor, "0": tensor + 1, "ids": IDS}, "0"),
    ):
        with pytest.raises(InvalidConfig, match=f"one array of a name, found two named '{name}'"):
            open_source(saved(tmp_path / "some.pt", content), keys=Keys(name))
    np.savez(tmp_path / "some.npz", features=FEATURES, ids=IDS)
    np.savez(tmp_path / "other.npz", features=FEATURES + 1)
    content = zipfile.ZipFile(tmp_path / "other.npz").read("features.npy")
    with zipfile.ZipFile(tmp_path / "some.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("features.npy", content)
    with pytest.raises(InvalidConfig, match=r"one array of a name, found two named 'features.npy'"):
        open_source(tmp_path / "some.npz")


@pytest.mark.parametrize(
    "features",
    [
        FEATURES.tolist(),
        list(FEATURES),
        tuple(FEATURES.tolist()),
        [torch.from_numpy(row) for row in FEATURES],
        [FEATURES[:3].tolist(), FEATURES[3:].tolist()],
        [FEATURES[:1], FEATURES[1:]],
        [torch.nn.Parameter(torch.from_numpy(FEATURES[:1])), torch.from_numpy(FEATURES[1:])],
        [[torch.tensor(one) for one in row] for row in FEATURES.tolist()],
        torch._neg_view(torch.from_numpy(-FEATURES)),
    ],
    ids=[
        "lists",
        "arrays",
        "tuple of lists",
        "tensors",
        "batches of lists",
        "batches",
        "parameters",
        "lists of tensors",
        "negated",
    ],
)
def test_rows_in_a_pt_file_are_read_as_lists_arrays_or_batches(features, tmp_path):
    path = saved(tmp_path / "some.pt", {"features": features, "ids": IDS})
    assert found_in(path, tmp_path) == expected()
    (tmp_path / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    assert np.array_equal(rows_of(open_source(saved(path, features), tmp_path / "ids.txt"), tmp_path), FEATURES)


def test_ids_in_batches_are_joined_as_features_in_batches_are(tmp_path):
    batches = [torch.from_numpy(FEATURES[:3]), torch.from_numpy(FEATURES[3:])]
    for ids, texts in (
        ([IDS[:3], IDS[3:]], IDS),
        ([tuple(IDS[:3]), tuple(IDS[3:])], IDS),
        ([torch.tensor([5, 6, 7]), torch.tensor([8])], ["5", "6", "7", "8"]),
        ([torch.tensor([5, 6]), torch.tensor([7, 8])], ["5", "6", "7", "8"]),
        ([[5, 6, 7], [8]], ["5", "6", "7", "8"]),
        ([np.array(IDS[:3]), np.array(IDS[3:])], IDS),
    ):
        path = saved(tmp_path / "some.pt", {"features": batches, "ids": ids})
        assert open_source(path).ids == texts
    with pytest.raises(InvalidConfig, match="expected as many ids as features, found 3 and 4"):
        open_source(saved(path, {"features": batches, "ids": [IDS[:2], IDS[2:3]]}))


def test_pt_files_of_other_forms_are_refused_with_the_form_to_write(tmp_path):
    tensor = torch.from_numpy(FEATURES)
    form = 'torch.save({"features": x, "ids": ids}, file)'
    for content, message, hint in (
        (
            [{"id": one, "features": row} for one, row in ROWS.items()],
            "a list of 4 dicts with 'id', 'features'",
            '"ids": [',
        ),
        ((tensor, IDS), "found a tuple of Tensor, list", form),
        ([tensor, IDS], "found a list of Tensor, list", form),
        ((IDS, FEATURES.tolist()), "found a tuple of list, list", form),
        (IDS, "found a list of texts", form),
        (
            {"features": tensor.to_sparse(), "ids": IDS},
            "a dense tensor as features, found a sparse_coo one",
            "x.to_dense()",
        ),
        ({"features": [[1.0, 2.0], [3.0]], "ids": ["a", "b"]}, "expected tensors of one width in features", "sample"),
        ({"features": [[1.0, 2.0], ["3", "4"]], "ids": ["a", "b"]}, "features", ""),
        ({"features": [[1.0, 2.0], [3.0, None]], "ids": ["a", "b"]}, "expected tensors of one width in features", ""),
    ):
        with pytest.raises(InvalidConfig, match=message) as error:
            open_source(saved(tmp_path / "some.pt", content))
        assert hint in error.value.hint


def test_tables_in_one_array_are_refused_with_the_line_that_divides_them(tmp_path):
    table = np.array(list(ROWS.items()), dtype=[("name", "U8"), ("x", "f4", 2)])
    np.save(tmp_path / "some.npy", table)
    np.savez(tmp_path / "some.npz", features=table)
    with h5py.File(tmp_path / "some.h5", "w") as file:
        encoded = [(one.encode(), row) for one, row in ROWS.items()]
        file["t"] = np.array(encoded, dtype=[("name", "S8"), ("x", "f4", 2)])
    for suffix in ("npy", "npz", "h5"):
        with pytest.raises(InvalidConfig, match=r"found a table.* with the columns name, x") as error:
            open_source(tmp_path / f"some.{suffix}")
        assert "np.savez('features.npz', features=t['x'], ids=t['name'])" in error.value.hint


def test_hdf5_ids_in_a_column_and_lists_of_one_length_are_read(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file.create_dataset("features", (4,), h5py.vlen_dtype(np.float32))[:] = list(FEATURES)
        file["ids"] = np.array([[one.encode()] for one in IDS], dtype=object)
    assert found_in(tmp_path / "some.h5", tmp_path) == expected()
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["features"], file["ids"] = FEATURES.T, IDS
    with pytest.raises(InvalidConfig, match="found 4 and 2") as error:
        open_source(tmp_path / "some.h5")
    assert "transposed" in error.value.hint


def test_ids_are_given_as_text_json_numpy_or_a_column(tmp_path):
    np.save(tmp_path / "some.npy", FEATURES)
    np.save(tmp_path / "ids.npy", np.array(IDS))
    np.save(tmp_path / "column.npy", np.array(IDS)[:, None])
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    (tmp_path / "indented.json").write_text(json.dumps(IDS, indent=1))
    (tmp_path / "ids.csv").write_bytes('label,ID\r\nx,b\r\n"y,\n",é\r\nz,a\r\nx,10\r\n'.encode("utf-8-sig"))
    (tmp_path / "ids.tsv").write_text("ids\tlabel\n" + "".join(f"{one}\tx\n" for one in IDS), encoding="utf-8")
    (tmp_path / "excel.csv").write_text("id;label\n" + "".join(f"{one};x,y\n" for one in IDS), encoding="utf-16")
    (tmp_path / "plain.csv").write_text("\n".join(IDS), encoding="utf-8")
    for path in sorted(tmp_path.glob("*.*")):
        if path.name != "some.npy":
            assert open_source(tmp_path / "some.npy", path).ids == IDS, path


def test_ids_in_another_form_are_refused_with_the_form_expected(tmp_path):
    np.save(tmp_path / "some.npy", FEATURES)
    np.save(tmp_path / "objects.npy", np.array(IDS, object), allow_pickle=True)
    np.save(tmp_path / "reals.npy", np.ones(4))
    (tmp_path / "dict.json").write_text('{"a": 1}')
    (tmp_path / "null.json").write_text('["a", null, "b", "c"]')
    (tmp_path / "two.csv").write_text("name,label\na,b\n")
    (tmp_path / "short.csv").write_text("id,label\na,b\nc\n")
    (tmp_path / "long.csv").write_text("id,text\na," + "y" * 200_000)
    (tmp_path / "ids.parquet").write_bytes(b"PAR1")
    (tmp_path / "header.txt").write_text("ids\n" + "\n".join(IDS), encoding="utf-8")
    for name, message, hint in (
        ("objects.npy", "'ids' are Python objects", "astype"),
        ("reals.npy", "texts or whole numbers, one per row", "astype"),
        ("dict.json", "expected a list of ids, found a dict", "one id per line"),
        ("null.json", "row 1: expected an id, found an empty cell", "id"),
        ("two.csv", "one column named id or ids in the first line, found name, label", "one id per line"),
        ("short.csv", "row 1: expected 2 columns, found 1", "table"),
        ("long.csv", "cannot be read as a table: field larger than field limit", "one id per line"),
        ("ids.parquet", "expected a file of ids, found '.parquet'", "one id per line"),
        ("header.txt", "found 5 and 4", "'ids', the first id of .*header.txt, looks like a header"),
    ):
        with pytest.raises(InvalidConfig, match=message) as error:
            open_source(tmp_path / "some.npy", tmp_path / name)
        assert re.search(hint, error.value.hint)
        assert "iconv" not in error.value.hint


def test_a_header_does_not_shift_the_ids_of_positions(tmp_path):
    """The file has an id for position 4 too, so no number is out of place."""
    np.savez(tmp_path / "some.npz", features=FEATURES, indices=np.arange(4))
    (tmp_path / "ids.txt").write_text("id\n" + "\n".join(IDS), encoding="utf-8")
    with pytest.raises(InvalidConfig, match="expected the id of position 0, found 'id', which looks like a header"):
        open_source(tmp_path / "some.npz", tmp_path / "ids.txt")


def parts(folder, names, sizes, *, ids=True):
    folder.mkdir(exist_ok=True)
    low = 0
    for name, size in zip(names, sizes, strict=True):
        rows = np.arange(low, low + size)
        if ids:
            np.savez(folder / f"{name}.npz", features=np.ones((size, 2)) * rows[:, None], ids=rows.astype(str))
        else:
            np.save(folder / f"{name}.npy", np.ones((size, 2)) * rows[:, None])
        low += size
    (folder.parent / "ids.txt").write_text("\n".join(map(str, range(low))))
    return folder


@pytest.mark.parametrize(
    "names",
    [["emb_0", "emb_4", "emb_10"], ["emb_0_4", "emb_4_10", "emb_10_13"], ["emb_0-3", "emb_4-9", "emb_10-12"]],
    ids=lambda names: names[1],
)
def test_parts_named_by_their_rows_are_in_the_order_of_the_rows(names, tmp_path):
    folder = parts(tmp_path / "parts", names, [4, 6, 3], ids=False)
    source = open_source(folder, tmp_path / "ids.txt")
    assert rows_of(source, tmp_path)[:, 0].tolist() == list(range(13)) == list(map(int, source.ids))
    next(folder.glob("emb_4*")).unlink()
    with pytest.raises(InvalidConfig, match="emb_10"):
        open_source(folder, tmp_path / "ids.txt")


def test_parts_with_several_numbers_are_read_if_they_hold_their_ids(tmp_path):
    names = ["rank0_part0", "rank0_part1", "rank1_part0", "rank1_part1"]
    folder = parts(tmp_path / "parts", names, [3, 1, 2, 2])
    assert found_in(folder, tmp_path) == {str(row): [float(row)] * 2 for row in range(8)}
    (folder / "rank1_part0.npz").unlink()
    (folder / "rank1_part1.npz").rename(folder / "rank1_part2.npz")
    with pytest.raises(InvalidConfig, match=r"the part before rank1_part2.npz is missing"):
        open_source(folder)
    unnamed = parts(tmp_path / "unnamed", names, [3, 1, 2, 2], ids=False)
    with pytest.raises(InvalidConfig, match="expected parts with ids, or with one number"):
        open_source(unnamed, tmp_path / "ids.txt")


def test_a_gap_in_parts_that_count_is_no_offset(tmp_path):
    folder = parts(tmp_path / "parts", ["emb_0", "emb_4"], [3, 3])
    with pytest.raises(InvalidConfig, match="expected consecutive parts, found no part 1"):
        open_source(folder)
