"""Tables that are read in large pieces, for the dataset `hf`: they are what reading record by record makes of them."""

import gzip
import json
import warnings

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparc.errors import SparcError
from sparc_plugins.hf_dataset import whole
from sparc_plugins.hf_dataset.texts import TextFiles

pytest.importorskip("datasets")
COLUMNS = {"image": "image", "caption": "caption", "id": "id", "labels": "labels"}


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    """Pieces of a few records, so that most files have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "PIECE", 200)
        patch.setattr(whole, "PROBED", 1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def both(folder, name, *contents, separator=None):
    """Return the table and the warnings, or the error, of files read record by record and in pieces (None: not so)."""
    paths = [folder / f"{number}{name}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    files = TextFiles(folder, paths, separator)

    def by_record(path):
        listed = set()
        while not files._is_written(COLUMNS, "train", listed, path):
            pass
        return True

    return [read(way, folder / "table") for way in (by_record, lambda path: files._is_written_whole(COLUMNS, path))]


def read(way, path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            if not way(path):
                return None
        except SparcError as error:
            return str(error)
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all().to_pylist(), [str(one.message) for one in said]


CELLS = st.text(st.sampled_from(list("ab ,;\t\"'\n\r\x0b\xa0\N{LATIN SMALL LETTER E WITH ACUTE}")), max_size=4)
LINES = st.lists(st.lists(CELLS, min_size=3, max_size=5).map(",".join), max_size=6)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


@settings(max_examples=80)
@given(LINES, ENDS, st.sampled_from(["", "\ufeff"]))
@example(["a.png,x,1,,", ",,,,", ' ,"",,,'], "\n", "")
@example(['a.png,"x ""y""\n, z",1,b,c'], "\r\n", "")
@example(['a.png,x"y",1,b,c'], "\n", "")
@example(['"a.png,x,1,b,c'], "\n", "")
@example(['a.png,"x"y,1,b,c'], "\n", "")
def test_any_csv_text_gives_the_same_table_or_is_left_to_the_other_reader(folder, lines, end, mark):
    content = (mark + end.join(["image,caption,id,labels,more", *lines])).encode()
    one, other = both(folder, ".csv", content)
    assert other in (one, None)


@settings(max_examples=25)
@given(st.lists(st.tuples(*[CELLS] * 5), min_size=1, max_size=6), ENDS, st.sampled_from([".csv", ".csv.gz", ".tsv"]))
def test_a_table_whose_texts_are_all_quoted_is_read_in_pieces(folder, rows, end, name):
    separator = "\t" if name == ".tsv" else ","
    lines = [separator.join(map(quoted, row)) for row in [("caption", "more", "image", "labels", "id"), *rows]]
    one, other = both(folder, name, (end.join(lines) + end).encode())
    if isinstance(one, tuple) and (end != "\r" or len(rows) == 1):  # a piece ends with a line feed
        assert other == one


def test_empty_records_are_passed_over_and_counted(folder):
    text = b"image,caption,id,labels,more\na,x,1,,\n,,,,\n,,, ,\n,,,,kept\n"
    one, (rows, said) = both(folder, ".csv", text)
    assert [row["id"] for row in rows] == ["1", None]
    assert said == [f"hf: 2 records of {folder / '0.csv'} are empty in all cells and no samples"]
    assert one == (rows, said)


WRITTEN = """ "a"|"007"|"\\u00e9 \\ud83d\\ude00"|""|null|1|-0|9007199254740993|1.50|true|NaN|[]|["a", null]|[1, 2]
 |{"path": "x"}|"\\ud800"|1e999|01|"2021-03-01"|99999999999999999999"""
VALUES = st.sampled_from([value.strip() for value in WRITTEN.split("|")])
RECORDS = st.lists(st.dictionaries(st.sampled_from([*COLUMNS.values(), "more"]), VALUES), max_size=5)
ALIKE = st.tuples(*[VALUES] * 4).flatmap(lambda row: st.just([dict(zip(COLUMNS.values(), row, strict=True))] * 4))


@settings(max_examples=80)
@given(
    RECORDS | ALIKE,
    st.sampled_from(["\n", "\r\n", "\r", " ", "\n\n"]),
    st.sampled_from([".jsonl", ".json", ".jsonl.gz"]),
)
@example([{**dict.fromkeys(COLUMNS, '"a"'), "id": number} for number in ("1", "-0")], "\n", ".jsonl")
def test_any_lines_of_json_give_the_same_table_or_are_left_to_the_other_reader(folder, records, end, name):
    lines = ["{" + ", ".join(f'"{key}": {value}' for key, value in record.items()) + "}" for record in records]
    one, other = both(folder, name, end.join(lines).encode())
    assert other in (one, None)


@pytest.mark.parametrize("labels", [["a", None], [3, 4], 5, True, None, "b"])
def test_lines_of_json_with_one_type_in_each_column_are_read_in_pieces(folder, labels):
    rows = [{"image": "a.png", "caption": f"{n} \N{SNOWMAN}", "id": n, "labels": labels} for n in range(9)]
    one, other = both(folder, ".jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert other == one
    assert [row["id"] for row in other[0]] == [str(n) for n in range(9)]


def test_files_of_one_split_must_have_the_same_columns_and_types(folder):
    texts = [b"image,caption,id,labels\na,x,1,y\n", b"labels,id,caption,image\ny,2,x,a\n"]
    one, other = both(folder, ".csv", *texts)
    assert other == one
    assert [row["id"] for row in other[0]] == ["1", "2"]
    assert both(folder, ".csv", *texts, b"image,caption,id,labels,more\na,x,1,y,z\n")[1] is None
    lines = [
        b'{"image": "a", "caption": "x", "id": 1, "labels": "y"}',
        b'{"image": "a", "caption": "x", "id": "b", "labels": "y"}',
    ]
    assert both(folder, ".jsonl", *lines)[1] is None


def test_two_records_in_a_line_and_a_name_that_repeats_are_left_to_the_other_reader(folder):
    one = b'{"image": "a", "caption": "x", "id": 1, "labels": "y"}'
    for more in (one + b" " + one, one[:-1] + b', "id": 2}'):
        by_record, other = both(folder, ".jsonl", one + b"\n" + more)
        assert "0.jsonl, line 2: " in by_record
        assert other is None


@pytest.mark.parametrize("text", [b"a,b\0,1,y", b"a,\xff,1,y", "a,b,1,y".encode("utf-16-le"), b"a,b,1", b""])
def test_what_is_odd_is_left_to_the_other_reader(folder, text):
    assert both(folder, ".csv", b"image,caption,id,labels\n" + text)[1] is None
