"""The share of a match that each word of a caption carries."""

from __future__ import annotations

from typing import Any, NamedTuple

from sparc.errors import PluginError
from sparc.localization.methods import by_gradient
from sparc.localization.targets import Target
from sparc.localization.trace import traced
from sparc.plugins.contracts import Backbone, WordBackbone


class Word(NamedTuple):
    """A word of a caption, as the model's tokenizer reads it."""

    text: str
    relevance: float
    """Sum over the word's tokens, as a share of the relevance of all words."""


def words_of(name: str, backbone: Backbone, caption: str, batch: Any, target: Target) -> tuple[Word, ...]:
    """Return the attention relevance of each word for a target; empty if the backbone offers no words or no attention.

    name: the stream, for errors.
    batch: the caption as a batch of one, preprocessed. Words beyond the model's context are missing.
    """
    if not isinstance(backbone, WordBackbone):
        return ()
    try:
        features_1D, trace = traced(name, backbone, batch)
        n_tokens = trace.attention[0].weights.shape[-1] if trace.attention else 1
        relevance_T = by_gradient("relevance", name, features_1D.float(), trace, (1, n_tokens), target).tolist()
    except PluginError:  # words are an extra: the map does not need them
        return ()
    words = [(word, sum(relevance_T[token] for token in tokens)) for word, tokens in backbone.words(caption)]
    total = sum(value for _, value in words) or 1.0
    return tuple(Word(word, value / total) for word, value in words)
