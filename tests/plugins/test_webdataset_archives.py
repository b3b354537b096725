"""Tar archives as people have them: each member becomes part of a sample, or is counted with its reason."""

import contextlib
import gzip
import io
import json
import os
import random
import tarfile
import unicodedata
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from webdataset.tariterators import base_plus_ext

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData, StorageError
from sparc_plugins.webdataset import WebDataset
from sparc_plugins.webdataset.archive import read_members
from sparc_plugins.webdataset.grouping import Tally, Wanted, grouped
from sparc_plugins.webdataset.shards import WebDatasetParams

NFC, NFD = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"


def picture(colour="red", form="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (16, 12), colour).save(file, form)
    return file.getvalue()


JPEG = picture()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    return folder


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def pack(path, *members, form=tarfile.GNU_FORMAT):
    """Write an archive of names (an image, or the name as a caption), of pairs of name and content, and of links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member if isinstance(member, tuple) else (member, None)
            if data is None:
                data = JPEG if name.lower().endswith("jpg") else name.encode()
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def opened(root, split="train", **params):
    return WebDataset(WebDatasetParams(root=str(root), holdout=0, **params), split)


def warned(root, **params):
    """Open the dataset, and return it with the warnings of the opening."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dataset = opened(root, **params)
    return dataset, sorted({str(one.message) for one in found})


def content(dataset):
    """Return the caption and the image's size of each sample by its id; None for what is missing."""
    samples = [dataset[n] for n in range(len(dataset))]
    return {one.id: (one.caption, one.image().size if one.open_image else None) for one in samples}


def dotted():
    numbered = [f"{n:03d}{end}" for n in range(20) for end in (".jpg", ".txt")]
    return numbered + [f"photo 1.5 {name}" for name in numbered]


def test_samples_that_dots_in_their_names_would_lose_are_refused_with_the_option_that_keeps_them(root):
    pack(root / "0.tar", *dotted())
    with pytest.raises(
        InvalidConfig, match=r"20 samples of .*0.tar have dots in their names \(photo 1.5 000,"
    ) as raised:
        opened(root)
    assert "key=extension" in raised.value.hint
    dataset = opened(root, key="extension")
    assert len(dataset) == 40
    assert content(dataset)["photo 1.5 019"] == ("photo 1.5 019.txt", (16, 12))


def test_an_extension_may_have_dots_in_both_groupings(root):
    pack(root / "0.tar", "v1.5.jpg", "v1.5.en.txt", "b.jpg", "b.en.txt", "c.jpg", "c.txt")
    found = content(opened(root, key="extension", caption="txt;en.txt"))
    assert found == {
        "v1.5": ("v1.5.en.txt", (16, 12)),
        "b": ("b.en.txt", (16, 12)),
        "c": ("c.txt", (16, 12)),
    }
    pack(root / "0.tar", "b.jpg", "b.en.txt", "c.jpg", "c.txt")
    assert list(content(opened(root, caption="txt;en.txt")).values()) == [("b.en.txt", (16, 12)), ("c.txt", (16, 12))]


def test_a_file_whose_extension_only_ends_like_one_in_use_is_counted_at_each_opening(root):
    pack(root / "0.tar", "a.jpg", "a.en.txt", "b.jpg", "b.txt")
    for _ in range(2):  # the second opening reads the cached index
        dataset, found = warned(root)
        assert content(dataset) == {"a": (None, (16, 12)), "b": ("b.txt", (16, 12))}
        assert found == [
            "webdataset: 0.tar: 1 of 2 samples have no caption .txt (a)",
            "webdataset: 0.tar: 3 of 4 files are used; not used: 1 with an extension that only ends like one in "
            "use (a.en.txt) (name the whole extension, such as 'en.txt'; or set key=extension, which ends a name "
            "before it)",
        ]
    # Another grouping of the same shards is another index.
    assert sorted(warned(root, key="extension")[0].ids) == ["a", "a.en", "b"]


def test_files_that_no_sample_needs_are_counted_once(root):
    pack(root / "0.tar", "README.md", "LICENSE", "__meta__/x.txt", "._a.jpg", "d/._a.jpg", "a.json", "a.jpg", "a.txt")
    assert warned(root)[1] == [
        "webdataset: 0.tar: 2 of 8 files are used; not used: 1 without an extension (LICENSE); "
        "1 metadata, with a name like __this__ (__meta__/x.txt); "
        "2 hidden, with a name that starts with a dot (._a.jpg, d/._a.jpg); 2 with other extensions (.md, .json)"
    ]
    dataset, found = warned(root)
    assert not found
    assert list(dataset.ids) == ["a"]


def test_a_second_image_and_labels_alone_are_counted(root):
    pack(root / "0.tar", "a.jpg", ("a.png", picture(form="PNG")), "a.txt", ("a.cls", b"x"), ("b.cls", b"y"))
    found = warned(root, labels="cls")[1]
    assert found == [
        "webdataset: 0.tar: 3 of 5 files are used; not used: 1 beside a preferred image or caption (a.png); "
        "1 without image and caption (b.cls)"
    ]


def test_images_without_caption_and_captions_without_image_are_counted_and_named(root):
    pack(root / "0.tar", "IMG_1.JPG", "img_1.txt", *(f"{n}.txt" for n in range(3)), "x.jpg", "x.txt")
    assert warned(root)[1] == [
        "webdataset: 0.tar: 4 of 6 samples have no image .jpg, .jpeg, .png, .webp (img_1, 0, 1, ...); "
        "1 of 6 samples have no caption .txt (IMG_1); "
        "1 of these names are equal but for upper and lower case (img_1)"
    ]


def test_sets_of_images_alone_or_captions_alone_are_read_if_that_is_what_they_are_said_to_be(root):
    pack(root / "0.tar", "a.jpg", ("a.cls", b"dog"))
    with pytest.raises(InvalidConfig, match=r"no file .txt in any") as raised:
        opened(root)
    assert raised.value.hint == "set 'caption', or leave it empty for a set without; found: .jpg, .cls"
    assert content(opened(root, caption="", labels="cls")) == {"a": (None, (16, 12))}
    pack(root / "0.tar", "a.txt")
    assert content(opened(root, image="")) == {"a": ("a.txt", None)}


def test_names_that_look_the_same_are_one_sample(root):
    pack(root / "0.tar", f"caf{NFC}.jpg", f"caf{NFD}.txt")
    assert content(opened(root)) == {f"caf{NFC}": (f"caf{NFD}.txt", (16, 12))}
    pack(root / "0.tar", f"caf{NFC}.jpg", f"caf{NFD}.jpg", f"caf{NFC}.txt")
    with pytest.raises(InvalidConfig, match=f"holds two files .jpg of 'caf{NFC}'"):
        opened(root)
    pack(root / "0.tar", f"{NFC}.jpg", f"{NFC}.txt")
    pack(root / "1.tar", f"{NFD}.jpg", f"{NFD}.txt")
    with pytest.raises(
        InvalidConfig, match=r"expected unique keys, found 1 twice, such as .* in .*0.tar and in .*1.tar"
    ):
        opened(root)


def test_the_files_of_a_sample_may_be_anywhere_in_a_shard(root):
    pack(root / "0.tar", "./a.jpg", "./b.jpg", "b.txt", "a.txt")
    assert content(opened(root)) == {"a": ("a.txt", (16, 12)), "b": ("b.txt", (16, 12))}


def test_a_link_stands_for_the_file_that_it_leads_to(root):
    hard = link("b.jpg", "a.jpg", tarfile.LNKTYPE)
    chain = [link("d/c.jpg", "../b.jpg"), link("e.txt", "./d/c.txt")]
    pack(root / "0.tar", "a.jpg", "a.txt", hard, "b.txt", *chain, "d/c.txt", "e.jpg")
    assert content(opened(root)) == {
        "a": ("a.txt", (16, 12)),
        "b": ("b.txt", (16, 12)),
        "d/c": ("d/c.txt", (16, 12)),
        "e": ("d/c.txt", (16, 12)),
    }


def test_links_that_lead_nowhere_and_special_files_are_counted(root):
    circle = [link("c.jpg", "d.jpg"), link("d.jpg", "c.jpg")]
    pack(root / "0.tar", "a.jpg", "a.txt", link("b.jpg", "/data/b.jpg"), *circle, link("p.jpg", "", tarfile.FIFOTYPE))
    assert warned(root)[1] == [
        "webdataset: 0.tar: 2 of 6 files are used; not used: 1 links that lead out of the archive (b.jpg); "
        "2 links in a circle (c.jpg, d.jpg); 1 devices or other special files (p.jpg)"
    ]


def test_a_sparse_file_is_counted_and_not_read_as_if_its_map_were_content(root):
    header = tarfile.TarInfo("a.jpg")
    header.type = tarfile.GNUTYPE_SPARSE
    pack(root / "0.tar", header, "a.txt")
    with pytest.raises(InvalidConfig, match=r"no file .jpg") as raised:
        opened(root)
    assert "1 stored as sparse files (tar --sparse) (a.jpg)" in raised.value.hint


def test_archives_that_were_joined_are_read_to_the_end(root):
    first, second = pack(root / "0.tar", "a.jpg", "a.txt"), pack(root / "1.x", "b.jpg", "b.txt")
    joined = first.read_bytes() + bytes(3 * 1024 * 1024) + second.read_bytes()
    first.write_bytes(joined)
    assert list(content(opened(root)).values()) == [("a.txt", (16, 12)), ("b.txt", (16, 12))]
    first.write_bytes(joined + b"x" * 512)
    with pytest.raises(CorruptFile, match=r"0.tar is truncated, or not a tar file: expected a file or the end mark"):
        opened(root)


def test_captions_are_read_in_the_encodings_that_say_what_they_are(root):
    texts = {"a": "größer".encode("utf-16"), "b": "\ufeffgrößer".encode(), "c": "größer".encode("utf-16-be")}
    pack(root / "0.tar", *((f"{key}.txt", text) for key, text in texts.items()), "a.jpg", "b.jpg", "c.jpg")
    dataset = opened(root)
    assert [dataset[n].caption for n in range(2)] == ["größer", "größer"]
    with pytest.raises(BadSample, match="caption of sample 'c' cannot be read"):
        dataset[2].text()


def test_json_that_holds_no_text_says_what_it_holds(root):
    records = {"a": '{"text": "x"}', "b": '{"text": ["x"]}', "c": '{"text": "x"', "d": '{"caption": "x"}', "e": '"x"'}
    pack(
        root / "0.tar",
        *((f"{key}.json", text.encode()) for key, text in records.items()),
        *(f"{k}.jpg" for k in records),
    )
    dataset = opened(root, caption="json.text")
    assert dataset[0].text() == "x"
    reasons = (r"found \['x'\]", "Expecting ',' delimiter", "found null, or no such field", "expected a JSON object")
    for n, reason in enumerate(reasons, start=1):
        with pytest.raises(BadSample, match=f"caption of sample '{'abcde'[n]}' cannot be read: .*{reason}"):
            dataset[n].text()
        assert dataset[n].image().size == (16, 12)


def test_each_line_of_a_label_file_is_a_label_and_a_comma_is_part_of_one(root):
    pack(root / "0.tar", "a.jpg", "a.txt", ("a.cls", b"dog\r\ncat\n"), "b.jpg", "b.txt", ("b.cls", b"fox, red"))
    dataset, found = warned(root, labels="cls")
    assert dataset.taxonomy.labels == ("cat", "dog", "fox, red")
    assert dataset.labels().toarray().tolist() == [[1, 1, 0], [0, 0, 1]]
    assert found == [
        "webdataset: 0.tar: 1 labels hold a comma and are one label each: 'fox, red'; a line of its own makes two"
    ]


def test_an_image_without_content_is_said_to_be_empty(root):
    pack(root / "0.tar", ("a.jpg", b""), "a.txt")
    with pytest.raises(BadSample, match="image of sample 'a' does not decode: its file is not an image: it is empty"):
        opened(root)[0].image()


def test_shards_are_found_whatever_the_case_of_their_suffix_and_metadata_of_macos_is_none(root):
    pack(root / "TRAIN-0.TAR", "a.jpg", "a.txt")
    pack(root / "test-0.Tar", "b.jpg", "b.txt")
    (root / "._train-0.tar").write_bytes(b"\0\5\x16\7" * 40)
    (root / "2.tar").mkdir()
    assert list(opened(root).ids) == ["a"]
    assert list(opened(root, "test").ids) == ["b"]
    assert list(opened(root, "test", train="*.TAR").ids) == ["b"]


def test_shards_that_no_split_takes_are_counted(root):
    for name in ("train-0.tar", "val-0.tar", "more/1.tar"):
        pack(root / name, f"{name[:4]}.jpg", f"{name[:4]}.txt")
    (root / "2.tgz").write_bytes(gzip.compress(b"x"))
    assert warned(root)[1] == [
        f"webdataset: shards of {root} that are not used: 1 not named train-* or test-* (val-0.tar); "
        "1 compressed (2.tgz); 1 in sub-folders (more/1.tar); 'train' and 'test' choose others"
    ]
    assert not warned(root, train="train-0.tar")[1]


def test_a_folder_with_other_shards_only_says_what_to_do_with_them(root):
    pack(root / "train/0.tar", "a.jpg", "a.txt")
    with pytest.raises(MissingData, match="no shards to train on") as raised:
        opened(root)
    assert raised.value.hint == "for the shards in sub-folders, such as train/0.tar, set train=train/*.tar"
    (root / "0.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(MissingData, match="no shards to train on") as raised:
        opened(root)
    assert "found 0.tar.gz: decompress them" in raised.value.hint


def test_what_the_machine_refuses_is_not_called_damage(root):
    pack(root / "0.tar", "a.jpg", "a.txt")
    dataset = opened(root)
    (root / "1.tar").symlink_to("/proc/self/mem")  # reading it is an I/O error
    with pytest.raises(StorageError, match=r"cannot read .*1.tar: Input/output error"):
        opened(root)
    (root / "1.tar").unlink()
    (root / "1.tar").symlink_to(root / "gone.tar")
    with pytest.raises(MissingData, match=r"1.tar does not exist, or is a link to a file that does not"):
        opened(root)
    (root / "0.tar").unlink()
    (root / "0.tar").symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match=r"cannot read .*0.tar: Input/output error"):
        dataset[0]


def test_a_shard_that_shrank_after_it_was_opened_gives_no_half_caption(root):
    shard = pack(root / "0.tar", "a.jpg", ("a.txt", b"a long caption"))
    dataset = opened(root)
    os.truncate(shard, shard.read_bytes().index(b"a long caption") + 6)
    with pytest.raises(CorruptFile, match=r"0.tar has become shorter since it was opened"):
        dataset[0]


PRIVATE = "\ue000"
letters = st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters=f"/\0_{PRIVATE}")
stems = st.text(st.sampled_from(f"ab.. 'Ä\n\"日{NFC}{NFD}🦊") | letters, min_size=1, max_size=8)
folders = st.sampled_from(["", "d/", "v1.5/", f"{NFC}/", f"{NFD}/"])
extensions = st.sampled_from(["jpg", "JPG", "txt", "en.txt", "json", "seg.jpg"])
names = st.builds("{}{}.{}".format, folders, stems, extensions)
fast = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_all(path, members, form):
    pack(path, *((name, f"{number}".encode()) for number, name in enumerate(members)), form=form)


