"""Compressed observations: PNG images that carry three channels each."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ImageError(ValueError):
    """Compressed bytes that do not hold the observation that they should."""


def decode_images(data: bytes, channels: int, mapping: Sequence[int]) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return an observation from the PNG files that were written one after another.

    Args:
        data: the files.
        channels: how many channels the observation has.
        mapping: for each channel of the images the channel of the observation that it belongs to, or a negative number
            to drop it; those that belong to one are averaged. Empty where the player is older than that: then one
            channel is the mean of the first image's, and of several the first ones count.

    Returns:
        [channels, height, width]: bytes where each channel is one of the images', and else means in [0, 1].

    Raises:
        ImageError: there is no image, they differ in size, or the mapping does not fit them.
    """
    images = _read(data)
    if channels == 1 and not mapping:
        return _mean(images[0])[None]
    pixels = np.concatenate(images)
    return _mapped(pixels, np.asarray(mapping)) if mapping else pixels[:channels]


def encode_images(pixels: NDArray[np.uint8]) -> tuple[bytes, list[int]]:
    """Return the PNG files of an observation [channels, height, width], one after another, and their mapping.

    `decode_images` gives the same bytes again.
    """
    channels = len(pixels)
    count = -(-channels // 3)
    padded = np.zeros((3 * count, *pixels.shape[1:]), np.uint8)
    padded[:channels] = pixels
    file = io.BytesIO()
    for image in np.split(padded, count):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG", compress_level=1)
    return file.getvalue(), [*range(channels), *[-1] * (3 * count - channels)]


def image_size(data: bytes) -> tuple[int, int]:
    """Return height and width of the first image.

    Raises:
        ImageError: there is none.
    """
    if not data.startswith(_SIGNATURE) or len(data) < 24:
        raise ImageError("the compressed data are not a PNG file")
    return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])


def _read(data: bytes) -> list[NDArray[np.uint8]]:
    """Return the images: [channels, height, width] each."""
    if not data.startswith(_SIGNATURE):
        raise ImageError("the compressed data are not a PNG file")
    images = []
    for part in data.split(_SIGNATURE)[1:]:
        try:
            with Image.open(io.BytesIO(_SIGNATURE + part), formats=("PNG",)) as image:
                pixels = np.asarray(image if image.mode in ("RGB", "RGBA") else image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"a PNG file is damaged: {error}") from error
        images.append(pixels.transpose(2, 0, 1))
    sizes = {image.shape[1:] for image in images}
    if len(sizes) > 1:
        raise ImageError(f"the images differ in size: {', '.join(map(str, sizes))}")
    return images


def _mapped(pixels: NDArray[np.uint8], mapping: NDArray[np.int64]) -> NDArray[np.uint8] | NDArray[np.float32]:
    targets = mapping[mapping >= 0]
    count = int(targets.max(initial=-1)) + 1
    if len(mapping) != len(pixels) or not count or len(np.unique(targets)) != count:
        raise ImageError(f"the channel mapping {mapping.tolist()} does not fit images with {len(pixels)} channels")
    if len(targets) == count:
        return pixels[mapping.argsort()[-count:]]
    return np.stack([_mean(pixels[mapping == channel]) for channel in range(count)])


def _mean(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean over channels [channels, height, width], in [0, 1]."""
    mean: NDArray[np.float32] = pixels.mean(axis=0, dtype=np.float32) / np.float32(255)
    return mean
