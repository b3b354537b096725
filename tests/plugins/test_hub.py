"""Files from the hub at a commit: from a hub on this machine, its cache, or neither."""

import json
import time

import pytest
import torch
from safetensors.torch import save

import sparc
from sparc.config import EvaluateOptions, PluginRef, reference
from sparc.errors import CorruptFile, InvalidConfig, MissingData, StorageError, WeightsUnavailable
from sparc.extraction import worker
from sparc.extraction.plan import JobOptions, Order, plan
from sparc.models.loading import load_backbones
from sparc.plugins import discover
from sparc.session.listener import SILENT
from sparc.session.session import Session
from sparc.system.hub import hub_commit, hub_file, hub_folder, in_hub_cache, revision_from_name, split_revision
from tests.plugins.backbones import COMMIT, hub_cache

NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
OLD, NEW = "a" * 40, "b" * 40
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = json.dumps({"weight_map": {"one": PARTS[0], "two": PARTS[1], "three": PARTS[0]}}).encode()


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """A hub at a closed port and an empty cache. Return a list of the waits of its client, which do not happen."""
    waited = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    )
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_without_a_network_the_error_comes_at_once_and_says_so(no_network):
    with pytest.raises(WeightsUnavailable, match=r"lab/model/model.safetensors \(no connection to the hub\)"):
        hub_file("lab/model", NAMES, backbone="vit")
    assert not no_network


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
def test_a_pinned_commit_and_a_space_wait_for_no_network_either(no_network, host, monkeypatch):
    template = f"http://{host}/{{repo_id}}/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    for get in (
        lambda: hub_file("lab/model", NAMES, backbone="vit", revision=OLD),
        lambda: hub_folder("lab/model", ["*.json"], needs="config.json", backbone="vit", revision=OLD),
    ):
        with pytest.raises(WeightsUnavailable, match=r"\(no connection to the hub\)"):
            get()
        monkeypatch.setattr("sparc.system.hub._asked_again", {})  # as in a new process
    with pytest.raises(MissingData, match="no checkpoint at 'lab/space': it is no directory here"):
        sparc.load("lab/space")
    assert not no_network  # the hub's client repeats a request five times, and waits 23 s in all


def test_what_was_downloaded_is_read_without_a_network(hub, monkeypatch):
    hub.repos["lab/model"] = [(OLD, {NAMES[0]: b"weights", "config.json": b"{}"})]
    path = hub_file("lab/model", NAMES, backbone="vit")
    hub_folder("lab/model", ["*.json"], needs="config.json", backbone="vit")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert hub_file("lab/model", NAMES, backbone="vit", revision=OLD) == path
    folder = hub_folder("lab/model", ["*.json"], needs="config.json", backbone="vit", revision=OLD)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert not waited


def test_the_weights_of_all_streams_that_are_missing_are_in_one_error(no_network, tmp_path):
    streams = ["hf-text[model=lab/one]", "effnet-lite0", "hf-image[model=lab/two]", "clip-img", "clip-txt"]
    with pytest.raises(WeightsUnavailable) as raised:
        plan(discover(), reference("openmoji"), list(map(reference, streams)), root=tmp_path, options=JobOptions())
    clip = "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K/open_clip_model.safetensors"
    assert raised.value.message == (
        "the weights of 'hf-text', 'hf-image', 'clip-img' are not on this machine and could not be downloaded: "
        f"lab/one/model.safetensors, lab/two/model.safetensors, {clip} (no connection to the hub)"
    )
    pinned = {stream: reference(f"{stream}[model=lab/{stream},revision={OLD}]") for stream in ("hf-text", "hf-image")}
    loading = []
    with pytest.raises(WeightsUnavailable, match=r"'hf-text', 'hf-image' are not on this machine.*\(no connection"):
        load_backbones(discover(), {**pinned, "minilm": reference("minilm")}, "cpu", loading.append)
    assert loading == ["hf-text"]
    assert not no_network


