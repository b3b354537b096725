"""The image and the text tower of a CLIP model as backbones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig, Sample
from sparc_plugins.clip.source import Source
from sparc_plugins.clip.tokenizers import tokenizer

if TYPE_CHECKING:
    from torch import Tensor


def to_pixels(transform: Callable[[Any], Tensor], samples: Sequence[Sample]) -> Tensor:
    """Return the pixels (B, 3, H, W) of the samples' images."""
    import torch

    return torch.stack([transform(sample.image()) for sample in samples])


def to_tokens(source: Source, samples: Sequence[Sample]) -> Tensor:
    """Return the token ids (B, T) of the samples' captions, truncated to the model's context length."""
    tokens: Tensor = tokenizer(source)([sample.text() for sample in samples])
    return tokens


def _channels_last(pixels: Tensor) -> Tensor:
    import torch

    return pixels.to(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded model, shared by the backbones of its two towers."""

    net: Any
    transform: Callable[[Any], Tensor]
    preprocessing: dict[str, Any]
    """open_clip's own configuration of image preprocessing."""
    width: int
    activation: str
    """`gelu` or `quick_gelu`, which a file of weights does not say."""


def cropped(clip: Clip, crop_pct: float) -> Clip:
    """Return a model that resizes the shorter side of images to size / crop_pct, and crops the size at the centre.

    Raises InvalidConfig for a model that resizes images in another way.
    """
    from torchvision.transforms import CenterCrop, Compose, Resize

    resize, *rest = clip.transform.transforms  # type: ignore[attr-defined]
    size = clip.preprocessing["size"]
    side = size if isinstance(size, int) else min(size)
    if not (isinstance(resize, Resize) and isinstance(rest[0], CenterCrop)):
        raise InvalidConfig(
            f"crop_pct={crop_pct}: expected a model that crops images, found resize_mode "
            f"'{clip.preprocessing.get('resize_mode')}'",
            hint="leave crop_pct out",
        )
    larger = Resize(int(side / crop_pct), interpolation=resize.interpolation, antialias=resize.antialias)
    return replace(clip, transform=Compose([larger, *rest]), preprocessing=clip.preprocessing | {"crop_pct": crop_pct})


class ImageTower:
    """Image tower of a CLIP model. Its feature is the embedding, not normalised."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.width = clip.width
        self.preprocess = partial(to_pixels, clip.transform)
        self.preprocessing = clip.preprocessing | {"activation": clip.activation}
        self.grid: tuple[int, int] | None = None
        """Rows and columns of the patch tokens; None if open_clip does not return them."""
        visual = clip.net.visual
        if hasattr(visual, "output_tokens") and hasattr(visual, "grid_size") and visual.attn_pool is None:
            rows, columns = visual.grid_size
            self.grid = (int(rows), int(columns))
            # A shallow copy shares the weights, and returns the tokens as well.
            self._with_tokens = copy.copy(visual)
            self._with_tokens.output_tokens = True

    def forward(self, batch: Tensor) -> Tensor:
        """Return the embeddings (B, d) of pixels (B, 3, H, W)."""
        features: Tensor = self.clip.net.encode_image(_channels_last(batch), normalize=False)
        return features

    def forward_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, d), and normed and projected patch tokens (B, rows * columns, d), row by row.

        Raises:
            InvalidConfig: the tower has no patch tokens, or open_clip does not return them.
        """
        if self.grid is None:
            raise InvalidConfig(
                f"{type(self.clip.net.visual).__name__}: expected an image tower that gives its patch tokens, "
                "found one that does not",
                hint="choose one of open_clip's own vision transformers, such as clip-img[model=ViT-B-32]",
            )
        features, tokens = self._with_tokens(_channels_last(batch))
        visual = self.clip.net.visual
        if getattr(visual, "final_ln_after_pool", False):
            tokens = visual.ln_post(tokens)
        return features, tokens if visual.proj is None else tokens @ visual.proj


class TextTower:
    """Text tower of a CLIP model. Its feature is the embedding, not normalised."""

    def __init__(self, clip: Clip, source: Source) -> None:
        self.clip = clip
        self._source = source
        self.width = clip.width
        self.preprocess = partial(to_tokens, source)
        self.preprocessing = {
            "tokenizer": source.text_config.get("hf_tokenizer_name") or type(tokenizer(source)).__name__,
            "context_length": tokenizer(source).context_length,
            "activation": clip.activation,
        }

    def forward(self, batch: Tensor) -> Tensor:
        """Return the embeddings (B, d) of token ids (B, T)."""
        features: Tensor = self.clip.net.encode_text(batch, normalize=False)
        return features

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Return the words with the positions of their tokens; none if the tokenizer is not CLIP's own."""
        own = tokenizer(self._source)
        ends = getattr(own, "decoder", None)
        if ends is None:
            return []
        words: list[tuple[str, list[int]]] = []
        begun: list[int] = []
        ids = to_tokens(self._source, [Sample(caption, caption=caption)])[0].tolist()
        for place, token in enumerate(ids[1 : ids.index(own.eot_token_id)], start=1):
            begun.append(place)
            if ends[token].endswith("</w>"):
                words.append((own.decode([ids[one] for one in begun]).strip(), begun))
                begun = []
        return words
