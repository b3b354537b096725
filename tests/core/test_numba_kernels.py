"""The Numba kernels against the plain operators, which the oracle checks: in float32, as training uses them."""

import copy
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("numba", reason="needs numba: pip install 'sparc-sae[fast]'")

from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.kernels import AdamStep, LatentSum, SortedEntries, cache, choose
from sparc.core.kernels.numba_cpu import NumbaKernels
from sparc.core.kernels.plain import PLAIN
from sparc.core.space import LatentSpace
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.training.gradients import TableGradient
from sparc.training.trainer import Training

NUMBA = NumbaKernels()
SHAPES = [(5, 3, 4, 70), (4, 1, 1, 16), (3, 2, 7, 300), (1, 1, 50, 1)]  # samples, streams, kept, width


@pytest.fixture
def compiled(monkeypatch):
    """Use the kernels for tables of any size."""
    monkeypatch.setattr(choose, "WORTH_COMPILING", 0)


@pytest.mark.parametrize("cached", [2**21, 1000, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_agree_with_the_plain_operators(monkeypatch, shape, cached):
    monkeypatch.setattr(cache, "CACHED", cached)
    samples, streams, kept, width = shape
    torch.manual_seed(0)
    indices = torch.stack([torch.randperm(50)[:kept] for _ in range(samples)])
    values, table = torch.randn(samples, streams, kept), torch.randn(50, width)
    vectors = torch.randn(samples, streams, width)
    close = torch.testing.assert_close
    close(NUMBA.weighted_rows(indices, values, table), PLAIN.weighted_rows(indices, values, table))
    close(NUMBA.entry_dots(vectors, table, indices), PLAIN.entry_dots(vectors, table, indices))
    entries = SortedEntries(indices, 50)
    summed = LatentSum(entries, entries.in_order(values), vectors)
    for out_of_cache in (False, True):
        summed.out_of_cache = out_of_cache
        sums, dots = PLAIN.sum_by_latent(summed), PLAIN.dots_by_latent(summed, table)
        close(NUMBA.sum_by_latent(summed), sums)
        close(NUMBA.dots_by_latent(summed, table), dots)
        both = NUMBA.sum_with_dots(summed, table)
        close(both[0], sums)
        close(both[1], dots)


def test_dots_of_an_update_are_those_with_the_table_before_it():
    """Two sums, the second in some columns only."""
    torch.manual_seed(0)
    table = torch.nn.functional.normalize(torch.randn(50, 12))
    moments, gradient = (torch.zeros(50, 12), torch.zeros(50, 12)), TableGradient()
    for columns, kept, streams in ((slice(None), 6, 2), (slice(8, 12), 3, 1)):
        entries = SortedEntries(torch.stack([torch.randperm(50)[:kept] for _ in range(9)]), 50)
        vectors = torch.randn(9, streams, 12)[:, :, columns].contiguous()
        gradient.add(LatentSum(entries, torch.randn(9 * kept, streams), vectors), columns)
    before, expected = gradient.dots(table.clone()), gradient.block(slice(0, 50)).clone()
    step = AdamStep(rate=0.1, beta1=0.9, rest1=0.1, beta2=0.999, rest2=0.001, epsilon=1e-8)
    gradient.sums[0][0].out_of_cache = True
    found = NUMBA.update_by_latent(gradient.sums, table, moments, step, unit_ends=None)
    for found_dots, others in zip(found, before, strict=True):
        torch.testing.assert_close(found_dots, others)
    torch.testing.assert_close(moments[0], 0.1 * expected)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("widths", [(6, 4, 9), (128, 64)])
def test_projection_and_unit_norm_are_those_of_the_plain_operators(monkeypatch, widths, in_order):
    torch.manual_seed(0)
    plain = LatentSpace({str(width): width for width in widths}, n_latents=50, k=3)
    gradient = torch.randn(50, sum(widths)) if in_order else torch.randn(sum(widths), 50).T
    with torch.no_grad():
        plain.decoder *= 1 + torch.rand(50, 1)
    plain.decoder.grad = gradient.clone(memory_format=torch.preserve_format)
    fast = copy.deepcopy(plain)
    fast.decoder.grad = gradient.clone(memory_format=torch.preserve_format)
    plain.renormalize_decoder()
    plain.project_decoder_gradient()
    monkeypatch.setattr(choose, "WORTH_COMPILING", 0)
    fast.renormalize_decoder()
    fast.project_decoder_gradient()
    torch.testing.assert_close(fast.decoder, plain.decoder)
    torch.testing.assert_close(fast.decoder.grad, plain.decoder.grad)
    assert not torch.allclose(fast.decoder.grad, gradient)


def test_an_index_beyond_the_table_is_refused():
    with pytest.raises(IndexError, match="table of 4"):
        NUMBA.entry_dots(torch.ones(1, 1, 3), torch.ones(4, 3), torch.tensor([[1, 4]]))
    with pytest.raises(IndexError, match="table of 4"):
        NUMBA.weighted_rows(torch.tensor([[1, -1]]), torch.ones(1, 1, 2), torch.ones(4, 3))


def test_rounding_is_that_of_pytorch_and_returns_its_errors():
    """To nearest, ties to even; numbers too large for bfloat16 become infinite."""
    edges = [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, 1e-40, float("inf"), -1.0]
    table = torch.cat([torch.tensor([edges]), torch.randn(6, len(edges))])
    rounded, squares = torch.full((7, len(edges) + 3), 9, dtype=torch.bfloat16), torch.ones(7, 2)
    assert NUMBA.round_rows(table, rounded, 1, squares)
    assert torch.equal(rounded[:, 1:-2], table.bfloat16())
    assert (rounded[:, [0, -2, -1]] == 9).all()
    lost = table[1:] - table[1:].bfloat16()
    torch.testing.assert_close(squares[1:], torch.stack([table[1:].square().sum(1), lost.square().sum(1)], 1) + 1)
    assert not squares[0].isfinite().any()


@pytest.mark.parametrize(("cached", "adam_state"), [(2**21, "float32"), (40, "float32"), (40, "bfloat16")])
@pytest.mark.parametrize(("selection", "dead_after"), [("global", 10**9), ("global", 20), ("local", 10**9)])
def test_ten_steps_are_those_of_the_plain_operators(monkeypatch, selection, dead_after, cached, adam_state):
    """With dead latents and without, with rows that fit into the cache and rows that do not."""
    monkeypatch.setattr(cache, "OFTEN", 0)
    monkeypatch.setattr(cache, "CACHED", cached)
    config = TrainingConfig(lr=0.01, dead_after=dead_after, k_aux=3, adam_state=adam_state)

    def trained(threshold):
        monkeypatch.setattr(choose, "WORTH_COMPILING", threshold)
        torch.manual_seed(0)
        shape = SpaceConfig(streams={"photo": 9, "words": 5}, n_latents=64, k=4, selection=selection)
        training = Training(SharedLatentSpace(shape), config)
        for _ in range(10):
            batch = training.space.normalize({"photo": torch.randn(12, 9), "words": torch.randn(12, 5)})
            terms = training.advance(batch)
        return training, {term.name: term.value for term in terms}

    plain, plain_terms = trained(2**60)
    fast, fast_terms = trained(0)
    assert any(name.startswith("aux/") for name in fast_terms) == (dead_after == 20)
    assert fast_terms.keys() == plain_terms.keys()
    for name, value in fast_terms.items():
        torch.testing.assert_close(value, plain_terms[name], rtol=1e-5, atol=1e-6)
    # A moment that is next to where bfloat16 rounds up may be rounded down there: 1/256 of a step of 0.01, each time.
    near = {"rtol": 1e-4, "atol": 1e-5 if adam_state == "float32" else 4e-4}
    for name, parameter in fast.space.named_parameters():
        torch.testing.assert_close(parameter, plain.space.get_parameter(name), **near)
    assert torch.equal(fast.counters.samples_since_active, plain.counters.samples_since_active)


@pytest.mark.parametrize("cached", [2**21, 40])
def test_the_same_step_gives_the_same_bits(compiled, monkeypatch, cached):
    """With any number of threads in the kernels."""
    monkeypatch.setattr(cache, "OFTEN", 0)
    monkeypatch.setattr(cache, "CACHED", cached)

    def step(threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        torch.manual_seed(0)
        training = Training(
            SharedLatentSpace(SpaceConfig(streams={"photo": 9, "words": 5}, n_latents=64, k=4)), TrainingConfig()
        )
        for _ in range(3):
            training.advance(training.space.normalize({"photo": torch.randn(40, 9), "words": torch.randn(40, 5)}))
        return training.space.state_dict()

    first, second = step(1), step(2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_features_that_are_not_finite_stay_so(compiled):
    """Divergence must show in the loss."""
    values = torch.tensor([[[1.0, float("inf")]]])
    table = torch.ones(4, 3)
    table[1] = float("nan")
    found = NUMBA.weighted_rows(torch.tensor([[0, 2]]), values, table)
    assert found.isinf().all()
    assert NUMBA.weighted_rows(torch.tensor([[1, 0]]), torch.ones(1, 1, 2), table).isnan().all()


def test_the_kernels_leave_pytorch_the_number_of_threads_that_it_has():
    """torchrun sets OMP_NUM_THREADS=1: more threads than cores would make two processes slower than one."""
    code = (
        "import torch; from sparc.core.kernels.numba_cpu import NumbaKernels as K; k = K(); "
        "k.weighted_rows(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 1, 2), torch.ones(4, 3)); "
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | {"NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