def samples_of(path, key):
    """Return the numbers of the image and the caption of each sample by key, and the tally."""
    wanted, tally = Wanted.by(WebDatasetParams(root="", key=key)), Tally()
    data = path.read_bytes()

    def number(member):
        return None if member is None else int(data[member.offset : member.offset + member.size])

    found = [
        (one.key, number(one.image), number(one.caption)) for one in grouped(path, read_members(path), wanted, tally)
    ]
    assert len({key for key, _, _ in found}) == len(found)
    return {key: (image, caption) for key, image, caption in found}, tally


def by_extension(name):
    """Return key and extension of a file if the key ends before the extension, None if it is hidden or not in use."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.rpartition(".")
    if last.startswith(".") or extension.lower() not in ("jpg", "txt"):
        return None
    return unicodedata.normalize("NFC", folder + slash + stem), extension.lower()


def by_first_dot(name):
    """Return key and extension as the webdataset library does."""
    if name.rpartition("/")[2].startswith("."):
        return None
    # The library's pattern does not know that a folder's name may hold a line break.
    key, extension = base_plus_ext(name.replace("\n", PRIVATE))
    key = key.replace(PRIVATE, "\n")
    return (unicodedata.normalize("NFC", key), extension.lower()) if extension.lower() in ("jpg", "txt") else None


@fast
@given(
    st.lists(names, max_size=12, unique=True), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.booleans()
)
def test_what_was_written_comes_back_whole_or_is_counted(tmp_path, members, form, first_dot):
    path = tmp_path / "0.tar"
    write_all(path, members, form)
    expected, twice = {}, False
    for number, name in enumerate(members):
        if place := (by_first_dot if first_dot else by_extension)(name):
            files = expected.setdefault(place[0], {})
            twice = twice or place[1] in files
            files[place[1]] = number
    refused = ""
    try:
        found, tally = samples_of(path, "first-dot" if first_dot else "extension")
    except InvalidConfig as error:
        refused = error.message
    # An error names what would be lost: two files of one name, or whole samples whose names hold dots.
    if refused:
        assert twice or (first_dot and "dots in their names" in refused)
        return
    assert not twice
    assert found == {key: (files.get("jpg"), files.get("txt")) for key, files in expected.items()}
    assert tally.files == len(members) == tally.used + tally.counts.total() + tally.others.total()


@fast
@given(st.lists(names, min_size=1, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_a_damaged_archive_is_refused_or_whole(tmp_path, members, chance: random.Random):
    path = tmp_path / "0.tar"
    write_all(path, members, tarfile.PAX_FORMAT)
    whole, data = read_members(path), path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])
    with contextlib.suppress(CorruptFile):
        assert read_members(path) == whole


def labelled(root, *records):
    """Write a shard with the label files of samples 0, 1, ... and return the labels, sample by sample."""
    members = [
        (f"{number}.{name}", content)
        for number, record in enumerate(records)
        for name, content in (
            ("jpg", JPEG),
            ("json", (record if isinstance(record, str) else json.dumps(record)).encode()),
        )
    ]
    pack(root / "train-0.tar", *members)
    pack(root / "test-0.tar", "t.jpg", ("t.json", b'{"of": "t"}'))
    dataset = opened(root, caption="", labels="json.of")
    matrix = dataset.labels()
    return [[dataset.taxonomy.labels[column] for column in matrix[[row]].nonzero()[1]] for row in range(len(dataset))]


def test_labels_that_look_the_same_are_one_label(root):
    assert labelled(root, {"of": ["caf\u00e9", " dog "]}, {"of": ["cafe\u0301", "dog\n"]}) == [["caf\u00e9", "dog"]] * 2


def test_a_label_that_is_missing_is_none(root):
    found = labelled(root, {"of": ["a", None, float("nan")]}, {"of": None}, {"of": float("nan")}, {}, {"of": [5]})
    assert found == [["a"], [], [], [], ["5"]]


def test_half_a_character_in_a_label_is_counted(root):
    with pytest.warns(UserWarning, match=r"1 labels hold half of a character \(a lone surrogate\).*'x\?'"):
        assert labelled(root, {"of": "x\ud800"}, {"of": "y"}) == [["x?"], ["y"]]


def test_json_that_is_nested_too_deeply_is_named_as_labels_and_can_be_skipped_as_a_caption(root):
    deep = "[" * 200_000
    with pytest.raises(CorruptFile, match=r"train-0\.tar: .* sample '1', in 1\.json: its JSON is nested too deeply"):
        labelled(root, {"of": "x"}, deep)
    dataset = opened(root, caption="json.of")
    assert dataset[0].text() == "x"
    with pytest.raises(BadSample, match=r"caption of sample '1' cannot be read: its JSON is nested too deeply"):
        dataset[1].text()


def test_a_taxonomy_is_found_in_any_case_of_its_name(root):
    (root / "Taxonomy.JSON").write_text('{"dog": ["animal"], "animal": [], "t": []}')
    assert labelled(root, {"of": "dog"}) == [["dog"]]
    assert set(opened(root, caption="", labels="json.of").taxonomy.labels) == {"dog", "animal", "t"}


def header_of(name, size, kind):
    """Return a header whose size is a binary number, as GNU tar writes what is too large for eight digits."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % (1 << 88)).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [-512, -1024, -(2**60), 2**63 - 1, 2**70])
def test_a_size_that_no_file_has_ends_the_reading_of_an_archive(root, kind, size):
    path = pack(root / "x.tar", "a.jpg", "a.txt")
    whole = path.read_bytes()
    path.write_bytes(header_of("b.jpg", size, kind) + whole)
    with pytest.raises(CorruptFile, match=r"x\.tar is truncated, or not a tar file"):
        read_members(path)


def test_a_long_chain_of_links_is_followed_no_further(root):
    chain = [link(f"{number}.jpg", f"{number + 1}.jpg") for number in range(3000)]
    found = read_members(pack(root / "x.tar", *chain, ("3000.jpg", JPEG)))
    assert found[-2].offset == found[-1].offset
    assert found[0].reason == "links in a circle"
