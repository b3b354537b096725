"""Shards behind URLs hold the same samples as those of a folder, and are downloaded once."""

import io
import tarfile
import warnings

import fsspec
import pytest
from PIL import Image

from sparc.errors import CorruptFile, InvalidConfig, MissingData, StorageError
from sparc.system import remote
from sparc_plugins.webdataset import WebDataset, WebDatasetParams, _identify
from tests.remote import S3Server, WebServer, needs_http, needs_s3


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    return tmp_path / "cache"


def shard(first, last, **more):
    """A tar file of numbered samples."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(first, last):
            picture = io.BytesIO()
            Image.new("RGB", (4, 3), (number, 0, 0)).save(picture, "PNG")
            for extension, content in {"png": picture.getvalue(), "txt": f"caption {number}".encode(), **more}.items():
                member = tarfile.TarInfo(f"{number:04d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


SHARDS = {f"train-{number:03d}.tar": shard(10 * number, 10 * number + 10) for number in range(3)}
SHARDS["test-000.tar"] = shard(90, 95)


@pytest.fixture
def bucket():
    """A function that puts files into a bucket in memory; it returns the bucket's URL."""
    system = fsspec.filesystem("memory")

    def put(files, name="bucket/cc"):
        for path, content in files.items():
            system.pipe(f"/{name}/{path}", content)
        return f"memory://{name}"

    yield put
    system.store.clear()


@pytest.fixture
def web():
    server = WebServer()
    yield server
    server.close()


def opened(root, split="train", **params):
    return WebDataset(WebDatasetParams(root=root, **params), split)


def content(dataset):
    """Ids, captions and first pixels."""
    return [
        (one.id, one.text(), one.open_image().getpixel((0, 0))) for one in map(dataset.__getitem__, range(len(dataset)))
    ]


def cached(own_cache):
    return sorted((own_cache / "remote" / "files").glob("*.file"))


def test_samples_behind_a_url_are_those_of_a_folder(bucket, tmp_path, own_cache):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in SHARDS.items():
        (folder / name).write_bytes(data)
    url = bucket({**SHARDS, "notes.txt": b"-", "._train-000.tar": b"-"})
    for split, count in (("train", 30), ("test", 5)):
        assert (
            content(opened(url, split))
            == content(opened(folder.as_uri(), split))
            == content(opened(str(folder), split))
        )
        assert len(opened(url, split)) == count


def test_a_second_opening_downloads_nothing_and_a_changed_shard_alone_is_downloaded_again(bucket, own_cache):
    url = bucket(SHARDS)
    before = content(opened(url))
    for path in cached(own_cache):
        path.unlink()
    again = opened(url)
    assert len(again) == 30
    assert [again[number].caption for number in (29, 0)] == ["caption 29", "caption 0"]
    assert cached(own_cache) == []
    assert content(again) == before
    for path in cached(own_cache):
        path.unlink()
    bucket({"train-001.tar": shard(40, 50)})
    assert [*opened(url).ids][10:20] == [f"{number:04d}" for number in range(40, 50)]
    assert len(cached(own_cache)) == 1


def test_reading_in_order_through_a_cache_of_one_shard_downloads_each_shard_once(bucket, own_cache, monkeypatch):
    data = opened(bucket(SHARDS), cache=max(map(len, SHARDS.values())))
    for path in cached(own_cache):
        path.unlink()
    seen = set()
    for number in range(len(data)):
        data[number].open_image()
        seen |= {(path, path.stat().st_ino) for path in cached(own_cache)}
        assert len(cached(own_cache)) == 1
    assert len(seen) == 3


def test_braces_and_patterns_choose_shards_and_missing_ones_are_all_named(bucket):
    url = bucket(SHARDS)
    assert len(opened(url, train="train-{000..001}.tar::train-002.tar", test="test-*.tar")) == 30
    assert len(opened(url.removesuffix("/cc"), train="cc/train-{001..002}.tar", test="cc/test-000.tar")) == 20
    with pytest.raises(MissingData, match=r"memory://bucket/cc has no train-003\.tar") as raised:
        opened(url, train="train-{000..004}.tar")
    assert any("train-004.tar" in line for line in raised.value.details)
    with pytest.raises(InvalidConfig, match="is in train and in test"):
        opened(url, train="*.tar", test="test-000.tar")
    with pytest.raises(InvalidConfig, match=r"train-000\.tar is a shard") as shown:
        opened(f"{url}/train-000.tar")
    assert shown.value.hint == "--data-root memory://bucket/cc and train=train-000.tar"
    with pytest.raises(InvalidConfig, match="more than the cache, 5,000"):
        opened(url, cache="5kB")


def test_a_bad_shard_is_an_error_unless_it_is_to_be_skipped_and_then_is_named_each_time(bucket, tmp_path):
    truncated = {**SHARDS, "train-001.tar": SHARDS["train-001.tar"][:5000]}
    url = bucket(truncated)
    with pytest.raises(CorruptFile, match=r"train-001\.tar is truncated"):
        opened(url)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 of 3 shards are left out, bad_shards=skip .*train-001\.tar is trunc"):
            data = opened(url, bad_shards="skip")
        assert [*data.ids] == [f"{number:04d}" for number in (*range(10), *range(20, 30))]
        assert len(content(data)) == 20
    missing = "train-{000..003}.tar"
    with pytest.warns(UserWarning, match="shards are left out") as said:
        assert len(opened(url, train=missing, bad_shards="skip")) == 20
    first = "webdataset: 1 shards are left out, bad_shards=skip: webdataset: memory://bucket/cc has no train-003.tar"
    assert str(said[0].message) == first
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in truncated.items():
        (folder / name).write_bytes(data)
    with pytest.warns(UserWarning, match="shards are left out") as said:
        assert len(opened(str(folder), train=missing, bad_shards="skip")) == 20
    assert ["has no train-003" in str(one.message) for one in said] == [True, False]