def test_what_the_hub_refuses_stops_before_other_weights_are_downloaded(hub):
    hub.repos["lab/one"] = [(OLD, {"config.json": b'{"model_type": "bert"}'})]
    hub.repos["lab/two"] = [(OLD, {"config.json": b"{}", NAMES[0]: b"weights"})]
    streams = {f"s{n}": reference(f"hf-text[model=lab/{n},revision={OLD}]") for n in ("one", "two")}
    with pytest.raises(WeightsUnavailable, match=r"lab/one.*the repository has none of"):
        load_backbones(discover(), streams, "cpu", lambda stream: None)
    assert not any("lab/two" in asked for asked in hub.asked)


def test_a_later_name_is_found_in_the_cache_all_the_same(no_network, tmp_path):
    (tmp_path / NAMES[2]).write_bytes(b"weights")
    hub_cache(tmp_path / "hub", "lab/model", tmp_path / NAMES[2])
    assert hub_file("lab/model", NAMES, backbone="vit").read_bytes() == b"weights"
    assert not no_network


def test_offline_mode_is_named_and_not_called_a_missing_connection(no_hub):
    for get in (
        lambda: hub_file("lab/model", NAMES, backbone="vit"),
        lambda: hub_folder("lab/model", ["*.json"], needs="config.json", backbone="vit"),
        lambda: hub_commit("lab/model", backbone="vit"),
    ):
        with pytest.raises(WeightsUnavailable, match=r"\(HF_HUB_OFFLINE is set\)"):
            get()


def test_a_file_is_downloaded_once_and_then_read_from_the_cache(hub):
    hub.repos["lab/model"] = [(OLD, {"pytorch_model.bin": b"weights"})]
    first = hub_file("lab/model", NAMES, backbone="vit")
    assert (first.read_bytes(), first.parent.name) == (b"weights", OLD)
    hub.asked.clear()
    assert hub_file("lab/model", NAMES[2:], backbone="vit", revision=OLD) == first
    assert not hub.asked


def test_a_new_commit_is_a_new_one_until_the_old_one_is_asked_for(hub):
    hub.repos["lab/model"] = [(OLD, {NAMES[0]: b"old"})]
    assert hub_commit("lab/model", backbone="vit") == OLD
    hub.repos["lab/model"].append((NEW, {NAMES[0]: b"new"}))
    assert hub_commit("lab/model", backbone="vit") == NEW
    assert hub_file("lab/model", NAMES, backbone="vit").read_bytes() == b"new"
    assert hub_file("lab/model", NAMES, backbone="vit", revision=OLD).read_bytes() == b"old"


def test_without_an_answer_the_commit_is_the_last_one_seen(hub, monkeypatch):
    hub.repos["lab/model"] = [(OLD, {NAMES[0]: b"old"})]
    hub_file("lab/model", NAMES, backbone="vit")
    hub.repos["lab/model"].append((NEW, {NAMES[0]: b"new"}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub_commit("lab/model", backbone="vit") == OLD
    assert hub_file("lab/model", NAMES, backbone="vit").read_bytes() == b"old"


def test_weights_in_several_files_come_together_into_one_folder(hub):
    files = {"config.json": b"{}", "model.safetensors.index.json": INDEX, PARTS[0]: b"one", PARTS[1]: b"two"}
    hub.repos["lab/model"] = [(OLD, files)]
    names = (NAMES[0], "model.safetensors.index.json")
    assert not in_hub_cache("lab/model", names)
    path = hub_file("lab/model", names, backbone="vit")
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, *PARTS])
    assert in_hub_cache("lab/model", names)
    folder = hub_folder("lab/model", ["*.json"], needs="model.safetensors.index.json", backbone="vit")
    assert folder.resolve() == path.parent.resolve()
    assert (folder / "config.json").read_bytes() == b"{}"
    (folder / PARTS[1]).unlink()
    assert not in_hub_cache("lab/model", names)


def test_a_part_that_the_hub_lacks_is_named(hub):
    hub.repos["lab/model"] = [(OLD, {"model.safetensors.index.json": INDEX, PARTS[0]: b"one"})]
    with pytest.raises(WeightsUnavailable, match=rf"lab/model/{PARTS[1]} \(the repository has no such file\)"):
        hub_file("lab/model", (NAMES[0], "model.safetensors.index.json"), backbone="vit")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"one": 1}}', "x"])
