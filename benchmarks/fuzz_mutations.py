"""Change valid files at random: their bytes, their text, or what is in them."""

from __future__ import annotations

import io
import json
import random
import tarfile
import zipfile
from pathlib import Path

NUMBERS = (0, 1, -1, 127, 255, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 10**30, -(2**63))
TEXTS = (
    "",
    "\0",
    "\x1b[31m",
    "../../x",
    "/etc/passwd",
    "=1+1",
    "\ud800",
    "NaN",
    "x" * 140_000,
    "[" * 9_000,
    "\u202e",
    "0",
)
VALUES = (None, True, [], {}, 0.5, 1e308, float("inf"), float("nan"), -0.0, *NUMBERS, *TEXTS, [[[]]], {"a": {"b": []}})


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return bytes with one to four places changed."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        size = len(found)
        if not size:
            return bytes(draw.randbytes(draw.randrange(64)))
        place, length = draw.randrange(size), draw.choice((1, 2, 4, 8, 16, 64, 256))
        kind = draw.randrange(9)
        if kind <= 1:
            found[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            found[place : place + length] = draw.randbytes(length)
        elif kind == 3:
            found[place : place + length] = bytes([draw.choice((0, 255, 32, 48))]) * length
        elif kind == 4:
            del found[place : place + length]
        elif kind == 5:
            found[place:place] = found[(start := draw.randrange(size)) : start + length]
        elif kind == 6:
            del found[place:]
        else:
            width = draw.choice((2, 4, 8))
            number = draw.choice(NUMBERS) % (1 << 8 * width)
            found[place : place + width] = number.to_bytes(width, draw.choice(("little", "big")))
    return bytes(found)


def mutate_text(data: bytes, draw: random.Random) -> bytes:
    """Return a text with lines, numbers, or separators changed."""
    lines = data.split(b"\n")
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.randrange(len(lines))
        kind = draw.randrange(8)
        if kind == 0:
            lines.insert(place, draw.choice(lines))
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        elif kind == 2:
            lines[place] = mutate_bytes(lines[place], draw)
        elif kind == 3:
            for mark in draw.sample((b",", b'"', b"\t", b";", b"{", b"}", b"[", b"]", b":", b"'", b"\r", b"="), 2):
                lines[place] = lines[place].replace(mark, draw.choice((b"", mark * 2, b"\0", b"\xff")), 1)
        elif kind <= 5:
            words = lines[place].split(b",")
            words[draw.randrange(len(words))] = str(draw.choice((*NUMBERS, *TEXTS))).encode("utf-8", "surrogatepass")
            lines[place] = b",".join(words)
        elif kind == 6:
            lines[place] = lines[place] * (2 if len(lines[place]) > 5000 else 3000)
        else:
            draw.shuffle(lines)
    return b"\n".join(lines)


def mutate_json(content: object, draw: random.Random) -> object:
    """Return parsed JSON with one value, key or item changed, at a random depth."""
    if isinstance(content, dict) and content and draw.random() < 0.92:
        key = draw.choice(list(content))
        kind = draw.randrange(12)
        if kind == 0:
            return {name: one for name, one in content.items() if name != key}
        if kind == 1:
            return {**content, str(draw.choice(TEXTS)): draw.choice(VALUES)}
        if kind == 2:
            return {(str(draw.choice(TEXTS)) if name == key else name): one for name, one in content.items()}
        return {**content, key: mutate_json(content[key], draw)}
    if isinstance(content, list) and content and draw.random() < 0.9:
        place = draw.randrange(len(content))
        kind = draw.randrange(10)
        if kind == 0:
            return [*content[:place], *content[place + 1 :]]
        if kind == 1:
            return [*content, content[place]]
        if kind == 2:
            return content[::-1]
        return [*content[:place], mutate_json(content[place], draw), *content[place + 1 :]]
    return draw.choice(VALUES)


def mutate(path: Path, draw: random.Random) -> None:
    """Change a file in place: its bytes, or its text, or what is in it."""
    data, kind = path.read_bytes(), draw.random()
    if path.suffix in (".json", ".jsonl") and kind < 0.7:
        records = data.split(b"\n") if path.suffix == ".jsonl" else [data]
        place = draw.randrange(len(records))
        try:
            changed = mutate_json(json.loads(records[place]), draw)
        except ValueError:
            changed = draw.choice(VALUES)
        records[place] = json.dumps(changed).encode("utf-8", "surrogatepass")
        path.write_bytes(b"\n".join(records))
    elif path.suffix == ".safetensors" and kind < 0.5:
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(mutate_json(json.loads(data[8 : 8 + length]), draw)).encode("utf-8", "replace")
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    elif path.suffix in (".json", ".jsonl", ".csv", ".tsv", ".toml", ".txt") and kind < 0.9:
        path.write_bytes(mutate_text(data, draw))
    else:
        path.write_bytes(mutate_bytes(data, draw))


def mutate_zip(path: Path, draw: random.Random) -> None:
    """Mutate one member of a zip file, whose checksum is then right."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draw.choice(sorted(members))
    members[name] = mutate_bytes(members[name], draw)
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def mutate_tar(path: Path, draw: random.Random) -> None:
    """Mutate one member of a tar file, or its header, whose checksum is then right."""
    with tarfile.open(path) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    chosen = draw.randrange(len(members))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, (info, data) in enumerate(members):
            content = data
            if number == chosen:
                content = mutate_bytes(data, draw)
                info.type = draw.choice((info.type, info.type, tarfile.SYMTYPE, tarfile.LNKTYPE, b"g", b"S", b"L"))
                info.linkname = draw.choice(("", info.name, "../x", "/dev/zero"))
                info.name = draw.choice((info.name, "../../x.jpg", "/x.jpg", "a\n.jpg", "x" * 300 + ".jpg", ".jpg"))
                info.pax_headers = {"size": str(draw.choice(NUMBERS))} if draw.random() < 0.2 else {}
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
