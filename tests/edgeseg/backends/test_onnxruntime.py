"""ONNX Runtime behind the seam."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.backend_tester import BackendTester

from edgeseg.backends import Target
from edgeseg.backends.onnxruntime import ONNXRuntimeBackend


class TestONNXRuntime(BackendTester):
    backend = "onnxruntime"

    def test_gives_the_graph_itself_as_its_compiled_form(self) -> None:
        from support.backend_tester import MODEL

        assert ONNXRuntimeBackend().compile(MODEL, Target(threads=1)) == MODEL

    def test_leaves_the_callers_arithmetic_as_it_is(self, tmp_path: Path) -> None:
        """In a process of its own: ONNX Runtime sets the mode once, with the first session."""
        from support.backend_tester import MODEL

        (tmp_path / "model.onnx").write_bytes(MODEL)
        program = (
            "import sys, numpy as np\n"
            "from edgeseg.backends import Target\n"
            "from edgeseg.backends.onnxruntime import ONNXRuntimeBackend\n"
            "engine = ONNXRuntimeBackend().load(open(sys.argv[1], 'rb').read(), Target(threads=2))\n"
            "engine.infer([np.zeros(spec.shape, spec.dtype) for spec in engine.inputs])\n"
            "print(float(np.array([1e-38], np.float32)[0]) > 0)\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "model.onnx")]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "True\n"

    def test_sends_no_telemetry(self) -> None:
        ONNXRuntimeBackend().version()
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def largest_products(channels: int = 32) -> bytes:
    """Q/DQ convolution with a quantized result, in which every product is the largest that int8 has."""
    parameters = {
        "one": np.float32(1),
        "large": np.float32(channels * 127),
        "zero": np.int8(0),
        "ones": np.ones(channels, np.float32),
        "zeros": np.zeros(channels, np.int8),
        "weight": np.full((channels, channels, 1, 1), 127, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "ones", "zeros"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "large", "zero"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "large", "zero"], ["y"]),
    ]
    shape = [1, channels, 8, 8]
    graph = helper.make_graph(
        nodes,
        "largest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


class TestInt8:
    target: ClassVar = Target(threads=1, profiling=True)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_int8_kernels_run_and_do_not_saturate(self, sign: int) -> None:
        engine = ONNXRuntimeBackend().load(largest_products(), self.target)
        (result,) = engine.infer([np.full((1, 32, 8, 8), 127 * sign, np.float32)])
        assert np.array_equal(result, np.full_like(result, sign * 127.0 * 127 * 32))
        kernels = {layer.kind: layer.precision for layer in engine.profile()}
        assert kernels["QLinearConv"] == "int8"
        engine.close()
