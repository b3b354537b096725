"""Model files as people have them: parts, older formats, wrapped names. What is refused says what to run instead."""

import json
import shutil

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sparc.errors import CorruptFile, InvalidConfig, MissingData, SparcError, WeightsUnavailable
from sparc_plugins import hf_encoders
from tests.plugins.backbones import SAMPLES, features, hub_cache, offered
from tests.plugins.hf_folders import (
    BERT,
    EYE,
    IMAGE_SIZE,
    LONG,
    SHORT,
    TONGUE,
    WORDS,
    load,
    load_hf,
    save_model,
    save_tokenizer,
)

OLD, NEW = "a" * 40, "b" * 40
CAPTIONS = [SHORT, LONG]
PREFIXES = ("_orig_mod.", "module.", "module._orig_mod.", "bert.", "module.bert.", "model.", "net.student.")
T5 = hf.T5Config(d_model=24, d_kv=12, d_ff=48, num_layers=2, num_heads=2, vocab_size=len(WORDS))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_tokenizer(folder, model_max_length=12)
    return save_model(folder, hf.BertConfig(**BERT))


@pytest.fixture(scope="module")
def expected(bert):
    return features(load_hf("hf-text", bert), CAPTIONS)


@pytest.fixture
def copy(bert, tmp_path):
    """A folder like `bert` without weights, and the weights."""
    folder = shutil.copytree(bert, tmp_path / "copy")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder, state


def is_the_same(folder, expected, weights=None):
    torch.testing.assert_close(features(load_hf("hf-text", weights or folder), CAPTIONS), expected, rtol=0, atol=0)


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_parts(folder, state, pattern, write):
    """Write weights in two files and their index."""
    names = [pattern.format(part) for part in (1, 2)]
    halves = dict(zip(names, (list(state)[::2], list(state)[1::2]), strict=True))
    for name, half in halves.items():
        write({tensor: state[tensor] for tensor in half}, folder / name)
    places = {tensor: name for name, half in halves.items() for tensor in half}
    index = pattern.replace("-{:05d}-of-00002", "") + ".index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return names


def as_safetensors(state, path):
    save_file(state, path, {"format": "pt"})


def as_torch(state, path):
    torch.save(state, path)  # noqa: TID251


@pytest.mark.parametrize(
    ("pattern", "write"),
    [("model-{:05d}-of-00002.safetensors", as_safetensors), ("pytorch_model-{:05d}-of-00002.bin", as_torch)],
)
def test_weights_in_parts_are_read_whole(pattern, write, copy, expected):
    folder, state = copy
    names = in_parts(folder, state, pattern, write)
    is_the_same(folder, expected)
    (folder / names[1]).unlink()
    with pytest.raises(MissingData, match=f"1 of them are not beside it, such as {names[1]}"):
        load_hf("hf-text", folder)


def test_an_image_encoder_in_parts_is_read_whole(tmp_path):
    hf.ViTImageProcessor(**IMAGE_SIZE).save_pretrained(tmp_path)
    save_model(tmp_path, hf.ViTConfig(**EYE))
    whole = features(load_hf("hf-image", tmp_path), SAMPLES)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    in_parts(tmp_path, state, "model-{:05d}-of-00002.safetensors", as_safetensors)
    assert torch.equal(features(load_hf("hf-image", tmp_path), SAMPLES), whole)


def test_torch_files_are_read_alone_and_inside_what_a_training_program_saved(copy, expected):
    folder, state = copy
    as_torch(state, folder / "pytorch_model.bin")
    is_the_same(folder, expected)
    as_torch({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "a.ckpt")
    is_the_same(folder, expected, folder / "a.ckpt")


@pytest.mark.parametrize("write", [as_safetensors, as_torch])
def test_weights_of_a_training_that_diverged_are_refused_with_the_tensor(write, copy):
    folder, state = copy
    state["encoder.layer.0.output.dense.bias"][3] = float("nan")
    write(state, folder / ("model.safetensors" if write is as_safetensors else "pytorch_model.bin"))
    with pytest.raises(CorruptFile, match=r"encoder\.layer\.0\.output\.dense\.bias, in which 1 of 24 numbers are NaN"):
        load_hf("hf-text", folder)


def test_a_pointer_of_git_lfs_is_not_called_damage(copy):
    folder, _ = copy
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(CorruptFile, match="a Git LFS pointer, not the weights") as error:
        load_hf("hf-text", folder)
    assert "git lfs pull" in error.value.hint


def test_no_code_in_a_torch_file_runs(copy, tmp_path):
    class Attack:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    folder, state = copy
    as_torch({**state, "x": Attack()}, folder / "pytorch_model.bin")
    with pytest.raises(CorruptFile):
        load_hf("hf-text", folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_names_of_compiled_wrapped_and_headed_models_are_understood(name, prefix, copy, expected):
    folder, state = copy
    named = {f"{prefix}{tensor}": value for tensor, value in state.items()}
    named[f"{prefix.removesuffix('bert.')}classifier.weight"] = torch.ones(2, 24)
    (as_torch if name.endswith("bin") else as_safetensors)(named, folder / name)
    is_the_same(folder, expected)


@settings(max_examples=5, deadline=None)
@given(parts=st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), min_size=1, max_size=3))
def test_any_one_prefix_is_understood(parts, bert, expected, tmp_path_factory):
    folder = shutil.copytree(bert, tmp_path_factory.mktemp("prefixed") / "bert")
    state = load_file(folder / "model.safetensors")
    named = {f"{'.'.join(parts)}.{tensor}": value for tensor, value in state.items()}
    as_safetensors(named, folder / "model.safetensors")
    is_the_same(folder, expected)


