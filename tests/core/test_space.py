"""What a user of a space may rely on."""

import warnings

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from sparc.core.codes import Codes
from sparc.core.dead import ActivityCounters
from sparc.core.kernels import (
    LatentSum,
    SortedEntries,
    cache,
    dots_by_latent,
    entry_dots,
    logits_with_gradient,
    sum_by_latent,
    weighted_rows,
    weighted_sum,
)
from sparc.core.losses import LossWeights, loss_terms, nmse, total
from sparc.core.space import LatentSpace
from sparc.core.topk import EncoderProduct, select_shared, top_k, top_k_without_sync
from sparc.errors import BadFeatures, UnknownName
from sparc.training.gradients import gradients


@pytest.fixture
def space():
    return LatentSpace({"photo": 6, "words": 4}, n_latents=16, k=3, seed=0)


@pytest.fixture
def raw():
    generator = torch.Generator().manual_seed(0)
    return {
        "photo": torch.randn(8, 6, generator=generator),
        "words": torch.randn(8, 4, generator=generator),
    }


def pieces(raw):
    """Features in pieces, as a store has them."""
    return {name: rows.split(3) for name, rows in raw.items()}


def test_streams_encoded_together_share_their_latents(space, raw):
    codes = space.encode(raw)
    assert torch.equal(codes["photo"].indices, codes["words"].indices)
    assert codes["photo"].values.shape == (8, 3)


def test_a_stream_encoded_alone_does_not_depend_on_the_others(space, raw):
    alone = space.encode({"photo": raw["photo"]})["photo"]
    local = LatentSpace(space.streams, 16, 3, selection="local", seed=0)
    assert torch.equal(alone.to_dense(), local.encode(raw)["photo"].to_dense())
    assert not torch.equal(alone.indices, space.encode(raw)["photo"].indices)


def test_selection_ignores_the_order_in_which_streams_are_passed(raw):
    space = LatentSpace({"photo": 6, "words": 4}, n_latents=16, k=3, seed=0)
    turned = space.encode({"words": raw["words"], "photo": raw["photo"]})
    assert list(turned) == ["photo", "words"]
    assert torch.equal(turned["photo"].values, space.encode(raw)["photo"].values)


def test_logits_are_summed_in_the_order_of_the_space():
    """In single precision (10^8 - 10^8) + 0.5 is 0.5, and (0.5 - 10^8) + 10^8 is 0."""
    space = LatentSpace({"z": 2, "y": 2, "x": 2}, n_latents=3, k=1)
    with torch.no_grad():
        for encoder in space.encoders:
            encoder.zero_()
        space.latent_bias[:] = torch.tensor([[1e8, 0.0, 0.0], [-1e8, 0.0, 0.0], [0.5, 0.0, 0.25]])
    codes = space.encode(dict.fromkeys(("x", "y", "z"), torch.ones(1, 2)))
    assert codes["x"].indices.tolist() == [[0]]


def test_initial_encoders_are_uniform_within_one_over_the_root_of_the_width():
    space = LatentSpace({"a": 16}, n_latents=500, k=1)
    largest = space.encoders[0].abs().max().item()
    assert 0.249 < largest <= 0.25
    torch.testing.assert_close(space.decoder, torch.nn.functional.normalize(space.encoders[0], dim=1))


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_very_small_and_very_large_features_are_present(raw, size):
    for normalization in ("unit", "standard"):
        space = LatentSpace({"photo": 6, "words": 4}, 16, 3, normalization=normalization)
        rows = {name: size * rows for name, rows in raw.items()}
        if normalization == "standard":
            space.fit_normalization(pieces(rows))
        batch = space.normalize(rows)
        assert all(there.all() for there in batch.present.values())
        torch.testing.assert_close(batch.features["words"].square().sum(1).mean(), torch.tensor(1.0))


