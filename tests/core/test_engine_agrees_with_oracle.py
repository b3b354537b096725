"""The engine against the naive dense oracle, in float64: equal codes, losses and gradients equal to 1e-9."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sparc.benchmarks.dense import DenseTraining
from sparc.config import TrainingConfig
from sparc.core.dead import Dead
from sparc.core.kernels import cache, choose
from sparc.core.kernels.plain import PLAIN
from sparc.core.losses import LossWeights, loss_terms, total
from sparc.core.space import LatentSpace
from sparc.core.step import AutogradTraining
from sparc.core.topk import EncoderProduct, select
from sparc.training.gradients import gradients
from sparc.training.trainer import Training, loss_weights
from tests.oracle import Oracle

L, B, K_AUX, LAMBDA, ALPHA = 24, 10, 3, 0.7, 1 / 32
UNDROPPED = {"stream_dropout": 0.0, "input_dropout": 0.0}
WIDTHS = [7, 5, 9, 4, 6]
NAMES = ["words", "photo", "sound", "depth", "map"]  # in no order that sorting would give


def pair(n_streams, k, selection="global", seed=0):
    """A space with parameters all away from their initial zeros, and the oracle with the same."""
    torch.manual_seed(seed)
    widths = {NAMES[i]: WIDTHS[i] for i in range(n_streams)}
    space = LatentSpace(widths, L, k, selection=selection, seed=seed).double()
    with torch.no_grad():
        for parameter in space.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    space.renormalize_decoder()

    def leaf(tensor):
        return tensor.detach().clone().requires_grad_()

    segments = dict(zip(widths, space.decoder.split(list(widths.values()), dim=1), strict=True))
    biases = dict(zip(widths, space.pre_bias.split(list(widths.values())), strict=True))
    oracle = Oracle(
        W={name: leaf(space.encoders[i]) for i, name in enumerate(widths)},
        c={name: leaf(space.latent_bias[i]) for i, name in enumerate(widths)},
        D={name: leaf(segments[name].T) for name in widths},
        b={name: leaf(biases[name]) for name in widths},
        k=k,
        selection=selection,
    )
    return space, oracle


def features(space, *, missing=False):
    raw = {name: torch.randn(B, width, dtype=torch.float64) for name, width in space.streams.items()}
    if missing:
        for position, rows in enumerate(raw.values()):
            rows[position] = 0
        raw[NAMES[0]][5] = 0
    return raw


def in_order(space, encoders, latent_bias, decoder, pre_bias):
    """Gradients in the oracle's layout."""
    widths = list(space.streams.values())
    return [*encoders, *latent_bias, *(part.T for part in decoder.split(widths, dim=1)), *pre_bias.split(widths)]


def autograd_gradients(space):
    encoders = [weight.grad for weight in space.encoders]
    return in_order(space, encoders, space.latent_bias.grad, space.decoder.grad, space.pre_bias.grad)


def hand_gradients(space, found):
    def whole(table):
        return torch.cat([table.block(latents) for latents in table.blocks()])

    beyond = found.beyond_decoder(found.decoder.dots(space.decoder.detach()))
    encoders = [whole(table) for table in beyond.encoders]
    return in_order(space, encoders, beyond.latent_bias, whole(found.decoder), beyond.pre_bias)


