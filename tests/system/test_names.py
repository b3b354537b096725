"""Names that look the same are the same, in whichever of Unicode's forms they are stored."""

import unicodedata

from sparc.system.names import find_path, same_name

COMPOSED, DECOMPOSED = "Zo\u00eb/caf\u00e9.jpg", "Zoe\u0308/cafe\u0301.jpg"


def test_both_forms_of_a_name_are_one_name():
    assert DECOMPOSED != COMPOSED
    assert same_name(DECOMPOSED) == same_name(COMPOSED) == COMPOSED
    assert same_name("plain.jpg") == "plain.jpg"


def test_a_file_is_found_under_the_form_in_which_the_disk_stores_it(tmp_path):
    for stored, asked in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        root = tmp_path / unicodedata.name(stored[2])
        (root / stored).parent.mkdir(parents=True)
        (root / stored).write_text("x")
        assert find_path(root, asked) == root / stored
        assert find_path(root, stored) == root / stored


def test_a_file_that_is_not_there_keeps_its_name(tmp_path):
    assert find_path(tmp_path, COMPOSED) == tmp_path / COMPOSED
    assert find_path(tmp_path, "a.jpg") == tmp_path / "a.jpg"
    (tmp_path / "Zoe\u0308").write_text("a file where a folder is expected")
    assert find_path(tmp_path, COMPOSED).name == "caf\u00e9.jpg"


def test_a_file_that_comes_later_is_found_too(tmp_path):
    assert not find_path(tmp_path, "caf\u00e9.jpg").exists()
    (tmp_path / "cafe\u0301.jpg").write_text("x")
    assert find_path(tmp_path, "caf\u00e9.jpg").exists()


def test_a_suffix_in_another_case_and_spaces_around_a_name_are_passed_over(tmp_path):
    (tmp_path / "IMG_1.JPG").write_text("x")
    (tmp_path / " caf\u00e9.jpeg").write_text("x")
    assert find_path(tmp_path, "IMG_1.jpg") == tmp_path / "IMG_1.JPG"
    assert find_path(tmp_path, "cafe\u0301.Jpeg") == tmp_path / " caf\u00e9.jpeg"
    assert not find_path(tmp_path, "img_1.jpg").exists()
    (tmp_path / "README").write_text("x")
    assert not find_path(tmp_path, "readme").exists()


def test_of_two_files_that_look_the_same_none_is_guessed(tmp_path):
    for name in ("a.JPG", "a.Jpg"):
        (tmp_path / name).write_text("x")
    assert find_path(tmp_path, "a.jpg") == tmp_path / "a.jpg"
    assert find_path(tmp_path, "a.JPG") == tmp_path / "a.JPG"
