"""Which bytes become a picture, and what is left of them when they are stored."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from closedloop import image
from closedloop.errors import (
    BrokenPicture,
    ClosedloopError,
    EmptyUpload,
    MovingPicture,
    NotAPicture,
    TooManyPixels,
    UploadTooLarge,
)

ORIENTATION, GPS, MAKER = 0x0112, 0x8825, 0x010F
TRANSPOSED = {  # what a camera did to the upright picture, by the orientation that it notes
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(made: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer, format, **options)
    return buffer.getvalue()


def upright() -> Image.Image:
    """Four plain corners, so that every turn and every mirroring is told apart."""
    made = Image.new("RGB", (64, 32), "white")
    made.paste("red", (0, 0, 32, 16))
    made.paste("green", (32, 0, 64, 16))
    made.paste("blue", (0, 16, 32, 32))
    return made


def stored(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(image.accept(data).jpeg))


def png(width: int, height: int, *, kind: int = 2, rows: bytes = b"") -> bytes:
    """A PNG with this header, whatever Pillow would say to it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """144 megapixels of black in some 17 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 12_000 // 8)
    rows = b"".join([*(packer.compress(row) for _ in range(12_000)), packer.flush()])
    data = bytearray(png(12_000, 12_000, kind=0, rows=rows))
    data[24] = 1  # bits a pixel
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


JPEG = encoded(upright(), quality=90)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'

REFUSED = {
    "nothing": (b"", EmptyUpload),
    "text called .jpg": (b"I am a picture, believe me.\n" * 9, NotAPicture),
    "SVG": (SVG, NotAPicture),
    "GIF": (encoded(upright(), "GIF"), NotAPicture),
    "TIFF": (encoded(upright(), "TIFF"), NotAPicture),
    "HTML": (b"<!doctype html><script>alert(1)</script>", NotAPicture),
    "a JPEG's first bytes": (JPEG[:20], BrokenPicture),
    "truncated JPEG": (JPEG[: len(JPEG) * 2 // 3], BrokenPicture),
    "truncated PNG": (encoded(upright(), "PNG")[:-40], BrokenPicture),
    "truncated WebP": (encoded(upright(), "WEBP")[:-40], BrokenPicture),
    "0 px wide": (png(0, 10), BrokenPicture),
    "65,535 px wide": (png(65_535, 10), TooManyPixels),
    "65,535 px high JPEG": (JPEG.replace(struct.pack(">HH", 32, 64), struct.pack(">HH", 65_535, 64)), TooManyPixels),
    "4,000,000,000 px": (png(2**31 - 1, 2**31 - 1), TooManyPixels),
    "144 megapixels in 17 kB": (bomb(), TooManyPixels),
    "41 megapixels": (png(6_401, 6_401), TooManyPixels),
    "animated WebP": (encoded(upright(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 32))]), MovingPicture),
    "animated PNG": (encoded(upright(), "PNG", save_all=True, append_images=[Image.new("RGB", (64, 32))]), MovingPicture),
    "more than 10 MiB": (JPEG + bytes(image.MAX_BYTES), UploadTooLarge),
}  # fmt: skip


@pytest.mark.parametrize(("data", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_is_refused(data: bytes, error: type[ClosedloopError]) -> None:
    with pytest.raises(error):
        image.accept(data)


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in ("nothing", "more than 10 MiB")])
def test_the_inference_service_holds_the_same_limits(name: str) -> None:
    data, error = REFUSED[name]
    with pytest.raises(error):
        image.decode(data, 224)


def test_a_bomb_is_as_small_as_the_test_says() -> None:
    assert len(bomb()) < 20_000


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_each_format_is_stored_as_our_own_jpeg(format: str) -> None:
    made = stored(encoded(upright(), format))
    assert (made.format, made.mode, made.size) == ("JPEG", "RGB", (64, 32))
    assert _colours(made) == ["red", "green", "blue", "white"]


def test_the_largest_pictures_are_taken() -> None:
    assert image.accept(encoded(Image.new("L", (image.MAX_SIDE, 1)), "PNG")).width == image.MAX_SIDE
    assert image.accept(encoded(Image.new("L", (8_000, 5_000)), "PNG")).height == 5_000


def test_the_smallest_picture_is_taken() -> None:
    assert (image.accept(encoded(Image.new("RGB", (1, 1)))).width, len(image.accept(JPEG).phash)) == (1, 16)


def test_same_bytes_same_id_and_the_id_is_the_digest() -> None:
    first, again, other = image.accept(JPEG), image.accept(JPEG), image.accept(encoded(Image.new("RGB", (9, 9))))
    assert first == again
    assert first.id != other.id
    assert (len(first.id), first.sha256[:32]) == (32, first.id)


@pytest.mark.parametrize("orientation", TRANSPOSED)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_gives_the_same_upright_picture(orientation: int, format: str) -> None:
    turn = TRANSPOSED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(upright().transpose(turn) if turn is not None else upright(), format, exif=exif)
    for made in (stored(data), image.decode(data, 224)):
        assert made.size == (64, 32)
        assert _colours(made) == ["red", "green", "blue", "white"]


def test_metadata_is_gone_and_does_not_change_the_id() -> None:
    exif = Image.Exif()
    exif[MAKER] = "Secretcamera"
    exif.get_ifd(GPS)[2] = (52.0, 31.0, 12.0)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "secret place")
    texts.add_text("comment", "secret place " * 10_000)
    plain = encoded(upright(), "PNG")
    clad = encoded(upright(), "PNG", exif=exif, pnginfo=texts, dpi=(300, 300))
    assert b"Secretcamera" in clad
    assert b"secret place" not in image.accept(clad).jpeg
    assert image.accept(clad) == image.accept(plain)


def test_damaged_exif_costs_nobody_the_picture() -> None:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER], exif[0x011A] = 6, "Camera", 72.5
    damaged = exif.tobytes().replace(b"\x01\x1a\x00\x05", b"\x01\x32\x00\x05")  # a date that is a fraction
    assert damaged != exif.tobytes()
    made = stored(encoded(upright().transpose(TRANSPOSED[6]), exif=damaged))  # type: ignore[arg-type]
    assert _colours(made) == ["red", "green", "blue", "white"]


def test_a_jpegs_metadata_and_comment_are_gone() -> None:
    exif = Image.Exif()
    exif[MAKER] = "Secretcamera"
    clad = encoded(upright(), exif=exif, comment=b"<script>secret</script>", xmp=b"<x>secret</x>")
    made = image.accept(clad).jpeg
    assert not [word for word in (b"Secretcamera", b"secret", b"Exif") if word in made]
    assert not stored(clad).getexif()


def test_nothing_of_a_polyglot_is_stored() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.txt", "payload")
    data = JPEG + b"<html><script>payload</script></html>" + archive.getvalue()
    made = image.accept(data)
    assert b"payload" not in made.jpeg
    assert not zipfile.is_zipfile(io.BytesIO(made.jpeg))
    assert made.id == image.accept(JPEG).id


def test_cmyk_keeps_its_colours() -> None:
    made = stored(encoded(upright().convert("CMYK")))
    assert made.mode == "RGB"
    assert _colours(made) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize("turned", [False, True])
def test_16_bit_grey_is_not_clipped(turned: bool) -> None:
    ramp = np.tile(np.linspace(0, 65_535, 256, dtype=np.uint16), (16, 1))
    exif = Image.Exif()
    exif[ORIENTATION] = 3 if turned else 1
    made = stored(encoded(Image.fromarray(ramp), "PNG", exif=exif))
    line = np.asarray(made.convert("L"))[8].astype(int)[:: -1 if turned else 1]
    assert (np.diff(line) >= -2).all()
    assert [round(int(value) / 128) for value in line[[0, 128, 255]]] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["P", "RGBA", "LA", "L", "RGB", "I;16", "1"])
def test_transparency_goes_to_white(kind: str) -> None:
    if kind == "P":
        made = Image.new("P", (32, 32), 0)
        made.putpalette([200, 0, 0, 0, 0, 200])
        data = encoded(made, "PNG", transparency=0)
    elif kind in ("RGBA", "LA"):
        data = encoded(Image.new(kind, (32, 32), (200, 0, 0, 0) if kind == "RGBA" else (90, 0)), "PNG")
    else:
        colour = {"L": 90, "RGB": (200, 0, 0), "I;16": 20_000, "1": 0}[kind]
        data = encoded(Image.new(kind, (32, 32), colour), "PNG", transparency=colour)
    assert stored(data).getpixel((16, 16)) == (255, 255, 255)


def test_a_broken_colour_profile_leaves_the_pixels() -> None:
    assert _colours(stored(encoded(upright(), "PNG", icc_profile=b"no profile at all"))) == [
        "red",
        "green",
        "blue",
        "white",
    ]


def test_a_phones_jpeg_with_further_frames_is_taken() -> None:
    data = encoded(upright(), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 16))])
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
    assert (stored(data).format, stored(data).size) == ("JPEG", (64, 32))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100)
@given(st.binary(max_size=2_000), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP"]))
def test_any_bytes_give_a_picture_or_a_plain_error(body: bytes, start: bytes) -> None:
    _taken_or_refused(start + body)


def _rich() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = 6, "Camera"
    exif.get_ifd(GPS)[2] = (52.0, 31.0, 12.0)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a picture " * 9, zip=True)
    palette = upright().convert("P")
    return {
        "JPEG": encoded(upright(), exif=exif, comment=b"hello"),
        "progressive": encoded(upright().convert("CMYK"), progressive=True, exif=exif),
        "PNG": encoded(palette, "PNG", transparency=3, exif=exif, pnginfo=texts),
        "WEBP": encoded(upright().convert("RGBA"), "WEBP", exif=exif),
        "MPO": encoded(upright(), "MPO", save_all=True, append_images=[upright()], exif=exif),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", _rich().values(), ids=_rich())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 255)), max_size=12), cut=st.integers(0, 200))
def test_damaged_pictures_give_a_picture_or_a_plain_error(
    data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    _taken_or_refused(bytes(damaged[: len(damaged) - cut if cut < 100 else len(damaged)]))


def _taken_or_refused(data: bytes) -> None:
    try:
        made = image.accept(data)
    except ClosedloopError as error:
        refused = error
    else:
        assert (made.width, made.height) == Image.open(io.BytesIO(made.jpeg)).size
        image.decode(data, 64)
        return
    assert refused.status in (400, 413, 415, 422)


def _colours(made: Image.Image) -> list[str]:
    names = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue", (255, 255, 255): "white"}
    width, height = made.size
    seen = []
    for x, y in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        pixel = made.getpixel((int(x * width), int(y * height)))
        near = min(names, key=lambda name: sum(abs(a - b) for a, b in zip(name, pixel, strict=True)))  # type: ignore[arg-type]
        assert sum(abs(a - b) for a, b in zip(near, pixel, strict=True)) < 80, pixel  # type: ignore[arg-type]
        seen.append(names[near])
    return seen


@given(st.integers(0, 2**32 - 1), st.integers(24, 400), st.integers(24, 400))  # narrower ones have symmetries, so zeros
@settings(max_examples=60)
def test_the_perceptual_hash_is_that_of_imagehash(seed: int, width: int, height: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    theirs = int(str(imagehash.phash(picture)), 16)
    assert (
        int(image.perceptual_hash(picture), 16) ^ theirs
    ).bit_count() <= 1  # a tie with the median may fall either way


def test_a_flat_picture_has_one_perceptual_hash_whatever_its_size() -> None:
    flat = {image.perceptual_hash(Image.new("RGB", size, (90, 120, 200))) for size in [(3, 4), (640, 480), (1, 1)]}
    assert len(flat) == 1


ALONE = r"""
import re, sys, threading
from pathlib import Path
from closedloop import image

