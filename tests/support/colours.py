"""A network whose answer is known: the class of a pixel is its brightest channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.labels import LabelSet

HEIGHT, WIDTH = 24, 32
COLOURS = LabelSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line; gives exit code, stdout and stderr."""


def save_frame(path: Path, left: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, left] = 200
    image[:, width // 2 :, 2] = 100
    cv2.imwrite(str(path), image[:, :, ::-1])
    return image


def brightest_channel() -> bytes:
    """Frame (1, H, W, 3) uint8 to logits (1, 3, H, W), which are its three channels."""
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weight")
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight"], ["logits"], kernel_shape=[1, 1], name="classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [weight],
    )
    model: Any = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
