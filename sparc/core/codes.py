"""Sparse codes: the kept latents of each sample.

A latent is active where its value exceeds 0. Only the counters of dead latents, in `dead`, use a higher threshold.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array


class Translations(Mapping[str, Tensor]):
    """Activations to decode into streams that were missing, (B, K) each, computed when they are asked for.

    Subclasses hold what they are computed from, that is, the features. They follow the parameters that the space then
    has, so decode a code before its space changes.
    """

    @abstractmethod
    def rows(self, samples: slice | Tensor) -> Translations:
        """Return the translations of some samples, without those of the others."""

    def __reduce__(self) -> tuple[type[dict[str, Tensor]], tuple[dict[str, Tensor]]]:
        """Pickle and copy as a dict of all activations."""
        return dict, (dict(self),)


@dataclass(frozen=True)
class Codes:
    """Codes of a batch of samples in one stream. Latents outside `indices` are exactly zero."""

    indices: Tensor
    """(B, K) kept latents, int64; the same tensor in all streams that share the selection."""
    values: Tensor
    """(B, K) their activations after ReLU, so some may be zero, that is, inactive."""
    n_latents: int
    """Number of latents, L."""
    translations: Mapping[str, Tensor] = field(default_factory=dict)
    """(B, K) per stream that was missing and guessed: the activations to decode into it, instead of `values`."""

    def __len__(self) -> int:
        """Number of samples, B."""
        return len(self.indices)

    def __getitem__(self, samples: slice | Tensor) -> Codes:
        """Return the codes of some samples, by a slice, indices or a mask. Raises TypeError for a single number."""
        if isinstance(samples, int):  # type: ignore[unreachable]  # a loop over codes passes numbers
            raise TypeError(f"codes are of a batch: write codes[{samples}:{samples + 1}] for one sample")
        found = self.translations
        translations: Mapping[str, Tensor]
        if isinstance(found, Translations):
            translations = found.rows(samples)
        else:
            translations = {stream: values_BK[samples] for stream, values_BK in found.items()}
        return Codes(self.indices[samples], self.values[samples], self.n_latents, translations)

    def values_for(self, stream: str) -> Tensor:
        """Return the activations to decode into a stream, (B, K)."""
        return self.translations.get(stream, self.values)

    @classmethod
    def joined(cls, parts: Sequence[Codes]) -> Codes:
        """Return the codes of several batches, one after the other, with those translations that any of them has."""
        streams = dict.fromkeys(stream for part in parts for stream in part.translations)
        return cls(
            torch.cat([part.indices for part in parts]),
            torch.cat([part.values for part in parts]),
            parts[0].n_latents,
            {stream: torch.cat([part.values_for(stream) for part in parts]) for stream in streams},
        )

    def to(self, device: str | torch.device) -> Codes:
        """Return the codes on a device."""
        translations = {stream: values_BK.to(device) for stream, values_BK in self.translations.items()}
        return Codes(self.indices.to(device), self.values.to(device), self.n_latents, translations)

    def to_dense(self) -> Tensor:
        """Return the codes as a dense (B, L) tensor."""
        dense_BL = self.values.new_zeros(len(self), self.n_latents)
        return dense_BL.scatter(1, self.indices, self.values)

    def to_csr(self) -> csr_array:
        """Return the codes as a scipy CSR array (B, L), float32 or float64; inactive latents are not stored."""
        from scipy.sparse import csr_array

        values_BK = self.values.detach().cpu()
        if values_BK.dtype not in (torch.float32, torch.float64):
            values_BK = values_BK.float()
        active_BK = values_BK > 0
        rows = torch.arange(len(self)).unsqueeze(1).expand_as(active_BK)[active_BK]
        columns = self.indices.cpu()[active_BK]
        entries = (values_BK[active_BK].numpy(), (rows.numpy(), columns.numpy()))
        return csr_array(entries, shape=(len(self), self.n_latents))


def norms(codes: csr_array) -> NDArray[Any]:
    """Return the Euclidean norm of each code of a matrix as `Codes.to_csr` makes it: (B,)."""
    import numpy as np

    found: NDArray[Any] = np.sqrt(np.asarray(codes.multiply(codes).sum(axis=1)).ravel())
    return found
