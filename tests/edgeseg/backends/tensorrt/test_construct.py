"""From graph to plan in every version, and each way in which that fails."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest
from support.bundles import quantized_graph
from support.tensorrt_api import DUMPS
from support.tensorrt_behaviour import MAGIC
from support.tensorrt_fakes import Behaviour, Refusal, fake_library, fake_module

from edgeseg.backends.tensorrt.board import Device
from edgeseg.backends.tensorrt.construct import Construction, construct
from edgeseg.backends.tensorrt.options import BuildOptions, BuildProgress
from edgeseg.backends.tensorrt.proof import prove_int8
from edgeseg.backends.tensorrt.versions.library import library_of
from edgeseg.errors import EngineError, UsageError

FULL = [dump for dump in DUMPS if dump.startswith("tensorrt-")]
RTX = "tensorrt_rtx-1.7.1.116"
NODES = ("conv_8", "conv_14", "conv_20")
ORIN = Device("Orin", (8, 7), "12.6")


def run(dump: str, behaviour: Behaviour | None = None, graph: bytes | None = None, **options: Any) -> Construction:
    """Construct with the fake of a version; keywords of `construct` go there, others are options."""
    library = fake_library(dump, behaviour)
    names = ("workspace_mb", "timings", "device", "log", "on_progress")
    further = {name: options.pop(name) for name in names if name in options}
    return construct(library, graph or quantized_graph(), BuildOptions(library=library.name, **options), **further)


def dynamic(*dimensions: int) -> bytes:
    model = onnx.load_from_string(quantized_graph())
    for dimension in dimensions:
        model.graph.input[0].type.tensor_type.shape.dim[dimension].dim_param = f"d{dimension}"
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("dump", DUMPS)
class TestEveryVersion:
    def test_builds_int8(self, dump: str) -> None:
        made = run(dump)
        assert prove_int8(made.layers, NODES).int8 == NODES
        assert made.strongly_typed is (dump in ("tensorrt-11.4.0.106", RTX))
        assert made.built_for == (("SM80", "SM86", "SM89", "SM120") if dump == RTX else ())
        assert made.timings is None

    def test_builds_a_dynamic_batch(self, dump: str) -> None:
        made = run(dump, graph=dynamic(0), batch=(1, 2, 8))
        assert prove_int8(made.layers, NODES).int8 == NODES

    @pytest.mark.parametrize("fp16", [True, False])
    def test_without_fp16_there_is_no_tf32_either(self, dump: str, fp16: bool) -> None:
        assert json.loads(run(dump, fp16=fp16).plan.removeprefix(MAGIC))["tf32"] is fp16

    def test_tells_progress(self, dump: str) -> None:
        told: list[BuildProgress] = []
        run(dump, on_progress=told.append)
        if dump.startswith("tensorrt-8"):
            assert told == [BuildProgress("reading the graph", None), BuildProgress("building the engine", None)]
        else:
            assert told[0] == BuildProgress("reading the graph", 0.0)
            assert told[-1] == BuildProgress("Building Engine", 1.0)

    def test_a_layer_in_float_fails_the_proof(self, dump: str) -> None:
        made = run(dump, Behaviour(float_nodes=frozenset({"conv_14"})))
        with pytest.raises(EngineError, match=r"2 of 3 layers run in INT8, not conv_14 \(float"):
            prove_int8(made.layers, NODES)

    def test_no_int8_at_all(self, dump: str) -> None:
        made = run(dump, Behaviour(float_nodes=frozenset(NODES)))
        with pytest.raises(EngineError, match="the engine has no INT8 layer: its 3 convolutions run in other types"):
            prove_int8(made.layers, ())

    def test_a_refused_node(self, dump: str) -> None:
        noise = "(cudaError 35: CUDA driver version is insufficient)"
        refusal = Refusal(f"Plugin not found, are the plugin name and version correct?\n{noise}")
        with pytest.raises(EngineError) as caught:
            run(dump, Behaviour(refusals=(refusal, refusal)))
        where = "node 7" if dump.startswith("tensorrt-8") else "deform (DeformConv)"
        assert str(caught.value) == (
            f"{fake_library(dump)} does not take the graph: {where}: Plugin not found, are the plugin name and version "
            "correct? (and 1 more); replace it in the network"
        )

    @pytest.mark.parametrize(
        ("failure", "cure"),
        [
            ("Error Code 2: OutOfMemory (no further information)", "the device has too little memory free"),
            ("[defaultAllocator.cpp::allocate] Error Code 1: Cuda Runtime (out of memory)", "close other programs"),
            ("no tactics to implement the operation within workspace limit", "raise --workspace"),
            ("Error Code 10: Could not find any implementation for node a + b", "has no kernel for that layer"),
            ("Error Code 9: something new", "lint it with: edgeseg lint"),
        ],
    )
    def test_a_failed_build(self, dump: str, failure: str, cure: str) -> None:
        with pytest.raises(EngineError) as caught:
            run(dump, Behaviour(failure=failure))
        assert str(caught.value).startswith(f"{fake_library(dump)} does not build the graph: {failure}; ")
        assert cure in str(caught.value)

    def test_a_graph_of_other_sizes(self, dump: str) -> None:
        with pytest.raises(UsageError, match="the graph takes 1 frames at once, but --batch 1-4 was asked for"):
            run(dump, batch=(1, 1, 4))
        with pytest.raises(EngineError, match=r"input frame has shape \(-1, -1, 48, 3\): only the batch"):
            run(dump, graph=dynamic(0, 1))


@pytest.mark.parametrize("dump", [dump for dump in DUMPS if dump != "tensorrt-8.5.3.1"])
def test_limits_reach_the_builder(dump: str) -> None:
    plan = json.loads(run(dump, workspace_mb=300, optimization_level=1).plan[len(MAGIC) :])
    assert (plan["pools"], plan["level"]) == ({"WORKSPACE": 300 << 20}, 1)
    plan = json.loads(run(dump).plan[len(MAGIC) :])
    assert (plan["pools"], plan["level"]) == ({}, None)


class TestWeakTyping:
    @pytest.mark.parametrize("dump", ["tensorrt-8.6.0", "tensorrt-10.3.0", "tensorrt-10.16.1.11"])
    def test_without_int8(self, dump: str) -> None:
        made = run(dump, int8=False)
        assert {layer.precision for layer in made.layers} == {"float16"}
        assert {layer.precision for layer in run(dump, int8=False, fp16=False).layers} == {"float32"}

    def test_can_be_strong_from_10_12(self) -> None:
        """Flags beside strong typing are an error of the builder's."""
        made = run("tensorrt-10.16.1.11", strongly_typed=True)
        assert made.strongly_typed
        assert prove_int8(made.layers, NODES).int8 == NODES

    def test_cannot_before(self) -> None:
        with pytest.raises(UsageError, match="has no strong typing fit for use"):
            run("tensorrt-10.3.0", strongly_typed=True)

    def test_precisions_by_layer_and_ranges(self) -> None:
        model = onnx.load_from_string(quantized_graph())
        made = run("tensorrt-8.6.0", calibration_cache=b"TRT-8600", layer_precisions=(("conv_8", "float16"),))
        assert len(made.layers) == sum(node.op_type == "Conv" for node in model.graph.node)