def test_an_index_that_is_none_is_named(content, hub):
    hub.repos["lab/model"] = [(OLD, {"model.safetensors.index.json": content.encode()})]
    with pytest.raises(CorruptFile, match=r"model.safetensors.index.json"):
        hub_file("lab/model", ["model.safetensors.index.json"], backbone="vit")


def test_an_index_cannot_name_a_file_elsewhere(hub):
    content = json.dumps({"weight_map": {"one": "../../secret"}}).encode()
    hub.repos["lab/model"] = [(OLD, {"model.safetensors.index.json": content})]
    with pytest.raises(CorruptFile, match=r"expected files in its own folder, found '../../secret'"):
        hub_file("lab/model", ["model.safetensors.index.json"], backbone="vit")


def test_what_the_hub_refuses_is_said(hub):
    hub.repos["lab/model"] = [(OLD, {"tf_model.h5": b"other"})]
    for repo, revision, reason in (
        ("lab/nothing", None, "the hub has no such repository, or it is private"),
        ("lab/model", "v9", "the repository has no such revision"),
        ("lab/model", None, "the repository has none of model.safetensors, open_clip_model.safetensors, pytorch"),
    ):
        with pytest.raises(WeightsUnavailable, match=reason):
            hub_file(repo, NAMES, backbone="vit", revision=revision)
    with pytest.raises(InvalidConfig, match=r"expected the name of a repository on the hub, OWNER/NAME, found 'a/b/c'"):
        hub_commit("a/b/c", backbone="vit")


def test_a_full_commit_needs_neither_hub_nor_cache(no_hub):
    assert hub_commit("lab/model", COMMIT, backbone="vit") == COMMIT


def test_offline_a_tag_and_the_beginning_of_a_commit_are_found_in_the_cache(no_hub, tmp_path):
    (tmp_path / NAMES[0]).write_bytes(b"weights")
    hub_cache(no_hub, "lab/model", tmp_path / NAMES[0])
    refs = no_hub / "models--lab--model" / "refs"
    (refs / "v1").write_text(COMMIT)
    assert {hub_commit("lab/model", name, backbone="vit") for name in (None, "main", "v1", COMMIT[:7])} == {COMMIT}
    with pytest.raises(WeightsUnavailable, match=rf"@v2/.* \(HF_HUB_OFFLINE is set; the cache has revision={COMMIT}\)"):
        hub_commit("lab/model", "v2", backbone="vit")


def test_a_revision_can_stand_in_the_name():
    assert split_revision("lab/model@v1") == split_revision("lab/model", "v1") == ("lab/model", "v1")
    assert split_revision("lab/model") == ("lab/model", None)
    assert revision_from_name({"model": "lab/model@v1"}) == {"model": "lab/model", "revision": "v1"}
    for name, revision in (("lab/model@v1", "v2"), ("lab/model@", None), ("@v1", None)):
        with pytest.raises(InvalidConfig):
            split_revision(name, revision)


