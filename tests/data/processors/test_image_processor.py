import contextlib
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import ImageStream
from skillweave.data.processors import BadInput
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.pixels import ImageAugmentation, crop_square

STREAM = ImageStream(size=32, patch=8)
PROCESS = ImageProcessor(STREAM)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corners(features):
    """Colour of the four corners and the centre as 0..255."""
    pixels = ((features.data * 0.5 + 0.5) * 255).round().permute(1, 2, 0)
    return [
        tuple(int(v) for v in pixels[y, x])
        for y, x in ((1, 1), (1, -2), (-2, 1), (-2, -2), (16, 16))
    ]


def quarters(mode="RGB"):
    """Upper left red, upper right green, lower left blue, lower right white."""
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    image.paste(RED, (0, 0, 32, 32))
    image.paste(GREEN, (32, 0, 64, 32))
    image.paste(BLUE, (0, 32, 32, 64))
    return image.convert(mode)


def test_pixels_are_normalised_channels_first(picture):
    features = ImageProcessor(
        ImageStream(size=32, patch=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    )(picture(Image.new("RGB", (32, 32), (255, 0, 51))))
    assert (
        features.data.shape == (3, 32, 32)
        and features.data.dtype == torch.float32
        and features.length == 17
    )
    expected = torch.tensor([(1 - 0.1) / 0.5, -0.2 / 0.25, (0.2 - 0.3) / 0.2])
    torch.testing.assert_close(features.data.amin((1, 2)), expected)
    torch.testing.assert_close(features.data.amax((1, 2)), expected)


def test_a_picture_of_the_right_size_is_kept_as_it_is(picture):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = PROCESS(picture(pixels)).data
    torch.testing.assert_close(data, torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)
    assert torch.equal(PROCESS(pixels).data, data) and torch.equal(
        PROCESS(Image.fromarray(pixels)).data, data
    )


def test_the_centre_of_a_wide_picture_is_cut_out(picture):
    wide = Image.new("RGB", (192, 64), RED)
    wide.paste(quarters(), (64, 0))
    assert corners(PROCESS(picture(wide))) == corners(PROCESS(picture(quarters())))
    assert corners(PROCESS(picture(wide.rotate(90, expand=True))))[0] == GREEN


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_undone(picture, orientation, kind):
    undo = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
    }
    stored = quarters()
    if orientation > 1:  # the camera stores the picture turned the other way
        stored = stored.transpose(Image.Transpose[undo.get(orientation, "ROTATE_270")])
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = corners(PROCESS(picture(stored, kind, exif=exif)))[:3]
    assert np.abs(np.array(got) - np.array([RED, GREEN, BLUE])).max() < 24


def test_broken_exif_does_not_cost_the_picture(picture):
    data = picture(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 20)
    assert corners(PROCESS(data))[0][0] > 230


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("L", "JPEG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("RGBA", "WEBP"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "JPEG"),
        ("RGB", "BMP"),
        ("RGB", "AVIF"),
        ("I;16", "PNG"),
        ("I;16", "TIFF"),
        ("LAB", "TIFF"),
    ],
)
def test_every_mode_becomes_rgb(picture, mode, kind):
    grey = Image.new("L", (64, 64), 0)
    grey.paste(255, (32, 0, 64, 64))
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "LAB":
        stored = Image.merge(
            "LAB", (grey, Image.new("L", (64, 64), 128), Image.new("L", (64, 64), 128))
        )
    else:
        stored = (
            grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr") else grey.convert(mode)
        )
    got = np.array(corners(PROCESS(picture(stored, kind))))
    assert got[[0, 2]].max() < 12 and got[[1, 3]].min() > 243


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparency_shows_white(picture, kind):
    image = quarters("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 32, 32))
    image.paste((0, 0, 0, 128), (32, 0, 64, 32))
    clear, half = corners(PROCESS(picture(image, kind)))[:2]
    assert min(clear) > 250 and all(abs(v - 127) < 6 for v in half)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_shows_white(picture, mode):
    image = Image.new(mode, (32, 32), 0)
    assert (
        min(corners(PROCESS(picture(image, transparency=(0, 0, 0) if mode == "RGB" else 0)))[0])
        == 255
    )


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(picture, kind):
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, GREEN, BLUE)]
    got = corners(PROCESS(picture(frames[0], kind, save_all=True, append_images=frames[1:])))[4]
    assert got[0] > 240 and max(got[1:]) < 16