def test_the_identity_tells_samples_apart_and_not_places_or_caches(bucket, own_cache):
    def identity(root, **params):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _identify(WebDatasetParams(root=root, **params))

    url = bucket(SHARDS)
    first = identity(url)
    assert not own_cache.exists()  # nothing is downloaded for it
    assert identity(url, cache="1GB") == first
    copy = bucket(SHARDS, "other/place")
    assert identity(copy) != first  # its times are others
    assert identity(copy, digest="all") == identity(url, digest="all")
    bucket({"train-001.tar": SHARDS["train-001.tar"][:5000]})
    skipped = identity(url, bad_shards="skip")
    assert skipped not in (first, identity(url))
    params = WebDatasetParams(root=url, cache="1GB", bad_shards="skip")
    assert params.cache == 10**9
    assert not {"cache", "bad_shards"} & params.model_dump().keys()  # so that features of before are found


def test_labels_and_a_taxonomy_are_read(bucket, own_cache):
    files = {
        "a.tar": shard(0, 5, cls=b"cat"),
        "b.tar": shard(5, 10, cls=b"dog"),
        "taxonomy.json": b'{"any": [], "cat": ["any"], "dog": ["any"]}',
    }
    url = bucket(files)
    data = opened(url, labels="cls", holdout=0.0)
    assert (
        data.labels().toarray().argmax(axis=1).tolist()
        == [data.taxonomy.labels.index("cat")] * 5 + [data.taxonomy.labels.index("dog")] * 5
    )
    assert data.taxonomy.labels == ("any", "cat", "dog")
    bucket({"b.tar": shard(5, 10, cls=b"\xff")})
    with pytest.raises(CorruptFile, match=r"b\.tar: expected texts or whole numbers as labels of sample '0005'"):
        opened(url, labels="cls")


@needs_http
def test_a_web_server_needs_a_list_by_braces_and_its_faults_are_told_apart(web, own_cache):
    web.files = {f"/cc/{name}": data for name, data in SHARDS.items()}
    root, named = f"{web.url}/cc", {"train": "train-{000..002}.tar", "test": "test-000.tar"}
    with pytest.raises(InvalidConfig, match="has no list of its files"):
        opened(root)
    with pytest.raises(MissingData, match="has no list of its files"):
        opened(root, train="train-*.tar")
    data = opened(f"{root}?sig=secret", **named)
    assert [text for _, text, _ in content(data)] == [f"caption {number}" for number in range(30)]
    assert sorted(web.downloads) == sorted(f"/cc/{name}" for name in SHARDS if name.startswith("train"))
    assert _identify(WebDatasetParams(root=root, **named)) == _identify(WebDatasetParams(root=f"{root}?sig=2", **named))
    web.faults["/cc/train-001.tar"] = "403"
    with pytest.raises(MissingData, match=r"train-001\.tar: the server refuses access \(403\)"):
        opened(root, **named)
    with pytest.warns(UserWarning, match="refuses access"):
        assert len(opened(root, **named, bad_shards="skip")) == 20
    web.faults["/cc/train-001.tar"] = "500"
    with pytest.raises(StorageError, match="the server answered 500"):
        opened(root, **named, bad_shards="skip")  # it may answer in a minute, so nothing is left out
    web.files["/cc/train-001.tar"] = shard(50, 60)
    web.faults["/cc/train-001.tar"] = 2000  # the connection ends in the midst
    with pytest.raises(StorageError, match=r"cannot read .*train-001\.tar"):
        opened(root, **named)
    del web.faults["/cc/train-001.tar"]
    assert len(opened(root, **named)) == 30
    assert not list((own_cache / "remote" / "files").glob("*.part"))


@needs_http
def test_a_server_that_is_gone_is_no_missing_shard(web):
    web.close()
    with pytest.raises(StorageError, match="cannot read"):
        opened(web.url, train="train-000.tar", bad_shards="skip")


@needs_s3
def test_an_s3_bucket_is_listed_and_read(own_cache, monkeypatch):
    server = S3Server()
    try:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        system = fsspec.filesystem("s3")
        system.mkdir("shards")
        for name, data in SHARDS.items():
            system.pipe(f"shards/v1/{name}", data)
        data = opened("s3://shards/v1")
        assert [text for _, text, _ in content(data)] == [f"caption {number}" for number in range(30)]
        assert len(opened("s3://shards/v1", "test", train="train-{000..001}.tar")) == 5
        before = _identify(WebDatasetParams(root="s3://shards/v1"))
        system.pipe("shards/v1/train-000.tar", SHARDS["train-000.tar"])
        assert _identify(WebDatasetParams(root="s3://shards/v1")) == before  # the ETag is of the content
        system.pipe("shards/v1/train-000.tar", shard(60, 70))
        assert _identify(WebDatasetParams(root="s3://shards/v1")) != before
        assert "0060" in opened("s3://shards/v1").ids
        for url in ("s3://shards/nowhere", "s3://nobucket/v1"):
            with pytest.raises(MissingData, match=r"does not exist|has no shards"):
                opened(url)
    finally:
        server.close()
