"""A store is verified: damage is an error, and features that no model should give are warnings that name them."""

import shutil
from importlib.metadata import entry_points, version

import pytest
import torch

from sparc.cli import main
from sparc.errors import MissingData
from sparc.session.doctor import findings
from sparc.storage.store import shard_path
from sparc.storage.verify import stream_directories, verify_stream
from tests.storage.test_store import write_stream

IDS = [f"sample {number}" for number in range(40)]


@pytest.fixture
def features():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def doubts(directory):
    return [(one.is_error, one.message) for one in verify_stream(directory).doubts]


def test_sound_features_raise_no_doubt(tmp_path, features):
    assert doubts(write_stream(tmp_path / "a", features, IDS)) == []
    assert verify_stream(tmp_path / "a").samples == 40


def test_constant_and_equal_columns_and_outliers_of_norms_are_named(tmp_path, features):
    features[7] *= 1000
    features[30] /= 1000
    features[:, 2] = 2**-20
    features[:, 5] = features[:, 1]
    features[11] = 0  # a sample that lacks the stream is no outlier, and its zeros make no column vary
    found = doubts(write_stream(tmp_path / "a", features, IDS))
    assert [is_error for is_error, _ in found] == [False, False, False]
    texts = " | ".join(message for _, message in found)
    assert "1 of 6 columns are constant, such as 2" in texts
    assert "1 of 6 columns equal another one, such as 5" in texts
    assert "2 of 39 rows is over 10 times the median" in texts
    assert "'sample 7', 'sample 30'" in texts


def test_damage_is_an_error_that_names_the_file(tmp_path, features):
    directory = write_stream(tmp_path / "a", features, IDS)
    path = shard_path(directory, 3)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    ((is_error, message),) = doubts(directory)
    assert is_error
    assert "shard-00003.safetensors is truncated or altered" in message


def test_an_unfinished_extraction_is_said_and_its_shards_are_checked(tmp_path, features):
    directory = write_stream(tmp_path / "a", features, IDS)
    (directory / "manifest.json").unlink()
    assert doubts(directory) == [(False, "it is not finished: 40 rows so far, and no manifest.json")]
    path = shard_path(directory, 0)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert [is_error for is_error, _ in doubts(directory)] == [True, False]


def test_all_streams_below_a_folder_are_found_and_none_is_an_error(tmp_path, features):
    for name in ("train/b", "train/a", "test/a"):
        write_stream(tmp_path / name, features, IDS)
    assert stream_directories(tmp_path) == [tmp_path / name for name in ("test/a", "train/a", "train/b")]
    with pytest.raises(MissingData, match="no features in"):
        stream_directories(tmp_path / "nowhere")


def test_doctor_names_libraries_that_do_not_fit_and_plugins_that_do_not_load(tmp_path, monkeypatch, capsys, features):
    for name, metadata, points in (
        ("torchvision-9.9.dist-info", "Name: torchvision\nVersion: 9.9\nRequires-Dist: torch==1.2.3\n", ""),
        ("broken_plugin-1.0.dist-info", "Name: broken-plugin\nVersion: 1.0\n", "[sparc.plugins]\nbroken = not_there\n"),
    ):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "METADATA").write_text(f"Metadata-Version: 2.1\n{metadata}")
        (tmp_path / "site" / name / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    assert "broken" in {point.name for point in entry_points(group="sparc.plugins")}
    found = {(one.level, one.subject): one.text for one in findings()}
    torch_version = version("torch")
    assert found["error", "torchvision"] == f"9.9 was built for torch 1.2.3, found torch {torch_version}"
    assert found["error", "plugins"] == "'broken' does not load: ModuleNotFoundError: No module named 'not_there'"
    assert "image" not in found["ok", "device"]

    write_stream(tmp_path / "store" / "a", features, IDS)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--store", str(tmp_path / "store")])
    shown = capsys.readouterr().out
    assert ended.value.code == 1
    assert "error    torchvision: 9.9 was built for torch 1.2.3" in shown
    assert f"{tmp_path / 'store' / 'a'}: 40 samples" in shown
    shutil.rmtree(tmp_path / "store" / "a")
    with pytest.raises(SystemExit):
        main(["doctor", "--store", str(tmp_path / "store")])
    assert "error: no features in" in capsys.readouterr().err
