"""Text files as people and programs write them, in every encoding that says what it is."""

import gzip
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparc.errors import CorruptFile, InvalidConfig, StorageError
from sparc.system.texts import open_text, read_text

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
WORDS = "Zoë's café, 犬 🐕\u2028\x85"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".TXT.GZ"])
def test_a_text_is_the_same_in_every_encoding_and_with_every_line_end(tmp_path, encoding, end, suffix):
    path = tmp_path / f"file{suffix}"
    content = f"{WORDS}{end}second".encode(encoding)
    path.write_bytes(gzip.compress(content) if suffix != ".txt" else content)
    assert read_text(path) == f"{WORDS}\nsecond"


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_either_order_of_bytes_is_read(tmp_path, mark):
    path = tmp_path / "file"
    path.write_bytes(f"\ufeff{WORDS}".encode(mark))
    assert read_text(path) == WORDS


def test_line_ends_are_kept_if_the_reader_asks_for_them(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc")
    with open_text(path, newline="") as file:
        assert file.read() == "a\r\nb\rc"


@given(text=st.text(), encoding=st.sampled_from(ENCODINGS))
def test_whatever_is_written_comes_back(tmp_path_factory, text, encoding):
    text = text.replace("\0", "").lstrip("\ufeff")
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode(encoding))
    with open_text(path, newline="") as file:
        assert file.read() == text


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(InvalidConfig) as error:
        read_text(path)
    return error.value


@pytest.mark.parametrize("lines", [1, 5000, 200_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_bytes_of_another_encoding_are_named_by_line_and_byte(tmp_path, lines, end):
    error = refused(tmp_path / "names.txt", b"abc" * 3 + end + end.join([b"x"] * lines) + end + b"caf\xe9")
    assert error.message == f"{tmp_path / 'names.txt'} is not UTF-8 text: line {lines + 2}, byte 4 is 0xe9"
    assert "iconv -f WINDOWS-1252 -t UTF-8 names.txt > utf8-names.txt" in error.hint


def test_a_cut_character_is_named_too(tmp_path):
    assert "line 2, byte 2 is 0xe7" in refused(tmp_path / "a", "ok\nx犬".encode()[:-1]).message
    assert "utf-16" in refused(tmp_path / "b", "abc".encode("utf-16")[:-1]).message.lower()


def test_utf_16_without_a_mark_and_binary_files_are_refused(tmp_path):
    error = refused(tmp_path / "ids.txt", "one\ntwo".encode("utf-16-le"))
    assert "line 1 holds a zero byte" in error.message
    assert "iconv -f UTF-16LE -t UTF-8 ids.txt" in error.hint


def test_a_damaged_gzip_a_refusal_and_a_missing_file_are_told_apart(tmp_path):
    whole = gzip.compress(Path(__file__).read_bytes())
    for name, content in (("cut.gz", whole[:-20]), ("altered.gz", whole[:50] + b"xx" + whole[52:]), ("no.gz", b"a,b")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptFile, match=f"{name} is truncated or altered"):
            read_text(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nothing")
    with pytest.raises(StorageError, match="Is a directory"):
        read_text(tmp_path)


def test_an_error_of_the_block_is_its_own(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("a = = 1")
    with pytest.raises(tomllib.TOMLDecodeError), open_text(path) as file:
        tomllib.loads(file.read())
