"""Maps on real architectures, compared with captum and with the papers' formulas written as loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparc.errors import PluginError
from sparc.localization.methods import GRADIENT_METHODS, by_gradient, dense
from tests.localization.streams import IMAGES, batch, direction, features, stream, trace_of, view
from tests.plugins.backbones import noise


def explained(method, name, target, trace=None):
    """Return the map of a stream's last picture, or of its last caption as a row of tokens."""
    found, seen = trace or trace_of(name)
    grid = getattr(stream(name), "grid", None) or (1, seen.attention[0].weights.shape[-1])
    return by_gradient(method, name, found, seen, grid, target).detach().numpy()


def target_of(name, seed=0):
    return direction(stream(name).width, seed)


def close(found, expected):
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# Dense: each patch alone.


@pytest.mark.parametrize("name", ["dinov2", "siglip", "resnet", "swin", "clip-img", "hf-clip"])
def test_the_dense_map_is_the_target_of_each_patch_alone(name):
    backbone, target = stream(name), target_of(name)
    with torch.inference_mode():
        patches = backbone.forward_tokens(batch(name))[1][0]
        expected = [float(target(patch.unsqueeze(0))) for patch in patches]
    close(dense(patches, target).numpy(), np.array(expected))
    rows, columns = backbone.grid
    found = view(backbone, noise(1).image()).map("dense", target)
    close(found, np.array(expected).reshape(rows, columns))


# Grad-CAM and LayerCAM: the last activations of the grid.


class Tap(nn.Module):
    """A norm whose output at the patches passes through an identity layer as a map, channels first, for captum."""

    def __init__(self, norm, grid):
        super().__init__()
        self.norm, self.grid, self.map = norm, grid, nn.Identity()

    def forward(self, tokens):
        tokens = self.norm(tokens)
        if tokens.ndim == 4:
            return self.map(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        first = tokens.shape[1] - self.grid[0] * self.grid[1]
        patches = self.map(tokens[:, first:].mT.unflatten(2, self.grid))
        return torch.cat([tokens[:, :first], patches.flatten(2).mT], dim=1)


def tapped(monkeypatch, name, module, norm):
    tap = Tap(getattr(module, norm), stream(name).grid)
    monkeypatch.setitem(module._modules, norm, tap)
    return tap.map


LAST_NORM = {
    "dinov2": lambda backbone: (backbone.model.blocks[-1], "norm1"),
    "dinov3": lambda backbone: (backbone.model.blocks[-1], "norm1"),
    "clip-img": lambda backbone: (backbone.clip.net.visual.transformer.resblocks[-1], "ln_1"),
    "hf-clip": lambda backbone: (backbone.encoder.tower.encoder.layers[-1], "layer_norm1"),
    "siglip": lambda backbone: (backbone.model, "norm"),
    "swin": lambda backbone: (backbone.model, "norm"),
    "hf-siglip": lambda backbone: (backbone.encoder.tower, "post_layernorm"),
}
LAST_MAP = {
    "effnet-lite0": lambda backbone: backbone.model.bn2,
    "resnet": lambda backbone: backbone.model.layer4,
}


def last_map(monkeypatch, name):
    if name in LAST_MAP:
        return LAST_MAP[name](stream(name))
    return tapped(monkeypatch, name, *LAST_NORM[name](stream(name)))


def pixels_of(name):
    prepared = batch(name)
    return prepared["pixel_values"] if isinstance(prepared, dict) else prepared


def forward_of(name):
    """Return a function from pixels to features."""
    backbone = stream(name)
    return lambda pixels: backbone.forward({"pixel_values": pixels} if name.startswith("hf") else pixels)


@pytest.mark.parametrize("name", [*LAST_MAP, *LAST_NORM])
def test_grad_cam_is_that_of_captum(name, monkeypatch):
    attr = pytest.importorskip("captum.attr")
    target, forward = target_of(name), forward_of(name)
    found = explained("grad-cam", name, target)
    layer = last_map(monkeypatch, name)
    cam = attr.LayerGradCam(lambda pixels: target(forward(pixels)), layer)
    pixels = pixels_of(name).clone().requires_grad_()
    expected = cam.attribute(pixels, relu_attributions=True, attribute_to_layer_input=False)
    close(found, expected.detach().numpy().ravel())


@pytest.mark.parametrize("name", [*LAST_MAP, *LAST_NORM])
def test_layer_cam_is_its_papers_formula(name, monkeypatch):
    target, forward = target_of(name), forward_of(name)
    found = explained("layer-cam", name, target)
    seen = []
    hook = last_map(monkeypatch, name).register_forward_hook(lambda module, given, output: seen.append(output))
    value = target(forward(pixels_of(name).clone().requires_grad_())).sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(value, seen[0])
    _, channels, rows, columns = seen[0].shape
    expected = np.zeros(rows * columns)
    for row, column in np.ndindex(rows, columns):
        total = 0.0
        for channel in range(channels):
            place = (0, channel, row, column)
            total += max(0.0, float(gradient[place])) * float(seen[0][place].detach())
        expected[row * columns + column] = max(0.0, total)
    close(found, expected)


def test_grad_cam_of_pooled_tokens_looks_at_what_is_pooled():
    """timm norms after pooling, so the pooled tokens, the sum of the last block, are the output of no norm."""
    attr = pytest.importorskip("captum.attr")
    target, backbone = target_of("pooled"), stream("pooled")
    last = nn.Sequential(backbone.model.blocks[-1], Tap(nn.Identity(), backbone.grid))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbone.model.blocks._modules, "1", last)
        cam = attr.LayerGradCam(lambda pixels: target(backbone.forward(pixels)), last[1].map)
        expected = cam.attribute(pixels_of("pooled").clone().requires_grad_(), relu_attributions=True)
    close(explained("grad-cam", "pooled", target), expected.detach().numpy().ravel())


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
@pytest.mark.parametrize("name", sorted(IMAGES))
def test_maps_by_activations_are_there_for_every_architecture_with_a_grid(name, method):
    target = target_of(name)
    both = [explained(method, name, lambda rows, sign=sign: sign * target(rows)) for sign in (1, -1)]
    for found in both:
        assert found.shape == (stream(name).grid[0] * stream(name).grid[1],)
        assert np.isfinite(found).all()
        assert found.min() >= 0
    # A map that is empty for a target is not empty for its negative.
    assert max(found.max() for found in both) > 0


