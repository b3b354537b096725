"""Attaching a stream: the others stay as they are, to the bit, and the newcomer learns to agree with them."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparc import SharedLatentSpace, SpaceConfig
from sparc.config import TrainingConfig
from sparc.core.completion import Completion
from sparc.core.newcomer import Newcomer
from sparc.errors import CorruptFile
from sparc.storage.checkpoint import load
from sparc.storage.completion_file import read_completion, write_completion
from sparc.storage.detached import without
from sparc.storage.run import Run
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL
from sparc.training.attaching import AttachedTraining, attached
from sparc.training.loader import FeaturesInMemory
from sparc.training.trainer import Hooks, completion_of, run_to_end, train
from sparc.training.views import Views
from tests.training.test_trainer import after

WIDTHS = {"a": 12, "b": 70, "c": 9, "d": 64}
CONFIG_OF_ALL = TrainingConfig(epochs=3, batch_size=32, lr=1e-2, seed=5, dead_after=100, k_aux=4)
PAPER = {"completion": "none", "pre_bias": "zeros", "stream_dropout": 0.0, "input_dropout": 0.0}


def drawn(count=300, seed=0):
    """Raw features of four streams that see the same six hidden causes; some samples lack some of them."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(count, 6, generator=generator).relu()
    x = {}
    for name, width in WIDTHS.items():
        directions = torch.randn(6, width, generator=torch.Generator().manual_seed(width))
        x[name] = causes @ directions + 0.1 * torch.randn(count, width, generator=generator)
        x[name][torch.rand(count, generator=generator) < 0.1] = 0
    return x


def features(streams, **changes):
    return FeaturesInMemory({name: (rows,) for name, rows in {**drawn(), **changes}.items() if name in streams})


def trained(path, streams=("a", "b"), **options):
    shape = {name: options.pop(name) for name in ("normalization", "selection") if name in options}
    space = SharedLatentSpace(
        SpaceConfig(streams={name: WIDTHS[name] for name in streams}, n_latents=48, k=4, **shape), seed=1
    )
    config = CONFIG_OF_ALL.model_copy(update=options)
    assert train(space, config, features(streams), Run.create(path))
    return load(path)


def attach(path, space, stream, config=CONFIG_OF_ALL):
    wider = attached(space, stream, features((*space.streams, stream)))
    assert run_to_end(AttachedTraining(wider, config), features(wider.streams), Run.create(path))
    return load(path)


def same(one, other):
    """Return True if two encodings agree to the bit in every number of the streams that both have."""
    return all(
        torch.equal(one[name].indices, other[name].indices)
        and torch.equal(one[name].values, other[name].values)
        and one[name].translations.keys() == other[name].translations.keys()
        and all(torch.equal(rows, other[name].translations[to]) for to, rows in one[name].translations.items())
        for name in one
    )


def subsets(streams):
    return [some for count in range(1, len(streams) + 1) for some in itertools.combinations(streams, count)]