def test_standard_normalization_does_not_count_samples_that_lack_the_stream(raw):
    raw["photo"][3:] = 0
    space = LatentSpace({"photo": 6, "words": 4}, 16, 3, normalization="standard")
    space.fit_normalization(pieces(raw))
    expected = LatentSpace({"photo": 6, "words": 4}, 16, 3, normalization="standard")
    expected.fit_normalization(pieces({"photo": raw["photo"][:3], "words": raw["words"]}))
    torch.testing.assert_close(space.center, expected.center)
    torch.testing.assert_close(space.scale, expected.scale)
    assert (space.normalize(raw).features["photo"][3:] == 0).all()


def test_standard_normalization_refuses_samples_that_are_all_alike(raw):
    raw["words"][:] = 1
    with pytest.raises(BadFeatures, match="'words': expected samples that differ, found 8 that are all alike"):
        LatentSpace({"photo": 6, "words": 4}, 16, 3, normalization="standard").fit_normalization(pieces(raw))


def test_samples_that_are_all_alike_have_no_scale_in_any_precision():
    space = LatentSpace({"a": 2}, 8, 2, normalization="standard")
    with pytest.raises(BadFeatures, match="found 1000 that are all alike"):
        space.fit_normalization({"a": [torch.full((1000, 2), 0.1, dtype=torch.float64)]})


def test_only_features_of_the_spaces_streams_and_widths_are_normalised(space, raw):
    with pytest.raises(UnknownName, match="'Photo'"):
        space.normalize({"Photo": raw["photo"]})
    with pytest.raises(UnknownName, match="'Photo'"):
        space.fit_normalization({"Photo": [raw["photo"]]})
    with pytest.raises(BadFeatures, match=r"'photo': expected features of shape \(samples, 6\), found \(8, 1\)"):
        space.fit_normalization({"photo": [raw["photo"][:, :1]]})


def test_the_norm_of_raw_features_does_not_matter(space, raw):
    louder = {name: 100 * rows for name, rows in raw.items()}
    torch.testing.assert_close(space.encode(louder)["words"].to_dense(), space.encode(raw)["words"].to_dense())


def test_standard_normalization_centres_and_scales_by_what_it_measured(raw):
    space = LatentSpace({"photo": 6, "words": 4}, 16, 3, normalization="standard")
    shifted = {name: 3 * rows + 5 for name, rows in raw.items()}
    space.fit_normalization(pieces(shifted))
    for rows in space.normalize(shifted).features.values():
        torch.testing.assert_close(rows.mean(dim=0), torch.zeros(rows.shape[1]), atol=1e-6, rtol=0)
        torch.testing.assert_close(rows.square().sum(dim=1).mean(), torch.tensor(1.0))


def test_a_row_of_zeros_has_no_code_and_no_say(space, raw):
    raw["photo"][2] = 0
    codes = space.encode(raw)
    assert (codes["photo"].values[2] == 0).all()
    alone = space.encode({"words": raw["words"]})["words"]
    assert torch.equal(codes["words"].indices[2], alone.indices[2])


