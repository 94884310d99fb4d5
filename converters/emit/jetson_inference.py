"""jetson-inference: what its segNet reads.

From the source of dusty-nv/jetson-inference (c/segNet.cpp, c/tensorNet.cpp, calibration/randInt8Calibrator.cpp):

* a frame for an ONNX network is scaled to 0..1 and normalised with ImageNet's mean and deviation, whatever the network:
  the graph turns that back into pixels first;
* segNet takes scores (1, C, h, w) float32 and finds the largest on the CPU; a class named "void" is never chosen;
* the command line builds FP16. INT8 is asked for in C++ with TYPE_INT8, and its calibrator reads a file whose name
  holds the batch, GPU fallback, TensorRT's version, device and precision; without it, it calibrates on random numbers;
* a Q/DQ graph does not build there, since the INT8 flag is not set without a calibrator.
"""

from __future__ import annotations

from edgeseg.converters.emit.graphs import with_name, with_normalised_input
from edgeseg.converters.emit.options import Version
from edgeseg.converters.emit.request import COLORS, LABELS, MODEL, Emission, Program, Request, label_files
from edgeseg.converters.targets import with_planar_input
from edgeseg.errors import UsageError

__all__ = ["JETSON_INFERENCE"]

INPUT, OUTPUT = "input_0", "output_0"

_MEAN = tuple(255 * v for v in (0.485, 0.456, 0.406))
_STD = tuple(255 * v for v in (0.229, 0.224, 0.225))

_VERSION_NUMBERS: dict[Version, int] = {(8, 5): 8502, (8, 6): 8602, (10, 3): 100300}
"""NV_TENSORRT_VERSION of JetPack 5.1, 6.0 and 6.1 to 6.2."""


def _make(request: Request) -> Emission:
    request.require_logits("jetson-inference")
    version = _VERSION_NUMBERS.get(request.options.tensorrt)
    if version is None:
        raise UsageError(
            "jetson-inference names its calibration file by TensorRT's full version, which is known for 8.5, 8.6 and "
            "10.3 of JetPack 5.1 to 6.2; give one of them with --tensorrt"
        )
    if request.options.batch != 1:
        raise UsageError("segNet runs one frame at a time; leave --batch away")
    normalised = with_normalised_input(with_planar_input(request.model), _MEAN, _STD, INPUT)
    variant, names = with_name(normalised, request.manifest.output.tensor, OUTPUT)
    derived = request.derive(variant, names)
    files = {MODEL: derived.model.SerializeToString(deterministic=True), **label_files(request.manifest.labels)}
    if derived.cache:
        files[f"{MODEL}.1.1.{version}.GPU.INT8.calibration"] = derived.cache
    command = (
        f"segnet --model={MODEL} --labels={LABELS} --colors={COLORS} --input_blob={INPUT} --output_blob={OUTPUT} "
        "frame.jpg overlay.jpg"
    )
    return Emission(files, (command,), _notes(request))


def _notes(request: Request) -> tuple[str, ...]:
    output = request.manifest.output
    notes = [
        f"The command builds FP16. The class map is that of the {output.width}x{output.height} scores; segnet enlarges "
        "it, so edges are coarser than edgeseg's.",
    ]
    if not request.options.fp16_only:
        notes += [
            f'INT8 in C++: segNet::Create(NULL, "{MODEL}", "{LABELS}", "{COLORS}", "{INPUT}", "{OUTPUT}", 1, '
            "TYPE_INT8). It reads the .calibration file beside the graph; where the name's version number is not that "
            "of your TensorRT, rename it, or segNet calibrates on random numbers without an error.",
            "With TYPE_INT8 every layer runs in INT8, sums too, and the rest in float32: compare the masks before you "
            "use it. edgeseg, trtexec and DeepStream keep in float what the bundle keeps in float.",
        ]
    if "void" in (name.lower() for name in request.manifest.labels.names):
        notes.append("segnet never gives the class void; --ignore-class chooses another to leave away.")
    return tuple(notes)


JETSON_INFERENCE = Program(
    "jetson-inference", "segNet of dusty-nv's library", _make, before=(10, 4), always_implicit=True
)
