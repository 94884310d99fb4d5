"""DeepStream: the configuration of Gst-nvinfer for a segmentation network.

Keys and their meaning: NVIDIA's guide "Gst-nvinfer" and gstnvinfer_property_parser.cpp. What follows from the source of
libnvds_infer (nvdsinfer_context_impl.cpp, nvdsinfer_model_builder.cpp), of which only an older release was read:

* frames arrive as planar float32, factor * (x - offset) with one factor for all channels; a network whose channels have
  different deviations cannot be served so, and its normalisation stays in the graph, as does everyone's here;
* with network-type=2 the class of a pixel is that of the largest score above segmentation-threshold, which is not
  negative: logits would lose every pixel whose largest is below 0, so the graph ends with Softmax;
* outputs may be float32, float16, int32 or int8, not uint8: a uint8 class map cannot be read;
* INT8 that DeepStream builds by itself needs a calibration cache, and gets no FP16 beside it: layers that stay out of
  INT8 are float32. An engine that trtexec built of the Q/DQ graph has both.
"""

from __future__ import annotations

from edgeseg.converters.emit.graphs import PROBABILITIES, with_probabilities
from edgeseg.converters.emit.request import CACHE, LABELS, MODEL, Emission, Program, Request, label_files
from edgeseg.converters.emit.trtexec import PLAN, SCRIPT, plan_files
from edgeseg.converters.targets import Derived, with_planar_input
from edgeseg.errors import UsageError

__all__ = ["CONFIG", "DEEPSTREAM"]

CONFIG = "config_infer.txt"

_INT8, _FP16 = 1, 2
"""Values of network-mode."""


def _make(request: Request) -> Emission:
    request.require_logits("DeepStream")
    manifest, options = request.manifest, request.options
    if options.implicit and (options.batch > 1 or options.dla_core is not None):
        raise UsageError(
            "DeepStream builds engines of one frame on the GPU by itself; leave --implicit away for --batch or --dla: "
            "then trtexec builds the engine"
        )
    scores = with_probabilities(request.model, manifest.output, manifest.input, logits_size=options.logits_size)
    derived = request.derive(with_planar_input(scores))
    if options.implicit:
        files = {MODEL: derived.model.SerializeToString(deterministic=True), CACHE: derived.cache}
        commands: tuple[str, ...] = ()
    else:
        files = plan_files(request, derived)
        commands = (f"sh {SCRIPT}",)
    files |= {CONFIG: _config(request, derived), **label_files(manifest.labels)}
    return Emission(files, (*commands, _pipeline(request)), _notes(request))


def _map_size(request: Request) -> tuple[int, int]:
    output = request.manifest.output
    return (output.height, output.width) if request.options.logits_size else request.manifest.map_size


def _config(request: Request, derived: Derived) -> bytes:
    manifest, options = request.manifest, request.options
    keys: dict[str, object] = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,
        "network-type": 2,
        "network-mode": _FP16 if options.fp16_only else _INT8,
        "batch-size": options.batch,
        "infer-dims": f"3;{manifest.input.height};{manifest.input.width}",
        "network-input-order": 0,
        "model-color-format": 0,
        "net-scale-factor": 1.0,
        "maintain-aspect-ratio": 0,
        "scaling-filter": 1,
        "output-blob-names": PROBABILITIES,
        "num-detected-classes": len(manifest.labels),
        "segmentation-threshold": 0.0,
        "segmentation-output-order": 0,
        "output-tensor-meta": 0,
        "labelfile-path": LABELS,
    }
    if options.implicit:
        keys["onnx-file"] = MODEL
        keys["int8-calib-file"] = CACHE
        keys["model-engine-file"] = f"{MODEL}_b{options.batch}_gpu0_int8.engine"
        keys["layer-device-precision"] = ";".join(f"{layer}:fp32:gpu" for layer in derived.layer_precisions)
    else:
        keys["model-engine-file"] = PLAN
    if options.dla_core is not None:
        keys |= {"enable-dla": 1, "use-dla-core": options.dla_core}
    return ("[property]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())).encode()


def _pipeline(request: Request) -> str:
    height, width = _map_size(request)
    rows, columns = request.manifest.input.height, request.manifest.input.width
    batch = request.options.batch
    return (
        "gst-launch-1.0 uridecodebin uri=file:///path/to/video.mp4 ! mux.sink_0 "
        f"nvstreammux name=mux batch-size={batch} width={columns} height={rows} ! "
        f"nvinfer config-file-path={CONFIG} ! "
        f"nvsegvisual batch-size={batch} width={width} height={height} ! nvvideoconvert ! nv3dsink"
    )


def _notes(request: Request) -> tuple[str, ...]:
    height, width = _map_size(request)
    classes = request.manifest.output.channels
    megabytes = 4 * classes * height * width / 1e6
    notes = [
        f"nvinfer attaches an NvDsInferSegmentationMeta of {width}x{height} with the class numbers of labels.txt. "
        f"DeepStream copies {classes} scores a pixel from the GPU, {megabytes:.1f} MB a frame, and compares them on "
        "the CPU" + ("." if request.options.logits_size else "; --logits-size makes that less, with coarser edges."),
        "nvsegvisual has colours of its own; those of the bundle are in colors.txt.",
        "Without a display, put fakesink in the place of nv3dsink.",
    ]
    if request.options.implicit:
        notes.append(
            "DeepStream builds the engine when it first runs, and keeps it beside the graph; layers that the bundle "
            "keeps in float are float32 there."
        )
    else:
        notes.append("trtexec must be that of the TensorRT which DeepStream uses; the engine is read, never rebuilt.")
    return tuple(notes)


DEEPSTREAM = Program(
    "deepstream", "Gst-nvinfer in a GStreamer pipeline", _make, takes=frozenset({"implicit", "dla", "logits_size"})
)
