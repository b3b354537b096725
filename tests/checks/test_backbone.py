"""The contract of backbones as checks: our backbones pass, and a broken promise says what to change."""

import operator
from dataclasses import replace
from functools import partial

import pytest
import torch

from sparc.errors import PluginError
from sparc.plugins import BackboneSpec
from sparc.plugins.checks import check_backbone
from sparc.plugins.checks.backbone import backbone_outcomes
from sparc.plugins.registry import discover


def mean_colours(samples):
    return torch.stack([torch.tensor(sample.image().resize((1, 1)).getpixel((0, 0))) for sample in samples]).float()


class Good:
    """Mean colour, with a grid of one patch."""

    width = 3

    def __init__(self, **changes):
        self.preprocess = mean_colours
        for name, value in changes.items():
            setattr(self, name, value)

    def forward(self, batch):
        return batch + 1


class Letters:
    """Counts of each letter in a caption."""

    width = 26

    def __init__(self, **changes):
        self.preprocess = letters
        for name, value in changes.items():
            setattr(self, name, value)

    def forward(self, batch):
        return batch

    def words(self, caption):
        return [(word, [place]) for place, word in enumerate(caption.split())]


def letters(samples):
    alphabet = [chr(ord("a") + number) for number in range(26)]
    return torch.tensor([[1.0 + sample.text().lower().count(letter) for letter in alphabet] for sample in samples])


def spec(made, *, modality="image", **changes):
    # The module of `load` is `operator`, since this module imports torch.
    load = partial(operator.call, lambda params, device: made)
    return replace(BackboneSpec("good", modality, load, summary="colours"), **changes)


def broken(found):
    return {one.promise: f"{one.error.message}; {one.error.hint}" for one in found if one.error is not None}


def test_backbones_that_keep_the_contract_pass():
    check_backbone(spec(Good(), width=3))
    check_backbone(spec(Letters(), modality="text"))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("effnet-lite0", {"weights": "random"}),
        ("timm", {"model": "test_vit", "weights": "random"}),
        ("clip-txt", {"model": "ViT-S-32-alt", "weights": "random"}),
        ("clip-img", {"model": "ViT-S-32-alt", "weights": "random"}),
        ("minilm", {}),
    ],
)
def test_ours_keep_it(name, params, use_example):
    check_backbone(discover().backbone(name), params)


class Draws(Good):
    """A different feature each time, like dropout."""

    calls = 0

    def forward(self, batch):
        self.calls += 1
        return batch + 10 * self.calls


class LooksAround(Good):
    def forward(self, batch):
        return batch - batch.mean(dim=0) + 1


class OneColour(Good):
    def forward(self, batch):
        return torch.ones(len(batch), 3)


class Infinite(Good):
    def forward(self, batch):
        return batch / 0


class Flat(Good):
    def forward(self, batch):
        return batch[:, :2]


class Raises(Good):
    def forward(self, batch):
        raise KeyError("layer")


class Patches(Good):
    grid = (2, 2)

    def forward_tokens(self, batch):
        return self.forward(batch), torch.zeros(len(batch), 5, 3)


def only_large(samples):
    for sample in samples:
        if min(sample.image().size) < 2:
            raise ValueError("too small")
    return mean_colours(samples)


@pytest.mark.parametrize(
    ("made", "promise", "found"),
    [
        (Draws(), "the same sample has the same features again", "put the model in eval mode"),
        (LooksAround(), "a sample's features do not depend on its neighbours", "mask the padding of a batch"),
        (OneColour(), "features are finite, and differ between samples", "make forward depend on the batch"),
        (Infinite(), "features are finite, and differ between samples", "not finite"),
        (Flat(), "features are (samples, width) in floating point", "returns torch.float32 (3, 2), expected .* (3, 3)"),
        (Raises(), "features are (samples, width) in floating point", "it raises KeyError: 'layer'"),
        (object(), "it loads", "a object that lacks width, preprocess or forward"),
        (
            Good(preprocess=lambda samples: mean_colours(samples)),
            "its preprocess can be sent",
            "function of a module",
        ),
        (Good(preprocess=only_large), "it reads images of any kind and shape", "of one pixel raises ValueError"),
        (Patches(), "its patches are", "patches are (3, 5, 3), expected (3, 4, 3); .* class and register tokens"),
    ],
)
def test_a_broken_promise_says_what_was_found_and_what_to_change(made, promise, found):
    said = broken(backbone_outcomes(spec(made)))
    kept = next((text for name, text in said.items() if name.startswith(promise)), None)
    assert kept is not None, said
    assert all(part.strip() in kept for part in found.split(".*"))


def test_what_a_spec_says_is_checked_without_loading():
    told = broken(backbone_outcomes(spec(Good(), name="My Model", summary="", width=5, modality="images")))
    assert "choose small letters" in told["its name and summary can be listed"]
    assert "modality='image' or 'text'" in told["it reads images or text"]
    told = broken(backbone_outcomes(spec(Good(), width=5)))
    assert told == {
        "its width is the spec's": "the spec says 5, the model has 3; correct the spec's width, or leave it out"
    }
    counted = iter("12345678")
    told = broken(backbone_outcomes(spec(Good(), identify=lambda params: next(counted))))
    assert "identify gives '1', then '2'" in told["its weights have an identity"]


def test_words_that_are_not_the_captions_are_found():
    class Wrong(Letters):
        def words(self, caption):
            return [("bus", [0]), ("red", [1])]

    told = broken(backbone_outcomes(spec(Wrong(), modality="text")))
    assert "it has the word 'red'" in told["its words are the caption's, in order"]


def test_a_plugin_that_imports_a_heavy_library_is_told(tmp_path, monkeypatch):
    (tmp_path / "heavy_plugin.py").write_text("import torch\n\ndef load(params, device):\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import heavy_plugin

    told = broken(backbone_outcomes(spec(None, load=heavy_plugin.load)))
    assert "importing heavy_plugin imports torch" in told["listing it imports no heavy library"]


def test_check_backbone_names_all_that_is_broken():
    with pytest.raises(PluginError) as error:
        check_backbone(spec(Draws(), name="My Model"))
    assert "breaks 3 of its promises" in error.value.message
    assert "neighbours" in error.value.message


def test_the_command_says_what_holds_and_what_does_not(sparc_here):
    done = sparc_here("plugins", "check", "hog")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok      a sample's features do not depend on its neighbours" in done.stdout
    done = sparc_here("plugins", "check", "hog[size=8]")
    assert done.returncode == 1
    assert "broken  it loads" in done.stdout or "broken  features" in done.stdout
    assert "error: 'hog' breaks" in done.stderr
    assert sparc_here("plugins", "check", "hog[size").returncode == 1
    done = sparc_here("plugins", "check", "hog[bin=12]")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 'hog': unknown parameter 'bin'\nhint: ")
    done = sparc_here("plugins", "check", "hogg")
    assert "no plugin offers a stream or dataset named 'hogg'" in done.stderr
