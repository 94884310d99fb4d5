"""trtexec: builds an engine from the graph and times it.

Options by version: NVIDIA/TensorRT, samples/common/sampleOptions.cpp of 8.6 and 10; TensorRT 11 has neither precision
options nor --calib nor --stronglyTyped ("Migrating trtexec Usage from TensorRT 10.x to 11.x").
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from edgeseg.converters.emit.options import Version, version_text
from edgeseg.converters.emit.request import CACHE, MODEL, Emission, Program, Request, label_files
from edgeseg.converters.targets import Derived, with_class_map

__all__ = ["PLAN", "SCRIPT", "TRTEXEC", "build_options", "build_script", "plan_files"]

PLAN = "model.plan"
SCRIPT = "build.sh"
LAYERS = "layers.json"

_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
_STRONG_TYPING: Version = (10, 12)
"""NVIDIA recommends strong typing from here on; before, float16 graphs are built with the FP16 flag."""


def build_options(request: Request, derived: Derived, plan: str = PLAN) -> list[str]:
    """What trtexec is called with to build the engine, and nothing else.

    Args:
        request: says which TensorRT and accelerator.
        derived: the graph, and for implicit INT8 the precisions of its layers.
        plan: file of the engine.
    """
    options = [f"--onnx={MODEL}", f"--saveEngine={plan}", "--skipInference"]
    options += ["--profilingVerbosity=detailed", f"--exportLayerInfo={LAYERS}"]
    options += _precision_options(request.form, request.options.tensorrt, derived.layer_precisions)
    if request.options.dla_core is not None:
        options += [f"--useDLACore={request.options.dla_core}", "--allowGPUFallback"]
    return options


def _precision_options(form: str, version: Version, precisions: Mapping[str, str]) -> list[str]:
    if form == "implicit_int8":
        layers = ",".join(f"{layer}:{precision}" for layer, precision in precisions.items())
        return ["--int8", "--fp16", f"--calib={CACHE}", "--precisionConstraints=prefer", f"--layerPrecisions={layers}"]
    if version >= (11, 0):
        return []
    if form == "fp16":
        return ["--stronglyTyped"] if version >= _STRONG_TYPING else ["--fp16"]
    return ["--int8", "--fp16"]


def build_script(request: Request, options: list[str], folder: str = "") -> bytes:
    """A shell script that builds the engine in its own folder; options given to it go to trtexec."""
    lines = [
        "#!/bin/sh",
        f"# Builds an engine with TensorRT {version_text(request.options.tensorrt)}, on the device that will run it.",
        "# Another trtexec: TRTEXEC=/path/to/trtexec sh build.sh. Less memory: sh build.sh --memPoolSize=workspace:256",
        "set -eu",
        'cd "$(dirname "$0")"',
        *([f"mkdir -p {shlex.quote(folder)}"] if folder else []),
        " \\\n  ".join([f'exec "${{TRTEXEC:-{_TRTEXEC}}}"', *map(shlex.quote, options), '"$@"']),
    ]
    return ("\n".join(lines) + "\n").encode()


def plan_files(request: Request, derived: Derived, plan: str = PLAN, folder: str = "") -> dict[str, bytes]:
    """Graph, calibration cache where the form has one, and the script that builds the engine."""
    files = {MODEL: derived.model.SerializeToString(deterministic=True)}
    if derived.cache:
        files[CACHE] = derived.cache
    files[SCRIPT] = build_script(request, build_options(request, derived, plan), folder)
    return files


def _make(request: Request) -> Emission:
    manifest, batch = request.manifest, request.options.batch
    variant, output = with_class_map(request.model, manifest.output, manifest.input)
    derived = request.derive(variant)
    size = f"{manifest.input.height}, {manifest.input.width}"
    notes = [
        f"Input {manifest.input.tensor}: ({batch}, {size}, 3) uint8, RGB. Output {output.tensor}: "
        f"({batch}, {output.height}, {output.width}) uint8, class numbers in the order of labels.txt.",
        f"{LAYERS} lists the data type of each layer of the engine. An engine that was to be INT8 and has no INT8 "
        "convolution there is none.",
        "An engine runs on the kind of device and with the version of TensorRT that built it, and on no other.",
    ]
    if derived.cache:
        notes.append("The layers in --layerPrecisions are those that the bundle keeps in float.")
    commands = (f"sh {SCRIPT}", f"{_TRTEXEC} --loadEngine={PLAN} --useCudaGraph --useSpinWait")
    return Emission({**plan_files(request, derived), **label_files(manifest.labels)}, commands, tuple(notes))


TRTEXEC = Program(
    "trtexec", "an engine built and timed by TensorRT's own tool", _make, takes=frozenset({"implicit", "dla"})
)
