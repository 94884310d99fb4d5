"""Triton Inference Server: a model repository with an engine of TensorRT.

Fields: ModelConfig in triton-inference-server/common, protobuf/model_config.proto. The platform tensorrt_plan reads
model.plan in a folder that is named by the model's version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeseg.converters.emit.request import Emission, Program, Request, label_files
from edgeseg.converters.emit.trtexec import PLAN, SCRIPT, plan_files
from edgeseg.converters.targets import with_class_map

__all__ = ["CONFIG", "REPOSITORY", "TRITON"]

REPOSITORY = "repository"
CONFIG = "config.pbtxt"


def _make(request: Request) -> Emission:
    manifest, batch = request.manifest, request.options.batch
    variant, output = with_class_map(request.model, manifest.output, manifest.input)
    derived = request.derive(variant)
    name = re.sub(r"[^\w-]", "_", manifest.network.name)
    version = f"{REPOSITORY}/{name}/1"
    frame = [batch, manifest.input.height, manifest.input.width, 3]
    config = _config(
        name, (manifest.input.tensor, frame), (output.tensor, [batch, output.height, output.width]),
        request.options.dla_core,
    )  # fmt: skip
    files = {
        **plan_files(request, derived, f"{version}/{PLAN}", version),
        f"{version}/": b"",
        f"{REPOSITORY}/{name}/{CONFIG}": config.encode(),
        **label_files(manifest.labels),
    }
    notes = (
        f"Input {manifest.input.tensor}: {tuple(frame)} uint8, RGB. Output {output.tensor}: class numbers in the order "
        "of labels.txt, uint8.",
        "The engine must be built by the TensorRT of the server: run build.sh in its container, on the machine that "
        "serves.",
        "The batch is part of the engine, so the server does not gather requests; give --batch for more frames in one.",
    )
    return Emission(files, (f"sh {SCRIPT}", f"tritonserver --model-repository={REPOSITORY}"), notes)


def _config(
    name: str, frame: tuple[str, Sequence[int]], class_map: tuple[str, Sequence[int]], dla_core: int | None
) -> str:
    lines = [f'name: "{name}"', 'platform: "tensorrt_plan"', "max_batch_size: 0"]
    for field, (tensor, shape) in (("input", frame), ("output", class_map)):
        lines += [f"{field} [", "  {", f'    name: "{tensor}"', "    data_type: TYPE_UINT8"]
        lines += [f"    dims: [ {', '.join(map(str, shape))} ]", "  }", "]"]
    lines += ["instance_group [", "  {", "    count: 1", "    kind: KIND_GPU"]
    if dla_core is not None:
        lines.append(f"    secondary_devices [ {{ kind: KIND_NVDLA device_id: {dla_core} }} ]")
    return "\n".join([*lines, "  }", "]", ""])


TRITON = Program(
    "triton", "a model repository for Triton Inference Server", _make, takes=frozenset({"implicit", "dla"})
)
