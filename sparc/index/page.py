"""The answers of a search as one HTML file that needs nothing else: no script, no request, pictures inside.

Ids, captions, names and queries are untrusted: `html.escape` makes text of them, and the page's policy allows nothing
but its own style and pictures.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from itertools import groupby
from pathlib import Path

from sparc.errors import BadSample
from sparc.index.results import Found, Hit, plain
from sparc.plugins.contracts import Sample
from sparc.system.files import write_output

SIDE = 224
"""Longer side of a picture, in pixels."""
QUALITY = 80
SHARED = 3
"""Latents that are named below a hit."""
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c22; --pale: #5c5c66; --rule: #dcdce2; --paper: #fff; --bar: #c65d00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --pale: #a8a8b4; --rule: #3a3a42; --paper: #16161a; --bar: #f08c3c }
}
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.4 system-ui, sans-serif }
h1 { font-size: 1.4rem; margin: 0 0 1rem } h2 { font-size: 1.2rem; margin: 0; overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 1rem 0 .5rem; font-weight: 600 }
p, li { overflow-wrap: anywhere } .pale { color: var(--pale); font-size: .85rem }
section { border-top: 1px solid var(--rule); padding: 1rem 0 }
header.query { display: flex; gap: 1rem; align-items: center }
header.query img { width: auto; height: auto; max-height: 8rem; max-width: 8rem }
ol { list-style: none; padding: 0; margin: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)) }
ol.texts { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)) }
li p { margin: .15rem 0 } li img { display: block; width: 100%; height: 9.5rem; object-fit: contain;
  background: color-mix(in srgb, var(--rule) 40%, transparent) }
meter { width: 100%; height: .5rem; accent-color: var(--bar) }
"""


def write_page(found: Sequence[Found], path: Path, *, title: str, notes: Sequence[str] = ()) -> None:
    """Write the page. Raises StorageError; an image that cannot be read any more is shown by its name alone."""
    content = page(found, title=title, notes=notes)
    write_output(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))


def page(found: Sequence[Found], *, title: str, notes: Sequence[str] = ()) -> str:
    """Return the page as HTML: a section per query, a list per stream that was searched."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    by_query = [list(group) for _, group in groupby(found, key=lambda one: (one.query, one.modality))]
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{_text(title)}</h1>",
        *(f"<p><strong>{_text(note)}</strong></p>" for note in notes),
        *(line for group in by_query for line in _section(group)),
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def _section(found: Sequence[Found]) -> list[str]:
    first = found[0]
    picture = _picture(first.sample, "the query") if first.modality == "image" else ""
    query = Path(first.query).name if first.modality == "image" else first.query  # no folders of a user
    lists = [line for one in found for line in _list(one)]
    return [
        "<section>",
        f'<header class="query">{picture}<h2 dir="auto">{_text(query)}</h2></header>',
        *lists,
        "</section>",
    ]


def _list(found: Found) -> list[str]:
    measure = "cosine of the codes" if found.by == "latents" else "cosine of the decoded code with the features"
    what = "images" if found.target_modality == "image" else "texts"
    kind = "texts" if found.target_modality == "text" else "images"
    return [
        f"<h3><bdi>{_text(found.query_stream)}</bdi> → <bdi>{_text(found.target_stream)}</bdi></h3>",
        f'<p class="pale">{len(found.hits)} of {found.candidates:,} {what}, by the {measure}</p>',
        f'<ol class="{kind}">',
        *(_item(hit, found.target_modality) for hit in found.hits),
        "</ol>",
        *([] if found.hits else ["<p>Nothing shares a latent with the query.</p>"]),
    ]


def _item(hit: Hit, modality: str) -> str:
    caption = hit.sample.caption or ""
    shown = _picture(hit.sample, caption or hit.name) if modality == "image" else ""
    score = f"{hit.score:.3f}"
    shared = ", ".join(f"<bdi>{_text(str(one))}</bdi> {one.share:.0%}" for one in hit.concepts[:SHARED])
    words = f'<p dir="auto">{_text(hit.caption)}</p>' if hit.caption else ""
    return (
        f'<li>{shown}<meter min="0" max="1" value="{max(0.0, min(1.0, hit.score)):.3f}" title="score {score}"></meter>'
        f'{words}<p class="pale"><bdi>{_text(hit.name)}</bdi> · {score}</p>'
        f'{f"""<p class="pale">{shared}</p>""" if shared else ""}</li>'
    )


def _picture(sample: Sample, alt: str) -> str:
    """Return a picture inside the page; nothing if the image cannot be read any more."""
    with suppress(BadSample):
        image = sample.image()
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.save(content, "WEBP", quality=QUALITY)
        data = base64.b64encode(content.getvalue()).decode()
        size = f'width="{image.width}" height="{image.height}"'
        return f'<img src="data:image/webp;base64,{data}" {size} alt="{_text(alt)}">'
    return ""


def _text(text: str) -> str:
    """Return a text as HTML that shows it."""
    return escape(plain(text), quote=True)