def test_a_text_has_no_activations_with_a_grid_and_says_so():
    with pytest.raises(PluginError, match="found no activations with a grid of 1 x 8"):
        explained("grad-cam", "bert", target_of("bert"))


# Relevance: attention through the layers.


def rolled_out(layers):
    """Compute equations 5 and 6 of Chefer et al. 2021 by loops; attention and its gradient are (heads, Q, N)."""
    n_tokens = layers[0][0].shape[2]
    relevance = np.eye(n_tokens)
    for attention, gradient in layers:
        n_heads, n_queries, _ = attention.shape
        step = np.zeros((n_queries, n_tokens))
        for head, query, key in np.ndindex(*attention.shape):
            step[query, key] += max(0.0, attention[head, query, key] * gradient[head, query, key]) / n_heads
        pools = n_queries != n_tokens
        relevance = step @ relevance + (0 if pools else relevance)
    return relevance


def heads_of(rows, n_heads):
    """Reshape (N, width) to (heads, N, width of a head)."""
    return rows.unflatten(1, (n_heads, -1)).transpose(0, 1)


class ByHand:
    """Attention of one sample, step by step, which keeps weights and outputs for their gradients."""

    def __init__(self):
        self.weights, self.outputs = [], []

    def attend(self, query, key, value, n_heads, mask=0.0):
        """Attend from queries (Q, width) to tokens (N, width); return the concatenated heads, (Q, width)."""
        query, key, value = (heads_of(rows, n_heads) for rows in (query, key, value))
        self.weights.append((query @ key.mT / query.shape[2] ** 0.5 + mask).softmax(dim=-1))
        self.outputs.append((self.weights[-1] @ value).transpose(0, 1).flatten(1))
        return self.outputs[-1]

    def layers(self, value):
        """Return the weights and their gradients per layer, (heads, Q, N) each."""
        gradients = torch.autograd.grad(value, self.weights, retain_graph=True)
        return [
            [tensor.detach().reshape(tensor.shape[-3:]).numpy() for tensor in pair]
            for pair in zip(self.weights, gradients, strict=True)
        ]


