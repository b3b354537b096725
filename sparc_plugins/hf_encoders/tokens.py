"""From captions to token ids: the model's own tokenizer, how many tokens the model reads, and padding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparc.plugins import BadSample, CorruptFile, InvalidConfig, Sample

if TYPE_CHECKING:
    from torch import Tensor

_UNLIMITED = 10**9
"""transformers writes 10^30 as the maximum length of a tokenizer whose files state none; others wrote 10^9."""
_POSITIONS = {"position_embeddings", "position_embedding", "embed_positions", "positions_embed", "wpe"}
"""Names of the table of learned positions in models of transformers."""


@dataclass(frozen=True)
class Tokens:
    """Preprocessing with the model's own tokenizer. Picklable."""

    tokenizer: Any
    max_length: int | None
    """None: captions are not cut."""
    padding: str
    """`longest`, or `max_length`."""
    prompt: str = ""
    """Text put before every caption."""
    lower: bool = False
    """True: captions are lower-cased first."""

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return token ids and attention mask (B, T) of the captions, truncated to `max_length` tokens.

        Raises BadSample for a caption without a token.
        """
        encoded = self._encoded([sample.text() for sample in samples])
        lengths = [sum(mask) for mask in encoded["attention_mask"]]
        if 0 in lengths:
            empty = samples[lengths.index(0)]
            raise BadSample(
                f"the caption of sample '{empty.id}' has no token that the model knows",
                hint="correct or remove it; or pass --skip-bad to train without it",
            )
        return dict(encoded.convert_to_tensors("pt"))

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Return the words between spaces, with the positions of their tokens; none if the tokenizer has no offsets."""
        if not self.tokenizer.is_fast:
            return []
        places = self._encoded([caption], return_offsets_mapping=True)["offset_mapping"][0]
        words: list[tuple[str, list[int]]] = []
        for word in re.finditer(r"\S+", caption):
            first, last = word.start() + len(self.prompt), word.end() + len(self.prompt)
            # In some tokenizers a token begins with the space before the word.
            inside = [token for token, (start, end) in enumerate(places) if start < last and end > first]
            if inside:
                words.append((word[0], inside))
        return words

    def prompt_length(self) -> int:
        """Return the number of tokens that the prompt puts before every caption, special ones included.

        Raises InvalidConfig if it leaves no room for the caption.
        """
        prompt = _lowered(self.prompt) if self.lower else self.prompt
        ids = self.tokenizer(prompt)["input_ids"] if prompt else []
        length = len(ids) - (len(ids) > 1 and ids[-1] in self.tokenizer.all_special_ids)
        if self.max_length is not None and length >= self.max_length:
            raise InvalidConfig(
                f"the model's prompt has {length} tokens, and the model reads {self.max_length}: no room for captions",
                hint="use another model",
            )
        return length

    def _encoded(self, captions: list[str], **options: Any) -> Any:
        texts = [self.prompt + caption for caption in captions]
        return self.tokenizer(
            [_lowered(text) for text in texts] if self.lower else texts,
            padding=self.padding,
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_attention_mask=True,
            **options,
        )


def _lowered(text: str) -> str:
    """Return a text in lower case, as long as before, so that offsets hold."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)


def repair_padding(tokenizer: Any, tower: Any, *, keep_side: bool) -> None:
    """Give a tokenizer a padding token that the model knows, and padding on the right unless `keep_side`.

    On the right, padding never moves a caption's tokens to other positions, which would change their states in models
    that count positions from the left edge (GPT-2). Which token pads does not matter, since it is masked.

    Raises CorruptFile for a tokenizer without words, or with words that the model does not have.
    """
    known = _vocabulary(tower)
    special = {token for token in tokenizer.all_special_ids if token is not None}
    words = [token for token in tokenizer.get_vocab().values() if token not in special]
    if not words:
        raise CorruptFile(
            f"the {type(tokenizer).__name__} has no words: its vocabulary is missing",
            hint="add the tokenizer's files (tokenizer.json, vocab.txt, *.model) to the model's folder",
        )
    if max(words) >= known:
        raise CorruptFile(
            f"the tokenizer has {max(words) + 1} tokens, and the model knows {known}: they are not of one model",
            hint="use the tokenizer's files that come with the weights",
        )
    if not keep_side:
        tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= known:
        others = (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, 0)
        spare = next(token for token in others if token is not None and token < known)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(spare)


def length_limit(tower: Any, tokenizer: Any, stated: int | None) -> int | None:
    """Return the number of tokens that the model reads, special ones included; None if nothing limits it.

    A table of learned positions always limits it. Otherwise `stated` counts if it is given, else the tokenizer's own
    limit and that of the configuration, with which models of relative positions were trained.
    """
    configured = getattr(tower.config, "max_position_embeddings", None)
    trained = configured if isinstance(configured, int) and configured > 0 else None  # XLNet says -1
    own = int(tokenizer.model_max_length) if tokenizer.model_max_length < _UNLIMITED else None
    table = _positions(tower)
    limits = [stated] if stated is not None else [own, trained]
    limits += [table, None if table is None else trained]
    return min((limit for limit in limits if limit is not None), default=None)


def _vocabulary(tower: Any) -> int:
    """Return the number of tokens that the model knows."""
    try:
        return int(tower.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError):  # CANINE hashes characters
        return _UNLIMITED


def _positions(tower: Any) -> int | None:
    """Return the number of learned positions; None for a model that has none."""
    for name, module in tower.named_modules():
        if name.rpartition(".")[2] in _POSITIONS and hasattr(module, "num_embeddings"):
            # RoBERTa numbers positions starting after the padding's index; BART and OPT leave out the first two.
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - int(first)
    return None
