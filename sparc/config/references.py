"""References to backbones and datasets with parameters, as users write them: `timm[model=vit_base_patch16_224]`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sparc.errors import InvalidConfig

_REFERENCE = re.compile(r"(?:(?P<alias>[^=\[\],]+)=)?(?P<name>[^=\[\],]+)(?:\[(?P<params>.*)\])?")
_UNFIT = re.compile(
    r"""[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|^[. ]|[. ]$"""
    r"""|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)|^$""",
    re.IGNORECASE,
)
"""Parts of names that Linux, macOS or Windows refuses in the name of a folder."""
_PAIR = re.compile(
    r"""\s*(?P<key>[\w-]+)\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,\[\]]*?))\s*(?:,|$)"""
)


class PluginRef(BaseModel):
    """A backbone or dataset by name, with its parameters: `clip-img`, `clip-img[model=ViT-L-14]`, `a=timm[model=m]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    alias: str
    """Name of the stream in the space; the same as `name` by default."""
    params: dict[str, Any] = {}

    @classmethod
    def parse(cls, value: Any) -> Any:
        """Parse `alias=name[key=value,...]`, or a table with `name`, an optional `alias`, and the parameters.

        A value that contains a comma or a bracket needs quotes. Raises ValueError for anything else.
        """
        if isinstance(value, Mapping) and "params" not in value:
            params = {key: val for key, val in value.items() if key not in ("name", "alias")}
            name = value.get("name")
            if not isinstance(name, str):
                raise ValueError(f"expected a table with 'name', found {dict(value)}")
            return {"name": name, "alias": value.get("alias", name), "params": params}
        if isinstance(value, BaseModel) or (isinstance(value, Mapping) and "name" in value):
            return value
        if not isinstance(value, str):
            raise ValueError(
                f"expected the text NAME or NAME[KEY=VALUE,...], or a table with 'name', found {value!r:.60}"
            )
        match = _REFERENCE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"expected one NAME or NAME[KEY=VALUE,...], found '{value}'")
        name = match["name"].strip()
        return {"name": name, "alias": (match["alias"] or name).strip(), "params": _parameters(match["params"] or "")}


RefLike = str | PluginRef | Mapping[str, Any]
"""A reference: text, a parsed reference, or a table with `name`."""


def parsed(value: Any) -> PluginRef:
    """Parse a reference. Raises ValueError with a message of one line."""
    try:
        return PluginRef.model_validate(PluginRef.parse(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{f'{place}: ' if place else ''}{first['msg']}, found {first['input']!r}") from error


def parsed_streams(value: Any) -> tuple[PluginRef, ...]:
    """Parse one stream or several. Raises ValueError, also if two streams have the same name."""
    alone = isinstance(value, str | Mapping | PluginRef)
    if not alone and not isinstance(value, Sequence):
        raise ValueError(f"expected a list of streams, found {value!r}")
    streams = tuple(parsed(one) for one in ([value] if alone else value))
    check_stream_names([stream.alias for stream in streams])
    return streams


def check_stream_names(names: Sequence[str]) -> None:
    """Raise ValueError if two streams have one name, or if a name cannot be a folder's name on every system."""
    seen: dict[str, str] = {}
    for name in names:
        if _UNFIT.search(name):
            raise ValueError(
                f"expected a stream's name that can name a folder, found '{name}'; "
                'write it without / \\ : * ? " < > |, without a dot or space at its ends'
            )
        # Windows and macOS hold names to be the same that differ only by case or by Unicode form.
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if names.count(name) > 1:
            raise ValueError(
                f"expected streams of different names, found '{name}' twice; rename one, 'other={name}[...]'"
            )
        if other != name:
            raise ValueError(f"expected streams of different names, found '{other}' and '{name}'; rename one")


def reference(text: str) -> PluginRef:
    """Parse a single `NAME[KEY=VALUE,...]`. Raises InvalidConfig."""
    try:
        return parsed(text)
    except ValueError as error:
        raise InvalidConfig(str(error), hint="write NAME, or NAME[KEY=VALUE,...]") from error


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
