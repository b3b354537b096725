"""`sparc encode` and `sparc search`, as functions and as commands, on a run of the example's light streams."""

import io
import json
import os
import resource
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

import sparc
from sparc.config import SpaceConfig
from sparc.errors import BadSample, InvalidConfig, MissingData, UnknownName
from sparc.session.arguments import arguments_in, checked_inputs
from sparc.session.gallery import _listed
from sparc.session.listener import SILENT, Listener
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.index_file import read_index, write_index
from sparc.storage.run import Run
from sparc.system.names import same_name
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams
from tests.runs import provenance
from tests.test_docs import ENCODES, SEARCHES, blocks

STREAMS = ("hog", "tiny-image", "char-ngrams")


@pytest.fixture
def here(trained_once, tmp_path, environment, use_example, quick, monkeypatch):
    """A folder with the run and the photos, and a store of its own with the features of the run."""
    shutil.copytree(trained_once / "run", tmp_path / "run")
    shutil.copytree(trained_once / "photos", tmp_path / "photos")
    shutil.copytree(trained_once / "cache", environment["SPARC_CACHE"])
    monkeypatch.setenv("SPARC_CACHE", environment["SPARC_CACHE"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def places(here):
    return {"data_root": "photos", "store": os.path.join(os.environ["SPARC_CACHE"], "store")}


def held_out(places):
    stores = {"store": places["store"], "dataset": "image-folder", "data_root": "photos"}
    return sparc.extract(**stores, stream=list(STREAMS)).test


def unit(dense):
    length = np.linalg.norm(dense, axis=1, keepdims=True)
    return dense / np.where(length > 0, length, 1)


def alone(space, stream, features):
    return space.encode({stream: features})[stream].to_dense().detach().numpy()


def test_encode_gives_the_strongest_latents_and_compares_them_with_held_out_samples(places):
    found = sparc.encode("run", ["photos/red-bar-3.png", "a blue frame of size 2"], top=3, **places)
    image, text = found.inputs
    assert (image.shown, image.modality, list(image.streams)) == ("photos/red-bar-3.png", "image", list(STREAMS[:2]))
    assert (text.shown, text.modality, list(text.streams)) == ("a blue frame of size 2", "text", ["char-ngrams"])
    models, held = sparc.load_models("run"), held_out(places).in_memory()
    codes = models.encode_images(["photos/red-bar-3.png"]) | models.encode_texts(["a blue frame of size 2"])
    active = {stream: set(np.flatnonzero(code.to_dense()[0])) for stream, code in codes.items()}
    for one in (image, text):
        for stream, strongest in one.streams.items():
            code = codes[stream].to_dense()[0].numpy()
            expected = np.argsort(-code, kind="stable")[: min(3, len(active[stream]))]
            assert [entry.latent for entry in strongest] == expected.tolist()
            others = alone(models.space, stream, held[stream])
            for entry in strongest:
                assert entry.activation == pytest.approx(code[entry.latent])
                assert entry.percentile == pytest.approx(100 * (others[:, entry.latent] < code[entry.latent]).mean())
                both = active["hog"] & active["tiny-image"]
                assert entry.shared == (one is image and entry.latent in both)
                assert entry.name == models.names.get(entry.latent)


def test_search_ranks_by_the_cosine_of_solo_codes(places):
    (found,) = sparc.search("run", "a red square of size 1", target_stream="tiny-image", top=5, **places).found
    models, held = sparc.load_models("run"), held_out(places)
    query = models.encode_texts(["a red square of size 1"])["char-ngrams"].to_dense().numpy()
    scores = (unit(alone(models.space, "tiny-image", held.in_memory()["tiny-image"])) @ unit(query).T).ravel()
    best = [row for row in np.argsort(-scores, kind="stable")[:5] if scores[row] > 0]
    assert [hit.sample.id for hit in found.hits] == [held.ids[row] for row in best]
    np.testing.assert_allclose([hit.score for hit in found.hits], scores[best], rtol=1e-5)
    assert (found.query_stream, found.target_stream, found.candidates) == ("char-ngrams", "tiny-image", len(held))
    for hit in found.hits:
        assert sum(concept.share for concept in hit.concepts) == pytest.approx(1)
    # The index lies in the store, and gives the same answer.
    kept = [*os.scandir(places["store"])]
    again = sparc.search("run", "a red square of size 1", target_stream="tiny-image", top=5, **places).found
    assert [(hit.sample.id, hit.score) for hit in again[0].hits] == [(hit.sample.id, hit.score) for hit in found.hits]
    assert len(kept) == len([*os.scandir(places["store"])])


def test_search_by_cross_reconstruction_compares_the_decoded_query_with_features(places):
    found = sparc.search("run", "photos/blue-bar-2.png", find="text", by="cross", top=4, **places).found[0]
    models, held = sparc.load_models("run"), held_out(places)
    with torch.no_grad():
        decoded = models.space.decode(models.encode_images(["photos/blue-bar-2.png"])["hog"], "char-ngrams")
        targets = models.space.normalize({"char-ngrams": held.in_memory()["char-ngrams"]}).features["char-ngrams"]
    scores = (F.normalize(targets, dim=1) @ F.normalize(decoded, dim=1).T).ravel().numpy()
    best = np.argsort(-scores, kind="stable")[:4]
    assert [hit.sample.id for hit in found.hits] == [held.ids[row] for row in best]
    np.testing.assert_allclose([hit.score for hit in found.hits], scores[best], rtol=1e-5)
    assert (found.query_stream, found.target_stream, found.by) == ("hog", "char-ngrams", "cross")


def test_images_are_found_by_image_across_models_in_every_image_stream(places):
    found = sparc.search("run", [Image.open("photos/red-bar-3.png")], query_stream=["hog", "tiny-image"], **places)
    pairs = [(one.query_stream, one.target_stream) for one in found.found]
    assert pairs == [(a, b) for a in STREAMS[:2] for b in STREAMS[:2]]
    assert len({one.query for one in found.found}) == 1


def test_a_folder_is_encoded_once_and_what_cannot_be_read_is_counted(here, places, sparc_here):
    folder = here / "album"
    (folder / "inner").mkdir(parents=True)
    names = ["red-bar-1.png", "inner/blue frame, 'quoted'.png", "inner/Ünïcode 猫.png"]
    for name, source in zip(names, ("red-bar-1", "blue-frame-1", "green-square-2"), strict=True):
        shutil.copy(f"photos/{source}.png", folder / name)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    words = ("search", "run", "photos/green-square-2.png", "--index", "album", "--json")
    place = ("--data-root", "photos", "--store", os.path.relpath(places["store"], here))  # as one types it
    first = sparc_here(*words, *place)
    assert (first.returncode, "broken.jpg" in first.stderr) == (0, True)
    found = json.loads(first.stdout)
    assert [one["candidates"] for one in found] == [3, 3]
    assert {hit["id"] for hit in found[0]["hits"]} <= set(names)
    assert found[0]["hits"][0]["id"] == "inner/Ünïcode 猫.png"
    assert found[0]["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    (samples,) = [
        path for path in Path(places["store"]).rglob("test/hog-*/samples.json") if names[0] in path.read_text()
    ]
    lock = samples.with_name(".sparc.lock")
    lock.write_text("{}")  # as a kill between the manifest and the end of the lock leaves it
    again = sparc_here(*words, *place)
    assert json.loads(again.stdout) == found
    assert "extract hog" not in again.stderr
    assert not lock.exists()
    assert "1 images in album could not be read when it was encoded: broken.jpg" in again.stderr
    refused = sparc_here("search", "run", "red", "--index", "album", "--find", "text", *place)
    assert "album has no captions to find" in refused.stderr


def test_an_index_that_names_samples_which_are_not_there_is_made_again(places):
    def ids():
        return [hit.sample.id for hit in sparc.search("run", "a red bar", **places).found[0].hits]

    found = ids()
    for path in Path(places["store"]).rglob("codes-*.safetensors"):
        tensors = {name: tensor.clone() for name, tensor in read_index(path).items()}
        write_index(path, {**tensors, "owners": tensors["owners"] + 10**9})
    assert ids() == found


def test_a_folder_with_captions_is_searched_in_both_splits(here, places):
    found = sparc.search("run", "a red bar of size 1", index="photos", find="text", top=1, **places).found
    (hit,) = found[0].hits
    assert (hit.sample.caption, found[0].candidates) == ("a red bar of size 1", 60)
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_the_commands_print_pages_and_json(here, places, sparc_here):
    place = ("--data-root", "photos", "--store", places["store"])
    done = sparc_here("search", "run", "a red bar", "--top", "2", "--out", "found.html", *place)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"a red bar  char-ngrams → hog, {len(held_out(places))} searched" in lines
    assert lines[-1] == "found.html"
    assert (here / "found.html").read_text(encoding="utf-8").count("data:image/webp") >= 1
    done = sparc_here("encode", "run", "photos/red-bar-1.png", "red", "--top", "2", "--json", *place)
    image, text = json.loads(done.stdout)
    assert (image["kind"], list(image["streams"])) == ("image", ["hog", "tiny-image"])
    assert set(text["streams"]["char-ngrams"][0]) == {"latent", "name", "activation", "percentile", "shared"}
    done = sparc_here("encode", "run", "photos/red-bar-1.png", "red", "--top", "2", *place)
    assert "photos/red-bar-1.png" in done.stdout
    assert " %" in done.stdout


def test_standard_input_holds_arguments_or_an_image(places, sparc_here, monkeypatch):
    lines = "a red bar\r\nphotos/red-bar-1.png\n\nein Wörtchen 猫\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="utf-8"))
    done = sparc_here("encode", "run", "first", "-", "--json", "--data-root", "photos", "--store", places["store"])
    shown = [(one["input"], one["kind"]) for one in json.loads(done.stdout)]
    expected = [(text, "text") for text in ("first", "a red bar", "ein Wörtchen 猫")]
    expected.insert(2, ("photos/red-bar-1.png", "image"))
    assert shown == expected
    assert arguments_in(b"a\nb\0c\0") == ["a\nb", "c"]
    png = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(png, "PNG")
    (image,) = checked_inputs(arguments_in(png.getvalue()), (), (), SILENT)
    assert image.sample.open_image().getpixel((0, 0)) == (255, 0, 0)
    assert arguments_in("a red bar\r\n猫\r\n".encode("utf-16")) == ["a red bar", "猫"]
    with pytest.raises(BadSample) as error:
        checked_inputs(arguments_in("Wörter".encode("latin-1")), (), (), SILENT)
    assert "texts and paths are read as UTF-8" in error.value.hint
    with pytest.raises(InvalidConfig, match="standard input is empty"):
        arguments_in(b" \n")
    with pytest.raises(BadSample, match="the image on standard input is a PDF document, which is not read"):
        checked_inputs(arguments_in(b"%PDF-1.7 \xff\xfe"), (), (), SILENT)


LINES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(lines=st.lists(LINES, min_size=1), ends=st.sampled_from(["\n", "\r\n", "\0"]))
def test_lines_of_standard_input_come_back_whole(lines, ends):
    content = ends.join([*lines, ""])
    assert arguments_in(content.encode("utf-8-sig")) == lines


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(stems=st.lists(NAMES, min_size=1, max_size=4, unique_by=lambda name: same_name(name.strip()).casefold()))
@settings(max_examples=40)
def test_the_images_of_a_folder_are_found_whatever_their_names(stems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    (folder / "album").mkdir()
    names = [f"{stem}.png" for stem in stems if not stem.startswith(".") and len(stem.encode()) < 200]
    for shade, name in enumerate(names):
        Image.new("RGB", (2, 2), (shade, 0, 0)).save(folder / "album" / name)
    if not names:
        return
    listed = _listed(folder / "album", folder / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a name looks like
        params = ImageFolderParams(root=str(folder / "album"), index=str(listed))
        dataset = ImageFolder(params, "test")
    found = {dataset[number].image().getpixel((0, 0))[0] for number in range(len(dataset))}
    assert found == set(range(len(names)))


class Heard(Listener):
    """Listener that keeps what it hears."""

    def __init__(self):
        self.heard, self.loaded = [], []

    def warn(self, text):
        self.heard.append(text)

    note = warn

    def loading(self, what):
        self.loaded.append(what)


def test_all_problems_of_the_inputs_are_said_at_once_before_models_load(here):
    (here / "broken.png").write_bytes(b"no image")
    heard = Heard()
    arguments = ["photos/none.png", "fine", "a/b", "broken.png", " ", "https://example.org/a.png"]
    with pytest.raises(BadSample) as error:
        sparc.encode("run", arguments, image="gone", listener=heard)
    message = error.value.message
    assert message.startswith("6 of 7 inputs cannot be used: no file at photos/none.png; no file at a/b; broken.png is")
    assert "expected words, found an empty text" in message
    assert "https://example.org/a.png is an address, not a file; and 1 more" in message
    assert '--text "WORDS"' in error.value.hint
    assert heard.loaded == []


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("a red bus", "text"),
        ("photo.jpg", MissingData),
        ("PHOTO.HEIC", MissingData),
        ("and/or", MissingData),
        ("either/or, said the man", MissingData),
        ("~nobody", "text"),
        ("-5 degrees", "text"),
        ("1.5 apples. And a pear", "text"),
        ("x" * 5000, "text"),
        ("nul\0byte", "text"),
        ("قطة 猫 😀", "text"),
        ("album", "image"),
        ("red.png", "image"),
        ("no-suffix", "image"),
        ("", InvalidConfig),
    ],
)
def test_an_argument_is_what_it_looks_like(argument, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("album")
    for name in ("album/one.png", "red.png"):
        Image.new("RGB", (4, 4)).save(name)
    shutil.copy("red.png", "no-suffix")
    if isinstance(kind, str):
        (found,) = checked_inputs([argument], (), (), SILENT)
        assert found.modality == kind
        if kind == "text":
            assert found.sample.text() == argument
    else:
        with pytest.raises(kind):
            checked_inputs([argument], (), (), SILENT)


def test_options_say_what_an_input_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("red.png")
    image, text = checked_inputs([], ["red.png"], ["red.png"], SILENT)
    assert (image.modality, text.modality, text.sample.text()) == ("image", "text", "red.png")
    with pytest.raises(MissingData, match="no file at a red bus"):
        checked_inputs([], ["a red bus"], (), SILENT)
    with pytest.raises(InvalidConfig, match="expected an image or a text, found nothing"):
        checked_inputs([], (), (), SILENT)
    with pytest.raises(InvalidConfig, match="found ndarray"):
        checked_inputs([np.zeros((4, 4, 3))], (), (), SILENT)
    os.mkfifo("pipe.png")
    with pytest.raises(InvalidConfig, match=r"pipe\.png: expected a file, found a pipe"):
        checked_inputs(["pipe.png"], (), (), SILENT)


def test_the_images_of_a_folder_are_used_or_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("album/inner/.hidden")
    for name in ("album/b.png", "album/inner/a.JPG", "album/inner/.hidden/c.png", "album/.d.png"):
        Image.new("RGB", (4, 4)).save(name, "PNG")
    (tmp_path / "album" / "broken.webp").write_bytes(b"")
    (tmp_path / "album" / "link.png").symlink_to("nowhere")
    (tmp_path / "album" / "notes.txt").write_text("x")
    heard = Heard()
    found = checked_inputs(["album"], (), (), heard)
    assert [one.shown for one in found] == ["album/b.png", "album/inner/a.JPG"]
    assert heard.heard == [
        "left out 2 of 4 images in album: album/broken.webp is not an image: it is empty",
        "album: 1 files that are no images, such as notes.txt",
    ]
    os.mkdir("bare")
    with pytest.raises(MissingData, match="no image in the folder bare"):
        checked_inputs(["bare"], (), (), SILENT)


def test_runs_that_cannot_do_it_say_why(here, places):
    with pytest.raises(MissingData, match="no run at nothing"):
        sparc.encode("nothing", "red")
    with pytest.raises(UnknownName, match="no stream named 'clip'"):
        sparc.search("run", "red", target_stream="clip", **places)
    with pytest.raises(InvalidConfig, match="--find text: the target stream 'hog' reads image"):
        sparc.search("run", "red", target_stream="hog", find="text", **places)
    with pytest.raises(InvalidConfig, match=r"text red: expected a stream that reads text, found hog"):
        sparc.encode("run", "red", stream="hog", **places)
    with pytest.raises(InvalidConfig, match=r"--out: expected a name that ends in \.html or \.png, found found\.pdf"):
        sparc.search("run", "red", out="found.pdf", **places)
    with pytest.raises(MissingData, match="no folder at album"):
        sparc.search("run", "red", index="album", **places)
    shutil.copytree("run", "imported")
    origin = Run(here / "imported").provenance()
    options = origin.options.model_copy(update={"features": "x"})
    Run(here / "imported").write_provenance(origin.model_copy(update={"options": options}))
    with pytest.raises(MissingData, match="were imported, so its backbones are not known"):
        sparc.encode("imported", "red")


def test_without_held_out_samples_encode_goes_on_and_search_says_what_to_do(here, places, tmp_path):
    heard = Heard()
    elsewhere = {**places, "store": tmp_path / "other"}
    found = sparc.encode("run", "red", listener=heard, **elsewhere)
    assert {one.percentile for one in found.inputs[0].streams["char-ngrams"]} == {None}
    assert heard.heard == ["no percentiles in char-ngrams: the store has no held-out features of it"]
    with pytest.raises(MissingData, match="the store has no held-out features of hog, tiny-image") as error:
        sparc.search("run", "red", **elsewhere)
    assert "sparc extract" in error.value.hint
    shutil.rmtree("photos")
    heard = Heard()
    sparc.encode("run", "red", listener=heard, **places)
    assert heard.heard[0].startswith("no percentiles, without the held-out samples: ")


def test_a_run_whose_weights_are_gone_names_them(here, sparc_here):
    space = SharedLatentSpace(SpaceConfig(streams={"dino": 384}, n_latents=16, k=4))
    for name, params in (("hub", {}), ("local", {"weights": "gone.safetensors"})):
        space.save_pretrained(name)
        stream = {"name": "dinov2", "alias": "dino", "params": params}
        options = {"stream": [stream], "dataset": "image-folder", "data-root": str(here / "photos")}
        Run(here / name).write_provenance(provenance(options=options))
    for verb in ("encode", "search"):
        done = sparc_here(verb, "hub", "photos/red-bar-1.png")
        assert done.returncode == 1
        assert "error: the weights of 'dinov2' are not on this machine" in done.stderr
        done = sparc_here(verb, "local", "photos/red-bar-1.png")
        assert done.returncode == 1
        assert "error: weights: no file or folder at gone.safetensors" in done.stderr


def test_a_text_stream_alone_finds_texts(here, places):
    sparc.detach("run", "hog", out="two")
    words = sparc.detach("two", "tiny-image", out="words")
    (found,) = sparc.search(words, "a red bar of size 1", **places).found
    assert (found.query_stream, found.target_stream) == ("char-ngrams", "char-ngrams")
    assert all(hit.sample.caption for hit in found.hits)
    with pytest.raises(InvalidConfig, match=r"image photos/red-bar-1\.png: expected a stream that reads image"):
        sparc.search(words, "photos/red-bar-1.png", **places)


def test_a_damaged_index_is_made_again_and_one_that_cannot_be_kept_is_said(here, places):
    def hits():
        found = sparc.search("run", "a red bar", target_stream="hog", listener=heard, **places).found
        return [(hit.sample.id, hit.score) for hit in found[0].hits]

    heard = Heard()
    first = hits()
    (path,) = here.glob("cache/store/*/test/hog-*/codes-*.safetensors")
    whole = path.read_bytes()
    with safe_open(path, "np") as file:
        values = file.get_tensor("values")
    for damaged in (whole[:100], whole.replace(values.tobytes(), (2 * values).tobytes())):
        path.write_bytes(damaged)
        assert hits() == first
        assert path.read_bytes() == whole
    path.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # as a quota does
    try:
        assert hits() == first
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not path.exists()
    assert heard.heard[-1].startswith("the index is not kept, so that it is made again each time: ")


@pytest.mark.parametrize("call", [ENCODES, SEARCHES])
def test_the_examples_of_the_documentation_run(call, here, capsys):
    os.mkdir("runs")
    os.rename("run", "runs/openmoji")
    Image.new("RGB", (60, 40), "red").save("photo.jpg")
    (block,) = [block for block in blocks("python") if call in block.values[0]]
    exec(block.values[0].replace("effnet-lite0", "hog"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("latent " in line or "[('" in line or "['" in line for line in lines)
