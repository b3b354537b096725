"""Text encoders of transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparc.plugins import Sample
from sparc_plugins.hf_encoders.encoder import Encoder, check_pool, reduce

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Preprocessing with the model's own tokenizer. Picklable."""

    tokenizer: Any
    max_length: int
    padding: str
    """`longest`, or `max_length`."""

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return token ids and attention mask (B, T) of the captions, truncated to `max_length` tokens."""
        return dict(self._encoded([sample.text() for sample in samples], return_tensors="pt"))

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Return the words between spaces, with the positions of their tokens; none if the tokenizer has no offsets."""
        if not self.tokenizer.is_fast:
            return []
        places = self._encoded([caption], return_offsets_mapping=True)["offset_mapping"][0]
        words: list[tuple[str, list[int]]] = []
        for word in re.finditer(r"\S+", caption):
            # In some tokenizers a token begins with the space before the word.
            inside = [token for token, (start, end) in enumerate(places) if start < word.end() and end > word.start()]
            if inside:
                words.append((word[0], inside))
        return words

    def _encoded(self, captions: list[str], **options: Any) -> Any:
        return self.tokenizer(
            captions,
            padding=self.padding,
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=True,
            **options,
        )


class TextBackbone:
    """A text encoder of transformers."""

    def __init__(self, encoder: Encoder, tokenizer: Any, pool: str, has_pooler: bool) -> None:
        import torch

        self.encoder, self.pool = encoder, pool
        self._reads = set(tokenizer.model_input_names)
        # SigLIP was trained with padding to a fixed length and attends to it. So does a model that takes no mask.
        fixed = encoder.tower.config.model_type.startswith("siglip") or "attention_mask" not in self._reads
        length = _max_tokens(encoder.tower, tokenizer)
        self.preprocess = Tokens(tokenizer, length, "max_length" if fixed else "longest")
        self.preprocessing = {
            "tokenizer": type(tokenizer).__name__,
            "context_length": length,
            "padding": self.preprocess.padding,
        }
        blank = self.preprocess([Sample("blank", caption="a")])
        first_is_class = tokenizer.padding_side == "right" and blank["input_ids"][0, 0] == tokenizer.cls_token_id
        with torch.inference_mode():
            pooled = encoder(self._inputs(blank))[1]
            offered = {"pooled": has_pooler and pooled is not None, "class": bool(first_is_class), "mean": True}
            check_pool(pool, offered, encoder.tower)
            self.width = self.forward({name: value.to(encoder.device) for name, value in blank.items()}).shape[1]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return features (B, d) of a batch from the tokenizer."""
        states, pooled = self.encoder(self._inputs(batch))
        return reduce(self.pool, states, pooled, batch["attention_mask"])

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Return the words between spaces, with the positions of their tokens; none if the tokenizer has no offsets."""
        return self.preprocess.words(caption)

    def _inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in batch.items() if name in self._reads}


def _max_tokens(model: Any, tokenizer: Any) -> int:
    """Return the model's context length in tokens, special tokens included."""
    embeddings = getattr(model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None) or getattr(embeddings, "position_embedding", None)
    if table is None:
        return int(tokenizer.model_max_length)
    # RoBERTa numbers positions starting after the padding's index.
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(min(tokenizer.model_max_length, table.num_embeddings - first))