def assert_agree(space, oracle, raw, dead, cross_weight=LAMBDA):
    weights = LossWeights(cross_weight, ALPHA, K_AUX)
    expected = oracle.terms(raw, weights, dead)
    dead = {name: Dead(dead_L) for name, dead_L in dead.items()}
    batch = space.normalize(raw)
    codes = space.encode_batch(batch)
    terms = loss_terms(space, batch, codes, weights, dead)

    x, present = oracle.normalize(raw)
    dense = oracle.encode(x, present)
    for name in space.streams:
        torch.testing.assert_close(codes[name].to_dense(), dense[name], rtol=0, atol=1e-12)
    assert {term.name for term in terms} == set(expected)
    for term in terms:
        value, weight = expected[term.name]
        torch.testing.assert_close(term.value, value, rtol=0, atol=1e-9)
        assert term.weight == weight
    total(terms).backward()
    sum(weight * value for value, weight in expected.values()).backward()
    for found, parameter in zip(autograd_gradients(space), oracle.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=0, atol=1e-9)

    by_hand = gradients(space, batch, weights, dead)
    assert [(term.name, term.weight) for term in by_hand.terms] == [(term.name, term.weight) for term in terms]
    for term, other in zip(by_hand.terms, terms, strict=True):
        torch.testing.assert_close(term.value, other.value, rtol=0, atol=1e-9)
    for name in space.streams:
        assert torch.equal(by_hand.codes[name].indices, codes[name].indices)
        assert torch.equal(by_hand.codes[name].values, codes[name].values)
    for found, parameter in zip(hand_gradients(space, by_hand), oracle.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=0, atol=1e-9)


def readable(space, config):
    """The readable step of `core`, as `Training` takes its settings."""
    return AutogradTraining(space, loss_weights(config), lr=config.lr, dead_after=config.dead_after)


def some_dead(space):
    """Different latents dead in each stream, fewer than k_aux of them in the last."""
    torch.manual_seed(1)
    dead = {name: torch.rand(L) < 0.4 for name in space.streams}
    dead[list(dead)[-1]] = torch.arange(L) < K_AUX - 1
    return dead


@pytest.mark.parametrize("selection", ["global", "local"])
@pytest.mark.parametrize("k", [1, 4, L])
@pytest.mark.parametrize("n_streams", [1, 2, 3, 5])
def test_codes_losses_and_gradients_agree(n_streams, k, selection):
    space, oracle = pair(n_streams, k, selection)
    assert_agree(space, oracle, features(space), some_dead(space))


@pytest.mark.parametrize("selection", ["global", "local"])
def test_they_agree_if_samples_lack_streams(selection):
    space, oracle = pair(3, 4, selection)
    assert_agree(space, oracle, features(space, missing=True), some_dead(space))


def test_they_agree_without_cross_reconstruction():
    space, oracle = pair(3, 4)
    assert_agree(space, oracle, features(space), some_dead(space), cross_weight=0.0)


def test_they_agree_if_all_latents_are_dead_and_if_none_is():
    for fraction in (0, 1):
        space, oracle = pair(2, 4)
        assert_agree(space, oracle, features(space), dict.fromkeys(space.streams, torch.full((L,), bool(fraction))))


