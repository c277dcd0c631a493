"""Small pictures as PNG data URIs, written with the standard library."""

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The picture as a PNG file; grey ones take a byte a pixel (W3C PNG specification, filter type 0)."""
    height, width, _ = picture.shape
    grey = bool((picture == picture[..., :1]).all())
    rows = picture[..., 0] if grey else picture.reshape(height, 3 * width)
    lines = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        ]
    )


def data_uri(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """The picture as the ``src`` of an image tag."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode("ascii")


def shrink(pictures: UInt8[np.ndarray, "n h w 3"], largest: int = 48) -> UInt8[np.ndarray, "n h2 w2 3"]:
    """Pictures no side of which is longer than ``largest``, by averaging whole blocks of pixels."""
    n, height, width, _ = pictures.shape
    block = -(-max(height, width) // largest)
    if block == 1:
        return pictures
    h, w = max(height // block, 1), max(width // block, 1)
    rows, columns = min(block, height), min(block, width)
    cut = pictures[:, : h * rows, : w * columns].reshape(n, h, rows, w, columns, 3)
    return np.round(cut.mean((2, 4))).astype(np.uint8)
