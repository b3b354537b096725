"""Images: more bits than eight are scaled by their range, limits hold before decoding, and errors name the size."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import EpsImagePlugin, Image, TiffImagePlugin

from sparc.errors import BadSample, OutOfMemory
from sparc.plugins import Sample, read_image
from sparc.plugins.images import DEFAULT_LIMITS, FILLS, ImageLimits, as_rgb, limit_images

TRUE = np.arange(256, dtype=np.float64).reshape(16, 16)[:, [*range(15), 0]]
"""Grey values of 8 bits, from black to nearly white."""


def saved(tmp_path, values, suffix=".tif", **tags):
    """A sample of an image file with these values, as one channel of the array's own type."""
    path = tmp_path / f"image{suffix}"
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        info[int(number.removeprefix("tag"))] = value
    Image.fromarray(values).save(path, **({"tiffinfo": info} if suffix == ".tif" else {}))
    return Sample("s", partial(Image.open, path))


def signed_tiff(tmp_path, values):
    """Pillow writes no signed 16-bit TIFF: this is written as unsigned, then marked as signed."""
    return saved(tmp_path, values.astype("<i2").view("<u2"), tag339=2)


def grey(sample):
    image = sample.image()
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


def near(sample, true=TRUE):
    """Rounding, and 255/256 where white is a power of two, move a value by one at most."""
    return np.abs(grey(sample) - true).max() <= 1


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_images_hold_data_of_fewer_bits(tmp_path, suffix, bits):
    values = np.rint(TRUE * (2**bits - 1) / 255).astype(np.uint16)
    assert near(saved(tmp_path, values, suffix))


@pytest.mark.parametrize("bits", [8, 12, 16, 24, 31])
def test_a_32_bit_image_is_scaled_by_the_bits_that_it_uses(tmp_path, bits):
    values = np.rint(TRUE * (2**bits - 1) / 255).astype(np.int32)
    assert near(saved(tmp_path, values))


@pytest.mark.parametrize("low", [-32768, -2048, -1024])
def test_a_signed_image_is_scaled_from_its_negative_to_its_positive_end(tmp_path, low):
    values = np.rint(low + TRUE * (-2 * low - 1) / 255)
    assert near(signed_tiff(tmp_path, values))
    assert near(saved(tmp_path, values.astype(np.int32)))


def test_a_signed_image_without_negative_values_begins_at_zero(tmp_path):
    assert near(signed_tiff(tmp_path, np.rint(TRUE * 32767 / 255)))


@pytest.mark.parametrize("low_and_high", [(0, 1), (0, 255), (0, 65535), (-1, 1), (-0.5, 0.5)])
def test_a_floating_point_image_is_scaled_by_its_range(tmp_path, low_and_high):
    low, high = low_and_high
    assert near(saved(tmp_path, (low + TRUE * (high - low) / 255).astype(np.float32)))


def test_values_a_little_beyond_zero_and_one_leave_the_others_as_they_are(tmp_path):
    values = (TRUE / 255).astype(np.float32)
    values[0, 0], values[-1, -2] = -0.001, 1.001
    expected = TRUE.copy()
    expected[0, 0], expected[-1, -2] = 0, 255
    assert near(saved(tmp_path, values), expected)


def test_missing_values_are_black_and_change_no_others(tmp_path):
    values = (TRUE / 255).astype(np.float32)
    values[3, 3], values[4, 4], values[5, 5] = np.nan, np.inf, -np.inf
    expected = TRUE.copy()
    expected[3, 3], expected[4, 4], expected[5, 5] = 0, 255, 0
    assert near(saved(tmp_path, values), expected)
    assert (grey(saved(tmp_path, np.full((4, 4), np.nan, np.float32))) == 0).all()


def test_values_that_gdal_marks_as_missing_do_not_count(tmp_path):
    values = (TRUE / 255).astype(np.float32)
    values[3, 3] = -9999
    expected = TRUE.copy()
    expected[3, 3] = 0
    assert near(saved(tmp_path, values, tag42113="-9999"), expected)


@pytest.mark.parametrize("fill", [-9999, -99999, -32768, np.finfo(np.float32).min, np.finfo(np.float32).max, 1e20])
@pytest.mark.parametrize("white", [1, 255])
def test_values_that_programs_write_where_one_is_missing_do_not_count_without_a_tag(tmp_path, fill, white):
    values = (TRUE / 255 * white).astype(np.float32)
    values[3, 3:6] = fill, np.nan, fill
    expected = TRUE.copy()
    expected[3, 3:6] = 0
    assert near(saved(tmp_path, values), expected)


