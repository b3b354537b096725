"""Views of a batch in a training step: inputs that the encoders read, and features that select the latents.

Three things make streams agree when each is encoded alone. A stream that a sample lacks is guessed in the selection, as
in encoding. Stream dropout lets one stream of a sample, drawn at random, select for all of them; the others are guessed
too. Input dropout hides a part of each stream's differences from its pre-bias. Losses are those of the full features.

Draws depend on the seed and the step alone, so a resumed training makes the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.core.space import Batch, LatentSpace

if TYPE_CHECKING:
    from sparc.training.distributed import Rows


class Views:
    """Adds to a batch what the encoders read and what selects, if they differ from its features."""

    def __init__(
        self, space: LatentSpace, config: TrainingConfig, *, lacking: bool = True, rows: Rows | None = None
    ) -> None:
        """Take dropout rates and seed from the configuration, and guesses from the space's completion.

        `lacking` is False if no sample lacks a stream. A GPU then need not be asked in each step. `rows` are the ones
        of a batch that this process has; it draws for the whole batch, so that its own draws are those of one process.
        """
        self._space = space
        self._config = config
        self._lacking = lacking
        self._rows = rows

    def _drawn(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw from [0, 1) for a tensor (B, ...) of this process's samples."""
        if self._rows is None:
            return torch.rand(shape, generator=generator, device=generator.device)
        whole = torch.rand((self._rows.total, *shape[1:]), generator=generator, device=generator.device)
        return whole[self._rows.some]

    @torch.no_grad()
    def of(self, batch: Batch, step: int) -> Batch:
        """Return the batch of a step with its views; the batch itself if there is nothing to drop or to guess."""
        inputs = self._dropped(batch, step)
        selecting, selects = self._selecting(batch, inputs, step)
        if selecting is None and inputs is batch.features:
            return batch
        return batch._replace(inputs=inputs, selecting=selecting, selects=selects)

    def _dropped(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Replace dropped features by the pre-bias; scale the differences of the others, as `torch.dropout` does."""
        rate = self._config.input_dropout
        if not rate:
            return batch.features
        dropped = {}
        for number, (name, x_BD) in enumerate(batch.features.items()):
            generator = torch.Generator(x_BD.device).manual_seed(_seed(self._config.seed, step, number))
            kept_BD = self._drawn(x_BD.shape, generator) >= rate
            bias_D = self._space.pre_bias[self._space.segments[name]]
            dropped[name] = bias_D + (x_BD - bias_D) * kept_BD / (1 - rate)
        return dropped

    def _selecting(
        self, batch: Batch, inputs: dict[str, Tensor], step: int
    ) -> tuple[dict[str, Tensor] | None, dict[str, Tensor] | None]:
        """Return `Batch.selecting` and `Batch.selects`; None if all streams of all samples select.

        A founding stream that does not select is guessed from those that do. An attached stream is not guessed, and
        without a completion none is.
        """
        completion, names = self._space.completion, list(batch.features)
        guesses = completion is not None and self._lacking
        if self._space.selection == "local" or len(names) == 1 or not (guesses or self._config.stream_dropout):
            return None, None
        if self._lacking:
            present_BS = torch.stack([batch.present[name] for name in names], dim=1).cpu()
        else:
            present_BS = torch.ones(len(batch.features[names[0]]), len(names), dtype=torch.bool)
        selects_BS = self._one_of_each(present_BS, step)
        if selects_BS.all():
            return None, None
        if completion is None:
            device = batch.features[names[0]].device
            return inputs, dict(zip(names, selects_BS.T.to(device), strict=True))
        selecting = {name: x_BD.clone() for name, x_BD in inputs.items()}
        patterns, of_sample = torch.unique(selects_BS, dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns.tolist()):
            if all(pattern) or not any(pattern):
                continue
            rows = (of_sample == number).nonzero().squeeze(1).to(batch.features[names[0]].device)
            known = {name: batch.features[name][rows] for name, there in zip(names, pattern, strict=True) if there}
            for name, guess_BD in completion.guess(known, linear=True).items():
                selecting[name][rows] = guess_BD
        if not completion.attached:
            return selecting, None
        selects = {name: torch.ones_like(there_B) for name, there_B in batch.present.items()}
        for name in completion.attached:
            selects[name] = selects_BS[:, names.index(name)].to(selects[name].device)
        return selecting, selects

    def _one_of_each(self, present_BS: Tensor, step: int) -> Tensor:
        """Return which streams of a sample select: for a part of the samples one that is drawn, else all it has."""
        rate = self._config.stream_dropout
        if not rate:
            return present_BS
        generator = torch.Generator().manual_seed(_seed(self._config.seed, step, present_BS.shape[1]))
        alone_B = self._drawn(present_BS.shape[:1], generator) < rate
        drawn_BS = self._drawn(present_BS.shape, generator).masked_fill(~present_BS, -1)
        one_BS = torch.zeros_like(present_BS).scatter_(1, drawn_BS.argmax(dim=1, keepdim=True), 1)
        return torch.where(alone_B.unsqueeze(1), one_BS & present_BS, present_BS)


def _seed(seed: int, step: int, stream: int) -> int:
    """Return a seed for the draws of one step and stream."""
    return ((seed * 1_000_003 + step) * 101 + stream) % 2**63
