"""The contact sheet: what is drawn of each latent, and where."""

import pytest
from PIL import Image, ImageChops

from sparc.explorer.contact_sheet import draw
from sparc.explorer.meanings import Meaning
from sparc.plugins.contracts import Sample
from sparc.storage.latent_names import LatentName

CAT = LatentName("cat", depth=1, purity=0.9, lift=3.0, confirmed=True)


@pytest.fixture
def found():
    """Three latents, the last without a name, each shown by six samples of both streams."""
    tops = [[(row, 1 - row / 100) for row in range(first, first - 6, -1)] for first in (9, 19, 29)]
    return [Meaning(n, 0.9, CAT if n < 2 else None, {"a": top, "b": top}) for n, top in enumerate(tops)]


def sample(row):
    colour = (row * 40 % 256, 90, 200 - row * 5)
    return Sample(f"s{row}", open_image=lambda: Image.new("RGB", (64, 40), colour), caption=f"number {row}, " * 12)


def mute(row):
    return Sample(f"s{row}", caption=f"number {row}")


def columns(image):
    """The places of both columns of samples of the last latent, in a sheet of one latent."""
    left, width, apart = 40, 472, 472 + 44
    return [(x, image.height - 400, x + width, image.height - 40) for x in (left, left + apart)]


def where_different(one, other):
    """The box in which two pictures differ by more than their palettes round; None if nowhere."""
    return ImageChops.difference(one, other).point(lambda value: 255 * (value > 24)).getbbox()


def paint(path, found, samples=sample, modalities=None):
    modalities = modalities or {"a": "image", "b": "text"}
    draw(found, samples, modalities, path, title="Latents", subtitle="Held-out samples.")
    with Image.open(path) as image:
        image.load()
        return image.convert("RGB")


def test_a_picture_grows_with_the_latents_and_stays_small_on_disk(found, tmp_path):
    two, three = (paint(tmp_path / f"{count}.png", found[:count]) for count in (2, 3))
    assert two.width == three.width
    assert two.height < three.height
    assert (tmp_path / "3.png").stat().st_size < 300_000


def test_the_same_latents_give_the_same_picture(found, tmp_path):
    paint(tmp_path / "one.png", found)
    paint(tmp_path / "two.png", found)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_images_are_seen_in_the_picture(found, tmp_path):
    colours = {colour for _, colour in paint(tmp_path / "cat.png", found[:1]).getcolors(maxcolors=1 << 20)}
    wanted = (9 * 40 % 256, 90, 200 - 9 * 5)
    assert min(sum(abs(p - q) for p, q in zip(wanted, colour, strict=True)) for colour in colours) < 12


def test_captions_need_no_image(found, tmp_path):
    """Every caption is drawn in both columns: other captions change both."""

    def speak(row):
        return Sample(f"s{row}", caption=f"something else {row}")

    texts = {"a": "text", "b": "text"}
    one, other = (paint(tmp_path / "text.png", found[:1], samples, texts) for samples in (mute, speak))
    for box in columns(one):
        assert where_different(one.crop(box), other.crop(box)) is not None


def test_a_silent_stream_says_so_in_its_own_column(tmp_path):
    silent = paint(tmp_path / "silent.png", [Meaning(1, 0.0, None, {"a": [(0, 1.0)], "b": []})])
    dead = paint(tmp_path / "dead.png", [Meaning(1, 0.0, None, {"a": [], "b": []})])
    shown, words = (silent.crop(box) for box in columns(silent))
    left, right = (dead.crop(box) for box in columns(dead))
    assert where_different(left, right) is where_different(left, words) is None
    assert where_different(words, Image.new("RGB", words.size, "white")) is not None
    assert where_different(shown, words) is not None


def test_the_name_and_its_purity_are_written_above_the_samples_of_a_latent(tmp_path):
    def sheet(name):
        return paint(tmp_path / "named.png", [Meaning(1, 0.5, name, {"a": [(0, 1.0)], "b": [(0, 1.0)]})])

    bare, cat = sheet(None), sheet(CAT)
    purer = sheet(LatentName("cat", depth=1, purity=0.95, lift=3.0, confirmed=True))
    heading = cat.height - 400  # above the samples
    for one, other in ((bare, cat), (cat, purer)):
        _, top, _, bottom = where_different(one, other)
        assert heading - 50 <= top < bottom <= heading


ACCENT = (232, 115, 12)


def accents(image):
    return sum(
        count
        for count, colour in image.getcolors(maxcolors=1 << 20)
        if max(abs(p - q) for p, q in zip(colour, ACCENT, strict=True)) < 8
    )


def test_a_frame_says_that_a_sample_is_shown_in_every_stream(tmp_path):
    """The sheet shows fewer than the ten samples kept per stream; a sample not shown in the other has no frame."""
    first, second = [(row, 1.0) for row in range(10)], [(row, 1.0) for row in range(9, -1, -1)]
    gallery = {"a": "image", "b": "image"}

    def drawn(a, b):
        meaning = Meaning(1, 0.5, None, {"a": a, "b": b})
        return accents(paint(tmp_path / "frames.png", [meaning] * 2, modalities=gallery))

    none = drawn(first, second)
    assert none == drawn(first[:5], second[:5])
    assert drawn(first[:1], first[:1]) > none


def test_nothing_is_framed_where_there_is_one_stream(tmp_path):
    alone = paint(tmp_path / "alone.png", [Meaning(1, 0.5, None, {"a": [(0, 1.0)]})], modalities={"a": "image"})
    assert accents(alone) == 0


def test_a_caption_keeps_its_accents(tmp_path):
    found = [Meaning(1, 0.5, None, {"a": [(0, 1.0)], "b": [(0, 1.0)]})]

    def drawn(text):
        return paint(tmp_path / "text.png", found, lambda row: Sample("s", caption=text), dict.fromkeys("ab", "text"))

    accented, bare = drawn("légende naïve"), drawn("legende naive")
    assert where_different(accented, bare) is not None


def test_long_captions_stay_in_their_column(tmp_path):
    """The middle one of three text streams has very long words: the column to its right must not change."""
    found = [Meaning(1, 0.5, CAT, {"a": [(0, 1.0)], "b": [(1, 1.0)], "c": [(2, 1.0)]})] * 2
    modalities = dict.fromkeys("abc", "text")

    def speak(caption):
        return lambda row: Sample(f"s{row}", caption=caption if row == 1 else "short")

    calm = paint(tmp_path / "calm.png", found, speak("short"), modalities)
    loud = paint(tmp_path / "loud.png", found, speak("https://example.org/" + "endless" * 60), modalities)
    left = calm.width * 2 // 3 + 8
    box = (left, 0, calm.width, calm.height)
    assert calm.size == loud.size
    assert max(high for _, high in ImageChops.difference(calm.crop(box), loud.crop(box)).getextrema()) < 16


@pytest.mark.parametrize("weak", [1e-30, 1e-3, 0.02])
def test_an_activation_too_weak_for_a_pixel_is_drawn_with_the_others(weak, tmp_path):
    """A bar of less than a pixel once ended the drawing."""
    top = [(0, 1.0), (1, weak), (2, weak / 2)]
    for kind in ("text", "image"):
        for count in (1, 2):
            meaning = Meaning(1, 0.5, CAT, {"a": top, "b": top})
            assert paint(tmp_path / "weak.png", [meaning] * count, modalities=dict.fromkeys("ab", kind)).width > 200