WAYS = {
    "recommended": {},
    "standard": {"normalization": "standard"},
    "the paper's": PAPER,
    "local": {"selection": "local"},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_codes_of_the_other_streams_stay_the_same_to_the_bit_in_every_subset(tmp_path, options):
    two = trained(tmp_path / "two", **options)
    config = CONFIG_OF_ALL.model_copy(update={name: value for name, value in options.items() if name in PAPER})
    three = attach(tmp_path / "three", two, "c", config)
    four = attach(tmp_path / "four", three, "d", config)
    new = drawn(50, seed=9)
    assert four.config.attached == ("c", "d")
    with torch.inference_mode():
        for before, later in ((two, three), (two, four), (three, four)):
            for some, complete in itertools.product(subsets(list(before.streams)), (True, False)):
                x = {name: new[name] for name in some}
                expected = before.encode(x, complete=complete)
                assert same(expected, later.encode(x, complete=complete)), (some, complete)
                zeros = {name: torch.zeros_like(new[name]) for name in later.streams if name not in before.streams}
                assert same(expected, later.encode({**x, **zeros}, complete=complete)), (some, complete)
            for source, target in itertools.product(before.streams, repeat=2):
                codes = before.encode({source: new[source]})[source]
                assert torch.equal(before.decode(codes, target), later.decode(codes, target))
    with_newcomer = four.encode({name: new[name] for name in ("a", "c")})["a"]
    alone = two.encode({"a": new["a"]})["a"]
    assert torch.equal(with_newcomer.indices, alone.indices) == (options.get("selection") == "local")


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_detaching_gives_back_the_files_of_the_space_it_was_attached_to(tmp_path, options):
    two = trained(tmp_path / "two", **options)
    three = attach(tmp_path / "three", two, "c")
    without(three, "c").save_pretrained(tmp_path / "again", training=CONFIG_OF_ALL.model_copy(update=options))
    files = [MODEL, CONFIG, COMPLETION] if two.completion is not None else [MODEL, CONFIG]
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert (tmp_path / "again" / COMPLETION).is_file() == (two.completion is not None)


def test_without_a_founding_stream_the_others_stay(tmp_path):
    three = attach(tmp_path / "three", trained(tmp_path / "two"), "c")
    left = without(three, "a")
    assert (left.streams, left.config.attached) == ({"b": 70, "c": 9}, ("c",))
    new = drawn(20, seed=9)
    for name in ("b", "c"):
        expected = three.encode({name: new[name]}, complete=False)[name]
        assert same({name: expected}, left.encode({name: new[name]}, complete=False))
    guess = three.completion.guess({"c": new["c"]})["b"]
    torch.testing.assert_close(left.completion.guess({"c": new["c"]})["b"], guess)
    assert without(without(three, "c"), "a").completion is None  # one stream is left, so none can be missing


def test_the_newcomer_begins_at_the_mean_of_the_logits_that_its_features_let_expect(tmp_path):
    two = trained(tmp_path / "two")
    wider = attached(two, "c", features(("a", "b", "c")))
    batch = wider.normalize({"c": drawn(10, seed=9)["c"]})
    guessed = wider.completion.guess(batch.features)
    weight, bias = wider.encoder("c")
    found = wider.centered("c", batch.features["c"]) @ weight.T + bias
    expected = sum(
        two.centered(name, guessed[name]) @ two.encoder(name)[0].T + two.encoder(name)[1] for name in ("a", "b")
    )
    torch.testing.assert_close(found, expected / 2, atol=1e-4, rtol=1e-4)


def test_its_directions_begin_at_the_mean_features_of_the_samples_weighted_by_their_codes(tmp_path):
    two = trained(tmp_path / "two")
    wider = attached(two, "c", features(("a", "b", "c")))
    x = drawn()
    batch = wider.normalize(x_of(x, "abc"))
    codes = two.encode(x_of(x, "ab"))
    expected = torch.zeros(48, 9)
    for row in range(len(x["c"])):
        there = [name for name in "ab" if batch.present[name][row]]
        z = sum(codes[name].to_dense()[row] for name in there) / max(1, len(there)) if there else torch.zeros(48)
        if batch.present["c"][row]:
            expected += torch.outer(z, wider.centered("c", batch.features["c"])[row])
    active = expected.square().sum(dim=1) > 0
    assert active.sum() > 10
    directions = expected[active] / expected[active].norm(dim=1, keepdim=True)
    torch.testing.assert_close(wider.decoder[active][:, wider.segments["c"]], directions, atol=1e-4, rtol=1e-4)
    assert torch.equal(wider.decoder[:, : wider.segments["c"].start], two.decoder)
    norms = wider.decoder[:, wider.segments["c"]].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(48))


def x_of(x, streams):
    return {name: x[name] for name in streams}


def overlap(space, one, other, x):
    """Share of the latents that two streams, each encoded alone, both keep."""
    there = x[one].any(dim=1) & x[other].any(dim=1)
    first, second = (space.encode({name: x[name][there]})[name].indices for name in (one, other))
    return sum(len(set(a) & set(b)) / 4 for a, b in zip(first.tolist(), second.tolist(), strict=True)) / len(first)


def test_a_trained_newcomer_keeps_the_latents_that_the_others_keep_and_rebuilds_them(tmp_path):
    two = trained(tmp_path / "two", epochs=20)
    begun = attached(two, "c", features(("a", "b", "c")))
    three = attach(tmp_path / "three", two, "c", CONFIG_OF_ALL.model_copy(update={"epochs": 20}))
    new = drawn(100, seed=9)
    founding = overlap(two, "a", "b", new)
    assert overlap(three, "c", "a", new) > 0.85 * founding > 0.5

    def error(space, source, target):
        there = new[source].any(dim=1) & new[target].any(dim=1)
        code = space.encode({source: new[source][there]})[source]
        x = space.normalize({target: new[target][there]}).features[target]
        return ((space.decode(code, target) - x).square().sum() / x.square().sum()).item()

    for source, target in (("c", "c"), ("a", "c")):
        assert error(three, source, target) < 0.9 * error(begun, source, target)
    for target in ("a", "b"):
        assert error(three, "c", target) < 0.2


@pytest.mark.parametrize("steps", [1, 12])
def test_an_interrupted_attachment_resumes_to_the_same_bits(tmp_path, steps):
    two = trained(tmp_path / "two")
    whole = attach(tmp_path / "whole", two, "c")
    data, run = features(("a", "b", "c")), Run.create(tmp_path / "stopped")
    for stop in (after(steps), lambda: False):
        training = AttachedTraining(attached(two, "c", data), CONFIG_OF_ALL)
        run_to_end(training, data, run, Hooks(should_stop=stop))
    for name in (MODEL, COMPLETION, CONFIG):
        assert (run.path / name).read_bytes() == (whole.directory / name).read_bytes()


