"""The network that stays in floating point, for FP16: what `convert` makes where nothing is quantized."""

from __future__ import annotations

import onnx

from edgeseg.converters.macs import COMPUTE, macs
from edgeseg.converters.options import ConvertOptions
from edgeseg.errors import UsageError
from edgeseg.manifest import FP16, Layer, Quantization

__all__ = ["check_options", "quantization_of"]

_REASON = "the whole network is FP16"

_QUANTIZES = {
    "--method": "method",
    "--count": "count",
    "--no-equalize": "equalize",
    "--no-bias-correction": "correct_bias",
    "--no-weight-rounding": "round_weights",
    "--partners": "partners",
    "--budget": "budget",
    "--keep-float": "keep_float",
    "--max-float-share": "max_float_share",
    "--target": "target",
    "--search-frames": "search_frames",
    "--search-labels": "search_labels",
}
"""Attributes of the options that only say how to calibrate or quantize, by the option that sets them."""


def check_options(frames: str | None, options: ConvertOptions) -> None:
    """Refuse what contradicts FP16, or would have no effect.

    Args:
        frames: a source of frames to score, or None.
        options: with the precision "fp16".

    Raises:
        UsageError: naming the options.
    """
    usual = ConvertOptions()
    idle = [name for name, key in _QUANTIZES.items() if getattr(options, key) != getattr(usual, key)]
    if idle:
        raise UsageError(
            f"--precision fp16 neither calibrates nor quantizes, but {', '.join(idle)} "
            f"{'says' if len(idle) == 1 else 'say'} how to; give one or the other"
        )
    if options.labels is not None and frames is None and options.score_frames is None:
        raise UsageError("--labels are those of the frames to score; give these too, with --frames or --score-frames")


def quantization_of(model: onnx.ModelProto) -> Quantization:
    """What the manifest of an FP16 bundle says: every layer in floating point, nothing calibrated.

    Args:
        model: the canonical float graph, with named nodes and static shapes.
    """
    work = macs(model)
    nodes = [node for node in model.graph.node if node.op_type in COMPUTE]
    layers = tuple(Layer(node.name, node.op_type, "float", work[node.name], _REASON) for node in nodes)
    return Quantization(FP16, (), (), layers)
