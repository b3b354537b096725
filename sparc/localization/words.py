"""Which words of a caption a match hangs on."""

from __future__ import annotations

from typing import Any, NamedTuple

from sparc.errors import PluginError
from sparc.localization.methods import by_gradient
from sparc.localization.targets import Target
from sparc.localization.trace import traced
from sparc.plugins.contracts import Backbone, WordBackbone


class Word(NamedTuple):
    """A word as the model reads it."""

    text: str
    relevance: float
    """Of its tokens together, as a share of all words' relevance."""


def words_of(name: str, backbone: Backbone, caption: str, batch: Any, target: Target) -> tuple[Word, ...]:
    """Attention relevance of each word for the target; none where the backbone does not tell words or attention.

    batch: the caption alone, as the backbone prepares it. Words that the model cut off are missing.
    """
    if not isinstance(backbone, WordBackbone):
        return ()
    try:
        features_1D, trace = traced(name, backbone, batch)
        n_tokens = trace.attention[0].weights.shape[-1] if trace.attention else 1
        relevance_T = by_gradient("relevance", name, features_1D.float(), trace, (1, n_tokens), target).tolist()
    except PluginError:  # a map needs no words
        return ()
    words = [(word, sum(relevance_T[token] for token in tokens)) for word, tokens in backbone.words(caption)]
    total = sum(value for _, value in words) or 1.0
    return tuple(Word(word, value / total) for word, value in words)
