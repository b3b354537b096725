"""Text encoders of transformers: every caption has the features that the library gives it alone, cut where it must be.

Small versions of the real architectures, with random weights and tokenizers as their repositories have them.
"""

import json
import shutil

import pytest
import torch
import transformers as hf

from sparc.errors import BadSample, CorruptFile, InvalidConfig
from sparc.plugins.contracts import Sample
from sparc_plugins.hf_encoders.encoder import Encoder
from sparc_plugins.hf_encoders.pooling import POOLS
from tests.plugins.backbones import features
from tests.plugins.hf_folders import ENDS, SMALL, WORDS, load, load_hf, save_model, save_tokenizer

pytestmark = pytest.mark.usefixtures("no_hub")
VOCABULARY = {"vocab_size": len(WORDS)}
BERT = {**SMALL, **VOCABULARY, "max_position_embeddings": 34}
GPT2 = hf.GPT2Config(n_embd=24, n_layer=2, n_head=2, n_positions=34, bos_token_id=2, eos_token_id=3, **VOCABULARY)
T5 = hf.T5Config(d_model=24, d_kv=12, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0, **VOCABULARY)
BART = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in (("layers", 2), ("ffn_dim", 48))}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
NO_TYPES = {"model_input_names": ["input_ids", "attention_mask"]}
NO_PAD = {"pad_token": None, "cls_token": None, "eos_token": "</s>"}
ARCHITECTURES = {
    "bert": (hf.BertConfig(**BERT), {"model_max_length": 512}, 34),
    "roberta": (hf.RobertaConfig(**BERT, pad_token_id=1), {"model_max_length": 512}, 32),
    "mpnet": (hf.MPNetConfig(**BERT, pad_token_id=1), {"model_max_length": 512}, 32),
    "longformer": (hf.LongformerConfig(**BERT, pad_token_id=1, attention_window=8), {}, 32),
    "deberta-v2": (
        hf.DebertaV2Config(**BERT, relative_attention=True, position_biased_input=False, pos_att_type=["c2p", "p2c"]),
        {},
        34,
    ),
    "modernbert": (
        hf.ModernBertConfig(**BERT, **ENDS, local_attention=8, cls_token_id=2, sep_token_id=3),
        NO_TYPES,
        34,
    ),
    "distilbert": (
        hf.DistilBertConfig(dim=24, hidden_dim=48, n_layers=2, n_heads=2, max_position_embeddings=34, **VOCABULARY),
        {"model_max_length": 20},
        20,
    ),
    "gpt2": (GPT2, {**NO_PAD, **NO_TYPES, "template": "$A"}, 34),
    "gpt2, padded on the left": (
        GPT2,
        {**NO_TYPES, "pad_token": "</s>", "eos_token": "</s>", "template": "$A", "padding_side": "left"},
        34,
    ),
    "xlnet": (
        hf.XLNetConfig(d_model=24, n_layer=2, n_head=2, d_inner=48, **VOCABULARY),
        {"padding_side": "left", "template": "$A </s> <s>"},
        None,
    ),
    "opt": (
        hf.OPTConfig(
            hidden_size=24,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=24,
            max_position_embeddings=34,
            **ENDS,
            **VOCABULARY,
        ),
        NO_TYPES,
        34,
    ),
    "bloom": (
        hf.BloomConfig(hidden_size=24, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3, **VOCABULARY),
        {**NO_TYPES, "padding_side": "left"},
        None,
    ),
    "t5": (T5, {**NO_TYPES, "template": "$A </s>", "model_max_length": 40}, 40),
}


def folder_of(name, folder):
    config, options, limit = ARCHITECTURES[name]
    save_tokenizer(folder, **options)
    return save_model(folder, config), limit