def test_a_space_is_loaded_at_a_revision(hub, tmp_path, monkeypatch):
    for number, commit in enumerate((OLD, NEW), start=1):
        space = sparc.SharedLatentSpace(sparc.SpaceConfig(streams={"image": 4, "text": 4}, n_latents=8 * number, k=2))
        space.save_pretrained(tmp_path / commit)
        files = {file.name: file.read_bytes() for file in (tmp_path / commit).iterdir()}
        hub.repos.setdefault("lab/space", []).append((commit, files))
    widths = {"newest": sparc.load("lab/space"), "old": sparc.load("lab/space", revision=OLD)}
    assert {which: space.config.n_latents for which, space in widths.items()} == {"newest": 16, "old": 8}
    assert sparc.load(f"lab/space@{OLD}").config.n_latents == 8
    assert sparc.load(f"lab/space@{OLD}").directory.name == OLD
    with pytest.raises(MissingData, match=r"no checkpoint at 'lab/space@v9'.*\(the repository has no such revision\)"):
        sparc.load("lab/space@v9")
    with pytest.raises(InvalidConfig, match=f"names the revision '{OLD}', revision= names 'v1'"):
        sparc.load(f"lab/space@{OLD}", revision="v1")
    with pytest.raises(InvalidConfig, match=r"revision=v1: expected the name of a hub repository, found the directory"):
        sparc.load(tmp_path / OLD, revision="v1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert sparc.load("lab/space").config.n_latents == 16
    with pytest.raises(MissingData, match=r"no checkpoint at 'lab/other'.*\(HF_HUB_OFFLINE is set\)"):
        sparc.load("lab/other")


def test_a_full_disk_is_not_called_a_missing_connection(hub, tmp_path):
    hub.repos["lab/model"] = [(OLD, {NAMES[0]: b"weights"})]
    hub.cache.parent.mkdir(exist_ok=True)
    hub.cache.touch()  # a file where the cache's folder should be
    with pytest.raises(StorageError, match=r"cannot download lab/model/model.safetensors: Not a directory"):
        hub_file("lab/model", NAMES, backbone="vit")


def test_features_are_found_at_their_commit_and_not_after_a_new_one(hub, tmp_path):
    """The hub moves between the plan and the extraction, and after training; jobs and runs keep the commit."""
    registry = discover()
    name = "timm/test_vit.r160_in1k"
    dataset = PluginRef(name="openmoji", alias="openmoji")

    def planned(**params):
        stream = PluginRef(name="timm", alias="timm", params={"model": "test_vit.r160_in1k", **params})
        return plan(registry, dataset, [stream], root=tmp_path, options=JobOptions())["train"]["timm"]

    hub.repos[name] = [(OLD, {NAMES[0]: b""})]
    before = planned()
    assert (before.weights, before.stream.params["revision"]) == (f"hub:{name}@{OLD}", OLD)
    assert planned(revision="main").directory == planned(revision=OLD).directory == before.directory
    assert planned(model=f"test_vit.r160_in1k@{OLD}").directory == before.directory
    hub.repos[name].append((NEW, {NAMES[0]: b""}))
    after = planned()
    assert (after.weights, after.stream.params["revision"]) == (f"hub:{name}@{NEW}", NEW)
    assert after.directory != before.directory
    assert planned(revision=OLD).directory == before.directory


def test_a_run_keeps_the_commit_of_its_weights_when_the_hub_moves(hub, tmp_path, photos, monkeypatch):
    import timm

    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(1)
    weights = save(timm.create_model("test_vit").state_dict())
    name = "timm/test_vit.r160_in1k"
    hub.repos[name] = [(OLD, {NAMES[0]: weights})]
    options = {"dataset": "image-folder", "data-root": str(photos), "device": "cpu", "out": str(tmp_path / "run")}
    streams = ["timm[model=test_vit.r160_in1k]", "one=timm[model=test_vit.r160_in1k,size=32]"]
    session = Session.begin({**options, "stream": streams, "n-latents": 16, "k": 4}, SILENT)
    jobs = [job for split in session.data.jobs.values() for job in split.values()]
    hub.repos[name].append((NEW, {NAMES[0]: b"not read"}))  # the hub moves before the features are extracted
    worker.run(Order(jobs=jobs), discover(), lambda event: None)
    session.create()
    hub.asked.clear()
    again = Session.open(tmp_path / "run", EvaluateOptions(), SILENT)
    assert [ref.params["revision"] for ref in again.run.provenance().options.streams] == [OLD, OLD]
    assert again.run.provenance().streams["timm"].weights == f"hub:{name}@{OLD}"
    assert all(job.done for job in again.data.held_out_jobs.values())
    assert not hub.asked


@pytest.mark.parametrize("content", ["", "\n", "c0ffee", "\x00" * 40])
def test_a_damaged_note_of_a_commit_in_the_cache_is_never_taken_for_a_commit(content, no_hub):
    refs = no_hub / "models--lab--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(content)
    with pytest.raises(WeightsUnavailable):
        hub_commit("lab/model", backbone="hf-text")
    (refs / "main").write_text(f"{COMMIT}\n")
    assert hub_commit("lab/model", backbone="hf-text") == COMMIT