def test_a_large_jpeg_keeps_its_place_and_colours(picture):
    large = quarters().resize((1200, 900), Image.Resampling.NEAREST)
    got = corners(PROCESS(picture(large, "JPEG")))[:3]
    assert np.abs(np.array(got) - np.array([RED, GREEN, BLUE])).max() < 16


@pytest.mark.parametrize(
    "size", [(12_000, 9_000), (60_000, 60_000), (2**31 - 1, 1), (2**31 + 7, 9)]
)
def test_a_bomb_is_refused_by_its_header(png_header, size, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadInput, match="max_pixels 64000000"):
        PROCESS(png_header(*size))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(
    "texts",
    [
        [chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3 * 2**20)))],
        [chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(3 * 2**20)))],
        [chunk(b"tEXt", b"comment\0" + b"x" * 2**21)] * 40,
        [chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 * 2**20)))],
    ],
)
def test_comments_of_any_length_do_not_cost_the_picture(picture, texts, at_end):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture(quarters(), exif=exif)
    at = data.index(b"IEND") - 4 if at_end else data.index(b"IDAT") - 4
    assert torch.equal(PROCESS(data[:at] + b"".join(texts) + data[at:]).data, PROCESS(data).data)


def test_a_jpeg_of_many_scans_is_refused_undecoded(picture, monkeypatch):
    data = picture(Image.new("L", (100, 100)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    processor = ImageProcessor(STREAM, LimitsConfig(max_pixels=20_000))
    for scans, refused in ((50, False), (100, True)):
        many = data[:-2] + data[last:-2] * scans + data[-2:]
        if refused:
            monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
            with pytest.raises(BadInput, match="scans of 100 × 100 pixels"):
                processor(many)
        else:
            assert torch.equal(processor(many).data, processor(data).data)


@pytest.mark.parametrize(("kind", "share"), [("WEBP", 3), ("AVIF", 2), ("PNG", 1)])
def test_formats_that_take_more_memory_have_fewer_pixels(picture, kind, share):
    limited = ImageProcessor(STREAM, LimitsConfig(max_pixels=10_000 * share))
    limited(picture(Image.new("RGB", (100, 100)), kind))
    with pytest.raises(BadInput, match="exceed max_pixels 10000"):
        limited(picture(Image.new("RGB", (100, 101)), kind))


def test_large_transparent_pictures_show_white(picture):
    image = quarters("RGBA").resize((800, 800), Image.Resampling.NEAREST)
    image.paste((0, 0, 0, 0), (0, 0, 400, 400))
    image.paste((0, 0, 0, 128), (400, 0, 800, 400))
    clear, half, blue = corners(PROCESS(picture(image)))[:3]
    assert min(clear) > 250 and all(abs(v - 127) < 6 for v in half) and blue == BLUE


def test_limits_are_settings(picture):
    data = picture(Image.new("RGB", (40, 30)))
    with pytest.raises(BadInput, match="40 × 30 pixels exceed max_pixels 1000"):
        ImageProcessor(STREAM, LimitsConfig(max_pixels=1000))(data)
    with pytest.raises(BadInput, match="exceed max_bytes 10"):
        ImageProcessor(STREAM, LimitsConfig(max_bytes=10))(data)


def test_files_are_told_by_their_contents_not_their_names(tmp_path, picture):
    odd = tmp_path / "clip.mp4"
    odd.write_bytes(picture(quarters()))
    assert (
        corners(PROCESS(odd))[0] == RED
        and corners(PROCESS({"bytes": None, "path": str(odd)}))[0] == RED
    )
    text = tmp_path / "a.png"
    text.write_text("not a picture at all")
    with pytest.raises(BadInput, match="not an image"):
        PROCESS(str(text))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "0 bytes"),
        ({"bytes": b""}, "0 bytes"),
        (None, "NoneType"),
        ({}, "NoneType"),
        (7, "int"),
        ("/no/such.png", "no such file"),
        ("https://example.org/a.png", "web addresses are not read; download"),
        ({"path": "folder/https:/example.org/a.png"}, "web addresses are not read; download"),
        ("data:image/png;base64," + "A" * 9999, "web addresses are not read; download"),
        ("a\0b", "no such file"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.zeros((4, 0, 3), np.uint8), "uint8"),
        (np.zeros((4, 4, 5), np.uint8), "uint8"),
        (Image.new("F", (8, 8)), "32-bit"),
        (Image.new("La", (8, 8)), "broken"),
    ],
)
def test_what_is_no_picture_is_bad_input(value, why):
    with pytest.raises(BadInput, match=why):
        PROCESS(value)