def alone(folder, caption):
    """Return the mean of the last hidden states of one caption, without padding."""
    kind = hf.T5EncoderModel if (folder / "config.json").read_text().find('"t5"') > 0 else hf.AutoModel
    model = kind.from_pretrained(folder).eval()
    inputs = hf.AutoTokenizer.from_pretrained(folder)([caption], return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).last_hidden_state.mean(dim=1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_caption_in_a_batch_has_the_features_that_the_library_gives_it_alone(name, tmp_path):
    folder, _ = folder_of(name, tmp_path)
    captions = ["picture", "number 1", "picture number 1 2 3 4 5 6"]
    backbone = load("sentence", folder)
    expected = torch.cat([alone(folder, caption) for caption in captions])
    batch = features(backbone, [Sample(caption, caption=caption) for caption in captions])
    torch.testing.assert_close(batch, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(features(backbone, [Sample("0", caption="picture")]), expected[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_long_caption_is_cut_to_the_positions_that_the_model_has(name, tmp_path):
    folder, limit = folder_of(name, tmp_path)
    backbone = load("sentence", folder)
    long = Sample("0", caption="picture " * 60)
    assert backbone.preprocess([long])["input_ids"].shape[1] == (limit or 60 + {"xlnet": 2, "bloom": 2}[name])
    assert features(backbone, [long]).isfinite().all()
    assert backbone.preprocessing["context_length"] == limit


@pytest.mark.parametrize("limit", [10**30, int(1e20), 10**9, 1e30])
def test_a_tokenizer_without_a_limit_leaves_it_to_the_model(limit, tmp_path):
    save_tokenizer(tmp_path, model_max_length=limit)
    save_model(tmp_path, hf.BertConfig(**BERT))
    assert load("sentence", tmp_path).preprocessing["context_length"] == 34


def test_a_padding_token_beyond_the_models_vocabulary_is_replaced(tmp_path):
    save_tokenizer(tmp_path, **{**NO_PAD, **NO_TYPES, "template": "$A", "pad_token": "<added>"})
    save_model(tmp_path, GPT2)
    backbone = load("sentence", tmp_path)
    batch = features(backbone, [Sample("0", caption="picture"), Sample("1", caption="picture number 1")])
    torch.testing.assert_close(batch[:1], alone(tmp_path, "picture"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "weightedmean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pooling_of_many_tokens_in_half_precision_neither_overflows_nor_miscounts(pool, dtype):
    count = 511
    pooled = POOLS[pool](torch.ones(1, count, 2, dtype=dtype), torch.ones(1, count, dtype=torch.long))
    wanted = count**0.5 if pool == "mean_sqrt_len_tokens" else 1.0
    torch.testing.assert_close(pooled, torch.full((1, 2), wanted))


def test_a_model_whose_features_depend_on_padding_gets_captions_of_one_length(tmp_path):
    """Nystromformer approximates attention by means over segments of the padded caption."""
    save_tokenizer(tmp_path)
    config = hf.NystromformerConfig(**{**BERT, "max_position_embeddings": 32}, num_landmarks=4, segment_means_seq_len=4)
    save_model(tmp_path, config)
    backbone = load("sentence", tmp_path)
    assert backbone.preprocessing["padding"] == "max_length"
    assert backbone.preprocess([Sample("0", caption="picture")])["input_ids"].shape == (1, 32)
    batch = features(backbone, [Sample("0", caption="picture"), Sample("1", caption="picture number 1 2 3 4")])
    torch.testing.assert_close(features(backbone, [Sample("0", caption="picture")]), batch[:1], rtol=0, atol=1e-6)


def test_a_mask_is_used_though_the_tokenizers_file_does_not_name_it(tmp_path):
    folder, _ = folder_of("bert", tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_input_names": ["input_ids"]}))
    backbone = load("sentence", folder)
    assert backbone.preprocessing["padding"] == "longest"
    batch = features(backbone, [Sample("0", caption="picture"), Sample("1", caption="picture number 1")])
    torch.testing.assert_close(batch[:1], alone(folder, "picture"), rtol=0, atol=1e-5)


def test_a_model_with_a_decoder_gives_the_states_of_its_encoder(tmp_path):
    save_tokenizer(tmp_path, **NO_TYPES)
    save_model(tmp_path, hf.BartConfig(d_model=24, **BART, **HEADS, max_position_embeddings=34, **ENDS, **VOCABULARY))
    encoder = hf.AutoModel.from_pretrained(tmp_path).get_encoder().eval()
    inputs = hf.AutoTokenizer.from_pretrained(tmp_path)(["picture number"], return_tensors="pt")
    with torch.inference_mode():
        expected = encoder(**inputs).last_hidden_state.mean(dim=1)
    backbone = load("sentence", tmp_path)
    torch.testing.assert_close(features(backbone, [Sample("0", caption="picture number")]), expected, rtol=0, atol=1e-5)
    assert backbone.preprocessing["model"] == "BartEncoder"


def funnel(kind, folder, **options):
    """Save a Funnel transformer, which shortens the caption between its blocks."""
    save_tokenizer(folder, **options)
    torch.manual_seed(1)
    config = hf.FunnelConfig(d_model=24, n_head=2, d_head=12, d_inner=48, block_sizes=[1, 1], **VOCABULARY)
    kind(config).save_pretrained(folder)
    return folder


def test_a_model_that_needs_padding_and_states_no_length_is_refused(tmp_path):
    assert load("sentence", funnel(hf.FunnelModel, tmp_path, model_max_length=16)).preprocessing["context_length"] == 16
    with pytest.raises(InvalidConfig, match="FunnelModel: padding changes its features") as error:
        load("sentence", funnel(hf.FunnelModel, tmp_path))
    assert "model_max_length" in error.value.hint


def test_a_model_with_fewer_states_than_tokens_is_refused(tmp_path):
    with pytest.raises(InvalidConfig, match=r"FunnelBaseModel gives 2 states for 4 tokens: expected one for each"):
        load("sentence", funnel(hf.FunnelBaseModel, tmp_path, model_max_length=16))


def test_characters_are_read_without_a_tokenizers_file(tmp_path):
    hf.CanineTokenizer().save_pretrained(tmp_path)
    small = {**SMALL, "num_hash_buckets": 64, "max_position_embeddings": 64}
    save_model(tmp_path, hf.CanineConfig(**small))
    backbone = load("sentence", tmp_path)
    batch = features(backbone, [Sample("0", caption="ein Fuß"), Sample("1", caption="犬が走る、緑の草の上を")])
    torch.testing.assert_close(features(backbone, [Sample("0", caption="ein Fuß")]), batch[:1], rtol=0, atol=1e-5)


def test_a_model_without_a_pooler_or_a_class_token_says_what_it_offers(tmp_path):
    folder, _ = folder_of("gpt2", tmp_path)
    for pool in ("pooled", "class"):
        with pytest.raises(
            InvalidConfig, match=f"pool={pool}: expected what the model offers, mean; found a GPT2Model"
        ):
            load_hf("hf-text", folder, pool)


def test_a_caption_without_a_token_is_named(tmp_path):
    folder, _ = folder_of("gpt2", tmp_path)
    path = folder / "tokenizer.json"
    drop = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": drop}))
    backbone = load("sentence", folder)
    with pytest.raises(BadSample, match="the caption of sample 'b' has no token that the model knows"):
        backbone.preprocess([Sample("a", caption="picture"), Sample("b", caption="\u200b")])


def test_a_tokenizer_whose_files_are_missing_or_of_another_model_is_refused(tmp_path):
    folder, _ = folder_of("bert", tmp_path / "bert")
    bare = shutil.copytree(folder, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(CorruptFile, match="has no words: its vocabulary is missing"):
        load("sentence", bare)
    save_tokenizer(folder, words=[*WORDS, "eleven"])
    with pytest.raises(CorruptFile, match="the tokenizer has 17 tokens, and the model knows 16"):
        load("sentence", folder)


@pytest.mark.parametrize("kind", ["BigBird", "BigBirdPegasus"])
def test_bigbird_attends_to_all_of_a_long_caption_whatever_was_computed_before(kind, tmp_path):
    """With blocks of 16 tokens, block-sparse attention begins at 177 tokens, and needs multiples of a block."""
    save_tokenizer(tmp_path, model_max_length=400)
    size = {"d_model": 24, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    size |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, **ENDS}
    size = size if kind == "BigBirdPegasus" else SMALL
    config = getattr(hf, f"{kind}Config")(
        **size, vocab_size=len(WORDS), max_position_embeddings=400, block_size=16, attention_type="block_sparse"
    )
    save_model(tmp_path, config)
    long = [Sample(str(length), caption="picture number 7 " * length) for length in (61, 100, 300)]
    net = hf.AutoModel.from_pretrained(tmp_path, attention_type="original_full").eval()
    encoder = net.get_encoder() if kind == "BigBirdPegasus" else net
    ids = hf.AutoTokenizer.from_pretrained(tmp_path)([one.text() for one in long[:1]], return_tensors="pt")
    with torch.inference_mode():
        ids = {name: ids[name] for name in ("input_ids", "attention_mask")}
        expected = encoder(**ids).last_hidden_state.mean(dim=1)
    fresh = Encoder(hf.AutoModel.from_pretrained(tmp_path), "text", "cpu")
    with torch.inference_mode():
        torch.testing.assert_close(fresh(ids)[0].mean(dim=1), expected, rtol=0, atol=2e-6)
    backbone = load_hf("hf-text", tmp_path, pool="mean")
    torch.testing.assert_close(features(backbone, long)[:1], expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(features(backbone, long[:1]), expected, rtol=0, atol=2e-6)
