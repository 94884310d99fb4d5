"""NVIDIA ModelOpt's post-training quantization of ONNX networks, on a CPU; see peer.py for the arguments.

The rest of the network stays in FP32 here, not in ModelOpt's FP16, so that what is scored is INT8 alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from modelopt.onnx.quantization import quantize
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader
from peer import Job, run_peer


class Reader(CalibrationDataReader):
    """Gives the inputs one by one, and the first apart, from which ModelOpt learns shapes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.rewind()

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._inputs, None)

    def get_first(self) -> dict[str, NDArray[Any]]:
        return next(self._job.inputs())

    def rewind(self) -> None:
        self._inputs = self._job.inputs()


def convert(job: Job, *, method: str) -> None:
    quantize(
        str(job.model),
        quantize_mode="int8",
        calibration_data_reader=Reader(job),
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(job.output),
        log_level="WARNING",
    )


SETTINGS = {method: partial(convert, method=method) for method in ("max", "entropy")}


if __name__ == "__main__":
    run_peer(SETTINGS, ("nvidia-modelopt", "onnxruntime", "onnx", "torch"))