def test_a_stream_that_nothing_can_be_guessed_from_keeps_drawn_weights(tmp_path):
    """Without correlated features the closed form would be zero, and the same latents would be kept for all samples."""
    two = trained(tmp_path / "two", **PAPER)
    noise = torch.randn(300, 9, generator=torch.Generator().manual_seed(8))
    alike = dict.fromkeys("ab", torch.zeros(300, 1))
    data = features("abc", c=noise, a=alike["a"].expand(300, 12), b=alike["b"].expand(300, 70))
    weight, _ = attached(two, "c", data).encoder("c")
    assert weight.abs().sum() > 0


def test_a_newcomer_that_does_not_select_adds_nothing_in_training(tmp_path):
    wider = attached(trained(tmp_path / "two"), "c", features(("a", "b", "c")))
    batch = wider.normalize({name: rows for name, rows in drawn(60, seed=9).items() if name in "abc"})
    seen = Views(wider, CONFIG_OF_ALL.model_copy(update={"stream_dropout": 0.8, "input_dropout": 0.0})).of(batch, 0)
    codes = wider.encode_batch(seen)
    selects = seen.selects["c"]
    assert 0 < selects.sum() < 40
    assert not (selects & ~batch.present["c"]).any()
    others = seen._replace(**{part: {name: getattr(seen, part)[name] for name in "ab"} for part in seen._fields[:2]})
    others = others._replace(inputs=None, selecting={name: seen.selecting[name] for name in "ab"}, selects=None)
    expected = wider.encode_batch(others)["a"].indices
    for row in range(60):
        alike = set(codes["a"].indices[row].tolist()) == set(expected[row].tolist())
        assert alike or selects[row]


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    n_attached=st.integers(0, 3),
    rank=st.integers(0, 3),
    ridges=st.lists(st.floats(1e-30, 1e30), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_a_completion_comes_back_whole_from_its_file(tmp_path_factory, widths, n_attached, rank, ridges, seed):
    n_attached = min(n_attached, len(widths) - 1)
    streams = {f"s.{number}": width for number, width in enumerate(widths)}
    names = list(streams)[len(widths) - n_attached :]
    config = SpaceConfig(streams=streams, n_latents=8, k=2, attached=tuple(names))
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(shape, generator=generator)

    total = sum(config.founding.values())
    newcomers = {
        name: Newcomer(numbers(streams[name]), numbers(rank, streams[name]), numbers(number, streams[name]), ridge)
        for number, (name, ridge) in enumerate(zip(names, ridges[1:], strict=False))
    }
    completion = Completion(config.founding, numbers(total), numbers(rank, total), ridges[0], newcomers)
    folder = tmp_path_factory.mktemp("completion")
    write_completion(folder, completion)
    found = read_completion(folder, config)
    assert (found.streams, found.attached, found.ridge) == (config.founding, config.attached, ridges[0])
    assert torch.equal(found.mean, completion.mean)
    assert torch.equal(found.factor, completion.factor)
    for name, one in newcomers.items():
        same = found.newcomers[name]
        assert same.ridge == one.ridge
        assert all(torch.equal(getattr(same, part), getattr(one, part)) for part in ("mean", "common", "own"))
    before = (folder / COMPLETION).read_bytes()
    write_completion(folder, found)
    assert (folder / COMPLETION).read_bytes() == before


def test_an_attached_space_without_a_completion_is_completed_with_its_newcomers(tmp_path):
    three = attach(tmp_path / "three", trained(tmp_path / "two", **PAPER), "c", CONFIG_OF_ALL.model_copy(update=PAPER))
    three.completion = completion_of(three, features(("a", "b", "c")), "linear")
    assert (three.completion.streams, three.completion.attached) == ({"a": 12, "b": 70}, ("c",))
    three.save_pretrained(tmp_path / "completed")
    new = drawn(40, seed=9)
    alone = {"c": new["c"]}
    assert same(three.encode(alone), load(tmp_path / "completed").encode(alone))
    guess = three.completion.guess(three.normalize(alone).features)["a"]
    there = new["a"].any(dim=1) & new["c"].any(dim=1)
    x = three.normalize({"a": new["a"]}).features["a"]
    assert (guess - x)[there].square().sum() < 0.3 * (x - three.completion.mean_of("a"))[there].square().sum()


def test_a_completion_file_that_lacks_an_attached_stream_is_damaged(tmp_path):
    two = trained(tmp_path / "two")
    three = attach(tmp_path / "three", two, "c")
    (tmp_path / "three" / COMPLETION).write_bytes((tmp_path / "two" / COMPLETION).read_bytes())
    with pytest.raises(CorruptFile, match=r"is truncated or does not fit config\.json"):
        load(tmp_path / "three")
    assert three.completion.attached == ("c",)