@pytest.mark.parametrize("fill", [-9999, -32768])
def test_a_signed_image_may_hold_values_that_stand_for_missing_ones(tmp_path, fill):
    values = np.rint(TRUE * 4095 / 255)
    values[3, 3] = fill
    expected = TRUE.copy()
    expected[3, 3] = 0
    assert near(saved(tmp_path, values.astype(np.int32)), expected)


def test_a_number_among_other_negative_ones_stands_for_itself(tmp_path):
    values = (TRUE / 255 * 20000 - 9999).astype(np.float32)
    assert grey(saved(tmp_path, values))[0, 0] == round((16384 - 9999) / 32768 * 255)


def test_a_tiff_may_state_the_range_of_its_values(tmp_path):
    assert near(saved(tmp_path, (TRUE * 4).astype(np.uint16), tag340=0, tag341=1020))
    # A range that the values exceed is wrong: 10 bits hold 1,020.
    assert near(saved(tmp_path, (TRUE * 4).astype(np.uint16), tag340=0, tag341=255), TRUE * 1020 / 1023)


def test_a_tiff_of_which_white_is_zero_is_inverted(tmp_path):
    values = (65535 - np.rint(TRUE * 257)).astype(np.uint16)
    path = tmp_path / "x.tif"
    Image.fromarray(values).save(path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # tag 262, one short, BlackIsZero
    content[entry + 8] = 0
    path.write_bytes(content)
    assert near(Sample("s", partial(Image.open, path)))


def test_signed_bytes_are_not_taken_for_unsigned_ones(tmp_path):
    values = (TRUE - 128).astype(np.int8)
    assert near(saved(tmp_path, values.view(np.uint8), tag339=2))


def test_big_endian_values_are_scaled_too():
    values = np.rint(TRUE * 65535 / 255).astype(">u2")
    assert near(Sample("s", lambda: Image.frombytes("I;16B", TRUE.shape[::-1], values.tobytes())))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_of_eight_bits_becomes_rgb(mode):
    white = Image.new("L", (3, 2), 255).convert("RGBA").convert(mode) if mode != "La" else None
    image = white or Image.new("LA", (3, 2), (255, 255)).convert("La")
    assert np.abs(np.asarray(as_rgb(image)).astype(int) - 255).max() <= 1


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path, recwarn):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 0, 0, 0])
    image.save(tmp_path / "x.png", transparency=b"\x00\xff")
    assert Sample("s", partial(Image.open, tmp_path / "x.png")).image().getpixel((0, 0)) == (200, 10, 20)
    assert not recwarn.list


VALUES = {
    "<u2": st.integers(0, 2**16 - 1),
    "<i4": st.integers(-(2**31), 2**31 - 1),
    "<f4": st.floats(-(2**66), 2**66, width=32),
}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(VALUES)).flatmap(lambda dtype: arrays(dtype, (3, 4), elements=VALUES[dtype])))
def test_scaling_keeps_the_order_of_all_values_and_clips_none(values):
    assume(not np.isin(values, FILLS).any())
    pixels = np.asarray(as_rgb(Image.fromarray(values)))[..., 0].astype(int).ravel()
    in_order = pixels[np.argsort(values.ravel(), kind="stable")]
    assert (np.diff(in_order) >= 0).all()
    span = float(values.max()) - min(0.0, float(values.min()))
    if span > 256:
        # The range is at most four times the span from zero, so that the values use a quarter of 0 to 255 or more.
        assert pixels.max() - (pixels.min() if values.min() < 0 else 0) >= 62


@pytest.fixture
def limits():
    """Set limits for a test."""
    yield lambda **values: limit_images(ImageLimits(**values))
    limit_images(DEFAULT_LIMITS)


def test_an_image_beyond_the_limit_on_pixels_is_named_with_its_size_before_it_is_decoded(tmp_path, limits):
    Image.new("L", (40, 30)).save(tmp_path / "x.png")
    sample = Sample("big", partial(Image.open, tmp_path / "x.png"))
    limits(pixels=1000)
    with pytest.raises(BadSample, match="sample 'big' has 40 x 30 pixels, more than the limit of 1,000") as error:
        sample.image()
    assert "--max-pixels 1200" in error.value.hint
    assert "--skip-bad" in error.value.hint
    with pytest.raises(BadSample, match="'drawn' has 40 x 30 pixels, more than"):
        Sample("drawn", lambda: Image.new("L", (40, 30))).image()
    limits(pixels=1200)
    assert sample.image().size == (40, 30)


def test_a_very_long_image_is_named_with_its_size(limits, recwarn):
    long = Sample("strip", lambda: Image.new("L", (60_000, 3)))
    with pytest.raises(
        BadSample, match="'strip' has 60,000 x 3 pixels: its longer side is 20,000 times the sh"
    ) as error:
        long.image()
    assert "--max-side-ratio 20000" in error.value.hint
    limits(side_ratio=20_000)
    assert long.image().size == (60_000, 3)