def tokens_of(name, seen, monkeypatch):
    """Return the tokens of a timm vision transformer, whose own unfused attention is recorded."""
    model, hooks = stream(name).model, []
    for block in model.blocks:
        monkeypatch.setattr(block.attn, "fused_attn", False)
        dropout, project = block.attn.attn_drop, block.attn.proj
        hooks.append(dropout.register_forward_hook(lambda module, given, output: seen.weights.append(output)))
        hooks.append(project.register_forward_pre_hook(lambda module, given: seen.outputs.append(given[0])))
    found = model.forward_features(pixels_of(name).clone().requires_grad_())
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_relevance_of_a_class_token_is_its_row_of_the_rollout(name, monkeypatch):
    target, seen = target_of(name), ByHand()
    found = explained("relevance", name, target)
    value = target(stream(name).model.forward_head(tokens_of(name, seen, monkeypatch))).sum()
    # The class token and four registers come first.
    close(found, rolled_out(seen.layers(value))[0, 5:])


def test_relevance_of_pooled_tokens_is_the_mean_of_their_rows_by_the_strength_of_their_gradient(monkeypatch):
    target, seen = target_of("pooled"), ByHand()
    found = explained("relevance", "pooled", target)
    value = target(stream("pooled").model.forward_head(tokens_of("pooled", seen, monkeypatch))).sum()
    (gradient,) = torch.autograd.grad(value, seen.outputs[-1], retain_graph=True)
    strength = gradient[0].norm(dim=1).numpy()
    assert strength.max() > 1.1 * strength.min()
    relevance = rolled_out(seen.layers(value)) - np.eye(16)
    close(found, sum(strength[token] * relevance[token] for token in range(16)) / strength.sum())


def test_relevance_of_attention_that_pools_is_its_step_times_the_rollout(monkeypatch):
    target, seen = target_of("siglip"), ByHand()
    found = explained("relevance", "siglip", target)
    tokens = tokens_of("siglip", seen, monkeypatch)[0]
    pool = stream("siglip").model.attn_pool
    pooled = pool.proj(seen.attend(pool.q(pool.latent[0]), *pool.kv(tokens).chunk(2, dim=1), n_heads=3))
    pooled = pooled + pool.mlp(pool.norm(pooled))
    torch.testing.assert_close(pooled.detach(), features(stream("siglip"), batch("siglip")), rtol=1e-4, atol=1e-5)
    relevance = rolled_out(seen.layers(target(pooled).sum()))
    assert relevance.shape == (1, 16)
    close(found, relevance[0])


def clip_text_by_hand(seen, ids):
    """Run open_clip's text tower layer by layer; the feature is that of the end token, which has the largest id."""
    net = stream("clip-txt").clip.net
    mask = torch.full((len(ids), len(ids)), -torch.inf).triu(diagonal=1)
    rows = (net.token_embedding(ids) + net.positional_embedding).requires_grad_()
    for block in net.transformer.resblocks:
        inputs = F.linear(block.ln_1(rows), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=1)
        rows = rows + block.attn.out_proj(seen.attend(*inputs, n_heads=2, mask=mask))
        rows = rows + block.mlp(block.ln_2(rows))
    return net.ln_final(rows)[ids.argmax()].unsqueeze(0) @ net.text_projection


def test_relevance_of_a_text_is_the_row_of_its_end_token():
    target, seen = target_of("clip-txt"), ByHand()
    found = explained("relevance", "clip-txt", target)
    ids = batch("clip-txt")[0]
    read = clip_text_by_hand(seen, ids)
    torch.testing.assert_close(read.detach(), features(stream("clip-txt"), batch("clip-txt")), rtol=1e-4, atol=1e-5)
    end = int(ids.argmax())
    expected = rolled_out(seen.layers(target(read).sum()))[end]
    expected[end] -= 1
    close(found, expected)
    assert not found[end + 1 :].any()


