"""ONNX Runtime's static quantization, with its pre-processing and Q/DQ nodes; see peer.py for the arguments.

Settings as ONNX Runtime documents them ("Quantize ONNX models"): pre-processing first, weights per channel; symmetric
activation ranges for signed activations; biases stay in float, since TensorRT takes no INT32 DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from peer import Job, run_peer

CONVOLUTIONS = ["Conv", "ConvTranspose"]


class Reader(CalibrationDataReader):
    """Gives the inputs one by one; percentiles and entropy read them once more."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._inputs: Iterator[dict[str, NDArray[Any]]] = job.inputs()

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._inputs, None)

    def rewind(self) -> None:
        self._inputs = self._job.inputs()


def convert(
    job: Job,
    *,
    method: CalibrationMethod,
    activations: QuantType,
    operators: list[str] | None = None,
    moving_average: bool = False,
) -> None:
    prepared = job.output.with_name("preprocessed.onnx")
    quant_pre_process(str(job.model), str(prepared))
    symmetric = activations == QuantType.QInt8
    quantize_static(
        str(prepared),
        str(job.output),
        Reader(job),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=operators,
        per_channel=True,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options={
            "ActivationSymmetric": symmetric,
            "CalibTensorRangeSymmetric": symmetric,
            "CalibMovingAverage": moving_average,
            "QuantizeBias": False,
        },
    )


METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
ACTIVATIONS = {"s8s8": QuantType.QInt8, "u8s8": QuantType.QUInt8}

SETTINGS = {
    f"{method}-{activations}{suffix}": partial(
        convert, method=METHODS[method], activations=ACTIVATIONS[activations], operators=operators
    )
    for method in METHODS
    for activations in ACTIVATIONS
    for suffix, operators in (("", None), ("-convolutions", CONVOLUTIONS))
} | {
    f"moving-average-{activations}-convolutions": partial(
        convert,
        method=CalibrationMethod.MinMax,
        activations=ACTIVATIONS[activations],
        operators=CONVOLUTIONS,
        moving_average=True,
    )
    for activations in ACTIVATIONS
}


if __name__ == "__main__":
    run_peer(SETTINGS, ("onnxruntime", "onnx"))