def test_top_k_keeps_the_lowest_index_among_equals():
    scores = torch.tensor([[1.0, 3.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    assert top_k(scores, 2).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert top_k(scores, 4).tolist() == [[1, 0, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("n_latents", [1024, 1028])
@pytest.mark.parametrize("distinct", [3, 40, 10**6])
def test_top_k_of_many_scores_keeps_what_sorting_keeps(n_latents, distinct):
    """In groups or not, with many ties, few and none."""
    scores = torch.randint(distinct, (20, n_latents), generator=torch.Generator().manual_seed(0)).float()
    expected = scores.argsort(dim=1, descending=True, stable=True)[:, :9]
    assert torch.equal(top_k(scores, 9).sort(dim=1).values, expected.sort(dim=1).values)


@pytest.mark.parametrize("selection", ["global", "local"])
def test_tiles_of_samples_and_latents_select_as_the_whole(monkeypatch, selection, raw):
    """Also where many logits tie: equal ones are kept by index, across tiles too."""
    space = LatentSpace({"photo": 6, "words": 4}, n_latents=60, k=3, selection=selection).double()
    with torch.no_grad():
        for weight in space.encoders:
            weight.copy_(weight[torch.arange(60) // 4 * 7 % 60])
    raw = {name: rows.double() for name, rows in raw.items()}
    whole = space.encode(raw)
    monkeypatch.setattr("sparc.core.topk.TILE_SAMPLES", 3)
    monkeypatch.setattr("sparc.core.topk.TILE_LATENTS", 16)
    for name, codes in space.encode(raw).items():
        torch.testing.assert_close(codes.to_dense(), whole[name].to_dense(), rtol=0, atol=1e-14)
        assert torch.equal(codes.indices.sort(dim=1).values, whole[name].indices.sort(dim=1).values)


def test_of_equal_scores_in_tiles_that_each_have_no_tie_at_their_end_the_lowest_index_is_kept(monkeypatch):
    """What a tile keeps is in the order of its scores, equal ones in any; only the choice among tiles meets the tie."""
    scores = torch.randint(400, (200, 512), generator=torch.Generator().manual_seed(0)).double()
    expected = scores.argsort(dim=1, descending=True, stable=True)[:, :9]
    monkeypatch.setattr("sparc.core.topk.TILE_LATENTS", 320)
    one_hot, there = torch.eye(200, dtype=torch.float64), torch.ones(200, dtype=torch.bool)
    kept = select_shared([EncoderProduct(one_hot, scores.T, torch.zeros(512, dtype=torch.float64), there)], 9)[0]
    assert torch.equal(kept.indices.sort(dim=1).values, expected.sort(dim=1).values)
    assert torch.equal(kept.logits, scores.gather(1, expected))


def test_dense_and_csr_forms_hold_the_kept_values():
    codes = Codes(torch.tensor([[2, 0], [1, 3]]), torch.tensor([[0.5, 0.0], [1.0, 2.0]]), n_latents=4)
    dense = [[0, 0, 0.5, 0], [0, 1, 0, 2]]
    assert codes.to_dense().tolist() == dense
    assert codes.to_csr().toarray().tolist() == dense
    assert codes.to_csr().nnz == 3


def test_decode_translates_into_any_stream(space, raw):
    codes = space.encode(raw)["photo"]
    rebuilt = space.reconstruct({"photo": codes})["photo"]
    assert space.decode(codes, stream="words").shape == (8, 4)
    for name, rows in rebuilt.items():
        torch.testing.assert_close(space.decode(codes, name), rows)
    with pytest.raises(UnknownName, match="no stream named 'smell'"):
        space.decode(codes, "smell")


def test_no_samples_have_codes_and_features_too(space):
    codes = space.encode({"photo": torch.zeros(0, 6)})["photo"]
    assert space.decode(codes, "words").shape == (0, 4)


def test_codes_of_another_space_are_refused(space, raw):
    codes = LatentSpace({"photo": 6, "words": 4}, n_latents=100, k=3).encode(raw)["photo"]
    with pytest.raises(BadFeatures, match="expected codes over 16 latents, found 100"):
        space.decode(codes, "words")


@pytest.mark.parametrize("found", ["dict", "Tensor"])
def test_what_is_no_code_of_one_stream_is_refused_with_the_line_to_write(space, raw, found):
    codes = space.encode({"words": raw["words"]}) if found == "dict" else raw["photo"]
    with pytest.raises(BadFeatures, match=f"expected the Codes of one stream, found {found}") as error:
        space.decode(codes, "photo")
    source = "words" if found == "dict" else "photo"
    assert error.value.hint == f'encode gives codes by stream; write space.decode(codes["{source}"], stream="photo")'


@pytest.mark.parametrize(
    ("given", "message", "line"),
    [
        (torch.ones(2, 6), "expected features by stream, found Tensor", 'space.encode({"photo": features})'),
        (
            {"words": np.ones((2, 4))},
            r"stream 'words': expected a torch.Tensor of shape \(samples, 4\), found ndarray",
            'space.encode({"words": torch.as_tensor(features)})',
        ),
    ],
)
def test_what_is_no_tensor_by_stream_is_refused_with_the_line_to_write(space, given, message, line):
    with pytest.raises(BadFeatures, match=message) as error:
        space.encode(given)
    assert line in error.value.hint


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.ones(2, 4).to_sparse(), "found layout sparse_coo"),
        (torch.ones(2, 4, dtype=torch.complex64), "found complex values"),
        (torch.ones(2, 4, device="meta"), "found a meta tensor"),
    ],
)
def test_tensors_that_hold_no_dense_real_numbers_are_refused(space, tensor, found):
    with pytest.raises(BadFeatures, match=f"stream 'words': expected a dense tensor of real numbers, {found}"):
        space.encode({"words": tensor})


def test_complete_is_true_or_false_and_nothing_else(space, raw):
    with pytest.raises(BadFeatures, match="complete: expected True or False, found 'no'"):
        space.encode(raw, complete="no")


def test_a_single_sample_of_codes_is_a_slice(space, raw):
    codes = space.encode(raw)["words"]
    with pytest.raises(TypeError, match=r"write codes\[1:2\] for one sample"):
        codes[1]
    assert len(codes[1:2]) == 1


def test_a_space_shows_its_shape_in_one_line(space):
    assert repr(space) == (
        "LatentSpace({'photo': 6, 'words': 4}, n_latents=16, k=3, selection='global', normalization='unit')"
    )


def test_gradients_where_squares_leave_the_floats_are_finite():
    """The hand-written loss divides only by what is a divisor."""
    space = LatentSpace({"photo": 6, "words": 4}, n_latents=16, k=3, normalization="none")
    batch = space.normalize({"photo": torch.full((2, 6), 1e-30), "words": torch.ones(2, 4)})
    found = gradients(space, batch, LossWeights(cross=1.0))
    assert all(term.value.isfinite() for term in found.terms)
    beyond = found.beyond_decoder(found.decoder.dots(space.decoder))
    assert all(part.isfinite().all() for part in (beyond.latent_bias, beyond.pre_bias))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "at least one stream"),
        ({"photo": torch.ones(2, 5)}, r"'photo': expected features of shape \(samples, 6\), found \(2, 5\)"),
        ({"photo": torch.ones(6)}, r"found \(6,\)"),
        ({"photo": torch.ones(2, 6), "words": torch.ones(3, 4)}, "photo 2, words 3"),
        ({"photo": torch.tensor([[1.0] * 6, [float("nan")] * 6])}, "'photo': row 1 has a value that is not finite"),
        ({"photo": torch.full((1, 6), 1e300, dtype=torch.float64)}, "row 0 has a value that is not finite in float32"),
    ],
)
def test_features_that_do_not_fit_are_refused(space, features, message):
    with pytest.raises(BadFeatures, match=message):
        space.encode(features)


def test_what_is_not_codes_is_not_reconstructed(space, raw):
    for wrong, message in (
        (raw, "expected the Codes of one stream, found Tensor"),
        ({}, "codes by stream, found none"),
    ):
        with pytest.raises(BadFeatures, match=message):
            space.reconstruct(wrong)


@pytest.mark.parametrize("widths", [(6, 4), (128, 64, 192), (64,), (130, 64)])
def test_directions_stay_on_unit_norm_and_gradients_off_the_radius(widths):
    space = LatentSpace({str(width): width for width in widths}, n_latents=16, k=3)
    raw = {
        name: torch.randn(8, width, generator=torch.Generator().manual_seed(0)) for name, width in space.streams.items()
    }
    batch = space.normalize(raw)
    total(loss_terms(space, batch, space.encode_batch(batch), LossWeights(cross=1.0))).backward()
    before = space.decoder.grad.clone()
    space.project_decoder_gradient()
    for segment in space.segments.values():
        gradient, direction = before[:, segment], space.decoder[:, segment]
        expected = gradient - (gradient * direction).sum(dim=1, keepdim=True) * direction
        torch.testing.assert_close(space.decoder.grad[:, segment], expected)
        assert expected.norm() < 0.999 * gradient.norm()  # there was something to remove
    directions = {name: space.decoder[:, segment].detach().clone() for name, segment in space.segments.items()}
    with torch.no_grad():
        for factor, segment in enumerate(space.segments.values(), start=2):
            space.decoder[:, segment] *= factor
    space.renormalize_decoder()
    for name, segment in space.segments.items():
        torch.testing.assert_close(space.decoder[:, segment].norm(dim=1), torch.ones(16))
        torch.testing.assert_close(space.decoder[:, segment], directions[name])


def test_nmse_by_hand():
    residual = torch.tensor([[1.0, 1.0], [3.0, 0.0], [5.0, 5.0]])
    target = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    # Rows: 2/4, 9/9, and a target of zeros that does not count.
    assert nmse(residual, target, torch.tensor([True, True, True])) == 0.75
    assert nmse(residual, target, torch.tensor([False, True, True])) == 1.0
    assert nmse(residual, target, torch.tensor([False, False, True])) == 0.0


def test_gradients_of_the_sparse_products_are_exact():
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in [(4, 3), (7, 3), (7,)])
    indices = torch.stack([torch.randperm(7)[:2] for _ in range(4)])

    def kept(x, weight, bias):
        logits = torch.nn.functional.linear(x, weight, bias).detach().gather(1, indices)
        return logits_with_gradient(x, weight, bias, logits, indices)

    gathered = torch.nn.functional.linear(x, weight, bias).gather(1, indices)
    upstream = torch.randn(4, 2, dtype=torch.float64)
    expected = torch.autograd.grad(gathered, (x, weight, bias), upstream)
    found = torch.autograd.grad(kept(x, weight, bias), (x, weight, bias), upstream)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-14, rtol=0)
    values = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v, table: weighted_rows(indices, v, table), (values, weight))


