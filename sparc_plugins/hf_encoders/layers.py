"""Layers of a sentence-transformers model after its pooling: Dense, LayerNorm, Normalize, Dropout. Imports torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from sparc.plugins import CorruptFile, InvalidConfig, local_weights, read_weights, seeded
from sparc_plugins.hf_encoders.sentence import ELSEWHERE, Layer


class Dense(nn.Module):
    """A linear layer with an activation, and its input added to its output if it is residual."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        inner, outer = _size(layer, "in_features"), _size(layer, "out_features")
        self.linear = nn.Linear(inner, outer, bias=bool(layer.config.get("bias", True)))
        self._activation = _activation(layer)
        self._residual = bool(layer.config.get("use_residual", False))
        if self._residual and inner != outer:
            self.residual = nn.Linear(inner, outer, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_features)."""
        made: Tensor = self._activation(self.linear(x))
        if self._residual:
            made = made + (self.residual(x) if hasattr(self, "residual") else x)
        return made


class Normalize(nn.Module):
    """Scale every vector to norm one."""

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors of norm one (B, d)."""
        return functional.normalize(x, dim=1)


def build_layers(layers: Sequence[Layer], device: str, *, random: bool) -> nn.Sequential:
    """Return the layers in order as one module in float32, with seeded random weights if `random`.

    Raises:
        CorruptFile: a configuration lacks a size, or the weights do not fit it.
        InvalidConfig: an activation is none of torch's.
        MissingData: a layer's weights are missing.
    """
    made = seeded(lambda: nn.Sequential(*map(_layer, layers)))
    for layer, module in zip(layers, made, strict=True):
        if module.state_dict() and not random:
            path = local_weights(str(layer.folder))
            try:
                module.load_state_dict(read_weights(path))
            except RuntimeError as error:  # torch's one type for missing, unexpected and ill-shaped tensors
                reason = " ".join(str(error).split())
                raise CorruptFile(f"{path} does not fit its config.json: {reason}", hint="download it again") from error
    return made.eval().requires_grad_(False).to(device).float()


def _layer(layer: Layer) -> nn.Module:
    if layer.kind == "Dense":
        return Dense(layer)
    if layer.kind == "LayerNorm":
        return nn.Sequential(OrderedDict(norm=nn.LayerNorm(_size(layer, "dimension"))))
    return Normalize() if layer.kind == "Normalize" else nn.Identity()


def _size(layer: Layer, key: str) -> int:
    size = layer.config.get(key)
    if not isinstance(size, int) or size < 1:
        raise CorruptFile(
            f"{layer.folder / 'config.json'}: {key}: expected a positive number, found {size!r}",
            hint="download it again",
        )
    return size


def _activation(layer: Layer) -> nn.Module:
    """Return the activation of a Dense layer, Tanh if its file names none."""
    name = str(layer.config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    try:
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            return kind()
    except TypeError:  # a module that needs arguments
        pass
    raise InvalidConfig(
        f"{layer.folder / 'config.json'}: activation_function: expected one of torch.nn, found {name}", hint=ELSEWHERE
    )