def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

data = Path(sys.argv[1]).read_bytes()
before = peak()
threads = [threading.Thread(target=image.accept, args=[data]) for _ in range(3)]
[one.start() for one in threads], [one.join() for one in threads]
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process took at most")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_large_pictures_are_decoded_one_after_the_other_and_in_no_more_than_350_mb(mode: str, tmp_path: Path) -> None:
    """The web container's memory (WEB_MEMORY) rests on this."""
    Image.new(mode, (6300, 6300), (200, 10, 10, 128)[: len(mode)]).save(tmp_path / "large.png")
    said = subprocess.run([sys.executable, "-c", ALONE, tmp_path / "large.png"], capture_output=True, check=True)
    assert 100 < float(said.stdout) < 350


@pytest.mark.parametrize("progressive", [False, True])
def test_a_model_looks_at_a_large_jpeg_while_others_are_decoded_whole(progressive: bool) -> None:
    buffer = io.BytesIO()
    whole = Image.linear_gradient("L").resize((4000, 3000)).convert("RGB")
    whole.save(buffer, "JPEG", quality=90, progressive=progressive)
    with ThreadPoolExecutor(1) as pool:
        with image._LARGE:
            decoding = pool.submit(image.decode, buffer.getvalue(), 224)
            if progressive:  # its coefficients take 36 MB at whatever size
                with pytest.raises(TimeoutError):
                    decoding.result(0.3)
            else:
                assert decoding.result(20).size == (1000, 750)
        small = decoding.result(20)
    assert small.size == (1000, 750)
    assert np.abs(np.asarray(small, float) - np.asarray(whole.resize(small.size), float)).mean() < 3