def test_a_latent_sum_is_the_transpose_of_weighted_rows():
    indices = torch.tensor([[0, 2], [2, 1]])
    values = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    rows = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    entries = SortedEntries(indices, 4)
    assert sum_by_latent(LatentSum(entries, entries.in_order(values), rows)).tolist() == [
        [1, 0],
        [0, 4],
        [2, 3],
        [0, 0],
    ]


def test_a_batch_of_no_samples_has_gradients_of_zero():
    space = LatentSpace({"photo": 6, "words": 4}, n_latents=16, k=3)
    codes = space.encode({"photo": torch.zeros(0, 6), "words": torch.zeros(0, 4)})
    space.decode(codes["photo"], stream="words").sum().backward()
    assert not space.decoder.grad.any()


@pytest.mark.parametrize("kept", [5, 40])
def test_latent_sums_by_blocks_are_the_dense_product(monkeypatch, kept):
    """Latents that no sample keeps, and blocks without any entry, have sums of zero; many entries go by columns."""
    monkeypatch.setattr(cache, "BLOCK", 42)  # 14 latents, and 28 together by columns
    for name, number in {"FEWEST": 1, "CACHED": 7, "COLUMNS": 2}.items():
        monkeypatch.setattr(cache, name, number)
    torch.manual_seed(0)
    n_samples, n_latents, n_streams = 14, 138, 2
    some = torch.tensor([*range(50), *range(100, 138)])
    indices = torch.stack([some[torch.randperm(len(some))[:kept]] for _ in range(n_samples)])
    values = torch.randn(n_samples, n_streams, kept, dtype=torch.float64)
    vectors = torch.randn(n_samples, n_streams, 3, dtype=torch.float64)
    dense = torch.zeros(n_samples, n_streams, n_latents, dtype=torch.float64)
    dense.scatter_(2, indices.unsqueeze(1).expand(-1, n_streams, -1), values)
    expected = torch.einsum("bgl,bgd->ld", dense, vectors)
    entries = SortedEntries(indices, n_latents)
    summed = LatentSum(entries, entries.in_order(values), vectors)
    assert summed.out_of_cache == (kept == 40)
    assert len(summed.blocks()) == (5 if kept == 40 else 10)
    torch.testing.assert_close(torch.cat([sum_by_latent(summed, latents) for latents in summed.blocks()]), expected)
    torch.testing.assert_close(sum_by_latent(summed), expected)
    table = torch.randn(n_latents, 3, dtype=torch.float64)
    dots = torch.einsum("bgd,bkd->bgk", vectors, table[indices])
    torch.testing.assert_close(entry_dots(vectors, table, indices), dots)
    torch.testing.assert_close(dots_by_latent(summed, table), entries.in_order(dots))