def test_a_folder_and_a_device_are_no_files(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(BadInput, match="is not a file"):
            PROCESS(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_picture_is_bad_input(picture, kind, share):
    data = picture(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(BadInput):
        PROCESS(data[: int(len(data) * share)])


def test_a_webp_that_states_a_huge_canvas_is_refused(picture):
    data = bytearray(picture(quarters("RGBA"), "WEBP", lossless=True))
    # RFC 9649 section 3.4: 14 bits of width - 1, 14 bits of height - 1
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    with pytest.raises(BadInput):
        PROCESS(bytes(data))


def test_shift_moves_the_contents_and_brings_in_white():
    image = Image.new("RGB", (40, 40), RED)
    moved = crop_square(
        image, ImageStream(size=40, patch=1), ImageAugmentation(right=0.25, down=-0.5)
    )
    assert (
        (moved[:20, 10:] == RED).all()
        and (moved[:, :10] == 255).all()
        and (moved[20:] == 255).all()
    )


def test_shift_of_a_wide_picture_brings_in_what_lies_beside_the_square():
    image = Image.new("RGB", (120, 40), GREEN)
    image.paste(RED, (40, 0, 80, 40))
    moved = crop_square(image, ImageStream(size=40, patch=1), ImageAugmentation(right=0.25))
    assert (moved[:, :8] == GREEN).all() and (moved[:, 12:] == RED).all()


def test_zoom_changes_the_size_about_the_centre():
    image = Image.new("RGB", (64, 64), GREEN)
    image.paste(RED, (16, 16, 48, 48))
    larger = crop_square(image, ImageStream(size=64), ImageAugmentation(zoom=2.0))
    assert (larger[4:-4, 4:-4] == RED).all()
    smaller = crop_square(image, ImageStream(size=64), ImageAugmentation(zoom=0.5))
    assert (
        (smaller[:16] == 255).all()
        and (smaller[20, 20:44] == GREEN).all()
        and (smaller[28:36, 28:36] == RED).all()
    )


def test_colour_changes_follow_their_definitions():
    normalise = PROCESS.normalise
    pixels = np.array([[[100, 50, 0], [20, 40, 60]]], np.uint8)
    shown = lambda change: (normalise(pixels, change).permute(1, 2, 0) * 127.5 + 127.5).numpy()  # noqa: E731
    np.testing.assert_allclose(shown(ImageAugmentation(brightness=1.5)), pixels * 1.5, atol=1e-3)
    luma = np.array([100 * 0.299 + 50 * 0.587, 20 * 0.299 + 40 * 0.587 + 60 * 0.114])
    np.testing.assert_allclose(
        shown(ImageAugmentation(saturation=0.0))[0], np.repeat(luma[:, None], 3, 1), atol=1e-3
    )
    np.testing.assert_allclose(
        shown(ImageAugmentation(contrast=0.5)), pixels * 0.5 + 0.5 * luma.mean(), atol=1e-3
    )
    assert shown(ImageAugmentation(brightness=3.0)).max() <= 255.001


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90))
def test_the_same_seed_gives_the_same_pixels_within_range(seed, width, height):
    processor = ImageProcessor(STREAM, augment=AugmentConfig(shift=0.9, scale=0.9, colour=0.9))
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    first, second = (processor(pixels, np.random.default_rng(seed)).data for _ in range(2))
    assert torch.equal(first, second) and first.shape == (3, 32, 32)
    assert first.min() >= -1.0001 and first.max() <= 1.0001
    assert torch.equal(processor(pixels).data, PROCESS(pixels).data)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]), st.data())
def test_a_damaged_picture_decodes_or_is_bad_input(picture, kind, data):
    whole = bytearray(picture(quarters(), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        assert PROCESS(bytes(whole)).data.isfinite().all()
