"""Extractions that meet: one owns the folder of a stream's features, the other waits; shares work together."""

import os
import threading
from types import SimpleNamespace

from sparc.extraction.plan import WHOLE, Share
from sparc.extraction.sharing import locked, sweep
from sparc.system.locks import LOCK, take


def jobs(root, *names):
    return [SimpleNamespace(directory=root / "data" / "train" / name) for name in names]


def test_the_second_extraction_says_for_whom_it_waits_and_goes_on_when_the_first_ends(tmp_path):
    said, order = [], []
    (job,) = jobs(tmp_path, "a")

    def second():
        with locked([job], WHOLE, said.append):
            order.append("second")

    with locked([job], WHOLE, said.append):
        waiting = threading.Thread(target=second)
        waiting.start()
        while not said:
            pass
        order.append("first")
        (job.directory / "shard").touch()
    waiting.join()
    assert order == ["first", "second"]
    assert said == [said[0]]
    assert f"{job.directory} is in use by process {os.getpid()}" in said[0]
    assert [path.name for path in job.directory.iterdir()] == ["shard"]


def test_shares_work_at_the_same_time_but_not_two_of_one_number_nor_a_whole_extraction(tmp_path):
    (job,) = jobs(tmp_path, "a")
    said = []
    with locked([job], Share(0, 2), said.append), locked([job], Share(1, 2), said.append):
        assert take(job.directory / LOCK) is None
        assert take(job.directory / f"{LOCK}.0-of-2") is None
        (job.directory / ".shard-00001.safetensors.12.tmp").touch()
    assert not said
    assert not (tmp_path / "data").exists()  # nothing was written: the temporary file is of a process that is gone


def test_an_extraction_that_owns_a_folder_removes_what_killed_ones_left_there(tmp_path):
    one, two = jobs(tmp_path, "a", "b")
    one.directory.mkdir(parents=True)
    for name in (".manifest.json.0123.tmp", LOCK, f"{LOCK}.0-of-4", "manifest.json"):
        (one.directory / name).touch()
    with locked([two, one], WHOLE, lambda text: None):
        assert sorted(path.name for path in one.directory.iterdir()) == [LOCK, "manifest.json"]
    assert not two.directory.exists()
    (one.directory / ".samples.json.0123.tmp").touch()
    sweep([one])
    assert [path.name for path in one.directory.iterdir()] == ["manifest.json"]
