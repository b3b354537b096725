"""The commands read shards and stores behind URLs."""

import csv
import io
import shutil
import tarfile

import fsspec
import pytest

from sparc.errors import InvalidConfig, MissingData
from sparc.plugins.registry import discover
from sparc.session.options import resolved
from tests.remote import S3Server, lacks, needs_s3

STREAMS = ("--stream", "tiny-image", "--stream", "char-ngrams")


@pytest.fixture
def s3():
    server = S3Server()
    yield server
    server.close()


def shards(photos, folder):
    """The photos as shards of 20 samples."""
    folder.mkdir()
    with (photos / "samples.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number in range(3):
        with tarfile.open(folder / f"{number:03d}.tar", "w") as tar:
            for row in rows[20 * number : 20 * number + 20]:
                key = row["image"].removesuffix(".png")
                labels = row["labels"].replace(";", "\n").encode()
                files = {"png": (photos / row["image"]).read_bytes(), "txt": row["caption"].encode(), "cls": labels}
                for extension, content in files.items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    shutil.copy(photos / "taxonomy.json", folder)


def check(sparc, data, store, copy, variables):
    """Extract from shards at a URL, copy the store to another URL, and find the features there."""
    options = (*STREAMS, "--dataset", "webdataset[labels=cls,train={000..002}.tar]", "--data-root", data)
    done = sparc("extract", *options, "--store", "store", **variables)
    assert done.returncode == 0, done.stderr
    lacking = sparc("extract", *options, "--store", store, **variables)
    assert lacking.returncode == 1
    assert f"the store at {store} has no complete features of tiny-image (train), char-ngrams (train)" in lacking.stderr
    assert "extract them into a folder, --store FOLDER, and copy that there" in lacking.stderr
    copy()
    done = sparc("extract", *options, "--store", store, **variables)
    assert (done.returncode, "features: 4 of 4 are in the store" in done.stdout) == (0, True), done.stderr


def test_a_url_stays_one_and_is_refused_where_a_folder_is_meant(tmp_path):
    registry = discover()
    stream = {"stream": ["minilm"]}
    config = resolved({"dataset": "webdataset", "data-root": "s3://b/c", "store": "s3://b//d/", **stream}, registry)
    assert (config.source.params["root"], config.store) == ("s3://b/c", "s3://b//d/")
    with pytest.raises(InvalidConfig, match="expected --dataset too, found s3://b/c alone"):
        resolved({"data-root": "s3://b/c?signature=secret", **stream}, registry)
    with pytest.raises(InvalidConfig, match="expected a path on this machine, found a URL: s3://b/run"):
        resolved({"dataset": "webdataset", "out": "s3://b/run", **stream}, registry)
    coco = registry.dataset("coco")
    with pytest.raises(MissingData, match=r"coco: expected a folder on this machine, found the URL s3:/b/c"):
        coco.open(coco.params(root="s3://b/c"), "train")


@pytest.mark.skipif(not lacks("s3fs", "moto"), reason="the test with S3 does the same")
@pytest.mark.slow
def test_shards_and_a_store_at_urls_are_read(photos, tmp_path, sparc_here):
    shards(photos, tmp_path / "shards")
    place = tmp_path / "far" / "store"
    check(
        sparc_here,
        (tmp_path / "shards").as_uri(),
        place.as_uri(),
        lambda: shutil.copytree(tmp_path / "store", place),
        {},
    )


@needs_s3
@pytest.mark.slow
def test_shards_and_a_store_in_s3_are_read(photos, tmp_path, sparc_here, s3, monkeypatch):
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
    shards(photos, tmp_path / "shards")
    system = fsspec.filesystem("s3")
    system.mkdir("bucket")
    system.put(f"{tmp_path / 'shards'}/", "bucket/shards/", recursive=True)
    check(
        sparc_here,
        "s3://bucket/shards",
        "s3://bucket/store",
        lambda: system.put(f"{tmp_path / 'store'}/", "bucket/store/", recursive=True),
        s3.variables,
    )