def test_a_file_with_two_models_is_refused_by_name(copy):
    folder, state = copy
    both = {f"{side}.{tensor}": value for side in ("student", "teacher") for tensor, value in state.items()}
    as_torch(both, folder / "pytorch_model.bin")
    with pytest.raises(CorruptFile, match=r"expected the weights of one model, found several, under 'student.'"):
        load_hf("hf-text", folder)


def test_a_compiled_module_inside_a_model_is_understood(copy, expected):
    folder, state = copy
    as_safetensors(
        {name.replace("encoder.", "encoder._orig_mod."): value for name, value in state.items()},
        folder / "model.safetensors",
    )
    is_the_same(folder, expected)


def test_the_file_that_is_named_is_the_one_that_is_read(copy, bert, expected):
    folder, state = copy
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    as_safetensors(zeros, folder / "model.safetensors")
    as_torch(state, folder / "pytorch_model.bin")
    as_safetensors(state, folder / "best.safetensors")
    is_the_same(folder, expected, folder / "best.safetensors")
    is_the_same(folder, expected, folder / "pytorch_model.bin")
    assert not torch.equal(features(load_hf("hf-text", folder), CAPTIONS), expected)


@pytest.mark.parametrize("kind", [hf.T5EncoderModel, hf.T5Model, hf.T5ForConditionalGeneration])
def test_t5_gives_the_states_of_its_encoder_with_and_without_a_decoder_in_the_file(kind, tmp_path):
    save_tokenizer(tmp_path, template="$A </s>", model_input_names=["input_ids", "attention_mask"])
    torch.manual_seed(1)
    model = kind(T5).eval()
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[4, 3]])
    with torch.inference_mode():
        wanted = model.get_encoder()(ids).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(features(load("sentence", tmp_path), [SHORT]), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [hf.BertForMaskedLM, hf.BertForSequenceClassification, hf.BertForPreTraining])
def test_a_model_with_a_task_head_gives_its_encoder(kind, bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "headed")
    torch.manual_seed(2)
    model = kind(hf.BertConfig(**BERT)).eval()
    model.save_pretrained(folder)
    with torch.inference_mode():
        wanted = model.bert(torch.tensor([[2, 4, 3]])).last_hidden_state[:, 0]
    torch.testing.assert_close(features(load_hf("hf-text", folder, "class"), [SHORT]), wanted, rtol=0, atol=1e-5)


REFUSED = {
    "adapter": ("adapter_model.safetensors", "an adapter without the model", "merge_and_unload"),
    "tensorflow": ("tf_model.h5", "weights of TensorFlow", "transformers 4"),
    "flax": ("flax_model.msgpack", "weights of Flax", "transformers 4"),
    "variant": ("model.fp16.safetensors", "a variant of the weights", "rename it to model.safetensors"),
    "llama.cpp": ("bert-q8.gguf", "quantised weights", "original weights"),
    "onnx": ("onnx/model.onnx", "an exported graph", "sparc import features"),
    "open_clip": ("open_clip_pytorch_model.bin", "a model of open_clip", "model=local-dir:FOLDER"),
    "nothing": ("README.md", "has no weights", "save_pretrained"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_transformers_does_not_read_are_named_with_what_to_do(name, copy):
    folder, _ = copy
    file, says, hint = REFUSED[name]
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"x")
    with pytest.raises(MissingData, match=says) as error:
        load_hf("hf-text", folder)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("changes", "says", "hint"),
    [
        ({"model_type": "new", "auto_map": {"AutoConfig": "code.C"}}, "is Python code of its repos", "sparc import"),
        ({"model_type": "brand-new"}, "does not read the model 'brand-new'", "pip install -U transformers"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"are quantised \(gptq\)", "was quantised"),
        ({"model_type": "trocr"}, "has no encoder for the model 'trocr'", "sparc import features"),
    ],
)
def test_a_configuration_that_is_not_read_says_why(changes, says, hint, bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "changed")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises((InvalidConfig, CorruptFile), match=says) as error:
        load_hf("hf-text", folder)
    assert hint in error.value.hint
    assert not (tmp_path / "ran").exists()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_an_error_and_never_other_features(data, bert, expected, tmp_path_factory):
    folder = shutil.copytree(bert, tmp_path_factory.mktemp("cut") / "bert")
    path = folder / data.draw(st.sampled_from(["config.json", "model.safetensors", "tokenizer.json"]))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content.rstrip()) - 1))])
    with pytest.raises(SparcError):
        load_hf("hf-text", folder)