@pytest.mark.parametrize(("n_latents", "k"), [(40, 3), (4096, 16), (4091, 16)])  # searched at once, and in groups
@pytest.mark.parametrize("kind", ["random", "tied", "zeros of both signs", "infinite", "not a number"])
def test_an_accelerator_keeps_the_lowest_of_equal_scores_too(n_latents, k, kind):
    torch.manual_seed(0)
    scores = torch.randn(20, n_latents)
    match kind:
        case "tied":
            scores = scores.round()
        case "zeros of both signs":
            scores = torch.tensor([0.0, -0.0])[torch.randint(2, scores.shape)]
        case "infinite":
            scores[:, ::7] = torch.inf
            scores[:, 3::5] = -torch.inf
        case "not a number":
            scores[:, ::29] = torch.nan
            scores[:, 3::31] = -torch.nan
    expected = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    assert torch.equal(top_k_without_sync(scores, k), expected)
    assert top_k_without_sync(scores[:0], k).shape == (0, k)


def test_a_weighted_sum_of_latents_is_the_plain_product():
    torch.manual_seed(0)
    for n_latents in (16, 13):  # in parts, and not
        table, values = torch.randn(n_latents, 5, dtype=torch.float64), torch.randn(n_latents, dtype=torch.float64)
        torch.testing.assert_close(weighted_sum(values, table), values @ table)


