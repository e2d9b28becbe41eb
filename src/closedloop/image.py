"""Bytes -> accepted picture: the upload rules, orientation, stripping, re-encoding, sha256 and pHash.

A picture is decoded once, under limits that are checked on its header first. What is stored is always our own JPEG of
it: no metadata, no second meaning of the same bytes (polyglots), one orientation. Its digest is its name.
"""

import contextlib
import datetime as dt
import hashlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from closedloop.errors import BrokenPicture, EmptyUpload, MovingPicture, NotAPicture, TooManyPixels, UploadTooLarge

MAX_BYTES = 10 * 2**20
MAX_PIXELS = 40_000_000
MAX_SIDE = 20_000  # px; a JPEG ends at 65,500, and nobody photographs a line
FORMATS = ("JPEG", "PNG", "WEBP")
JPEG_QUALITY = 92
ID_LENGTH = 32
THUMBNAIL = 320  # px

# The 8 lowest frequencies of the discrete cosine transform (type II) of 32 values.
_COSINES = np.cos(np.pi / 32 * np.arange(8)[:, None] * (np.arange(32) + 0.5))

# How a picture is turned upright, by the orientation that its EXIF names.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A small file may hold 40 megapixels, which take up to 320 MB while they are decoded: one of these at a time, beside
# another one.
LARGE = 10_000_000  # px
SMALL = 4_000_000  # px; a model's look at it takes so little that every core may have one
_DECODING, _LARGE = threading.BoundedSemaphore(2), threading.Lock()

# What Pillow raises on damaged or hostile files, by format and version.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, MemoryError)


@dataclass(frozen=True)
class Picture:
    """An accepted picture, ready to be stored: `jpeg` are the bytes, everything else is derived from them."""

    jpeg: bytes
    id: str  # the first 32 hex digits of the sha256 of `jpeg`
    sha256: str
    phash: str  # 64-bit perceptual hash, 16 hex digits
    width: int  # px, after orientation
    height: int

    def record(self, project_id: str, key: str, source: str, arrived_at: dt.datetime) -> dict[str, Any]:
        """The row of this picture in the table `images`; `source` is "upload" or "import"."""
        return {
            "project_id": project_id,
            "id": self.id,
            "key": key,
            "sha256": self.sha256,
            "phash": self.phash,
            "width": self.width,
            "height": self.height,
            "bytes": len(self.jpeg),
            "source": source,
            "arrived_at": arrived_at,
        }


def accept(data: bytes) -> Picture:
    """Turn uploaded bytes into a picture that may be stored.

    Takes JPEG, PNG and WebP (told by content, never by name), one frame, at most 10 MiB and 40 megapixels.
    Raises EmptyUpload, UploadTooLarge, NotAPicture, TooManyPixels, MovingPicture or BrokenPicture.
    """
    if not data:
        raise EmptyUpload
    if len(data) > MAX_BYTES:
        raise UploadTooLarge(limit_mb=MAX_BYTES // 10**6)
    with _room_for(data):
        picture = _rgb(data)
        width, height = picture.size
        if width * height > LARGE:  # one after the other takes less memory
            phash, jpeg = perceptual_hash(picture), _jpeg(picture)
        else:
            with ThreadPoolExecutor(1) as beside:
                hashing = beside.submit(perceptual_hash, picture)
                jpeg = _jpeg(picture)
            phash = hashing.result()
    digest = hashlib.sha256(jpeg).hexdigest()
    return Picture(jpeg, digest[:ID_LENGTH], digest, phash, width, height)


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0 if picture.width * picture.height < 1e6 else 2)
    return buffer.getvalue()


def perceptual_hash(picture: Image.Image) -> str:
    """pHash (Zauner 2010) as 16 hex digits: which of a picture's 8 x 8 lowest frequencies lie above their median.

    The same bits as `imagehash.phash`, which would bring SciPy into the image of the pages.
    """
    small = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = (_COSINES @ small @ _COSINES.T).round(6)  # a flat picture's frequencies are 0, not rounding noise
    bits = "".join("1" if above else "0" for above in (low > np.median(low)).ravel())
    return f"{int(bits, 2):016x}"


