"""Text encoders of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparc.plugins import CorruptFile, InvalidConfig, Sample
from sparc_plugins.hf_encoders.encoder import Encoder, check_pool
from sparc_plugins.hf_encoders.pooling import POOLS, without_prompt
from sparc_plugins.hf_encoders.tokens import Tokens, length_limit, repair_padding

if TYPE_CHECKING:
    from torch import Tensor

_PROBE = "a photo"
_CLOSE = 1e-4
"""Features of a caption alone and of the padded caption may differ by this share of the largest feature: rounding."""


@dataclass(frozen=True)
class TextRecipe:
    """The steps from a caption to features, besides the encoder."""

    pools: tuple[str, ...]
    """`pooled`, or names of `POOLS`, whose vectors are joined."""
    pools_prompt: bool = True
    """False: the tokens of the prompt do not count in the pooling."""
    prompt: str = ""
    """Text put before every caption."""
    max_length: int | None = None
    """Number of tokens that the model's files state beside the tokenizer's."""
    lower: bool = False
    """True: captions are lower-cased first."""
    layers: tuple[str, ...] = ()
    """Layers that follow the pooling, each in one line."""
    width: int | None = None
    """Width of the pooled vectors that these layers take."""
    truncate_dim: int | None = None
    """Number of features that are kept of what the last layer gives."""


class TextBackbone:
    """A text encoder of transformers."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Any,
        recipe: TextRecipe,
        has_pooler: bool,
        layers: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Prepare the tokenizer for this encoder. `layers` are applied to the pooled vectors.

        Raises:
            InvalidConfig: the model does not run on text alone, does not offer that pooling, or no way to pad captions.
            CorruptFile: the tokenizer's files are missing, or of another model.
        """
        import torch

        self.encoder, self.recipe, self._layers = encoder, recipe, layers
        self._skipped = 0
        # SigLIP was trained with padding to a fixed length and attends to it.
        attends = encoder.tower.config.model_type.startswith("siglip")
        named = set(tokenizer.model_input_names) if attends else {*tokenizer.model_input_names, "attention_mask"}
        self._reads = named & encoder.inputs
        repair_padding(tokenizer, encoder.tower, keep_side=attends)
        limit = length_limit(encoder.tower, tokenizer, recipe.max_length)
        self.preprocess = Tokens(tokenizer, limit, "longest", recipe.prompt, recipe.lower)
        if not recipe.pools_prompt:
            self._skipped = self.preprocess.prompt_length()
        with torch.inference_mode():
            probe = self.preprocess([Sample("probe", caption=_PROBE)])
            states, pooled = encoder.first_run(self._inputs(probe))
            first = probe["input_ids"][0, 0] == tokenizer.cls_token_id
            self._check_pools(pooled is not None and has_pooler, bool(first))
            alone = self._features(states, pooled, probe["attention_mask"])
            if attends or "attention_mask" not in self._reads or not self._ignores_padding(probe, alone):
                self.preprocess = self._fixed()
        self.width = alone.shape[1]
        self.preprocessing = self._described()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return features (B, d) of a batch from the tokenizer."""
        states, pooled = self.encoder(self._inputs(batch))
        return self._features(states, pooled, batch["attention_mask"])

    def _features(self, states: Tensor, pooled: Tensor, mask: Tensor) -> Tensor:
        import torch

        if states.shape[1] != mask.shape[1] and self.recipe.pools != ("pooled",):
            raise InvalidConfig(
                f"{type(self.encoder.tower).__name__} gives {states.shape[1]} states for {mask.shape[1]} tokens: "
                "expected one for each",
                hint="choose another model",
            )
        mask = mask.to(states.device)
        if self._skipped:
            mask = without_prompt(mask, self._skipped)
        made = [pooled if pool == "pooled" else POOLS[pool](states, mask) for pool in self.recipe.pools]
        features = torch.cat(made, dim=1)
        if self.recipe.width not in (None, features.shape[1]):
            raise CorruptFile(
                f"the pooling {'+'.join(self.recipe.pools)} of {type(self.encoder.tower).__name__} gives "
                f"{features.shape[1]} features, and the layers after it take {self.recipe.width}",
                hint="use the files of one model",
            )
        made_by_layers = features if self._layers is None else self._layers(features)
        return made_by_layers[:, : self.recipe.truncate_dim]

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Return the words between spaces, with the positions of their tokens; none if the tokenizer has no offsets."""
        return self.preprocess.words(caption)

    def _inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in batch.items() if name in self._reads}

    def _check_pools(self, has_pooled: bool, first_is_class: bool) -> None:
        """Raise InvalidConfig for the pooling `pooled` or `class` of a model that lacks it."""
        if len(self.recipe.pools) == 1:
            offered = {"pooled": has_pooled, "class": first_is_class, "mean": True}
            check_pool(self.recipe.pools[0], offered, self.encoder.tower)

    def _ignores_padding(self, probe: Mapping[str, Tensor], alone: Tensor) -> bool:
        """Return True if padding leaves the features as they are, except for rounding."""
        from torch.nn import functional

        tokenizer = self.preprocess.tokenizer
        fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        room = 16 if self.preprocess.max_length is None else self.preprocess.max_length - probe["input_ids"].shape[1]
        padded = {
            name: functional.pad(value, (0, min(16, max(0, room))), value=fill.get(name, 0))
            for name, value in probe.items()
        }
        difference = (self.forward(padded) - alone).abs().max()
        return bool(difference <= _CLOSE * alone.abs().max())

    def _fixed(self) -> Tokens:
        """Return the preprocessing that pads every caption to the same length."""
        tokens = self.preprocess
        if tokens.max_length is None:
            raise InvalidConfig(
                f"{type(self.encoder.tower).__name__}: padding changes its features, and its files state no length to "
                "which all captions could be padded",
                hint="write model_max_length, a number of tokens, into its tokenizer_config.json",
            )
        return Tokens(tokens.tokenizer, tokens.max_length, "max_length", tokens.prompt, tokens.lower)

    def _described(self) -> dict[str, Any]:
        """Return what the manifest records."""
        tokens = self.preprocess
        described: dict[str, Any] = {
            "model": type(self.encoder.tower).__name__,
            "tokenizer": type(tokens.tokenizer).__name__,
            "context_length": tokens.max_length,
            "padding": tokens.padding,
            "pooling": "+".join(self.recipe.pools),
        }
        if tokens.prompt:
            described["prompt"] = tokens.prompt
            described["prompt_is_pooled"] = self.recipe.pools_prompt
        if self.recipe.lower:
            described["lower_case"] = True
        if self.recipe.layers:
            described["layers"] = list(self.recipe.layers)
        if self.recipe.truncate_dim is not None:
            described["truncate_dim"] = self.recipe.truncate_dim
        return described
