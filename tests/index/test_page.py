"""The page of a search: what it shows, and that nothing in it is more than text."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparc.errors import BadSample
from sparc.index.page import page, write_page
from sparc.index.results import Found, Hit, SharedConcept, plain
from sparc.index.sheet import ACROSS, write_sheet
from sparc.plugins.contracts import Sample

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>body{display:none}</style>",
    "&lt;b&gt; <!-- ",
    "\u202egnp.exe\x1b[31m",
    "قطة 猫 😀 \ud800",
]
ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "strong", "section", "header"}
ALLOWED |= {"img", "bdi", "ol", "li", "meter"}


def red():
    return Image.new("RGB", (400, 100), "red")


def found(text="bus", image=red, modality="text", find="image", hits=1, **changes):
    sample = Sample(text, image, text)
    concepts = (SharedConcept(7, text, 0.75), SharedConcept(8, None, 0.25))
    fields = {
        "query": text,
        "modality": modality,
        "sample": sample,
        "query_stream": text,
        "target_stream": "clip",
        "target_modality": find,
        "by": "latents",
        "candidates": 1234,
        "hits": tuple(Hit(0.5, sample, concepts) for _ in range(hits)),
    }
    return Found(**{**fields, **changes})


class Parts(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def test_a_hit_shows_picture_caption_score_and_shared_concepts():
    content = page([found("a bus")], title="Search in photos")
    text = " ".join("".join(Parts(content).texts).split())
    for shown in ("Search in photos", "a bus", "clip", "1 of 1,234 images", "0.500", "a bus (7) 75%, latent 8 25%"):
        assert shown in text
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)" width="224" height="56"', content)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (224, 56))
        assert picture.convert("RGB").getpixel((9, 9))[0] > 240


def test_an_image_that_asks_is_shown_by_its_name_without_its_folder():
    content = page([found("/home/me/photo.png", modality="image")], title="x")
    assert "photo.png" in content
    assert content.count("<img") == 2
    assert 'h2 dir="auto">photo.png<' in content


def test_texts_that_were_found_have_no_pictures_and_no_hits_say_so():
    content = page([found(find="text"), found("sky", hits=0)], title="x")
    assert "<img" not in content
    assert "Nothing shares a latent with the query." in content
    assert content.count("<section>") == 2


def test_an_image_that_is_gone_leaves_its_id():
    def gone():
        raise BadSample("gone", hint="restore it")

    content = page([found("bus", image=gone)], title="x", notes=["random <weights>"])
    assert "<img" not in content
    assert "<bdi>bus</bdi>" in content
    assert "random &lt;weights&gt;" in content


def checked(content):
    parts = Parts(content)
    assert set(parts.tags) <= ALLOWED
    assert parts.tags.count("style") == parts.tags.count("title") == 1
    for tag, name, value in parts.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert (tag, name) == ("img", "src")
            assert value.startswith("data:image/webp;base64,")
    return parts


def test_hostile_texts_are_texts_in_every_place():
    for text in HOSTILE:
        parts = checked(page([found(text), found(text, modality="image", find="text")], title=text, notes=[text]))
        plain = "".join(one if one.isprintable() else " " for one in text).encode("utf-8", "replace").decode()
        shown = "".join(parts.texts)
        assert shown.count(" ".join(plain.split())) >= 4, text
        assert "\u202e" not in shown
        assert "\x1b" not in shown


@given(text=st.text(min_size=1, max_size=30))
@settings(max_examples=50)
def test_any_text_is_a_text(text):
    checked(page([found(text, image=None, find="text")], title=text))


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(tmp_path):
    write_page([found()], tmp_path / "found.html", title="x")
    content = (tmp_path / "found.html").read_text(encoding="utf-8")
    style = re.search(r"<style>(.*?)</style>", content, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', content)[1]
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"]
    assert "http://" not in content
    assert "https://" not in content


def test_long_texts_are_cut():
    assert plain("a  b\nc", 80) == "a b c"
    assert plain("word " * 50_000, 10) == "word word…"
    assert plain("\x1b[31mred\u202e \ud800") == "[31mred"
    assert plain("x" * 10, 10) == "x" * 10
    assert len(page([found("x" * 100_000, image=None, find="text")], title="t")) < 10_000


def test_a_sheet_shows_hits_in_rows_and_any_text(tmp_path):
    def height(*found):
        write_sheet(found, tmp_path / "found.png", title="Search", notes=["note"])
        with Image.open(tmp_path / "found.png") as sheet:
            assert sheet.getpixel((3, 3)) == (255, 255, 255)
            reds = sum(count for count, colour in sheet.getcolors(1 << 20) if colour == (255, 0, 0))
            return sheet.height, reds

    none, one, row, more = (height(found(hits=hits)) for hits in (0, 1, ACROSS, ACROSS + 1))
    assert none[0] < one[0] == row[0] < more[0]
    assert (none[1], row[1], more[1]) == (0, ACROSS * one[1], (ACROSS + 1) * one[1])
    for text in [*HOSTILE, "word " * 20_000, "x" * 100_000]:
        assert height(found(text), found(text, find="text"), found(text, modality="image"))[0] < 2000
