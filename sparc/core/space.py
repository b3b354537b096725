"""The shared latent space: an affine encoder and a linear decoder per stream around common latents.

Equations of arXiv 2507.06265, section 3, for a stream s with features x_s:

    h_s  = W_s (x_s - b_s) + c_s            logits
    I    = TopK_k( sum_s h_s )              one index set for all streams of a sample
    z_s  = ReLU(h_s) on I, 0 elsewhere      code
    y_ts = D_t z_s + b_t                    reconstruction of stream t from the code of stream s

The first index of y_ts is the target. In Python the source comes first: `reconstruct(codes)[source][target]`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparc.core import topk
from sparc.core.codes import Codes
from sparc.core.completion import Completion, encode_completed
from sparc.core.kernels import entry_dots, logits_with_gradient, weighted_rows
from sparc.core.topk import EncoderProduct, Kept, Selector
from sparc.core.unit_norm import UnitDirections
from sparc.errors import BadFeatures, UnknownName

_ROUNDING = 1e-12
"""Relative to the mean's norm; a smaller spread is rounding error of identical samples."""


class Batch(NamedTuple):
    """Normalised features of samples by stream, and which samples have the stream."""

    features: dict[str, Tensor]
    """(B, D) each; zero if the sample lacks the stream."""
    present: dict[str, Tensor]
    """(B,) each, bool."""
    inputs: dict[str, Tensor] | None = None
    """(B, D) each, what the encoders read; None for the features. The losses compare with the features."""
    selecting: dict[str, Tensor] | None = None
    """(B, D) each, what selects; None for the inputs of the streams that samples have."""
    selects: dict[str, Tensor] | None = None
    """(B,) each, bool, whose features in `selecting` select; None for all."""


def present(raw_BD: Tensor) -> Tensor:
    """Return which samples have a stream, (B,) bool: those whose raw features are not all zero."""
    # `any` takes two to six times as long on the CPU.
    return (raw_BD.amax(dim=1) != 0) | (raw_BD.amin(dim=1) != 0)


def _directions(weights_LD: Sequence[Tensor]) -> Tensor:
    """Return the rows of tables, scaled to norm one, side by side: (L, T). On the meta device, they have no values.

    For a norm on that device PyTorch would import its compiler, which takes more than a second.
    """
    if weights_LD[0].is_meta:
        return weights_LD[0].new_empty(len(weights_LD[0]), sum(weight_LD.shape[1] for weight_LD in weights_LD))
    return torch.cat([F.normalize(weight_LD, dim=1) for weight_LD in weights_LD], dim=1)


