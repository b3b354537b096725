"""A folder has one owner at a time, and what a dead owner leaves stops nobody."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparc.errors import InUse, StorageError
from sparc.system import locks
from sparc.system.files import remove_temporaries, write_json
from sparc.system.locks import LOCK, Owner, holder, owned, take

OWN = """
import sys, time
from pathlib import Path
from sparc.system.locks import owned
with owned(Path(sys.argv[1]), "wait"):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """Start a process that owns `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_is_refused_while_its_owner_lives_and_free_when_it_is_killed_or_ends(owner, tmp_path):
    run = tmp_path / "run"
    with (
        pytest.raises(InUse, match=rf"in use by process {owner.pid} on .*, started .*: -c") as error,
        owned(run, "wait"),
    ):
        pass
    assert error.value.hint == "wait"
    assert holder(run).pid == owner.pid
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (run / LOCK).exists()
    with owned(run, "wait"):
        assert holder(run).pid == os.getpid()
    assert not run.exists() or not any(run.iterdir())
    assert holder(run) is None


def test_an_owner_that_ends_leaves_neither_its_lock_nor_an_empty_folder(owner, tmp_path):
    owner.communicate("")
    assert not (tmp_path / "run").exists()


def test_a_lock_that_a_killed_process_left_is_removed_by_whoever_looks(owner, tmp_path):
    owner.kill()
    owner.wait()
    assert holder(tmp_path / "run") is None
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_process_that_was_forked_does_not_keep_the_lock_of_its_parent(tmp_path):
    """It lives on when its parent is gone, as the loading processes of an extraction do."""
    done, wait = os.pipe()
    with owned(tmp_path / "run", "wait"):
        child = os.fork()
        if child == 0:
            os.close(wait)
            os.read(done, 1)
            os._exit(0)
        os.close(done)
    with owned(tmp_path / "run", "wait"):
        pass
    os.close(wait)
    os.waitpid(child, 0)


def test_threads_of_a_process_own_a_folder_one_after_the_other(tmp_path):
    with owned(tmp_path, "wait"), pytest.raises(InUse), owned(tmp_path, "wait"):
        pass


def test_a_shared_lock_lets_others_share_and_keeps_out_who_wants_it_alone(tmp_path):
    one, two = (take(tmp_path / LOCK, shared=True) for _ in range(2))
    assert take(tmp_path / LOCK) is None
    one.release()
    assert (tmp_path / LOCK).exists()
    two.release()
    assert not (tmp_path / LOCK).exists()
    assert take(tmp_path / LOCK) is not None


def test_a_hundred_that_start_at_once_own_a_folder_one_at_a_time(tmp_path):
    """Each owner adds a line while it reads the number of lines before: two owners at a time would lose one."""
    count = tmp_path / "count"
    count.write_text("0")
    children = []
    for _ in range(100):
        if (pid := os.fork()) == 0:
            try:
                with owned(tmp_path / "run", "wait", patience=60):
                    before = int(count.read_text())
                    (tmp_path / "run" / "mine").touch(exist_ok=False)
                    count.write_text(str(before + 1))
                    (tmp_path / "run" / "mine").unlink()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 100
    assert count.read_text() == "100"
    assert not any((tmp_path / "run").iterdir() if (tmp_path / "run").exists() else ())


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_with_the_reason(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with (
        pytest.raises(StorageError, match=r"has no locks, so two processes could write there"),
        owned(tmp_path, "wait"),
    ):
        pass


@pytest.mark.parametrize(
    ("mount", "is_local"),
    [
        ("0 0 0:1 / {} rw - nfs4 server:/x rw,vers=4.2,local_lock=none", False),
        ("0 0 0:1 / {} rw - nfs server:/x rw,vers=3,nolock,local_lock=all", True),
        ("0 0 0:1 / {} rw - nfs server:/x rw,vers=3,local_lock=flock", True),
        ("0 0 0:1 / {} rw - lustre a@tcp:/x rw,flock", False),
        ("0 0 0:1 / {} rw - lustre a@tcp:/x rw,localflock", True),
        ("0 0 0:1 / {} rw - fuse.sshfs me@host: rw", True),
        ("0 0 0:1 / {} rw - ext4 /dev/sda rw", False),
    ],
)
def test_a_mount_that_keeps_locks_to_one_machine_is_recognised(tmp_path, monkeypatch, mount, is_local):
    """The table of mounts is a file here; no test can mount a network disk."""
    table = tmp_path / "mountinfo"
    table.write_text(f"0 0 0:0 / / rw - ext4 /dev/root rw\n{mount.format(tmp_path / 'disk')}\n")
    monkeypatch.setattr(locks, "MOUNTS", table)
    assert locks._kept_to_one_machine(tmp_path / "disk" / "runs") is is_local
    assert locks._kept_to_one_machine(tmp_path / "other") is False


def test_on_such_a_mount_a_lock_of_another_machine_is_never_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_kept_to_one_machine", lambda folder: True)
    me = vars(Owner.me())
    write_json(tmp_path / LOCK, me | {"boot": "before"})  # this machine has been started anew since
    with owned(tmp_path, "wait"):
        assert Owner.read(tmp_path / LOCK).boot == me["boot"]
        with pytest.raises(InUse), owned(tmp_path, "wait"):
            pass
    write_json(tmp_path / LOCK, me | {"boot": "other", "host": "node17", "pid": 4})
    with pytest.raises(StorageError, match="left by process 4 on node17") as error, owned(tmp_path, "wait"):
        pass
    assert str(tmp_path / LOCK) in error.value.hint
    (tmp_path / LOCK).write_text("")  # by a process that has just begun, or was killed then
    with pytest.raises(StorageError, match="left by another process"), owned(tmp_path, "wait"):
        pass


def test_a_folder_that_may_not_be_written_is_refused_as_the_machine_says(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"), owned(tmp_path / "file" / "run", "wait"):
        pass
    with pytest.raises(StorageError, match="File name too long"), owned(tmp_path / ("x" * 300), "wait"):
        pass


def test_a_full_disk_leaves_no_lock_and_no_folder(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # a file may be made, but not filled
    try:
        for folder in (tmp_path / "new" / "run", tmp_path):
            with pytest.raises(StorageError, match="no space left to write"), owned(folder, "wait"):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_only_temporary_files_are_removed(tmp_path):
    kept = [".config.json.tmp.txt", "shard.tmp", ".hidden", "a.json"]
    for name in [*kept, f".a.json.{'0' * 32}.tmp"]:
        (tmp_path / name).touch()
    (tmp_path / ".folder.tmp").mkdir()
    remove_temporaries(tmp_path, Path(tmp_path / "none"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".folder.tmp"])