def decode(data: bytes, at_least: int) -> Image.Image:
    """Decode a stored picture for a model, as RGB; JPEGs only as large as needed (both sides >= 2 x `at_least` px).

    Holds the same limits as `accept`, since the inference service listens on a port of its own.
    """
    if not data:
        raise EmptyUpload
    image, draft = _open(data), 2 * at_least
    at_once = not image.info.get("progressive")  # of the others all is read before they are made smaller
    if at_once:
        image.draft("RGB", (draft, draft))
    if image.width * image.height <= SMALL:
        return _to_rgb(_load(image, None if at_once else draft))
    del image
    with _room_for(data):
        return _rgb(data, draft)


def thumbnail(jpeg: bytes) -> bytes:
    """A small JPEG of a stored picture, at most `THUMBNAIL` px wide and high."""
    with _room_for(jpeg):
        small = _rgb(jpeg, draft=THUMBNAIL)
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@contextlib.contextmanager
def _room_for(data: bytes) -> Iterator[None]:
    """While there is memory to decode a picture."""
    width, height = _open(data).size
    with _LARGE if width * height > LARGE else contextlib.nullcontext(), _DECODING:
        yield


def _rgb(data: bytes, draft: int | None = None) -> Image.Image:
    """A decoded picture. What it is made from is let go of on the way: each copy of a large one is 120 MB."""
    return _to_rgb(_load(_open(data), draft))


def _load(image: Image.Image, draft: int | None) -> Image.Image:
    try:
        if draft:
            image.draft("RGB", (draft, draft))
        image.load()
    except _DECODE_ERRORS:
        raise BrokenPicture from None
    return image


def _open(data: bytes) -> Image.Image:
    """A picture whose header keeps the limits, and which is not decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels(
            width="very many", height="very many", limit_mp=MAX_PIXELS // 10**6, side=MAX_SIDE
        ) from None
    except Image.UnidentifiedImageError:
        raise (BrokenPicture if _looks_like_a_picture(data) else NotAPicture) from None
    except _DECODE_ERRORS:
        raise BrokenPicture from None
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise TooManyPixels(width=image.width, height=image.height, limit_mp=MAX_PIXELS // 10**6, side=MAX_SIDE)
    try:
        # A phone's JPEG may carry further frames (MPO: depth, previews); its first is the picture.
        if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise MovingPicture
    except _DECODE_ERRORS:
        raise BrokenPicture from None
    return image


def _looks_like_a_picture(data: bytes) -> bool:
    return (
        data[:3] == b"\xff\xd8\xff" or data[:8] == b"\x89PNG\r\n\x1a\n" or (data[:4], data[8:12]) == (b"RIFF", b"WEBP")
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Orientation applied, colours in 8-bit sRGB, transparency on white, no metadata."""
    try:
        profile = image.info.get("icc_profile")
        image = _upright(image)
        if image.mode in ("I;16", "I;16B", "I;16L", "I"):
            image = _to_8_bit(image)
        if image.mode in ("RGB", "CMYK", "L") and profile:
            image = _to_srgb(image, profile)
        if image.mode == "P" or "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
            layer = image if image.mode == "RGBA" else image.convert("RGBA")  # which would copy it
            image = Image.new("RGB", layer.size, "white")
            image.paste(layer, mask=layer)
            del layer
        if image.mode != "RGB":
            image = image.convert("RGB")
    except _DECODE_ERRORS:
        raise BrokenPicture from None
    image.info = {}  # Pillow would write a comment that it finds here
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says. Nothing else of EXIF is read: much of it is damaged, and none of it is kept."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever the damage is, the pixels are whole
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """A 16-bit grey by its upper byte, which clips nothing; its transparent value becomes an alpha channel."""
    transparent = image.info.get("transparency")
    values = np.asarray(image)
    grey = Image.fromarray((values.clip(0, 65_535) >> 8).astype(np.uint8))
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken or foreign profile: the pixels as they are
    return converted or image
