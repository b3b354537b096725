"""A trace records attention and activations without changing the model, on real architectures with random weights."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparc.errors import PluginError
from sparc.localization.trace import LAST, Trace, traced
from tests.localization.streams import CAPTIONS, IMAGES, TEXTS, batch, features, stream, trace_of


def close(found, expected):
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


# Features under the trace.


@pytest.mark.parametrize("name", [*IMAGES, *TEXTS])
def test_features_under_the_trace_are_those_without_it_and_nothing_is_left_behind(name):
    prepared = batch(name, count=2)
    before = features(stream(name), prepared)
    found, _ = traced(name, stream(name), prepared)
    assert found.requires_grad
    assert ((found - before).norm(dim=1) <= 1e-6 * before.norm(dim=1)).all()
    assert torch.equal(features(stream(name), prepared), before)
    tensors = prepared.values() if isinstance(prepared, dict) else [prepared]
    assert not any(tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("name", ["bert", "hf-clip-txt", "qwen3"])
def test_a_caption_has_the_same_features_in_the_company_of_a_longer_one(name):
    company, _ = trace_of(name, count=2)
    for row, caption in enumerate(CAPTIONS):
        alone, _ = traced(name, stream(name), stream(name).preprocess([caption]))
        close(company[row], alone[0])


def test_a_model_that_fails_leaves_no_trace_behind():
    def fail(batch):
        raise ValueError("out of order")

    with pytest.raises(ValueError, match="out of order"):
        traced("failing", SimpleNamespace(forward=fail), torch.ones(1, 3))
    # Within a trace, embeddings of tokens have a gradient.
    assert not F.embedding(torch.tensor([0]), torch.ones(1, 3)).requires_grad


# Attention.


@pytest.mark.parametrize("name", ["dinov2", "dinov3", "pooled", "siglip"])
def test_attention_of_a_timm_model_is_what_timm_computes_without_the_fused_function(name, monkeypatch):
    _, trace = trace_of(name, count=2)
    model, seen = stream(name).model, []
    hooks = []
    for block in model.blocks:
        monkeypatch.setattr(block.attn, "fused_attn", False)
        hooks.append(block.attn.attn_drop.register_forward_hook(lambda module, given, weights: seen.append(weights)))
    features(stream(name), batch(name, count=2))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 2
    for found, expected in zip(trace.attention, seen, strict=name != "siglip"):
        close(found.weights, expected)


def test_attention_that_pools_is_recorded_last_with_its_one_query(monkeypatch):
    _, trace = trace_of("siglip", count=2)
    pool, tokens = stream("siglip").model.attn_pool, []
    hook = pool.register_forward_pre_hook(lambda module, given: tokens.append(given[0]))
    features(stream("siglip"), batch("siglip", count=2))
    hook.remove()
    query = pool.q(pool.latent).reshape(1, 3, 1, 16).mT.reshape(3, 16)
    keys = pool.kv(tokens[0])[..., :48].reshape(2, 16, 3, 16)
    expected = torch.einsum("hd,bnhd->bhn", query, keys).div(4).softmax(dim=-1).unsqueeze(2)
    assert len(trace.attention) == 3
    close(trace.attention[-1].weights, expected)


def tower_of(name):
    """Return a copy of the transformers model with eager attention."""
    tower = copy.deepcopy(stream(name).encoder.tower)
    tower.set_attn_implementation("eager")
    return tower


@pytest.mark.parametrize("name", ["bert", "hf-clip-txt", "hf-siglip-txt", "hf-clip", "hf-siglip"])
def test_attention_of_a_model_of_transformers_is_what_its_eager_form_gives(name):
    _, trace = trace_of(name, count=2)
    inputs = {
        key: value for key, value in batch(name, count=2).items() if name != "hf-siglip-txt" or key == "input_ids"
    }
    with torch.inference_mode():
        expected = tower_of(name)(**inputs, output_attentions=True).attentions
    assert len(expected) == 2
    for found, weights in zip(trace.attention, expected, strict=name != "hf-siglip"):
        close(found.weights, weights)


@pytest.mark.parametrize("name", ["bert", "hf-clip-txt"])
def test_no_caption_attends_to_the_padding_behind_it(name):
    _, trace = trace_of(name, count=2)
    padding = batch(name, count=2)["attention_mask"] == 0
    assert padding.sum(dim=1).tolist() == [5, 0]
    for layer in trace.attention:
        assert layer.weights.shape[-1] == padding.shape[1]
        assert not layer.weights[0, :, :, padding[0]].any()
        assert layer.weights[1].any(dim=(0, 1)).all()


@pytest.mark.parametrize("name", ["clip-img", "clip-txt"])
def test_attention_of_open_clip_is_what_its_own_layers_return_when_they_are_asked(name):
    _, trace = trace_of(name, count=2)
    net, seen = stream(name).clip.net, []
    transformer = net.visual.transformer if name == "clip-img" else net.transformer

    def ask(module, args, kwargs):
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    hooks = []
    for block in transformer.resblocks:
        hooks.append(block.attn.register_forward_pre_hook(ask, with_kwargs=True))
        hooks.append(block.attn.register_forward_hook(lambda module, given, output: seen.append(output[1])))
    features(stream(name), batch(name, count=2))
    for hook in hooks:
        hook.remove()
    for found, expected in zip(trace.attention, seen, strict=True):
        close(found.weights, expected)
    if name == "clip-txt":
        assert not torch.triu(trace.attention[0].weights, diagonal=1).any()


ABOVE = torch.ones(5, 5, dtype=torch.bool).triu(diagonal=1)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
MASKS = {
    "none": {},
    "bool": {"attn_mask": ABOVE},
    "float": {"attn_mask": torch.zeros(5, 5).masked_fill(ABOVE, -torch.inf)},
    "hinted": {"attn_mask": ABOVE, "is_causal": True},
    "by head": {"attn_mask": torch.linspace(-1, 1, 150).reshape(6, 5, 5)},
    "padding": {"key_padding_mask": PADDING},
    "float padding": {"key_padding_mask": torch.zeros(2, 5).masked_fill(PADDING, -torch.inf)},
    "both": {"attn_mask": ABOVE, "key_padding_mask": PADDING},
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", MASKS)
def test_nn_multihead_attention_gives_the_same_output_and_the_weights_that_it_would_return(mask, batch_first):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    tokens = torch.randn(2, 5, 12) if batch_first else torch.randn(5, 2, 12)
    with torch.no_grad():
        expected, weights = layer(tokens, tokens, tokens, average_attn_weights=False, **MASKS[mask])
        with Trace() as trace:
            output, _ = layer(tokens, tokens, tokens, need_weights=False, **MASKS[mask])
    close(output, expected)
    (found,) = trace.attention
    close(found.weights, weights)


def test_nn_multihead_attention_of_a_query_over_other_tokens_is_recorded():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=True, bias=False)
    query, tokens = torch.randn(2, 1, 12), torch.randn(2, 5, 12)
    expected, weights = layer(query, tokens, tokens, average_attn_weights=False)
    with Trace() as trace:
        output, _ = layer(query, tokens, tokens)
    close(output, expected)
    close(trace.attention[0].weights, weights)


@pytest.mark.parametrize("options", [{"kdim": 8, "vdim": 8}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_a_form_of_nn_multihead_attention_that_is_not_understood_is_named(options):
    layer = nn.MultiheadAttention(12, 3, batch_first=True, **options)
    query, tokens = torch.ones(1, 1, 12), torch.ones(1, 5, options.get("kdim", 12))
    with Trace(), pytest.raises(PluginError, match=r"expected the plain form of nn\.MultiheadAttention"):
        layer(query, tokens, tokens)


VISIBLE = torch.tensor([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
HIDDEN_ROW = VISIBLE & torch.tensor([[True], [False], [True]])
ATTENTIONS = {
    "plain": {},
    "bool": {"attn_mask": VISIBLE},
    "float": {"attn_mask": torch.linspace(-2, 2, 12).reshape(3, 4)},
    "by sample": {"attn_mask": torch.stack([VISIBLE, ~VISIBLE]).unsqueeze(1)},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.7},
    "hidden row": {"attn_mask": HIDDEN_ROW},
}


@pytest.mark.parametrize("options", ATTENTIONS)
def test_attention_is_what_torch_says_that_its_function_computes(options):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 3, 8), torch.randn(2, 6, 4, 8), torch.randn(2, 6, 4, 5)
    attend = F.scaled_dot_product_attention
    with Trace() as trace:
        output = attend(query, key, value, **ATTENTIONS[options])
    close(output, attend(query, key, value, **ATTENTIONS[options]))
    # With the identity as values, the output equals the weights.
    close(trace.attention[0].weights, attend(query, key, torch.eye(4).expand(2, 6, 4, 4), **ATTENTIONS[options]))
    close(trace.attention[0].output, output)


def test_attention_whose_heads_share_keys_is_that_of_each_head_with_its_own():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 3, 8), torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 5)
    with Trace() as trace:
        output = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    close(output, F.scaled_dot_product_attention(query, key, value, enable_gqa=True))
    for head in range(6):
        expected = (query[:, head] @ key[:, head // 3].mT / 8**0.5).softmax(dim=-1)
        close(trace.attention[0].weights[:, head], expected)


# Activations.


def test_activations_are_the_last_ones_of_the_grids_size():
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), *[nn.Conv2d(4, 4, 1) for _ in range(LAST + 3)])
    outputs = []
    for layer in layers:
        layer.register_forward_hook(lambda module, given, output: outputs.append(output))
    with Trace(grid=(2, 3)) as trace:
        layers(torch.ones(1, 3, 4, 6))
    assert len(trace.activations) == LAST
    assert all(kept is output for kept, output in zip(trace.activations, outputs[-LAST:], strict=True))


def test_a_text_has_attention_and_no_activations_with_a_grid():
    _, trace = trace_of("bert")
    assert trace.activations == []
    assert [len(layer.weights) for layer in trace.attention] == [1, 1]


# A detached graph.


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["dinov2", "effnet-lite0", "bert", "clip-txt"])
def test_a_forward_that_cuts_the_graph_is_named_with_what_can_be_done(name, mode):
    backbone = SimpleNamespace(forward=mode()(stream(name).forward))
    with pytest.raises(PluginError, match=f"backbone '{name}': its forward cuts the graph") as error:
        traced(name, backbone, batch(name))
    assert "--method dense" in error.value.hint


@pytest.mark.parametrize("name", ["dinov2", "bert"])
def test_a_trace_is_taken_where_gradients_are_switched_off(name):
    with torch.no_grad():
        found, _ = trace_of(name)
    assert found.requires_grad
