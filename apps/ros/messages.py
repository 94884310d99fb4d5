"""ROS 2 messages and what is in them: images become frames, results become messages.

The same for recorded messages (rosbags) and live ones (rclpy): both have the fields of the message definitions, and
differ in how a message is made, which is what a `MessageMaker` hides.

Masks follow the convention of vision_msgs (README.md and LabelInfo.msg of ros-perception/vision_msgs): an Image of
encoding mono8 that holds the class index by pixel, and beside it a `LabelInfo` that says once what the indices mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.images import decode, import_cv2, is_complete
from edgeseg.errors import FrameError
from edgeseg.labels import LabelSet

__all__ = [
    "CLASS",
    "COMPRESSED_IMAGE",
    "IMAGE",
    "IMAGE_KINDS",
    "LABEL_INFO",
    "MessageMaker",
    "class_map_message",
    "frame_of",
    "label_info_message",
    "overlay_message",
]

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
LABEL_INFO = "vision_msgs/msg/LabelInfo"
CLASS = "vision_msgs/msg/VisionClass"
IMAGE_KINDS = (IMAGE, COMPRESSED_IMAGE)

_BYTES_PER_PIXEL = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
}
"""The encodings that are read, as sensor_msgs/image_encodings.hpp names them."""

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
_CONVERSIONS = {
    "bgr8": "COLOR_BGR2RGB",
    "rgba8": "COLOR_RGBA2RGB",
    "bgra8": "COLOR_BGRA2RGB",
    "mono8": "COLOR_GRAY2RGB",
    "yuv422": "COLOR_YUV2RGB_UYVY",
    "uyvy": "COLOR_YUV2RGB_UYVY",
    "yuv422_yuy2": "COLOR_YUV2RGB_YUY2",
    "yuyv": "COLOR_YUV2RGB_YUY2",
    "bayer_rggb8": "COLOR_BayerBG2RGB",
    "bayer_bggr8": "COLOR_BayerRG2RGB",
    "bayer_gbrg8": "COLOR_BayerGR2RGB",
    "bayer_grbg8": "COLOR_BayerGB2RGB",
}


class MessageMaker(Protocol):
    """Makes messages of one library."""

    def make(self, kind: str, **fields: Any) -> Any:
        """A message such as "sensor_msgs/msg/Image" with all of its fields."""
        ...

    def octets(self, pixels: NDArray[np.uint8]) -> Any:
        """Pixels, row by row, as this library's uint8[]."""
        ...


def frame_of(message: Any, kind: str) -> NDArray[np.uint8]:
    """The picture in a message.

    Args:
        message: of that kind.
        kind: one of `IMAGE_KINDS`.

    Returns:
        (H, W, 3) uint8 RGB, which the receiver may not write to. A compressed picture stays as it was taken, without
        the rotation that its EXIF data may ask for, so that it fits the camera's calibration.

    Raises:
        FrameError: for an encoding that is not read, or a message that is cut short or damaged.
    """
    reader: Callable[[Any], NDArray[np.uint8]] = _raw if kind == IMAGE else _compressed
    return reader(message)


def class_map_message(maker: MessageMaker, header: Any, class_map: NDArray[np.uint8]) -> Any:
    """A class map, (H, W) uint8, as `sensor_msgs/Image` of encoding mono8 with the header of its frame."""
    return _image(maker, header, class_map, "mono8")


def overlay_message(maker: MessageMaker, header: Any, overlay: NDArray[np.uint8]) -> Any:
    """A drawn frame, (H, W, 3) uint8 RGB, as `sensor_msgs/Image` of encoding rgb8."""
    return _image(maker, header, overlay, "rgb8")


def label_info_message(maker: MessageMaker, header: Any, labels: LabelSet) -> Any:
    """What the indices of a class map mean, as `vision_msgs/LabelInfo`.

    Its threshold is 0: the class map holds the most probable class, however improbable it is.
    """
    classes = [maker.make(CLASS, class_id=i, class_name=name) for i, name in enumerate(labels.names)]
    return maker.make(LABEL_INFO, header=header, class_map=classes, threshold=0.0)


def _image(maker: MessageMaker, header: Any, pixels: NDArray[np.uint8], encoding: str) -> Any:
    height, width = pixels.shape[:2]
    return maker.make(
        IMAGE,
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * _BYTES_PER_PIXEL[encoding],
        data=maker.octets(pixels),
    )


def _raw(message: Any) -> NDArray[np.uint8]:
    encoding, height, width, step = str(message.encoding), int(message.height), int(message.width), int(message.step)
    size = _BYTES_PER_PIXEL.get(encoding)
    if size is None:
        raise FrameError(f"the image has the encoding {encoding!r}, but edgeseg reads {', '.join(_BYTES_PER_PIXEL)}")
    data = np.frombuffer(message.data, np.uint8)
    if not height or not width or step < width * size or len(data) < step * height:
        raise FrameError(
            f"the image of {height}x{width} pixels, {encoding}, in rows of {step} bytes needs "
            f"{height * max(step, width * size)} bytes, but has {len(data)}"
        )
    # A row may be longer than its pixels: drivers align rows.
    rows = data[: step * height].reshape(height, step)[:, : width * size]
    if encoding == "rgb8":
        return np.ascontiguousarray(rows).reshape(height, width, 3)
    if size == 2 and width % 2:
        raise FrameError(f"the image is {width} pixels wide, but two pixels share their colour in {encoding}")
    shape = (height, width) if size == 1 else (height, width, size)
    cv2 = import_cv2()
    pixels = np.ascontiguousarray(rows).reshape(shape)
    frame: NDArray[np.uint8] = cv2.cvtColor(pixels, getattr(cv2, _CONVERSIONS[encoding]))
    return frame


def _compressed(message: Any) -> NDArray[np.uint8]:
    described = str(message.format)
    data = bytes(np.frombuffer(message.data, np.uint8))
    if "compressedDepth" in described:
        raise FrameError(f"the image holds depth ({described!r}), not colours; choose another topic")
    if not data or not is_complete(data):
        raise FrameError(f"the compressed image ({described!r}) is cut short or damaged ({len(data)} bytes)")
    cv2 = import_cv2()
    image = decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise FrameError(f"cannot decode the compressed image ({described!r}, {len(data)} bytes)")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb
