"""The files of a shard become samples, and each file that belongs to none is counted with the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from sparc.plugins import InvalidConfig, same_name
from sparc_plugins.webdataset.archive import Member
from sparc_plugins.webdataset.remote import Shard
from sparc_plugins.webdataset.shards import WebDatasetParams, some

HIDDEN = "hidden, with a name that starts with a dot"
METADATA = "metadata, with a name like __this__"
NO_EXTENSION = "without an extension"
CUT = "with an extension that only ends like one in use"
SECOND = "beside a preferred image or caption"
ALONE = "without image and caption"
HARMLESS = {HIDDEN, METADATA, NO_EXTENSION}
"""Reasons that lose nothing of a sample."""
META = re.compile(r"__[^/]*__($|/)")
"""Names of metadata files, which the webdataset library skips."""


class Field(NamedTuple):
    """Extension of a file, and a field in it if it is JSON."""

    extension: str
    json_field: str


def fields(spec: str) -> list[Field]:
    """Split a parameter: `txt;json.text` into (`txt`, "") and (`json`, `text`)."""
    return [_field(one.strip()) for one in spec.split(";") if one.strip()]


def _field(spec: str) -> Field:
    before, is_json, name = spec.partition("json.")
    return Field(f"{before}json".lower(), name) if is_json else Field(spec.lower(), "")


@dataclass(frozen=True)
class Wanted:
    """Extensions of the files in use."""

    image: tuple[str, ...]
    caption: tuple[Field, ...]
    labels: Field | None
    first_dot: bool

    @classmethod
    def by(cls, params: WebDatasetParams) -> Wanted:
        """Return the extensions that parameters name."""
        images = tuple(one.extension for one in fields(params.image))
        labels = None if params.labels is None else _field(params.labels)
        return cls(images, tuple(fields(params.caption)), labels, params.key == "first-dot")

    @cached_property
    def extensions(self) -> tuple[str, ...]:
        """All of them, the longest first."""
        named = self.caption if self.labels is None else (*self.caption, self.labels)
        every = [*self.image, *(one.extension for one in named)]
        return tuple(dict.fromkeys(sorted(every, key=len, reverse=True)))

    def ending(self, name: str) -> str | None:
        """Return the longest wanted extension that the lower-case name of a file ends in."""
        return next((one for one in self.extensions if name.endswith(f".{one}") and len(name) > len(one) + 1), None)

    def split(self, name: str) -> tuple[str, str]:
        """Split the last part of a path into the name of its sample and the extension, in lower case."""
        if not self.first_dot and (found := self.ending(name.lower())):
            return name[: -len(found) - 1], found
        stem, _, extension = name.partition(".")
        return stem, extension.lower()


class Sources(NamedTuple):
    """Files of one sample, each None if it is missing, and the field of the caption."""

    key: str
    image: Member | None
    caption: Member | None
    spec: int
    """Number of the caption's field in `Wanted.caption`; -1 if there is none."""
    labels: Member | None


@dataclass
class Tally:
    """Number of files, those in use, and those that are not, by reason."""

    files: int = 0
    used: int = 0
    unused: dict[str, list[str]] = field(default_factory=dict)
    """Up to four names of the files of each reason."""
    counts: Counter[str] = field(default_factory=Counter)
    """Number of the files of each reason."""
    others: Counter[str] = field(default_factory=Counter)
    """Number of files of each extension that is not wanted."""
    cut: Counter[str] = field(default_factory=Counter)
    """Number of files of each extension that ends in a wanted one."""
    wanted: Counter[str] = field(default_factory=Counter)
    """Number of files of each wanted extension."""

    def leave_out(self, reason: str, name: str) -> None:
        """Count a file that is not used."""
        self.counts[reason] += 1
        names = self.unused.setdefault(reason, [])
        if len(names) < 4:
            names.append(name)

    @property
    def harmless(self) -> bool:
        """True if no file is left out that a sample could need."""
        return self.counts.keys() <= HARMLESS

    def line(self) -> str | None:
        """Return the counts in one line, None if all files are used."""
        reasons = [f"{self.counts[reason]} {reason} ({some(names)})" for reason, names in self.unused.items()]
        if self.others:
            reasons.append(f"{self.others.total()} with other extensions ({common(self.others)})")
        if not reasons:
            return None
        advice = ""
        if self.cut:
            longer = self.cut.most_common(1)[0][0]
            advice = (
                f" (name the whole extension, such as '{longer}'; or set key=extension, which ends a name before it)"
            )
        return f"{self.used} of {self.files} files are used; not used: {'; '.join(reasons)}{advice}"


def common(extensions: Counter[str]) -> str:
    """Return the most common extensions."""
    return some([f".{extension}" for extension, _ in extensions.most_common(4)])


class _Cut(NamedTuple):
    """Files that would be a sample if its name ended before the extension."""

    key: str
    """Key of the sample that they belong to as it is."""
    extensions: set[str]


def grouped(shard: Shard, members: Iterable[Member], wanted: Wanted, tally: Tally) -> Iterator[Sources]:
    """Yield the samples of a shard in the order of their first file; their files may be anywhere in it.

    A sample has an image or a caption. `tally` counts all files.

    Raises InvalidConfig if a file is there twice, or if samples would be lost because their names hold dots.
    """
    groups: dict[str, dict[str, Member]] = {}
    cut: dict[str, _Cut] = {}
    for member in members:
        tally.files += 1
        folder, slash, name = member.name.rpartition("/")
        if reason := _no_file_of_a_sample(member, name):
            tally.leave_out(reason, member.name)
            continue
        stem, extension = wanted.split(name)
        key = same_name(folder + slash + stem)
        if extension not in wanted.extensions:
            if ending := wanted.ending(name.lower()):
                tally.leave_out(CUT, member.name)
                tally.cut[extension] += 1
                whole = same_name(member.name[: -len(ending) - 1])
                cut.setdefault(whole, _Cut(key, set())).extensions.add(ending)
            else:
                tally.others[extension] += 1
            continue
        tally.wanted[extension] += 1
        files = groups.setdefault(key, {})
        if extension in files:
            raise InvalidConfig(
                f"{shard} holds two files .{extension} of '{key}': {files[extension].name} and {member.name}",
                hint="extract it and write it again; an archive that files were added to keeps their old versions",
            )
        files[extension] = member
    _refuse_lost(shard, cut, groups, wanted)
    for key, files in groups.items():
        if (sources := _chosen(key, files, wanted, tally)) is not None:
            yield sources


def _no_file_of_a_sample(member: Member, name: str) -> str | None:
    """Return the reason if a file cannot belong to a sample."""
    if name.startswith("."):
        return HIDDEN
    if META.match(member.name):
        return METADATA
    if "." not in name:
        return NO_EXTENSION
    return member.reason or None


def _refuse_lost(shard: Shard, cut: Mapping[str, _Cut], groups: Mapping[str, object], wanted: Wanted) -> None:
    """Raise InvalidConfig for images with captions that would be no sample because their names hold dots."""
    images, captions = set(wanted.image), {one.extension for one in wanted.caption}
    lost = [
        name
        for name, (key, extensions) in cut.items()
        if key not in groups and extensions & images and extensions & captions
    ]
    if lost:
        raise InvalidConfig(
            f"webdataset: {len(lost)} samples of {shard} have dots in their names ({some(lost)}), "
            "and the name of a sample ends at the first dot",
            hint="set key=extension, --dataset 'webdataset[key=extension]', and it ends before the extension",
        )


def _chosen(key: str, files: dict[str, Member], wanted: Wanted, tally: Tally) -> Sources | None:
    """Choose the files of a sample and count them; None if it has neither image nor caption."""
    image = next((one for one in wanted.image if one in files), None)
    spec = next((number for number, one in enumerate(wanted.caption) if one.extension in files), -1)
    caption = wanted.caption[spec].extension if spec >= 0 else None
    labels = wanted.labels.extension if wanted.labels and wanted.labels.extension in files else None
    complete = image is not None or caption is not None
    used = {one for one in (image, caption, labels) if one is not None} if complete else set()
    tally.used += len(used)
    for extension, member in files.items():
        if extension not in used:
            tally.leave_out(SECOND if complete else ALONE, member.name)
    if not complete:
        return None
    return Sources(key, files.get(image or ""), files.get(caption or ""), spec, files.get(labels or ""))