@pytest.mark.parametrize("k", [1, 5, L - 1])
def test_they_agree_on_ties(k):
    """Latents in groups of three with equal weights tie exactly; the lowest index is kept."""
    space, oracle = pair(2, k)
    with torch.no_grad():
        for engine, naive in [*zip(space.encoders, oracle.W.values(), strict=True)]:
            engine.copy_(engine[torch.arange(L) // 3])
            naive.copy_(engine)
        for engine, naive in zip(space.latent_bias, oracle.c.values(), strict=True):
            engine.copy_(engine[torch.arange(L) // 3])
            naive.copy_(engine)
    assert_agree(space, oracle, features(space), some_dead(space))


def test_they_agree_if_kept_sums_are_negative():
    """A latent may be kept with a negative logit; ReLU then makes its activation zero, and its gradient."""
    space, oracle = pair(3, 6)
    with torch.no_grad():
        space.latent_bias -= 2.0
        for bias in oracle.c.values():
            bias -= 2.0
    raw = features(space)
    assert all((codes.values == 0).any() for codes in space.encode(raw).values())
    assert_agree(space, oracle, raw, some_dead(space))


@pytest.mark.parametrize("kind", [Training, readable])
@pytest.mark.parametrize("selection", ["global", "local"])
@pytest.mark.parametrize("tables", ["whole", "by blocks", "by blocks and columns"])
def test_ten_training_steps_agree(kind, selection, tables, monkeypatch):
    """A training step (project, Adam, renormalise, count), by hand or by autograd, stays on the oracle's path."""
    if tables != "whole":
        monkeypatch.setattr(cache, "BLOCK", 80)  # five latents of the decoder
        monkeypatch.setattr(cache, "FEWEST", 1)
    if tables == "by blocks and columns":  # ten latents of a local decoder are summed together
        for name, number in {"CACHED": 1, "COLUMNS": 4, "OFTEN": 1}.items():
            monkeypatch.setattr(cache, name, number)
    space, oracle = pair(3, 4, selection)
    config = TrainingConfig(**UNDROPPED, lr=0.01, dead_after=15, lambda_=LAMBDA, aux_weight=1 / 20, k_aux=K_AUX)
    training = kind(space, config)
    naive_adam = torch.optim.Adam(oracle.parameters(), lr=0.01)
    silence = {name: torch.zeros(L, dtype=torch.int64) for name in space.streams}
    for _ in range(10):
        raw = features(space)
        found = {term.name: term.value for term in training.advance(space.normalize(raw))}

        x, present = oracle.normalize(raw)
        z = oracle.encode(x, present)
        terms = oracle.terms(raw, loss_weights(config), {name: count > 15 for name, count in silence.items()})
        sum(weight * value for value, weight in terms.values()).backward()
        assert set(found) == set(terms)
        for name, (value, _) in terms.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9)
        with torch.no_grad():
            for D in oracle.D.values():
                D.grad -= (D.grad * D).sum(0) * D
        naive_adam.step()
        naive_adam.zero_grad()
        with torch.no_grad():
            for D in oracle.D.values():
                D /= D.norm(dim=0)
        for name, codes_BL in z.items():
            silence[name] = torch.where((codes_BL > 1e-3).any(0), 0, silence[name] + B)
    assert any(name.startswith("aux/") for name in terms)
    widths = list(space.streams.values())
    for found, expected in zip(space.decoder.split(widths, dim=1), oracle.D.values(), strict=True):
        torch.testing.assert_close(found.T, expected, rtol=0, atol=1e-9)
    for found, expected in zip(space.encoders, oracle.W.values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    for position, expected in enumerate(silence.values()):
        assert torch.equal(training.counters.samples_since_active[position], expected)


@pytest.mark.parametrize("selection", ["global", "local"])
def test_the_step_by_hand_is_the_readable_step(selection):
    """The same terms in the same order, and after ten steps the same parameters and counters."""
    config = TrainingConfig(**UNDROPPED, lr=0.01, dead_after=15, lambda_=LAMBDA, aux_weight=1 / 20, k_aux=K_AUX)
    by_hand, by_autograd = Training(pair(3, 4, selection)[0], config), readable(pair(3, 4, selection)[0], config)
    for _ in range(10):
        raw = features(by_hand.space)
        terms = [training.advance(training.space.normalize(raw)) for training in (by_hand, by_autograd)]
        for one, other in zip(*terms, strict=True):
            assert one[:3] + one[4:] == other[:3] + other[4:]  # kind, source, target and weight
            torch.testing.assert_close(one.value, other.value, rtol=0, atol=1e-9)
    assert terms[0][-1].kind == "aux"
    for name, parameter in by_hand.space.named_parameters():
        torch.testing.assert_close(parameter, by_autograd.space.get_parameter(name), rtol=0, atol=1e-9)
    assert torch.equal(by_hand.counters.samples_since_active, by_autograd.counters.samples_since_active)


def test_the_dense_step_of_the_benchmark_is_the_step_by_hand():
    space, _ = pair(3, 4)
    config = TrainingConfig(**UNDROPPED, lr=0.01, dead_after=15, lambda_=LAMBDA, aux_weight=1 / 20, k_aux=2)
    dense = DenseTraining(space, config)
    training = Training(space, config)
    for _ in range(10):
        batch = space.normalize(features(space))
        torch.testing.assert_close(dense.advance(batch), total(training.advance(batch)), rtol=0, atol=1e-9)
    assert (training.counters.samples_since_active > 15).any()
    for name, segment in space.segments.items():
        torch.testing.assert_close(space.encoder(name)[0], dense.encoders[name], rtol=0, atol=1e-9)
        torch.testing.assert_close(space.decoder[:, segment].T, dense.decoders[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("n_dead", [0, 5])
def test_a_step_does_not_sync_with_a_gpu(n_dead, monkeypatch):
    """Fake CUDA tensors have no data, and raise if Python reads a value.

    The number of dead latents is the one value that a step reads. Its copy starts before the step, and is faked here.
    """
    monkeypatch.setattr("sparc.core.dead._Pending", lambda counts: SimpleNamespace(read=lambda position: n_dead))
    monkeypatch.setattr(choose, "_triton", lambda: PLAIN)
    space = LatentSpace({"photo": 12, "words": 8}, n_latents=256, k=4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            space = space.to("cuda")
        except RuntimeError:
            pytest.skip("this PyTorch wants a driver even for tensors without data")
        training = Training(space, TrainingConfig(**UNDROPPED, k_aux=3))
        raw = {name: torch.randn(16, width, device="cuda") for name, width in space.streams.items()}
        terms = training.advance(space.normalize(raw))
        assert {term.value.device.type for term in terms} == {"cuda"}
        assert any(term.kind == "aux" for term in terms) == (n_dead > 0)
        with pytest.raises(DataDependentOutputException):
            terms[0].value.item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_synchronises_with_nothing():
    """The number of dead latents is read after an event, which is recorded before the step begins."""
    space = LatentSpace({"photo": 12, "words": 8}, n_latents=256, k=4).to("cuda")
    training = Training(space, TrainingConfig(**UNDROPPED, k_aux=3, dead_after=1))
    batches = [
        space.normalize({name: torch.randn(16, width, device="cuda") for name, width in space.streams.items()})
        for _ in range(3)
    ]
    training.advance(batches[0])  # kernels are compiled and loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            terms = training.advance(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert any(term.kind == "aux" for term in terms)


class _Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operator allocates; views do not count."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        there = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in there:
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("kind", [Training, readable])
def test_a_step_makes_no_tensor_of_size_batch_by_latents(kind, monkeypatch):
    """Nor, by hand, one of the size of the decoders: at most what AuxK searches, the encoder of one stream's dead."""
    monkeypatch.setattr("sparc.core.topk.TILE_SAMPLES", 16)
    monkeypatch.setattr("sparc.core.topk.TILE_LATENTS", 64)
    monkeypatch.setattr(cache, "BLOCK", 1)  # of 64 latents then, the least
    n_latents, n_samples = 4096, 64
    space = LatentSpace({"photo": 6, "words": 4}, n_latents=n_latents, k=3)
    training = kind(space, TrainingConfig(**UNDROPPED, dead_after=1, k_aux=4))
    raw = {name: torch.randn(n_samples, width) for name, width in space.streams.items()}
    training.advance(space.normalize(raw))
    with _Largest() as largest:
        terms = training.advance(space.normalize(raw))
    assert any(term.kind == "aux" for term in terms)
    assert largest.numel < n_samples * n_latents / 4
    if kind is Training:
        assert largest.numel <= n_latents * max(space.streams.values())


def test_the_float32_product_of_the_engine_is_the_plain_one(monkeypatch):
    """By oneDNN on the CPU, by tiles, with samples that lack the stream."""
    monkeypatch.setattr("sparc.core.topk.TILE_SAMPLES", 16)
    torch.manual_seed(0)
    inputs, weight, bias = torch.randn(40, 300), torch.randn(64, 300), torch.randn(64)
    present = torch.arange(40) % 7 > 0
    kept = select({"a": EncoderProduct(inputs, weight, bias, present)}, 64, shared=False)["a"]
    found = torch.zeros(40, 64).scatter(1, kept.indices, kept.logits)
    exact = (inputs.double() @ weight.double().T + bias) * present.unsqueeze(1)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)
    assert (found[~present] == 0).all()
