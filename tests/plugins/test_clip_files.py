"""The files besides the weights that CLIP's text tower reads, and files that are written anew while models live."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig

from sparc.config import PluginRef
from sparc.errors import CorruptFile
from sparc.extraction.plan import JobOptions, _commit, plan
from sparc.plugins.registry import discover
from sparc_plugins import clip
from sparc_plugins.clip import ClipParams
from tests.plugins.backbones import COMMIT, SAMPLES, features, offered
from tests.plugins.hf_folders import save_tokenizer
from tests.plugins.test_clip import SMALL, embedded, fill, small_model

pytestmark = pytest.mark.usefixtures("no_hub")
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "picture", "number", *map(str, range(10))]


def swapped(first, second):
    other = list(WORDS)
    other[WORDS.index(first)], other[WORDS.index(second)] = second, first
    return other


def model_with_tokenizer(folder, words=WORDS):
    """Write a model whose configuration names a tokenizer of transformers, which lies in the folder."""
    text = {**SMALL["text_cfg"], "hf_tokenizer_name": "lab/words"}
    net, config = small_model(text_cfg=text)
    fill(folder, net, config)
    save_tokenizer(folder, words=words)
    return folder, net


def identities(folder):
    return [spec.identify(ClipParams(model=f"local-dir:{folder}")) for spec in offered(clip).values()]


def test_the_identity_of_the_text_tower_covers_its_tokenizer_and_follows_its_content(tmp_path):
    import open_clip

    folder, _ = model_with_tokenizer(tmp_path / "model")
    params = ClipParams(model=f"local-dir:{folder}")
    image, text = identities(folder)
    before = features(clip.load_text_tower(params, "cpu"))
    model, _, _ = open_clip.create_model_and_transforms(params.model)
    ids = open_clip.get_tokenizer(params.model)([sample.text() for sample in SAMPLES])
    torch.testing.assert_close(before, embedded(model.eval(), texts=ids))
    shutil.copytree(folder, tmp_path / "copy")
    assert identities(tmp_path / "copy") == [image, text]
    save_tokenizer(folder, words=swapped("picture", "number"))
    assert identities(folder)[0] == image
    assert identities(folder)[1] != text
    after = features(clip.load_text_tower(params, "cpu"))
    assert not torch.allclose(before, after)  # the same process reads the new files
    before = identities(folder)
    (folder / "._tokenizer.json").write_text("macOS leaves this on disks of other systems")
    assert identities(folder) == before
    config = json.loads((folder / "tokenizer_config.json").read_text())
    seen = {text, identities(folder)[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    assert identities(folder)[1] not in seen


def test_a_tokenizer_of_another_repository_is_read_at_a_commit_that_the_identity_names(tmp_path, hub, monkeypatch):
    folder, _ = model_with_tokenizer(tmp_path / "model")
    hub.repos["lab/model"] = [(COMMIT, {name: (folder / name).read_bytes() for name in list_of_model()})]
    old, new = "a" * 40, "b" * 40
    first = {path.name: path.read_bytes() for path in folder.iterdir() if "token" in path.name}
    hub.repos["lab/words"] = [(old, first)]
    params = ClipParams(model=f"hf-hub:lab/model@{COMMIT}")
    image, text = offered(clip).values()
    assert image.identify(params) == f"hub:lab/model@{COMMIT}"
    assert text.identify(params) == f"hub:lab/model@{COMMIT} hub:lab/words@{old}"
    assert _commit(text.identify(params)) == COMMIT
    before = features(text.load(params, "cpu"))
    assert torch.equal(before, features(text.load(ClipParams(model=f"local-dir:{folder}"), "cpu")))
    save_tokenizer(tmp_path / "other", words=swapped("picture", "number"))
    hub.repos["lab/words"].append((new, {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}))
    assert text.identify(params) == f"hub:lab/model@{COMMIT} hub:lab/words@{new}"
    after = features(text.load(params, "cpu"))
    assert not torch.allclose(before, after)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert text.identify(params) == f"hub:lab/model@{COMMIT} hub:lab/words@{new}"
    assert torch.equal(features(text.load(params, "cpu")), after)


def list_of_model():
    return ("open_clip_config.json", "open_clip_model.safetensors")


def test_a_file_that_is_written_anew_is_read_anew_while_the_first_model_lives(tmp_path):
    net, config = small_model()
    folder = fill(tmp_path / "model", net, config)
    params = ClipParams(model=f"local-dir:{folder}")
    first = clip.load_image_tower(params, "cpu")
    before = features(first)
    state = {name: value + 0.1 if value.is_floating_point() else value for name, value in net.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    second = clip.load_image_tower(params, "cpu")
    assert not torch.allclose(features(second), before)
    assert torch.equal(features(first), before)
    assert clip.load_text_tower(params, "cpu").clip is second.clip


def test_weights_that_are_not_finite_are_refused_with_the_tensor(tmp_path):
    net, config = small_model()
    with torch.no_grad():
        net.logit_scale.fill_(float("nan"))
    fill(tmp_path, net, config)
    with pytest.raises(CorruptFile, match="expected finite weights, found logit_scale, in which 1 of 1 numbers"):
        clip.load_image_tower(ClipParams(model=f"local-dir:{tmp_path}"), "cpu")


@pytest.mark.parametrize("name", ["clip-img", "clip-txt"])
def test_a_models_folder_that_moved_gives_the_features_their_name_again(name, photos, tmp_path):
    """The path of the folder is no part of the key, since the identity covers what is in it."""
    folder, _ = model_with_tokenizer(tmp_path / "here")

    def features_of(place):
        data = PluginRef(name="image-folder", alias="image-folder", params={"root": str(photos)})
        stream = PluginRef(name=name, alias=name, params={"model": f"local-dir:{place}"})
        return plan(discover(), data, [stream], root=tmp_path, options=JobOptions())["train"][name].directory

    before = features_of(folder)
    assert features_of(folder.rename(tmp_path / "there")) == before
    save_tokenizer(tmp_path / "there", words=swapped("picture", "number"))
    assert (features_of(tmp_path / "there") == before) == (name == "clip-img")


def test_the_configuration_of_a_text_tower_is_read_at_the_commit_of_its_own_repository(tmp_path, hub):
    """open_clip reads the newest: a change of config.json would change the features of an old commit."""
    from open_clip.model import CustomTextCLIP

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text = {"hf_model_name": "lab/model", "hf_tokenizer_name": "lab/model", "hf_proj_type": "mlp"}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 12}
    config = {"embed_dim": 16, "vision_cfg": SMALL["vision_cfg"], "text_cfg": text}
    folder = tmp_path / "old"
    BertConfig(vocab_size=len(WORDS), hidden_act="gelu", **size).save_pretrained(folder)
    made = {**config, "text_cfg": {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}}
    torch.manual_seed(3)
    fill(folder, CustomTextCLIP(**made), {"model_cfg": config})
    save_tokenizer(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    BertConfig(vocab_size=len(WORDS), hidden_act="relu", **size).save_pretrained(tmp_path / "new")
    new = "b" * 40
    hub.repos["lab/model"] = [
        (COMMIT, files),
        (new, files | {"config.json": (tmp_path / "new/config.json").read_bytes()}),
    ]
    tower = clip.load_text_tower(ClipParams(model=f"hf-hub:lab/model@{COMMIT}"), "cpu")
    assert tower.clip.net.text.config.hidden_act == "gelu"
    newest = clip.load_text_tower(ClipParams(model="hf-hub:lab/model"), "cpu")
    assert newest.clip.net.text.config.hidden_act == "relu"
    assert not torch.allclose(features(tower), features(newest))