class TestDLA:
    def test_with_a_cache(self) -> None:
        made = run("tensorrt-10.3.0", dla_core=0, calibration_cache=b"TRT-100300", target="orin")
        assert prove_int8(made.layers, NODES).on_dla == NODES

    def test_in_fp16(self) -> None:
        made = run("tensorrt-10.3.0", dla_core=1, int8=False)
        assert [layer.precision for layer in made.layers] == ["float16"]

    def test_refuses_qdq(self) -> None:
        with pytest.raises(
            UsageError, match=r"the DLA of TensorRT 10.3.0 takes INT8 ranges only from a calibration cache"
        ):
            run("tensorrt-10.3.0", dla_core=0)

    def test_reads_qdq_from_11_4_1(self) -> None:
        module = fake_module("tensorrt-11.4.0.106")
        module.__version__ = "11.4.1.6"
        made = construct(library_of(module), quantized_graph(), BuildOptions(target="orin", dla_core=1))
        assert [layer.role for layer in made.layers] == ["dla"]


class TestTimings:
    @pytest.mark.parametrize("dump", FULL)
    def test_are_given_back(self, dump: str) -> None:
        assert run(dump, timings=b"old;").timings == b"old;measured;"

    def test_of_another_device(self, caplog: pytest.LogCaptureFixture) -> None:
        made = run("tensorrt-10.3.0", Behaviour(takes_timings=False), timings=b"old;")
        assert made.timings == b"measured;"
        assert "the timing cache is of another device or version of TensorRT, and a new one is begun" in caplog.text


class TestDevice:
    def test_fits(self) -> None:
        assert run("tensorrt-10.3.0", target="orin", device=ORIN).layers

    def test_is_another(self) -> None:
        with pytest.raises(EngineError) as caught:
            run("tensorrt-10.3.0", target="thor", device=ORIN)
        assert "target thor has compute capability 11.0 or 10.1, but this machine's Orin has 8.7" in str(caught.value)

    def test_without_int8(self) -> None:
        nano = Device("NVIDIA Tegra X1", (5, 3), "10.2")
        with pytest.raises(
            EngineError, match=r"NVIDIA Tegra X1 \(compute capability 5.3\) has no INT8; use --fp16-only"
        ):
            run("tensorrt-8.5.3.1", device=nano)
        assert run("tensorrt-8.5.3.1", device=nano, int8=False).layers

    def test_does_not_matter_ahead_of_time(self) -> None:
        assert run(RTX, target="rtx-blackwell", device=ORIN).built_for == ("SM120",)

    @pytest.mark.parametrize("dump", FULL)
    def test_none_at_all(self, dump: str) -> None:
        with pytest.raises(EngineError) as caught:
            run(dump, Behaviour(gpu=False))
        assert "cannot start its builder, which needs an NVIDIA GPU" in str(caught.value)
        assert str(caught.value).endswith(": CUDA initialization failure with error: 35")


@pytest.mark.parametrize("dump", FULL)
def test_a_plan_that_does_not_load(dump: str) -> None:
    with pytest.raises(EngineError, match=r"does not load the plan that it just built: .* magic tag does not match"):
        run(dump, Behaviour(loads=False))


def test_a_refusal_whose_reason_stands_in_the_log() -> None:
    """E10: the parser's description is "false"."""
    refusal = Refusal("false", "quantized", "QLinearConv", logged="checkQLinearConv: no such operator")
    with pytest.raises(EngineError) as caught:
        run("tensorrt-10.3.0", Behaviour(refusals=(refusal,)))
    assert str(caught.value) == (
        "TensorRT 10.3.0 does not take the graph: quantized (QLinearConv): this version does not support the operator "
        "with these inputs (checkQLinearConv: no such operator); replace it in the network"
    )
    with pytest.raises(EngineError, match=r"does not support the operator with these inputs; replace it"):
        run("tensorrt-10.3.0", Behaviour(refusals=(Refusal("false"),)))


def test_a_cancelled_build() -> None:
    def refuse(progress: BuildProgress) -> None:
        if progress.phase == "Building Engine":
            raise BrokenPipeError

    with pytest.raises(EngineError, match="does not build the graph: the build was cancelled"):
        run("tensorrt-10.3.0", on_progress=refuse)
