"""Image files: every kind decoded as it is stored, or refused by name before it costs anything."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep.conversion import pixels
from data_prep.conversion.pixels import decode, encode, read_image, stored_or_encoded
from llava_pose.errors import UserError


def picture(width=120, height=80):
    small = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(path, image, kind, **options):
    image.save(path, kind, **options)
    return path


def difference(path, image):
    found, factor = decode(read_image(path))
    assert factor == 1 and found.dtype == np.uint8
    return np.abs(found.astype(float) - np.asarray(image, dtype=float)).mean()


def test_a_jpeg_is_decoded_as_pillow_decodes_it(tmp_path):
    path = saved(tmp_path / "a.JPEG", picture(), "JPEG", quality=90)
    assert difference(path, Image.open(path)) < 0.5


def test_a_grey_jpeg_becomes_rgb(tmp_path):
    path = saved(tmp_path / "grey.JPEG", picture().convert("L"), "JPEG", quality=95)
    assert difference(path, picture().convert("L").convert("RGB")) < 2


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(tmp_path / "cmyk.JPEG", picture().convert("CMYK"), "JPEG", quality=95)
    assert difference(path, picture()) < 12
    assert Image.open(io.BytesIO(stored_or_encoded(read_image(path)))).mode == "RGB"


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_palettes_and_alpha_become_rgb(tmp_path, mode):
    image = picture().convert(mode)
    path = saved(tmp_path / "a.png", image, "PNG")
    assert difference(path, image.convert("RGB")) == 0


def test_sixteen_bits_are_scaled_down_and_not_cut_off(tmp_path):
    grey = np.asarray(picture().convert("L"))
    path = saved(tmp_path / "deep.JPEG", Image.fromarray(grey.astype(np.uint16) * 257), "PNG")
    assert difference(path, Image.fromarray(grey).convert("RGB")) == 0


def test_sixteen_bits_a_colour_are_scaled_down(tmp_path):
    """A PNG that Pillow cannot write: 16 bits for each of red, green and blue."""
    wide = np.asarray(picture(), dtype=">u2") * 257
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 120, 80, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert difference(tmp_path / "deep.png", picture()) < 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animated_image_is_refused(tmp_path, kind):
    second = picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    path = saved(tmp_path / "moving.JPEG", picture(), kind, save_all=True, append_images=[second])
    with pytest.raises(UserError, match=r"moving\.JPEG: animated image of 2 frames"):
        read_image(path)


@pytest.mark.parametrize("quarter_turn", [3, 6])
def test_stored_pixels_are_used_whatever_exif_says(tmp_path, quarter_turn):
    exif = Image.Exif()
    exif[0x0112] = quarter_turn
    path = saved(tmp_path / "turned.JPEG", picture(), "JPEG", exif=exif, quality=95)
    file = read_image(path)
    assert (file.width, file.height) == (120, 80)
    assert difference(path, picture()) < 2
    row = Image.open(io.BytesIO(stored_or_encoded(file)))
    assert row.size == (120, 80) and not row.getexif()


def test_a_plain_jpeg_is_kept_to_the_byte(tmp_path):
    path = saved(tmp_path / "a.JPEG", picture(), "JPEG", quality=90)
    assert stored_or_encoded(read_image(path)) == path.read_bytes()


@pytest.mark.parametrize("keep", [3, 100, 0.5, 0.9])
def test_a_truncated_jpeg_is_refused(tmp_path, keep):
    path = saved(tmp_path / "torn.JPEG", picture(), "JPEG", quality=95)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(UserError, match=r"torn\.JPEG: not a readable image"):
        decode(read_image(path))


def test_harmless_stray_bytes_in_a_jpeg_are_forgiven(tmp_path):
    path = saved(tmp_path / "stray.JPEG", picture(), "JPEG", quality=95)
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"\0\0\0" + content[-2:])
    assert difference(path, picture()) < 2


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"GIF89a"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "x.JPEG").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.JPEG: not a readable image"):
        decode(read_image(tmp_path / "x.JPEG"))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.JPEG: image is missing"):
        read_image(tmp_path / "x.JPEG")
    (tmp_path / "y.JPEG").mkdir()
    with pytest.raises(UserError, match=r"y\.JPEG: image cannot be read: Is a directory"):
        read_image(tmp_path / "y.JPEG")


def with_claimed_size(kind, width, height):
    """A small file whose header claims a large image."""
    stream = io.BytesIO()
    picture(16, 16).save(stream, kind)
    content = bytearray(stream.getvalue())
    if kind == "JPEG":
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    else:
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [10_000, 40_000])
def test_a_bomb_is_refused_by_its_header(tmp_path, kind, side):
    path = tmp_path / "bomb.JPEG"
    path.write_bytes(with_claimed_size(kind, side, side))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bomb\.JPEG: .*pixels"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_an_image_just_within_the_limit_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.JPEG", picture(), "JPEG")
    monkeypatch.setattr(pixels, "MAX_PIXELS", 120 * 80)
    assert read_image(path).width == 120
    monkeypatch.setattr(pixels, "MAX_PIXELS", 120 * 80 - 1)
    with pytest.raises(UserError, match=r"a\.JPEG: image of 120x80 pixels, more than the 9,599 allowed"):
        read_image(path)


@pytest.mark.parametrize(("scale", "factor"), [(2.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.03, 8)])
def test_what_is_shrunk_anyway_is_decoded_small_and_in_place(tmp_path, scale, factor):
    ramp = np.arange(250, dtype=np.uint8)[None, :, None].repeat(150, axis=0).repeat(3, axis=2)
    path = tmp_path / "ramp.JPEG"
    path.write_bytes(encode(ramp))
    found, taken = decode(read_image(path), scale)
    assert taken == factor and found.shape == (-(-150 // factor), -(-250 // factor), 3)
    middle = (np.arange(found.shape[1]) + 0.5) * factor
    whole = slice(2, 250 // factor - 2)  # the last block of a JPEG reaches beyond the image
    assert np.abs(found[50 // factor, whole, 0] + 0.5 - middle[whole]).max() < 1.6


@pytest.mark.parametrize("side", [1, 2, 7, 63])
def test_tiny_images_are_decoded_whole(tmp_path, side):
    path = saved(tmp_path / "tiny.JPEG", picture(side, side), "JPEG")
    found, factor = decode(read_image(path), 0.01)
    assert found.shape == (side, side, 3) and factor == 1
