"""The path that was meant by one that does not exist."""

from pathlib import Path

from sparc.system.nearby import meant


def test_the_nearest_name_is_suggested_of_the_kind_that_is_wanted(tmp_path, monkeypatch):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "photo.txt").touch()
    (tmp_path / "Labels.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert meant("photoz", "check it", folder=True) == "did you mean photos?"
    assert meant(tmp_path / "photoz", "check it", folder=True) == "did you mean photos?"
    assert meant("phots/train", "check it", folder=True) == f"did you mean {Path('photos/train')}?"
    assert meant("photos/trian", "check it", folder=True) == f"did you mean {Path('photos/train')}?"
    assert meant("labels.csv", "check it", folder=False) == "did you mean Labels.csv?"
    assert meant("photoz", "check it", folder=False) == "check it"  # photo.txt is less near
    assert meant("a folder of quite another name", "check it") == "check it"
    for odd in ("", ".", "/", "x" * 9999, "a\0b"):
        assert meant(odd, "check it") == "check it"
