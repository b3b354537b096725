"""Selection by a product in bfloat16 keeps the same latents as the float32 product, always."""

import sys
from pathlib import Path

import pytest
import torch

from sparc.core import topk as selection
from sparc.core.space import LatentSpace
from sparc.core.topk import EncoderProduct
from sparc.training import bf16_selection as rounded

WIDTHS = (40, 24, 32)  # rows at even addresses: equal ones then give equal sums


def streams(seed, *, n_latents=512, n_samples=100, lacking=0.1):
    """Random streams of unit norm, with biases, and samples that lack some."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for width in WIDTHS:
        inputs = torch.nn.functional.normalize(torch.randn(n_samples, width, generator=generator), dim=1)
        weight = torch.randn(n_latents, width, generator=generator)
        bias = torch.randn(n_latents, generator=generator)
        present = torch.rand(n_samples, generator=generator) >= lacking
        made[f"of {width}"] = EncoderProduct(inputs, weight, bias, present)
    return made


def counted(monkeypatch):
    """Record how many samples are selected again by the full product."""
    again = []
    full = selection.select_shared

    def select_shared(some, k):
        again.append(len(some[0].inputs))
        return full(some, k)

    monkeypatch.setattr(selection, "select_shared", select_shared)
    return again


def assert_keeps_the_same(products, k, *, shared=True):
    expected = selection.select(products, k, shared=shared)
    found = rounded.select(products, k, shared=shared)
    assert list(found) == list(expected)
    for name, kept in expected.items():
        assert torch.equal(found[name].indices, kept.indices)
        torch.testing.assert_close(found[name].logits, kept.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_it_keeps_what_the_full_product_keeps(seed, shared):
    assert_keeps_the_same(streams(seed), 8, shared=shared)


@pytest.mark.parametrize("supported", [True, False])
def test_a_cpu_without_bfloat16_makes_the_product_in_float32(monkeypatch, supported):
    """The rounded product would take several times as long."""
    monkeypatch.setattr(rounded, "pays", lambda device: supported)
    chosen = rounded.selector("bfloat16", torch.device("cpu"))
    assert chosen is (rounded.select if supported else selection.select)
    assert rounded.selector("float32", torch.device("cpu")) is selection.select
    torch.manual_seed(0)
    space = LatentSpace({"photo": 40, "words": 24}, n_latents=512, k=8)
    batch = space.normalize({"photo": torch.randn(9, 40), "words": torch.randn(9, 24)})
    expected = space.select(batch.features, batch.present)
    found = space.select(batch.features, batch.present, chosen)
    assert all(torch.equal(found[name].indices, kept.indices) for name, kept in expected.items())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processor's flags from Linux")
def test_the_processors_flags_decide_whether_bfloat16_pays():
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii").split()
    if "flags" not in flags:
        pytest.skip("not an x86 processor")
    assert rounded.pays(torch.device("cpu")) == bool({"avx512_bf16", "amx_tile"} & set(flags))


@pytest.mark.parametrize("seed", range(3))
def test_it_does_so_with_compiled_kernels(monkeypatch, seed):
    pytest.importorskip("numba", reason="needs numba: pip install 'sparc-sae[fast]'")
    monkeypatch.setattr("sparc.core.kernels.choose.WORTH_COMPILING", 0)
    again = counted(monkeypatch)
    assert_keeps_the_same(streams(seed), 8)
    assert sum(again[1:]) < 100 / 2  # the first is the full product that it is compared with


def test_it_does_so_in_tiles_that_do_not_divide_samples_and_latents(monkeypatch):
    for name, size in (("TILE_SAMPLES", 33), ("TILE_LATENTS", 90)):
        monkeypatch.setattr(selection, name, size)
    monkeypatch.setattr("sparc.core.kernels.cache.BLOCK", 1)
    assert_keeps_the_same(streams(0), 8)


def test_it_does_so_if_rounding_alone_would_keep_others(monkeypatch):
    """With as many candidates as kept latents no sample is proven, so all are selected again."""
    products = streams(0)
    raw = torch.cat([one.inputs * one.present.unsqueeze(1) for one in products.values()], dim=1).bfloat16()
    table = torch.cat([one.weight for one in products.values()], dim=1).bfloat16()
    bias = sum(one.bias * one.present.unsqueeze(1) for one in products.values())
    naive = (torch.nn.functional.linear(raw, table) + bias.bfloat16()).topk(8, dim=1).indices.sort(dim=1).values
    exact = selection.select(products, 8, shared=True)["of 40"].indices.sort(dim=1).values
    assert (naive != exact).any()
    monkeypatch.setattr(rounded, "CANDIDATES_PER_KEPT", 1)
    monkeypatch.setattr(rounded, "AT_LEAST", 1)
    assert_keeps_the_same(products, 8)


def test_most_samples_are_proven(monkeypatch):
    again = counted(monkeypatch)
    rounded.select(streams(0, n_latents=2048, lacking=0), 16, shared=True)
    assert sum(again) < 10


def test_no_latent_that_is_not_a_candidate_reaches_the_bound():
    for seed in range(10):
        products = list(streams(seed).values())
        candidates = rounded._candidates(products, 24)
        exact = sum(
            (one.inputs.double() @ one.weight.double().T + one.bias) * one.present.unsqueeze(1) for one in products
        )
        others = exact.scatter(1, candidates.indices, float("-inf")).amax(dim=1)
        assert (others <= candidates.others_below).all()  # equal where all streams are missing
        assert (candidates.others_below - others).median() < 0.2  # of scores that spread by 2: the bound says something


@pytest.mark.parametrize("equal", [512, 12])
@pytest.mark.parametrize("worth_compiling", [2**60, 0])
def test_of_equal_latents_the_lowest_are_kept(monkeypatch, worth_compiling, equal):
    """More of them than there are candidates, and fewer."""
    monkeypatch.setattr("sparc.core.kernels.choose.WORTH_COMPILING", worth_compiling)
    products = {
        name: EncoderProduct(one.inputs.abs(), one.weight.clone(), one.bias, one.present)
        for name, one in streams(0).items()
    }
    for one in products.values():
        one.weight[-equal:] = 3.0
        one.bias[-equal:] = 3.0
    found = rounded.select(products, 8, shared=True)["of 40"].indices
    some = torch.stack([one.present for one in products.values()]).any(dim=0)
    assert (found[some].sort(dim=1).values == 512 - equal + torch.arange(8)).all()


def test_a_space_with_few_latents_takes_the_full_product():
    assert_keeps_the_same(streams(0, n_latents=20), 8)


def test_features_that_are_not_finite_stay_so():
    products = streams(0)
    products["of 40"].inputs[3] = float("nan")
    products["of 40"].present[3] = True
    assert rounded.select(products, 8, shared=True)["of 40"].logits[3].isnan().all()


def test_one_latent_of_large_norm_or_bias_spoils_no_sample(monkeypatch):
    products = streams(0, n_latents=2048, lacking=0)
    for one in products.values():
        one.weight[7] *= 4
        one.bias[9] = -30.0
    assert_keeps_the_same(products, 16)
    again = counted(monkeypatch)
    rounded.select(products, 16, shared=True)
    assert sum(again) < 10


@pytest.mark.parametrize("size", [1e-19, 1e-30, 1e15])
def test_weights_whose_squares_leave_the_floats_are_selected_as_any(size):
    products = streams(0)
    for one in products.values():
        one.weight.mul_(size)
        one.bias.mul_(size)
    expected = selection.select(products, 8, shared=True)["of 40"].indices
    assert torch.equal(
        rounded.select(products, 8, shared=True)["of 40"].indices.sort(1).values, expected.sort(1).values
    )