def test_no_gradient_of_size_batch_by_latents_is_kept(raw):
    """What autograd saves for backward is smaller than [B, L] for every tensor."""
    space = LatentSpace({"photo": 6, "words": 4}, n_latents=1024, k=3)
    batch = space.normalize(raw)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.shape) or tensor, lambda t: t):
        total(loss_terms(space, batch, space.encode_batch(batch), LossWeights(cross=1.0)))
    assert saved
    assert (8, 1024) not in saved


def test_dead_latents_are_counted_in_samples_per_stream(space, raw):
    raw["words"][0] = 0
    counters = ActivityCounters(space.streams, 16)
    batch = space.normalize(raw)
    codes = space.encode_batch(batch)
    counters.update(codes, batch)
    active = {name: (code.to_dense() > 1e-3).any(dim=0) for name, code in codes.items()}
    assert (counters.samples_since_active[0] == torch.where(active["photo"], 0, 8)).all()
    assert (counters.samples_since_active[1] == torch.where(active["words"], 0, 7)).all()
    assert len(counters.dead(8)["photo"].latents) == 0
    assert torch.equal(counters.dead(7)["photo"].latents, (~active["photo"]).nonzero().squeeze(1))
    assert len(counters.dead(7)["words"].latents) == 0


def test_encoding_changes_nothing_in_the_space(space, raw):
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    space.train()
    space.encode(raw)
    assert all(torch.equal(before[name], tensor) for name, tensor in space.state_dict().items())


def test_the_same_seed_draws_the_same_space_and_another_seed_another():
    first, again, other = (LatentSpace({"a": 5}, 8, 2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.decoder, again.decoder)
    assert not torch.equal(first.decoder, other.decoder)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu(space, raw):
    on_cpu = space.encode(raw)["words"].to_dense()
    on_gpu = space.cuda().encode({name: rows.cuda() for name, rows in raw.items()})["words"].to_dense()
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-5, rtol=1e-4)


def test_an_update_without_samples_of_a_stream_gives_no_nan(space):
    batch = space.normalize({"photo": torch.zeros(4, 6), "words": torch.ones(4, 4)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = total(loss_terms(space, batch, space.encode_batch(batch), LossWeights(cross=1.0)))
        loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in space.parameters())


def test_features_whose_norm_is_beyond_float32_have_no_scale():
    space = LatentSpace({"a": 8}, 16, 2, normalization="standard")
    largest = torch.finfo(torch.float32).max * torch.tensor([1.0, -1.0]).unsqueeze(1) * torch.ones(2, 8)
    with pytest.raises(BadFeatures, match=r"stream 'a': expected features whose norm is a number of float32"):
        space.fit_normalization({"a": [largest]})
    space.fit_normalization({"a": [largest / 4]})
    assert space.encode({"a": largest / 4})["a"].values.isfinite().all()