def test_an_image_within_the_limits_is_read_without_pillows_warning(tmp_path, limits, recwarn):
    Image.new("L", (40, 30)).save(tmp_path / "x.png")
    limits(pixels=1300)  # Pillow warns beyond half of it
    assert Sample("s", partial(Image.open, tmp_path / "x.png")).image().size == (40, 30)
    assert not recwarn.list


class NoMemory(Image.Image):
    def convert(self, *_, **__):
        raise MemoryError


def test_a_lack_of_memory_names_the_sample_and_the_size_of_its_image():
    image = NoMemory()
    image._size, image._mode = (5000, 4000), "CMYK"
    with pytest.raises(OutOfMemory, match="read the image of sample 'huge': it has 5,000 x 4,000 pixels"):
        Sample("huge", lambda: image).image()


def test_a_real_lack_of_memory_is_no_damage(tmp_path):
    Image.new("L", (9000, 9000)).save(tmp_path / "x.png")
    code = (
        "import resource, sys\nfrom PIL import Image\nfrom sparc.plugins import Sample\nimport sparc.plugins.images\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))\n"
        "try:\n    Sample('huge', lambda: Image.open(sys.argv[1])).image()\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.png"], capture_output=True, text=True, check=True)
    assert "OutOfMemory not enough memory to read the image of sample 'huge': it has 9,000 x 9,000" in done.stdout


def deep_tiff(values, order, planes):
    """Return an uncompressed TIFF of 16 bits per channel, (H, W, C), as pixels or as planes; Pillow writes none."""
    height, width, channels = values.shape
    data = (values.transpose(2, 0, 1) if planes else values).astype(f"{order}u2").tobytes()
    size = len(data) // channels
    offset = 8 + 2 + 10 * 12 + 4
    bits, starts, sizes = offset, offset + 2 * channels, offset + 6 * channels
    first = offset + 10 * channels
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
    if planes:
        entries += [(273, 4, channels, starts), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, channels, sizes)]
    else:
        entries += [(273, 4, 1, first), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))]
    entries += [(284, 3, 1, 2 if planes else 1)]
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        short = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        head += struct.pack(f"{order}HHI", tag, kind, count) + short
    places = [first + number * size for number in range(channels)]
    lists = struct.pack(f"{order}I{channels}H{channels}I{channels}I", 0, *[16] * channels, *places, *[size] * channels)
    return head + lists + data


def deep_png(values):
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    height, width, channels = values.shape

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, data) for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


@pytest.mark.parametrize("kind", ["png", "png alpha", "<", ">", "< alpha", "< planes", "> planes"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_of_fewer_bits_in_sixteen_are_scaled_by_their_range(tmp_path, kind, bits):
    true = np.stack([TRUE, TRUE.T, TRUE[::-1]], axis=2)
    values = np.rint(true * (2**bits - 1) / 255).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    true[0, 0] = 255
    if "alpha" in kind:
        values = np.concatenate([values, np.full_like(values[..., :1], 65535)], axis=2)
    content = deep_png(values) if "png" in kind else deep_tiff(values, kind[0], "planes" in kind)
    path = tmp_path / "x"
    path.write_bytes(content)
    for open_image in (partial(Image.open, path), partial(Image.open, io.BytesIO(content))):
        pixels = np.asarray(Sample("s", open_image).image()).astype(int)
        assert np.abs(pixels - true).max() <= 1
        assert abs(pixels.mean() - true.mean()) < 1
    assert np.abs(np.asarray(read_image(path).convert("RGB")).astype(int) - true).max() <= 1


@pytest.mark.skipif(os.name != "posix", reason="the program that stands for Ghostscript is a shell script")
def test_postscript_is_a_program_which_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow remembers that there is none
    Image.new("RGB", (20, 20)).save(tmp_path / "cat.jpg", "EPS")
    with pytest.raises(BadSample, match="it is a PostScript program, which is not run"):
        Sample("cat", partial(read_image, tmp_path / "cat.jpg")).image()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint16])
def test_scaling_takes_little_memory_beside_the_image(kind):
    """Pillow holds 4 bytes a pixel; the rest must not be several times that, or one image takes gigabytes."""
    values = np.arange(2000 * 2000, dtype=np.int64).reshape(2000, 2000) % 5000 - (100 if kind is np.int32 else 0)
    image = Image.fromarray(values.astype(kind))
    expected = as_rgb(image.crop((0, 0, 2000, 100)))  # the range is the same
    tracemalloc.start()
    found = as_rgb(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2000 * 2000
    assert np.array_equal(np.asarray(found)[:100], np.asarray(expected))
