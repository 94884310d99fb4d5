"""Published weights beside the ONNX files made from them, and a real frame as these take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from edgeseg.calibration.frames import frames_from
from edgeseg.frame import fit_frame
from edgeseg.models import create
from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.weights import load_weights

__all__ = ["ESPNET", "ESPNETV2", "Published", "run_onnx"]


@dataclass(frozen=True)
class Published:
    """A network of ../shared/models: what `create` takes, its two files, and how a frame of 0..255 is normalised."""

    name: str
    classes: int
    weights: str
    onnx: str
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def load(self, shared: Path) -> SegmentationNetwork:
        network = create(self.name, classes=self.classes, **self.options).eval()
        load_weights(network, self.weights_file(shared))
        return network

    def weights_file(self, shared: Path) -> Path:
        return shared / "models" / "weights" / self.weights

    def image(self, shared: Path) -> NDArray[np.float32]:
        """A frame of the val split, (1, 3, H, W) float32."""
        frames = frames_from(shared / "data" / "camvid" / "val" / "images").select(1)
        frame = fit_frame(next(iter(frames)).image, *self.size).astype(np.float32)
        frame = frame.reshape(*self.size, 3)
        frame = frame[:, :, ::-1] if self.bgr else frame
        normalised = (frame - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None], np.float32)

    def logits(self, shared: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of torch with the published weights, and of the ONNX file, for a real frame."""
        image = self.image(shared)
        with torch.inference_mode():
            ours: NDArray[np.float32] = self.load(shared)(torch.from_numpy(image)).numpy()
        return ours, run_onnx(shared / "models" / self.onnx, image)


ESPNET = Published(
    name="espnet",
    classes=12,
    weights="espnet_p_2_q_8_camvid.pth",
    onnx="espnet_camvid_360x480.onnx",
    size=(360, 480),
    mean=(110.33102417, 108.40886688, 105.03319550),
    std=(18392.0559295, 18536.1393045, 17825.6092214),
    bgr=True,
)
ESPNETV2 = Published(
    name="espnetv2",
    classes=20,
    weights="espnetv2_s_2.0_city_1024x512.pth",
    onnx="espnetv2_s2.0_cityscapes_512x1024.onnx",
    size=(512, 1024),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    options={"width": 2.0},
)


def run_onnx(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output of an ONNX file, on the CPU and one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: image})
    logits: NDArray[np.float32] = outputs[0]
    return logits
