"""Memory that is left is what the machine has, or less where a control group limits it."""

import psutil
import pytest

from sparc.system import memory


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A control group that uses 700 bytes, of which 150 are files in the cache."""
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 550\ninactive_file 100\nactive_file 50\n")
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    return tmp_path


def test_a_control_group_leaves_what_is_below_its_limit_and_what_files_hold_in_the_cache(group):
    (group / "memory.max").write_text("1000\n")
    assert memory.available_bytes() == 1000 - 700 + 150
    (group / "memory.max").write_text("500\n")
    assert memory.available_bytes() == 0


@pytest.mark.parametrize("limit", ["max\n", None])
def test_without_a_limit_the_machines_memory_is_left(group, limit):
    if limit is not None:
        (group / "memory.max").write_text(limit)
    assert 2**20 < memory.available_bytes() <= psutil.virtual_memory().total


def test_a_process_holds_no_more_than_its_peak():
    assert 2**20 < memory.resident_bytes() <= memory.peak_bytes() + 2**20
