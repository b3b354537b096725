"""A dataset is known by what its files hold, not by where they lie or when they were written."""

import os
import shutil

import pytest

from sparc import MissingData
from sparc.plugins import identify_files
from sparc.plugins.identity import BLOCK, BLOCKS, FILES


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "here"
    (root / "sub").mkdir(parents=True)
    for number in range(3):
        (root / "sub" / f"caf\u00e9 {number}.bin").write_bytes(bytes([number]) * (100 + number))
    (root / "large.bin").write_bytes(os.urandom(3 * BLOCKS * BLOCK))
    return root


def identity(root, digest="sample"):
    return identify_files(root, (path for path in root.rglob("*") if path.is_file()), digest)


@pytest.mark.parametrize("digest", ["sample", "all"])
def test_a_copy_in_another_place_and_time_is_the_same(folder, tmp_path, digest):
    shutil.copytree(folder, tmp_path / "there", copy_function=shutil.copy)
    os.utime(tmp_path / "there" / "large.bin", (0, 0))
    assert identity(folder, digest) == identity(tmp_path / "there", digest)


def test_a_copy_by_a_system_that_decomposes_names_is_the_same(folder):
    before = identity(folder)
    for path in (folder / "sub").iterdir():
        path.rename(path.with_name(path.name.replace("\u00e9", "e\u0301")))
    assert identity(folder) == before


def test_a_changed_byte_size_or_name_is_another_identity(folder):
    seen = {identity(folder)}
    small, large = folder / "sub" / "caf\u00e9 0.bin", folder / "large.bin"
    small.write_bytes(b"x" + small.read_bytes()[1:])
    seen.add(identity(folder))
    with large.open("r+b") as file:  # in the last block
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    seen.add(identity(folder))
    with large.open("ab") as file:
        file.write(b"x")
    seen.add(identity(folder))
    small.rename(small.with_name("other.bin"))
    seen.add(identity(folder))
    assert len(seen) == 5


def test_a_change_outside_of_the_sample_is_seen_where_all_is_read(folder):
    sampled, whole = identity(folder), identity(folder, "all")
    with (folder / "large.bin").open("r+b") as file:
        file.seek(BLOCK + 7)  # between the first block and the second
        byte = file.read(1)
        file.seek(BLOCK + 7)
        file.write(bytes([byte[0] ^ 1]))
    assert identity(folder) == sampled
    assert identity(folder, "all") != whole


def test_many_files_are_sampled_and_all_sizes_count(tmp_path):
    for number in range(FILES + 50):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]))
    before = identity(tmp_path)
    changed = 0
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(b"!")
        changed += identity(tmp_path) != before
        path.write_bytes(content)
    assert FILES - 1 <= changed <= FILES  # one of the bytes may be '!'
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes() + b"!")
        assert identity(tmp_path) != before
        break


def test_an_unreadable_file_is_no_other_identity(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("a", "pipe"):
        with pytest.raises(MissingData, match=r"expected a file, found a (folder|pipe)"):
            identify_files(tmp_path, [tmp_path / name])
    with pytest.raises(MissingData, match="does not exist any more"):
        identify_files(tmp_path, [tmp_path / "gone"])
