"""From image files to the tensor that EfficientNet-Lite0 was trained on.

The files come from strangers: only the formats named here are tried, the size in the header is checked before
anything is decoded, and whatever is wrong with one request's images is told to that request alone.
"""

import io
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP")
MAX_PIXELS = 50_000_000
# The network saw pictures whose shorter side was 256 pixels, and of those the 224 in the centre.
SCALED, SIDE = 256, 224

# MAX_PIXELS stands in for Pillow's own limit, which warns before it refuses.
Image.MAX_IMAGE_PIXELS = None


class BadImageError(Exception):
    """Says what is wrong with an image, for the client to read."""


def read_image(content: bytes) -> Image.Image:
    """The picture in a file: upright, RGB, the first frame of several."""
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception as error:  # Pillow raises a dozen kinds of exceptions on broken files.
        raise BadImageError(f"not a readable image ({', '.join(FORMATS)})") from error
    if image.width * image.height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 1_000_000} million pixels"
        raise BadImageError(f"{image.width} x {image.height} is more than {limit}")
    try:
        # A large JPEG is decoded at a half, a quarter or an eighth, down to twice what is needed.
        image.draft("RGB", (2 * SCALED, 2 * SCALED))
        image = ImageOps.exif_transpose(image)
        if image.mode == "I;16":
            # Pillow cuts 16-bit greys off at 255 where it should scale them.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except Exception as error:
        raise BadImageError("the image is truncated or damaged") from error


def to_pixels(image: Image.Image) -> NDArray[np.float32]:
    """The centre square, scaled to the network's size and range, channels first."""
    crop = min(image.size) * SIDE / SCALED
    left, top = (image.width - crop) / 2, (image.height - crop) / 2
    square = image.resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + crop, top + crop), reducing_gap=2
    )
    return (np.asarray(square, np.float32).transpose(2, 0, 1) - 127) / 128


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        files = pb_utils.get_input_tensor_by_name(request, "image_bytes").as_numpy().ravel()
        pixels = np.empty((len(files), 3, SIDE, SIDE), np.float32)
        for index, content in enumerate(files):
            try:
                pixels[index] = to_pixels(read_image(content))
            except BadImageError as error:
                message = f"image_bytes[{index}]: {error}"
                return pb_utils.InferenceResponse(
                    error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG)
                )
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])
