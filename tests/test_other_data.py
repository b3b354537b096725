"""A run on other data than its own, and an imported space on any: measured, shown, pointed with, described."""

import shutil

import pytest
import torch

import sparc
from sparc.config import SpaceConfig
from sparc.errors import InvalidConfig, MisalignedStreams, MissingData, UnknownName
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from tests.conftest import RANDOM_VIT

STREAMS = ["tiny-image", "char-ngrams"]
BACKBONES = ["seen=tiny-image", "read=char-ngrams"]


@pytest.fixture
def here(environment, use_example, quick, monkeypatch, tmp_path):
    """This process as that of a user who has the example packages; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    for name in ("PYTHONPATH", "SPARC_CACHE", "HF_HUB_OFFLINE", "HF_HOME"):
        monkeypatch.setenv(name, environment[name])


@pytest.fixture
def other(photos, tmp_path):
    """A second folder of photos: other ids, captions and splits."""
    folder = shutil.copytree(photos, tmp_path / "other")
    header, *rows = (folder / "samples.csv").read_text().splitlines()
    rows = [f"{row},other-{number},{('train', 'test')[number % 2]}" for number, row in enumerate(rows)]
    (folder / "samples.csv").write_text("\n".join([f"{header},id,split", *rows]))
    return folder


def imported_space(path, streams):
    """A space without the record of a run, as `sparc import checkpoint` writes it."""
    SharedLatentSpace(SpaceConfig(n_latents=16, k=4, streams=streams), seed=0).save_pretrained(path)
    return path


@pytest.mark.slow
def test_a_run_is_measured_on_another_dataset_and_its_own_measurements_stay(here, extracted, other, sparc_here):
    options = {"normalization": "standard", "n_latents": 32, "k": 4, "batch_size": 16, "epochs": 3}
    run = sparc.train(dataset="image-folder", data_root=extracted, stream=STREAMS, **options).path
    before = Run(run).evaluation.read_bytes()
    with pytest.raises(InvalidConfig, match="knows its streams, found --stream too"):
        sparc.evaluate(run, stream="char-ngrams")
    with pytest.raises(InvalidConfig, match="expected imported with --features, found image-folder"):
        sparc.evaluate(run, dataset="image-folder", features="f")
    with pytest.raises(InvalidConfig, match="--dataset imported: expected --features too"):
        sparc.evaluate(run, dataset="imported")
    measured = sparc.evaluate(run, dataset="image-folder", data_root=other)
    assert measured.evaluation.report.samples == 30
    (place,) = (Run(run).path / "on").iterdir()
    assert measured.pictures == place / "evaluation"
    assert place.name.startswith("image-folder-")
    assert (place / "evaluation" / "latents.csv").is_file()
    assert Run(run).evaluation.read_bytes() == before
    assert not Run(run).pictures.joinpath("probes.png").exists()
    shown = sparc.explore(run, dataset="image-folder", data_root=other)
    assert shown == place / "explore" / "index.html"
    assert "other-1" in "".join(path.read_text() for path in (place / "explore" / "data").rglob("*.js"))
    said = sparc_here("info", run).stdout
    assert f"measured on other data, {place}" in said
    assert "image-folder test  30 held-out samples" in said

    again = sparc.evaluate(run, dataset="image-folder", data_root=extracted)  # its own data, named once more
    assert again.pictures == Run(run).pictures
    assert len(list((Run(run).path / "on").iterdir())) == 1


@pytest.mark.slow
def test_an_imported_space_is_measured_and_shown_on_a_dataset(here, extracted, tmp_path, sparc_here):
    space = imported_space(tmp_path / "paper", {"seen": 192, "read": 256})
    assert "stream seen: width 192, backbone not known" in sparc_here("info", "paper").stdout
    with pytest.raises(MissingData, match="paper is an imported space, which has no data of its own") as error:
        sparc.evaluate(space)
    assert "--stream NAME=BACKBONE" in error.value.hint
    with pytest.raises(InvalidConfig, match="--stream: the backbone of read is not known"):
        sparc.evaluate(space, data_root=extracted, stream="seen=tiny-image")
    with pytest.raises(InvalidConfig, match="--stream: the space has no stream 'tiny-image', it has seen, read"):
        sparc.evaluate(space, data_root=extracted, stream=["tiny-image", "char-ngrams"])
    with pytest.raises(MisalignedStreams, match=r"the stream 'seen' has width 192 in .* and \d+ in these data"):
        sparc.evaluate(space, data_root=extracted, stream=["seen=hog", "read=char-ngrams"])
    with pytest.warns(UserWarning, match="never evaluated, so the page has no measures"):
        page = sparc.explore(space, data_root=extracted, stream=BACKBONES, text="a red square")
    measured = sparc.evaluate(space, data_root=extracted, stream=BACKBONES)
    assert measured.evaluation.report.streams == ("seen", "read")
    assert [depth.depth for depth in measured.evaluation.report.jaccard] == [0, 1]
    assert page.parent.parent == measured.pictures.parent
    assert {path.name for path in space.iterdir()} == {"config.json", "model.safetensors", "on"}


@pytest.mark.slow
def test_an_imported_space_points_with_the_backbones_that_are_named(here, extracted, tmp_path):
    space = imported_space(tmp_path / "paper", {"eye": 64, "read": 256, "unused": 5})
    picture = extracted / "red-bar-0.png"
    with pytest.raises(MissingData, match="paper is an imported space, whose backbones are not known"):
        sparc.localize(space, image=picture, text="red")
    with pytest.raises(UnknownName, match="the space has no stream named 'timm'"):
        sparc.localize(space, image=picture, latent=3, stream=RANDOM_VIT)
    named = [f"eye={RANDOM_VIT}", "read=char-ngrams"]
    found = sparc.localize(space, image=picture, text="red", stream=named)
    assert found.picture == space / "localize.png"
    assert [one.standing for one in found.maps] == [None]
    compared = sparc.localize(
        space, image=picture, text="red", stream=named, dataset="image-folder", data_root=extracted
    )
    assert [one.stream for one in compared.maps] == ["eye"]
    assert compared.maps[0].standing is not None
    assert torch.equal(torch.as_tensor(compared.maps[0].score), torch.as_tensor(found.maps[0].score))