def test_weights_in_parts_come_from_the_hub_and_then_from_its_cache(hub, copy, expected, monkeypatch):
    folder, state = copy
    in_parts(folder, state, "model-{:05d}-of-00002.safetensors", as_safetensors)
    hub.repos["lab/bert"] = [(OLD, files_of(folder))]
    spec = offered(hf_encoders)["hf-text"]
    params = spec.params(model="lab/bert")
    assert torch.equal(features(spec.load(params, "cpu"), CAPTIONS), expected)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(features(spec.load(params, "cpu"), CAPTIONS), expected)
    assert spec.identify(params) == f"hub:lab/bert@{OLD}"


def test_a_torch_file_comes_from_the_hub_alone_and_is_left_there_beside_safetensors(hub, copy, expected):
    folder, state = copy
    as_torch(state, folder / "pytorch_model.bin")
    hub.repos["lab/old"] = [(OLD, files_of(folder))]
    as_safetensors(state, folder / "model.safetensors")
    hub.repos["lab/both"] = [(OLD, files_of(folder))]
    for repo in ("lab/old", "lab/both"):
        assert torch.equal(features(load_hub(repo), CAPTIONS), expected)
    assert not any("lab/both" in asked and "pytorch_model.bin" in asked for asked in hub.asked)


def test_what_is_refused_for_its_configuration_is_refused_before_its_weights_are_downloaded(hub, bert):
    files = files_of(bert)
    files["config.json"] = json.dumps({"model_type": "new", "auto_map": {"AutoModel": "code.M"}}).encode()
    hub.repos["lab/code"] = [(OLD, files)]
    with pytest.raises(InvalidConfig, match="is Python code of its repository"):
        load_hub("lab/code")
    assert not any(asked.startswith("GET") and "model.safetensors" in asked for asked in hub.asked)


def load_hub(repo, **params):
    spec = offered(hf_encoders)["hf-text"]
    return spec.load(spec.params(model=repo, **params), "cpu")


def test_a_revision_is_a_parameter_or_part_of_the_name_and_says_which_weights_they_are(hub, copy, expected):
    folder, state = copy
    as_safetensors(state, folder / "model.safetensors")
    first = files_of(folder)
    as_safetensors({name: value * 2 for name, value in state.items()}, folder / "model.safetensors")
    hub.repos["lab/bert"] = [(OLD, first), (NEW, files_of(folder))]
    spec = offered(hf_encoders)["hf-text"]
    for params in ({"model": "lab/bert", "revision": OLD}, {"model": f"lab/bert@{OLD}"}):
        assert torch.equal(features(spec.load(spec.params(**params), "cpu"), CAPTIONS), expected)
        assert spec.identify(spec.params(**params)) == f"hub:lab/bert@{OLD}"
    assert not torch.equal(features(load_hub("lab/bert"), CAPTIONS), expected)
    assert spec.identify(spec.params(model="lab/bert")) == f"hub:lab/bert@{NEW}"
    with pytest.raises(WeightsUnavailable, match="no such revision"):
        load_hub("lab/bert", revision="gone")


def test_a_folder_is_identified_by_its_weights_and_by_the_files_that_change_features(bert, tmp_path):
    spec = offered(hf_encoders)["sentence"]

    def identity(path):
        return spec.identify(spec.params(weights=str(path)))

    folder = shutil.copytree(bert, tmp_path / "moved")
    before = identity(bert)
    assert identity(folder) == before == identity(folder / "model.safetensors")
    (folder / "README.md").write_text("notes")
    (folder / "._config.json").write_text("macOS leaves this on disks of other systems")
    assert identity(folder) == before
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    assert identity(folder) != before
    with pytest.raises(MissingData, match="no file or folder at"):
        identity(tmp_path / "nowhere")


def test_two_towers_in_one_file_are_not_taken_for_two_models(tmp_path, no_hub):
    save_tokenizer(tmp_path, cls_token=None)
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path)
    save_model(tmp_path, hf.CLIPConfig(vision_config=EYE, text_config=TONGUE, projection_dim=20))
    expected = features(load_hf("hf-text", tmp_path), CAPTIONS)
    state = {f"module.{name}": value for name, value in load_file(tmp_path / "model.safetensors").items()}
    as_safetensors(state, tmp_path / "model.safetensors")
    is_the_same(tmp_path, expected)
    hub_cache(no_hub, "lab/clip", *tmp_path.iterdir())
    assert torch.equal(features(load_hub("lab/clip"), CAPTIONS), expected)