class LatentSpace(nn.Module):
    """One sparse dictionary shared by any number of streams.

    Streams are ordered as in `widths`. Parameters lie in that order, and sums over streams run in it, since float
    addition depends on the order, which decides near ties of the selection.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        n_latents: int,
        k: int,
        *,
        selection: str = "global",
        normalization: str = "unit",
        seed: int = 0,
    ) -> None:
        """Draw the initial weights with `seed`.

        Encoder weights are uniform in [-1/sqrt(D), 1/sqrt(D)]; each decoder is its encoder's transpose, with directions
        of norm one.
        """
        super().__init__()
        self.streams = dict(widths)
        self.n_latents = n_latents
        self.k = k
        self.selection = selection
        self.normalization = normalization
        self._position = {name: position for position, name in enumerate(self.streams)}
        ends = list(itertools.accumulate(self.streams.values()))
        self.segments = {
            name: slice(end - width, end) for (name, width), end in zip(self.streams.items(), ends, strict=True)
        }
        total = ends[-1]
        generator = torch.Generator().manual_seed(seed)
        self.encoders = nn.ParameterList(
            torch.empty(n_latents, width).uniform_(-(width**-0.5), width**-0.5, generator=generator)
            for width in self.streams.values()
        )
        self.latent_bias = nn.Parameter(torch.zeros(len(self.streams), n_latents))
        # All decoders side by side, (L, T): one sparse product decodes a code into every stream.
        self.decoder = nn.Parameter(_directions([weight.detach() for weight in self.encoders]))
        self.pre_bias = nn.Parameter(torch.zeros(total))
        self.register_buffer("center", torch.zeros(total))
        self.register_buffer("scale", torch.ones(len(self.streams)))
        self.center: Tensor
        self.scale: Tensor
        self.directions = UnitDirections(list(self.streams.values()), self.decoder.dtype)
        self.completion: Completion | None = None
        """Guesses the streams that a sample lacks; None before `sparc complete` or the end of a training."""

    def __repr__(self) -> str:
        """Return one line with the streams, their widths, and the shape."""
        return (
            f"{type(self).__name__}({self.streams}, n_latents={self.n_latents}, k={self.k}, "
            f"selection={self.selection!r}, normalization={self.normalization!r})"
        )

    # Features in, codes out

    def normalize(self, features: Mapping[str, Tensor]) -> Batch:
        """Normalise raw features (B, D) of some streams as in training.

        A sample whose features are all zero lacks the stream, which then takes no part in selection or in a loss.

        Raises UnknownName for a stream that the space does not have.
        """
        for name in features:
            self._known(name)
        normalized: dict[str, Tensor] = {}
        there: dict[str, Tensor] = {}
        for name in self._in_order(features):
            raw_BD = features[name].to(self.decoder)
            there[name] = present(raw_BD)
            if self.normalization == "unit":
                # Divide by the largest entry first, so that squaring neither overflows nor underflows.
                largest_B1 = raw_BD.abs().amax(dim=1, keepdim=True)
                raw_BD = F.normalize(raw_BD / torch.where(largest_B1 > 0, largest_B1, 1), dim=1)
            elif self.normalization == "standard":
                raw_BD = (raw_BD - self.center[self.segments[name]]) / self.scale[self._position[name]]
                raw_BD = torch.where(there[name].unsqueeze(1), raw_BD, 0)
            normalized[name] = raw_BD
        return Batch(normalized, there)

    def fit_normalization(self, features: Mapping[str, Sequence[Tensor]]) -> None:
        """Fit 'standard' normalisation: per stream the mean to subtract, and the RMS norm to divide by.

        Features come in pieces (N, D). One scale for the whole stream keeps the relative size of its dimensions.
        Samples whose features are all zero do not count.

        Raises:
            UnknownName: a stream that the space does not have.
            BadFeatures: a width does not fit, or all samples of a stream are alike, so that it has no scale.
        """
        for name, pieces in features.items():
            self._known(name)
            for x_ND in pieces:
                self._check_width(name, x_ND)
            count = sum(int(present(x_ND).sum()) for x_ND in pieces)
            mean_D = sum((x_ND.double().sum(dim=0) for x_ND in pieces), start=torch.zeros(())) / max(1, count)
            squares = sum(float((x_ND[present(x_ND)].double() - mean_D).square().sum()) for x_ND in pieces)
            scale = (squares / max(1, count)) ** 0.5
            if not scale > _ROUNDING * float(mean_D.norm()):
                raise BadFeatures(
                    f"stream '{name}': expected samples that differ, found {count} that are all alike",
                    hint="they have no scale to normalise by: train on more samples, or with --normalization unit",
                )
            if not scale <= torch.finfo(self.scale.dtype).max:
                raise BadFeatures(
                    f"stream '{name}': expected features whose norm is a number of float32, found {scale:.3g}",
                    hint="they are among the largest that there are: divide them, or train with --normalization unit",
                )
            self.center[self.segments[name]] = mean_D.to(self.center)
            self.scale[self._position[name]] = scale

    def encode(self, features: Mapping[str, Tensor], *, complete: bool = True) -> dict[str, Codes]:
        """Encode raw backbone features (B, D) of some streams.

        Streams encoded together share one index set per sample, unless the space selects locally. The streams that a
        sample lacks are guessed from those it has, if the space has a completion (`sparc.core.completion`); nothing
        else of them can leak into its codes. `complete=False` is the paper's way: a stream encoded alone selects for
        itself.

        Raises:
            UnknownName: a stream that the space does not have.
            BadFeatures: not a dict of tensors by stream, a width or number of samples that does not fit, or a value
                that is not finite, or `complete` is not a bool.
        """
        self._check(features)
        if not isinstance(complete, bool):
            raise BadFeatures(
                f"complete: expected True or False, found {complete!r}", hint="complete=False is the paper's way"
            )
        batch = self.normalize(features)
        return self.encode_known(batch) if complete else self.encode_batch(batch)

    def encode_known(self, batch: Batch) -> dict[str, Codes]:
        """Encode normalised features (B, D) of some streams, as `encode`, with the others guessed; differentiable."""
        if self.completion is None or self.selection == "local":
            return self.encode_batch(batch)
        return encode_completed(self, self.completion, batch)

    def encode_batch(self, batch: Batch) -> dict[str, Codes]:
        """Encode normalised features (B, D) of some streams as in training: nothing is guessed; differentiable."""
        centered = self.inputs(batch)
        codes: dict[str, Codes] = {}
        for name, kept in self.keep(batch, centered).items():
            logits_BK = logits_with_gradient(centered[name], *self.encoder(name), kept.logits, kept.indices)
            codes[name] = Codes(kept.indices, torch.relu(logits_BK), self.n_latents)
        return codes

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the encoders read, minus the pre-bias, (B, D) by stream."""
        return {name: self.centered(name, x_BD) for name, x_BD in (batch.inputs or batch.features).items()}

    def keep(self, batch: Batch, inputs: Mapping[str, Tensor], selector: Selector = topk.select) -> dict[str, Kept]:
        """Return the kept latents of a batch and their logits, without gradient; `inputs` are those of `inputs`."""
        if batch.selecting is None:
            return self.select(inputs, batch.present, selector)
        centered = {name: self.centered(name, x_BD) for name, x_BD in batch.selecting.items()}
        selects = batch.selects or {name: torch.ones_like(there_B) for name, there_B in batch.present.items()}
        kept = {}
        for name, (indices_BK, _) in self.select(centered, selects, selector).items():
            logits_BK = self.logits(name, inputs[name], indices_BK)
            kept[name] = Kept(indices_BK, logits_BK * batch.present[name].unsqueeze(1))
        return kept

    @torch.no_grad()
    def logits(self, stream: str, centered_BD: Tensor, indices_BK: Tensor) -> Tensor:
        """Return the logits of some latents, (B, K), without gradient."""
        weight_LD, bias_L = self.encoder(stream)
        return entry_dots(centered_BD.unsqueeze(1), weight_LD, indices_BK).squeeze(1) + bias_L[indices_BK]

    def select(
        self, centered: Mapping[str, Tensor], has_stream: Mapping[str, Tensor], selector: Selector = topk.select
    ) -> dict[str, Kept]:
        """Return the kept latents of centered features (B, D) and their logits, without gradient.

        `has_stream` is `Batch.present`. `selector` computes the logits and keeps the k largest.
        """
        streams = {name: EncoderProduct(x_BD, *self.encoder(name), has_stream[name]) for name, x_BD in centered.items()}
        return selector(streams, self.k, shared=self.selection == "global")

    # Codes in, features out

    def decode(self, codes: Codes, stream: str) -> Tensor:
        """Translate the codes of one stream into the normalised features (B, D) of any stream.

        Raises:
            UnknownName: a stream that the space does not have.
            BadFeatures: not the codes of one stream, or those of another space.
        """
        self._known(stream)
        self._check_codes(codes, stream)
        return self.decode_linear(codes, stream) + self.pre_bias[self.segments[stream]]

    def decode_linear(self, codes: Codes, stream: str) -> Tensor:
        """Return D_t z, (B, D), without the pre-bias."""
        table_LD = self.decoder[:, self.segments[stream]].contiguous()
        return weighted_rows(codes.indices, codes.values_for(stream).unsqueeze(1), table_LD).squeeze(1)

    def reconstruct(self, codes: Mapping[str, Codes]) -> dict[str, dict[str, Tensor]]:
        """Reconstruct every stream's normalised features (B, D) from each stream's codes: `[source][target]`.

        Sources that share an index set, and lack no stream, are decoded together.

        Raises BadFeatures unless `codes` holds codes of this space by stream.
        """
        if not isinstance(codes, Mapping) or not codes:
            raise BadFeatures(
                f"expected codes by stream, found {type(codes).__name__ if codes else 'none'}",
                hint="encode gives them: space.reconstruct(space.encode(features))",
            )
        for name, code in codes.items():
            self._check_codes(code, name)
        if any(code.translations for code in codes.values()):
            return {
                name: {target: self.decode(code, target) for target in self.streams} for name, code in codes.items()
            }
        first, *others = codes.values()
        if others and all(other.indices is first.indices for other in others):
            values_BGK = torch.stack([code.values for code in codes.values()], dim=1)
            flat_BGT = weighted_rows(first.indices, values_BGK, self.decoder) + self.pre_bias
            flat = dict(zip(codes, flat_BGT.unbind(1), strict=True))
        else:
            flat = {
                name: weighted_rows(code.indices, code.values.unsqueeze(1), self.decoder).squeeze(1) + self.pre_bias
                for name, code in codes.items()
            }
        return {
            name: {target: flat_BT[:, segment] for target, segment in self.segments.items()}
            for name, flat_BT in flat.items()
        }

    # Parts of a space that training uses

    def centered(self, stream: str, x_BD: Tensor) -> Tensor:
        """Return normalised features minus the stream's pre-bias: x_s - b_s, (B, D)."""
        return x_BD - self.pre_bias[self.segments[stream]]

    def encoder(self, stream: str) -> tuple[Tensor, Tensor]:
        """Return W_s (L, D) and c_s (L,) of a stream."""
        position = self._position[stream]
        return self.encoders[position], self.latent_bias[position]

    def project_decoder_gradient(self) -> None:
        """Remove from the decoders' gradient its part along each latent's direction. Call it before the optimiser."""
        if self.decoder.grad is not None:
            self.directions.project(self.decoder.grad, self.decoder)

    def renormalize_decoder(self) -> None:
        """Scale each latent's direction in each decoder to unit norm. Call it after the optimiser."""
        self.directions.normalize(self.decoder)

    # Checks

    def _known(self, stream: str) -> None:
        if stream not in self.streams:
            raise UnknownName(
                f"the space has no stream named '{stream}'", hint=f"its streams: {', '.join(self.streams)}"
            )

    def _in_order(self, features: Mapping[str, Any]) -> list[str]:
        return [name for name in self.streams if name in features]

    def _check_width(self, stream: str, x_ND: Tensor) -> None:
        if x_ND.ndim != 2 or x_ND.shape[1] != self.streams[stream]:
            raise BadFeatures(
                f"stream '{stream}': expected features of shape (samples, {self.streams[stream]}), found "
                f"{tuple(x_ND.shape)}",
                hint="pass the raw features of the backbone that the space was trained on",
            )

    def _check_kind(self, stream: str, x_BD: Tensor) -> None:
        """Raise BadFeatures for tensors whose values cannot be features: sparse, complex, or without values."""
        layout = str(x_BD.layout).removeprefix("torch.")
        found = "a meta tensor" if x_BD.is_meta else "complex values" if x_BD.is_complex() else f"layout {layout}"
        if x_BD.is_meta or x_BD.is_complex() or x_BD.layout is not torch.strided:
            raise BadFeatures(
                f"stream '{stream}': expected a dense tensor of real numbers, found {found}",
                hint="pass the raw features of the backbone; .to_dense() makes a sparse tensor dense",
            )

    def _check_codes(self, codes: Any, target: str) -> None:
        if not isinstance(codes, Codes):
            source = next(iter(codes if isinstance(codes, Mapping) and codes else self.streams))
            raise BadFeatures(
                f"expected the Codes of one stream, found {type(codes).__name__}",
                hint=f'encode gives codes by stream; write space.decode(codes["{source}"], stream="{target}")',
            )
        if codes.n_latents != self.n_latents:
            raise BadFeatures(
                f"expected codes over {self.n_latents} latents, found {codes.n_latents}", hint="decode with their space"
            )

    def _check(self, features: Any) -> None:
        if not isinstance(features, Mapping):
            raise BadFeatures(
                f"expected features by stream, found {type(features).__name__}",
                hint=f'write space.encode({{"{next(iter(self.streams))}": features}}); '
                f"its streams: {', '.join(self.streams)}",
            )
        if not features:
            raise BadFeatures("expected features of at least one stream, found none", hint="pass {stream: features}")
        counts = {}
        for name, x_BD in features.items():
            self._known(name)
            if not isinstance(x_BD, Tensor):
                raise BadFeatures(
                    f"stream '{name}': expected a torch.Tensor of shape (samples, {self.streams[name]}), found "
                    f"{type(x_BD).__name__}",
                    hint=f'write space.encode({{"{name}": torch.as_tensor(features)}})',
                )
            self._check_width(name, x_BD)
            self._check_kind(name, x_BD)
            # Convert first, as `normalize` does: a finite value of a wider dtype may overflow.
            if not (finite_B := x_BD.to(self.decoder).isfinite().all(dim=1)).all():
                raise BadFeatures(
                    f"stream '{name}': row {int((~finite_B).nonzero()[0])} has a value that is not finite in "
                    f"{str(self.decoder.dtype).removeprefix('torch.')}",
                    hint="remove that sample, or give a row of zeros, which says that it lacks the stream",
                )
            counts[name] = len(x_BD)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise BadFeatures(f"expected equally many samples in every stream, found {found}", hint="align the rows")
