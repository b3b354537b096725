"""What `sparc search` prints at each width of a terminal, and in a pipe."""

import io

import pytest
from rich.console import Console

from sparc.cli import search
from sparc.index.results import Found, Hit, SharedConcept
from sparc.plugins.contracts import Sample

CAPTION = "a wide field of tall green grass below a cloudy sky, with one tree in the middle of it"


def found(modality="image"):
    concepts = (SharedConcept(12, "grass", 0.43), SharedConcept(7, None, 0.2))
    hits = (
        Hit(0.5121, Sample("meadow/grass-10.jpg#0", None, CAPTION, image_id="meadow/grass-10.jpg"), concepts),
        Hit(0.4, Sample("tram.jpg", None, "tram.jpg"), ()),
    )
    return Found("green", "text", Sample("green"), "minilm", "lite0", modality, "latents", 1286, hits)


def printed(monkeypatch, one, width, *, terminal=True):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(search, "console", console)
    search._print(one)
    return console.file.getvalue().splitlines()


def test_a_pipe_has_a_line_for_each_hit_and_one_for_its_latents(monkeypatch):
    assert printed(monkeypatch, found(), 60, terminal=False) == [
        "green  minilm → lite0, 1,286 searched",
        f"  0.512  meadow/grass-10.jpg  {CAPTION[:79]}…",
        "         grass (12) 43%, latent 7 20%",
        "  0.400  tram.jpg",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_terminal_shows_the_name_of_the_image_and_latents_below_in_columns(monkeypatch, width):
    lines = printed(monkeypatch, found(), width)
    assert max(map(len, lines)) <= width
    first = lines.index(next(line for line in lines if line.startswith("  0.512  meadow/grass-10.jpg  a wide field")))
    last = lines.index("         grass (12) 43%, latent 7 20%")
    assert all(line.startswith(9 * " ") and line[9] != " " for line in lines[first + 1 : last])
    assert lines[last + 1] == "  0.400  tram.jpg"
    assert "#0" not in "".join(lines)


def test_of_a_text_that_was_found_the_caption_comes_first(monkeypatch):
    line = printed(monkeypatch, found("text"), 200)[1]
    assert line == f"  0.512  {CAPTION[:79]}…  meadow/grass-10.jpg"


def test_json_has_the_id_and_the_image(monkeypatch):
    hit = found().to_json()["hits"][0]
    assert (hit["id"], hit["image"]) == ("meadow/grass-10.jpg#0", "meadow/grass-10.jpg")
