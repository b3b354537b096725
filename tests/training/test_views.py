"""Dropout and guesses in training: what the encoders read, what selects, and the step by hand with both."""

import itertools

import pytest
import torch

from sparc import SharedLatentSpace, SpaceConfig
from sparc.config import TrainingConfig
from sparc.core.completion import Completion
from sparc.core.losses import LossWeights, loss_terms, total
from sparc.storage.run import Run
from sparc.training.gradients import gradients
from sparc.training.loader import FeaturesInMemory
from sparc.training.trainer import Hooks, Training, held_out, prepare, train
from sparc.training.views import Views

WIDTHS = {"a": 6, "b": 5, "c": 4}
NOTHING = {"stream_dropout": 0.0, "input_dropout": 0.0}


def space(selection="global", seed=0, dtype=torch.float64):
    config = SpaceConfig(streams=WIDTHS, n_latents=30, k=4, normalization="none", selection=selection)
    made = SharedLatentSpace(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    made.renormalize_decoder()
    root = torch.randn(15, 15, dtype=torch.float64, generator=generator)
    made.completion = Completion(WIDTHS, torch.zeros(15), root.float(), 0.5)
    return made.to(dtype)


def batch_of(made, count=40, lacking=()):
    generator = torch.Generator().manual_seed(1)
    raw = {name: torch.randn(count, width, generator=generator).to(made.decoder) for name, width in WIDTHS.items()}
    for name, row in lacking:
        raw[name][row] = 0
    return made.normalize(raw)


def after(steps):
    """Ask to stop after so many steps."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def views(made, **rates):
    return Views(made, TrainingConfig(seed=3, **{**NOTHING, **rates}))


def test_without_dropout_and_with_all_streams_the_batch_is_left_alone():
    made = space()
    batch = batch_of(made)
    assert views(made).of(batch, 0) is batch


def test_a_stream_that_a_sample_lacks_is_guessed_in_the_selection_and_has_a_code_of_zeros():
    made = space()
    batch = batch_of(made, lacking=[("b", 2)])
    seen = views(made).of(batch, 0)
    guess = made.completion.guess({name: batch.features[name][2:3] for name in ("a", "c")})["b"]
    torch.testing.assert_close(seen.selecting["b"][2:3], guess)
    assert torch.equal(seen.selecting["b"][3:], batch.features["b"][3:])
    codes = made.encode_batch(seen)
    assert not codes["b"].values[2].any()
    # The selection is that of the completed encoding.
    expected = made.encode({name: batch.features[name][2:3] for name in ("a", "c")})["a"]
    assert codes["a"].indices[2].tolist() == expected.indices[0].tolist()
    torch.testing.assert_close(codes["a"].values[2], expected.values[0])


def test_with_stream_dropout_of_one_each_sample_selects_by_one_stream():
    made = space()
    batch = batch_of(made)
    seen = views(made, stream_dropout=1.0).of(batch, 7)
    codes = made.encode_batch(seen)
    alone = {name: made.encode({name: batch.features[name]})[name] for name in WIDTHS}
    selected_by = [
        [name for name in WIDTHS if alone[name].indices[row].tolist() == codes["a"].indices[row].tolist()]
        for row in range(40)
    ]
    assert all(selected_by)
    assert {name for names in selected_by for name in names} == set(WIDTHS)
    # Values are those of each stream's own features.
    for number, name in enumerate(WIDTHS):
        logits = made.centered(name, batch.features[name]) @ made.encoders[number].T + made.latent_bias[number]
        torch.testing.assert_close(codes[name].values, torch.relu(logits.gather(1, codes[name].indices)))


def test_a_sample_never_selects_by_a_stream_that_it_lacks():
    made = space()
    batch = batch_of(made, lacking=[(name, row) for row in range(30) for name in ("a", "b")])
    codes = made.encode_batch(views(made, stream_dropout=1.0).of(batch, 7))
    alone = made.encode({"c": batch.features["c"][:30]})["c"]
    assert torch.equal(codes["c"].indices[:30], alone.indices)


def test_about_the_given_part_of_the_samples_and_features_is_dropped():
    made = space()
    batch = batch_of(made, count=4000)
    seen = views(made, stream_dropout=0.3, input_dropout=0.25).of(batch, 0)
    hidden = seen.inputs["a"] == made.pre_bias[made.segments["a"]]
    assert abs(hidden.double().mean() - 0.25) < 0.02
    kept = (seen.inputs["a"] - made.pre_bias[made.segments["a"]])[~hidden]
    torch.testing.assert_close(kept, ((batch.features["a"] - made.pre_bias[made.segments["a"]]) / 0.75)[~hidden])
    guessed = (seen.selecting["a"] != seen.inputs["a"]).any(dim=1)
    assert abs(guessed.double().mean() - 0.3 * 2 / 3) < 0.03


def test_draws_depend_on_seed_and_step_alone():
    made = space()
    batch = batch_of(made)

    def inputs(seed, step):
        return Views(made, TrainingConfig(seed=seed)).of(batch, step).inputs["a"]

    assert torch.equal(inputs(0, 5), inputs(0, 5))
    assert torch.equal(inputs(2**63 - 1, 5), inputs(2**63 - 1, 5))
    assert not torch.equal(inputs(0, 5), inputs(0, 6))
    assert not torch.equal(inputs(0, 5), inputs(1, 5))


@pytest.mark.parametrize("lacking", [(), (("a", 0), ("b", 1), ("a", 2), ("b", 2), ("c", 5))])
@pytest.mark.parametrize(
    "rates", [{"stream_dropout": 0.5}, {"input_dropout": 0.3}, {"stream_dropout": 0.5, "input_dropout": 0.3}]
)
def test_the_gradients_by_hand_are_those_of_autograd(rates, lacking):
    made = space()
    seen = views(made, **rates).of(batch_of(made, lacking=lacking), 3)
    weights = LossWeights(cross=0.7)
    terms = loss_terms(made, seen, made.encode_batch(seen), weights)
    total(terms).backward()
    found = gradients(made, seen, weights)
    for term, other in zip(found.terms, terms, strict=True):
        torch.testing.assert_close(term.value, other.value)
    beyond = found.beyond_decoder(found.decoder.dots(made.decoder.detach()))
    torch.testing.assert_close(found.decoder.block(slice(0, 30)), made.decoder.grad)
    for gradient, weight in zip(beyond.encoders, made.encoders, strict=True):
        torch.testing.assert_close(gradient.block(slice(0, 30)), weight.grad)
    torch.testing.assert_close(beyond.latent_bias, made.latent_bias.grad)
    torch.testing.assert_close(beyond.pre_bias, made.pre_bias.grad)


def test_without_a_completion_the_streams_that_do_not_select_are_not_guessed():
    made = space()
    made.completion = None
    batch = batch_of(made)
    codes = made.encode_batch(views(made, stream_dropout=1.0).of(batch, 7))
    alone = {name: made.encode({name: batch.features[name]})[name] for name in WIDTHS}
    for row in range(40):
        chosen = codes["a"].indices[row].tolist()
        assert any(alone[name].indices[row].tolist() == chosen for name in WIDTHS)
    for number, name in enumerate(WIDTHS):
        logits = made.centered(name, batch.features[name]) @ made.encoders[number].T + made.latent_bias[number]
        torch.testing.assert_close(codes[name].values, torch.relu(logits.gather(1, codes[name].indices)))


def test_local_selection_drops_inputs_but_no_streams():
    made = space("local")
    made.completion = None
    seen = views(made, stream_dropout=0.5, input_dropout=0.2).of(batch_of(made), 0)
    assert seen.selecting is None
    assert seen.inputs is not None


def test_the_pre_bias_begins_at_the_mean_of_the_normalised_features_that_are_there():
    made = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=30, k=4, normalization="unit"))
    raw = {
        name: torch.randn(200, width, generator=torch.Generator().manual_seed(width)) for name, width in WIDTHS.items()
    }
    raw["b"][:50] = 0
    prepare(made, FeaturesInMemory({name: rows.split(64) for name, rows in raw.items()}), TrainingConfig())
    for name, segment in made.segments.items():
        there = raw[name][50:] if name == "b" else raw[name]
        expected = torch.nn.functional.normalize(there, dim=1).mean(dim=0)
        torch.testing.assert_close(made.pre_bias[segment].detach(), expected)
    assert made.completion is not None


@pytest.mark.parametrize(
    ("widths", "selection", "completion"),
    [({"a": 6}, "global", "linear"), (WIDTHS, "local", "linear"), (WIDTHS, "global", "none")],
)
def test_one_stream_and_local_selection_need_no_completion(widths, selection, completion):
    made = SharedLatentSpace(SpaceConfig(streams=widths, n_latents=30, k=4, selection=selection))
    raw = {name: torch.randn(50, width) for name, width in widths.items()}
    prepare(made, FeaturesInMemory({name: [rows] for name, rows in raw.items()}), TrainingConfig(completion=completion))
    assert made.completion is None


def test_captions_of_one_image_count_once_each_in_the_mean():
    made = SharedLatentSpace(SpaceConfig(streams={"a": 2, "b": 2}, n_latents=8, k=2, normalization="none"))
    images, captions = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [4.0, 0.0], [6.0, 0.0]])
    rows = {"a": torch.tensor([0, 0, 1]), "b": torch.tensor([0, 1, 2])}
    prepare(made, FeaturesInMemory({"a": [images], "b": [captions]}, rows), TrainingConfig())
    torch.testing.assert_close(made.pre_bias.detach(), torch.tensor([2 / 3, 1 / 3, 4.0, 0.0]))


def test_resuming_with_dropout_and_missing_streams_gives_the_same_bits(tmp_path):
    raw = {
        name: torch.randn(100, width, generator=torch.Generator().manual_seed(width)) for name, width in WIDTHS.items()
    }
    raw["b"][::3] = 0
    features = FeaturesInMemory({name: [rows] for name, rows in raw.items()})
    config = TrainingConfig(epochs=4, batch_size=20, lr=1e-2)

    def run(name, stops):
        one = Run.create(tmp_path / name)
        for stop in stops:
            fresh = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=30, k=4))
            if train(fresh, config, features, one, Hooks(should_stop=after(stop))):
                return [(one.path / file).read_bytes() for file in ("model.safetensors", "completion.safetensors")]
        raise AssertionError("the training did not end")

    assert run("whole", [99]) == run("parts", [3, 8, 99])


def test_pairs_that_are_lost_cost_less_with_guesses_than_without():
    """Three views of common causes; each sample shows one or all of them."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(700, 8, generator=generator).relu() * (torch.rand(700, 8, generator=generator) < 0.3)
    raw = {name: causes @ torch.randn(8, width, generator=generator) for name, width in WIDTHS.items()}
    for name, rows in raw.items():
        rows += 0.05 * torch.randn(rows.shape, generator=generator)
        kept = torch.arange(700) % 3 == list(WIDTHS).index(name)
        rows[:450][~kept[:450]] = 0
    features = FeaturesInMemory({name: [rows[:500]] for name, rows in raw.items()})
    new = {name: rows[500:] for name, rows in raw.items()}

    def solo_overlap(**options):
        config = TrainingConfig(epochs=30, batch_size=100, lr=1e-2, **options)
        made = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=24, k=3), seed=0)
        prepare(made, features, config)
        training = Training(made, config)
        order = torch.Generator().manual_seed(0)
        for _ in range(30):
            for rows in torch.randperm(500, generator=order).split(100):
                training.advance(made.normalize({name: features.shards[name][0][rows] for name in WIDTHS}))
        active = {name: made.encode({name: x})[name].to_dense() > 0 for name, x in new.items()}
        return float((active["a"] & active["b"]).sum() / (active["a"] | active["b"]).sum())

    assert solo_overlap() > 1.2 * solo_overlap(completion="none", stream_dropout=0.0, input_dropout=0.0)


def test_all_captions_of_an_image_are_on_the_same_side_of_the_choice_of_the_completion():
    image_of = torch.arange(500).repeat_interleave(5)
    rows = {"captions": torch.arange(2500), "images": image_of}
    features = FeaturesInMemory({"captions": [torch.zeros(2500, 2)], "images": [torch.zeros(500, 2)]}, rows)
    drawn = held_out(features)
    assert drawn.sum() == 500
    assert all(len(set(drawn[image_of == image].tolist())) == 1 for image in range(500))


def test_neighbours_are_drawn_apart():
    """A file may be sorted by label: a block of neighbours would be harder to guess than new samples are."""
    drawn = held_out(FeaturesInMemory({"a": [torch.zeros(600, 2), torch.zeros(400, 2)]}))
    assert drawn.sum() == 200
    assert (drawn[1:] != drawn[:-1]).sum() > 200