@pytest.mark.parametrize("count", [1, 2])
def test_relevance_goes_through_the_last_layers_alone_if_so_many_are_chosen(count, monkeypatch):
    target, seen = target_of("dinov2"), ByHand()
    found = explained("relevance", "dinov2", target, trace_of("dinov2", layers=count))
    value = target(stream("dinov2").model.forward_head(tokens_of("dinov2", seen, monkeypatch))).sum()
    layers = seen.layers(value)[-count:]
    assert len(layers) == count
    close(found, rolled_out(layers)[0, 5:])


def test_the_last_layer_alone_may_be_the_one_that_pools():
    target = target_of("siglip")
    found, seen = trace_of("siglip", layers=1)
    (gradient,) = torch.autograd.grad(target(found).sum(), seen.attention[-1].weights, retain_graph=True)
    step = (seen.attention[-1].weights * gradient).clamp(min=0).mean(dim=1)[0, 0]
    close(explained("relevance", "siglip", target, (found, seen)), step.detach().numpy())


def test_more_layers_than_the_model_has_are_refused():
    with pytest.raises(PluginError, match=r"'dinov2': expected at least the 3 layers of --layers, found 2") as error:
        explained("relevance", "dinov2", target_of("dinov2"), trace_of("dinov2", layers=3))
    assert error.value.hint == "--layers 2 or fewer, or leave it out for all"


def test_a_view_follows_the_layers_of_its_models():
    backbone, target = stream("dinov2"), target_of("dinov2")
    every = view(backbone, noise(1).image())
    last = replace(every, models=replace(every.models, layers=1))
    for method in GRADIENT_METHODS:
        agree = np.allclose(every.map(method, target), last.map(method, target))
        assert agree == (method != "relevance")


@pytest.mark.parametrize("name", ["hf-clip", "hf-siglip", "clip-img"])
def test_relevance_of_towers_of_all_libraries_is_positive_and_differs_from_patch_to_patch(name):
    found = explained("relevance", name, target_of(name))
    assert found.shape == (16,)
    assert found.min() >= 0
    assert found.max() > 1.1 * found.min()


@pytest.mark.parametrize(
    ("name", "what"), [("resnet", "none"), ("swin", "none"), ("maxvit", "some over others"), ("pvt", "")]
)
def test_relevance_is_refused_where_attention_does_not_look_at_all_patches(name, what):
    with pytest.raises(PluginError, match=f"stream '{name}': expected attention over all .* {what}") as error:
        explained("relevance", name, target_of(name))
    assert "choose another --method: dense, grad-cam or layer-cam" in error.value.hint


# Targets.


@pytest.mark.parametrize("method", GRADIENT_METHODS)
@pytest.mark.parametrize("name", ["dinov2", "siglip"])
def test_a_target_without_gradient_gives_zeros(name, method):
    found = explained(method, name, lambda rows: (rows * 0).sum(dim=1))
    np.testing.assert_array_equal(found, np.zeros(16))


def test_a_target_without_gradient_gives_zeros_where_the_method_would_be_refused():
    np.testing.assert_array_equal(explained("relevance", "resnet", lambda rows: (rows * 0).sum(dim=1)), np.zeros(25))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
@pytest.mark.parametrize("name", ["dinov2", "pooled", "siglip", "hf-clip"])
def test_targets_on_one_trace_give_what_each_gives_on_its_own(name, method):
    together = trace_of(name)
    targets = [target_of(name, seed) for seed in range(3)]
    maps = [explained(method, name, target, together) for target in targets]
    assert not np.allclose(maps[0], maps[1])
    for found, target in zip(maps, targets, strict=True):
        np.testing.assert_array_equal(found, explained(method, name, target))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_a_target_twice_as_large_gives_a_map_that_only_scales(method):
    target = target_of("dinov2")
    once, twice = (explained(method, "dinov2", lambda rows, by=by: by * target(rows)) for by in (1, 2))
    # Each of two layers is multiplied by its gradient, so a path through both grows fourfold.
    if method == "relevance":
        assert (twice >= 2 * once * (1 - 1e-5)).all()
        assert (twice <= 4 * once * (1 + 1e-5)).all()
    else:
        close(twice, 2 * once)
