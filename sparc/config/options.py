"""Every setting, with its default and its meaning, in one place. The defaults are the paper's.

A configuration is frozen, and a key that it does not know is an error.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sparc.errors import InvalidConfig, MissingData

Selection = Literal["global", "local"]
Normalization = Literal["unit", "standard", "none"]
Precision = Literal["float32", "bfloat16"]
ForwardPrecision = Literal["float32", "bfloat16", "float16"]
StoreDtype = Literal["float32", "float16"]
_Model = TypeVar("_Model", bound=BaseModel)


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SpaceConfig(_Config):
    """Shape of a shared latent space."""

    streams: dict[str, Annotated[int, Field(gt=0)]] = Field(description="Width of each stream, in the model's order.")
    n_latents: int = Field(8192, gt=0, description="Latents shared by all streams (L).")
    k: int = Field(64, gt=0, description="Latents kept per sample.")
    selection: Selection = Field("global", description="One index set per sample for all streams, or each its own.")
    normalization: Normalization = Field(
        "unit",
        description="Of raw features: unit norm per sample; 'standard', centred and scaled by statistics of the "
        "training features; or none.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.streams:
            raise ValueError("streams: expected at least one stream, found none")
        if self.k > self.n_latents:
            raise ValueError(f"k: expected at most n-latents, {self.n_latents}, found {self.k}")
        return self


class TrainingConfig(_Config):
    """How a space is trained."""

    epochs: int = Field(50, gt=0, description="Passes over the training samples.")
    batch_size: int = Field(256, gt=0, description="Samples per step.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of Adam.")
    lambda_: float = Field(1.0, ge=0, description="Weight of the cross-reconstruction loss.")
    aux_weight: float = Field(1 / 32, ge=0, description="Weight of the AuxK loss, which revives dead latents (alpha).")
    k_aux: int = Field(64, gt=0, description="Dead latents that AuxK lets reconstruct the residual.")
    dead_after: int = Field(256_000, gt=0, description="Training samples without activation that make a latent dead.")
    seed: int = Field(0, ge=0, description="Seed of the initial weights and of the order of the samples.")
    encoder_product: Precision = Field(
        "float32",
        description="Precision of the product that finds the latents to keep; with bfloat16 the best candidates are "
        "made again in float32, and proven to hold all that float32 keeps. A CPU without bfloat16 uses float32.",
    )
    adam_state: Precision = Field(
        "float32", description="Precision of Adam's two moments; bfloat16, rounded at random, halves their memory."
    )


_REF = re.compile(r"(?:(?P<alias>[^=\[\],]+)=)?(?P<name>[^=\[\],]+)(?:\[(?P<params>.*)\])?")


class PluginRef(_Config):
    """A backbone or dataset by name, with its parameters: `clip-img`, `clip-img[model=ViT-L-14]`, `a=timm[model=m]`."""

    name: str
    alias: str
    """What the stream is called in the space: the name, unless the user says otherwise."""
    params: dict[str, Any] = {}

    @classmethod
    def parse(cls, value: Any) -> Any:
        """Read `alias=name[key=value,...]`, or a table with `name`, perhaps `alias`, and the parameters.

        A value with a comma or a bracket is written in quotes. Raises ValueError for anything else.
        """
        if isinstance(value, Mapping) and "params" not in value:
            params = {key: val for key, val in value.items() if key not in ("name", "alias")}
            name = value.get("name")
            if not isinstance(name, str):
                raise ValueError(f"expected a table with 'name', found {dict(value)}")
            return {"name": name, "alias": value.get("alias", name), "params": params}
        if not isinstance(value, str):
            return value
        match = _REF.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"expected one NAME or NAME[KEY=VALUE,...], found '{value}'")
        name = match["name"].strip()
        return {"name": name, "alias": (match["alias"] or name).strip(), "params": _parameters(match["params"] or "")}


_PAIR = re.compile(
    r"""\s*(?P<key>[\w-]+)\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,\[\]]*?))\s*(?:,|$)"""
)


def _parameters(text: str) -> dict[str, str]:
    params: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise ValueError(f"expected KEY=VALUE,..., found '{text[position:]}'")
        params[pair["key"]] = next(value for value in pair.group("double", "single", "bare") if value is not None)
        position = pair.end()
    return params


def reference(words: str) -> PluginRef:
    """Read `NAME[KEY=VALUE,...]` alone. Raises InvalidConfig."""
    try:
        return PluginRef.model_validate(PluginRef.parse(words))
    except ValueError as error:
        raise InvalidConfig(str(error), hint="write NAME, or NAME[KEY=VALUE,...]") from error


Ref = Annotated[PluginRef, BeforeValidator(PluginRef.parse)]


def _several(streams: Any) -> Any:
    """One stream may stand by itself."""
    return (streams,) if isinstance(streams, str | Mapping | PluginRef) else streams


def _distinct(streams: tuple[PluginRef, ...]) -> tuple[PluginRef, ...]:
    names = [stream.alias for stream in streams]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"expected streams of different names, found '{twice[0]}' twice; name one, 'other={twice[0]}[...]'"
        )
    return streams


class RunConfig(_Config):
    """What a user may say about a run, on the command line or in a TOML file, by the same names."""

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_").replace("_", "-"), validate_by_name=False)

    stream: Annotated[tuple[Ref, ...], BeforeValidator(_several), AfterValidator(_distinct)] = ()
    dataset: Ref
    data_root: Path | None = None
    features: Path | None = None
    store: Path | None = None
    out: Path | None = None
    n_latents: int = SpaceConfig.model_fields["n_latents"].default
    k: int = SpaceConfig.model_fields["k"].default
    selection: Selection = "global"
    normalization: Normalization = "unit"
    lambda_: Annotated[float, Field(ge=0)] = TrainingConfig.model_fields["lambda_"].default
    epochs: int = TrainingConfig.model_fields["epochs"].default
    batch_size: int = TrainingConfig.model_fields["batch_size"].default
    lr: float = TrainingConfig.model_fields["lr"].default
    seed: int = 0
    encoder_product: Precision = "float32"
    adam_state: Precision = "float32"
    device: str = "auto"
    precision: ForwardPrecision = "float32"
    store_dtype: StoreDtype = "float32"
    compile: bool = False
    skip_bad: bool = False

    def space(self, widths: Mapping[str, int]) -> SpaceConfig:
        """Return the shape of the space over streams of these widths. Raises InvalidConfig."""
        return validated(SpaceConfig, {"streams": dict(widths), **self._settings_of(SpaceConfig)})

    def training(self) -> TrainingConfig:
        """Return how to train. Raises InvalidConfig."""
        return validated(TrainingConfig, self._settings_of(TrainingConfig))

    def checked(self) -> Self:
        """Return the same, where space and training make sense; widths are known later. Raises InvalidConfig."""
        self.space(dict.fromkeys([stream.alias for stream in self.stream] or ["any"], 1))
        self.training()
        return self

    def _settings_of(self, model: type[BaseModel]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name in model.model_fields}


OPTION_NAMES = tuple(field.alias or name for name, field in RunConfig.model_fields.items())
SETTINGS = tuple(
    field.alias or name
    for name, field in RunConfig.model_fields.items()
    if name in {*SpaceConfig.model_fields, *TrainingConfig.model_fields}
)
"""Options of space and training, which leave the features as they are."""
ABLATION_KEYS = ("grid", "seeds")
"""What a file says to `sparc ablate` alone."""


def read_options(path: Path, *, ablation: bool = False) -> dict[str, Any]:
    """Read options from a TOML file; keys are the options of `sparc train` without the dashes.

    With `ablation` there may be the keys of `sparc ablate`, too.

    Raises:
        MissingData: the file is not there.
        InvalidConfig: it is not TOML, or holds an unknown key, or one that is for another command.
    """
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingData(f"config file not found: {path}", hint="check the path given to --config") from error
    except OSError as error:
        raise InvalidConfig(f"config file {path} cannot be read: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"config file {path} is not valid TOML: {error}", hint="mend that line") from error
    for key in options:
        if key in ABLATION_KEYS and not ablation:
            raise InvalidConfig(f"'{key}' in {path} is for sparc ablate", hint=f"sparc ablate --config {path}")
        if key not in (*OPTION_NAMES, *ABLATION_KEYS):
            raise InvalidConfig(f"unknown key '{key}' in {path}", hint=suggestion(key, OPTION_NAMES))
    return options


def suggestion(word: str, known: tuple[str, ...] | list[str]) -> str:
    """Return a hint for a misspelled word: the nearest known one, and all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known: {', '.join(known) or 'none'}"


def validated(model: type[_Model], content: Any, *, what: str = "") -> _Model:
    """Build `model` from `content`; the first thing wrong becomes one line. Raises InvalidConfig."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _explained(model, error, what) from error


def _explained(model: type[BaseModel], error: ValidationError, what: str) -> InvalidConfig:
    # A misspelled key is why another is missing.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    known = [field.alias or name for name, field in model.model_fields.items()]
    place = ".".join(str(part) for part in first["loc"])
    prefix = f"{what}: " if what else ""
    if first["type"] == "extra_forbidden":
        return InvalidConfig(f"{prefix}unknown parameter '{place}'", hint=suggestion(place, known))
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return InvalidConfig(f"{prefix}{f'{place}: ' if place else ''}{message}", hint="change that value")
    if first["type"] == "missing":
        hint = (
            "--data-root FOLDER, or NAME[root=FOLDER]"
            if place == "root"
            else f"say it: {place}=..., such as NAME[{place}=...]"
        )
        return InvalidConfig(f"{prefix}expected '{place}', found nothing", hint=hint)
    message = (
        f"{prefix}{place.replace('_', '-')}: {first['msg'][0].lower()}{first['msg'][1:]}, found {first['input']!r}"
    )
    return InvalidConfig(message, hint="change that value")
