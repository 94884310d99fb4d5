"""An engine is called INT8 only when it is."""

from __future__ import annotations

import dataclasses

import pytest
from support.bundles import toy_manifest

from edgeseg.backends.tensorrt.layers import EngineLayer, Role
from edgeseg.backends.tensorrt.proof import promised_layers, prove_int8
from edgeseg.errors import EngineError
from edgeseg.manifest import Layer


def layer(name: str, kind: str = "int8", *nodes: str, role: Role = "convolution") -> EngineLayer:
    """A layer named after one node, with further nodes in its metadata."""
    return EngineLayer(name, "kind", role, (kind,), ("float32",), (name,), (name, *nodes))


def test_reads_the_promise() -> None:
    layers = (Layer("a", "Conv", "int8", 1), Layer("b", "Conv", "float", 1), Layer("c", "MatMul", "int8", 1))
    manifest = toy_manifest()
    manifest = dataclasses.replace(manifest, quantization=dataclasses.replace(manifest.quantization, layers=layers))
    assert promised_layers(manifest) == ("a", "c")


def test_proves() -> None:
    layers = [layer("a"), layer("fused", "int8", "w", "b"), layer("c", "float32"), layer("d", "int8", role="other")]
    proof = prove_int8(layers, ["a", "b"])
    assert proof.int8 == ("a", "b")
    assert proof.in_float == proof.missing == proof.on_dla == ()
    assert proof.convolutions == {"int8": 2, "float32": 1}


def test_names_what_runs_in_float() -> None:
    with pytest.raises(EngineError) as caught:
        prove_int8([layer("a"), layer("b", "float16"), layer("c", "")], ["a", "b", "c", "d"])
    assert str(caught.value) == (
        "the engine is not the INT8 network that its bundle promises: 1 of 4 layers run in INT8, not b (float16), "
        "c (unknown type), d (not in the engine); find the cause with: edgeseg lint, or build with --fp16-only"
    )


def test_lists_twenty_and_logs_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    names = [f"conv{i}" for i in range(25)]
    with pytest.raises(EngineError, match=r"0 of 25 layers .*conv19 \(float32\) and 5 more;"):
        prove_int8([layer(name, "float32") for name in names], names)
    assert all(name in caplog.text for name in names)


def test_wants_some_int8_where_nothing_is_promised() -> None:
    assert prove_int8([layer("a")], []).convolutions == {"int8": 1}
    with pytest.raises(EngineError, match=r"the engine has no INT8 layer: its 1 convolutions run in other types \(a\)"):
        prove_int8([layer("a", "float32"), layer("b", "int8", role="other")], [])
    with pytest.raises(EngineError, match=r"its 0 convolutions run in other types \(it has none\)"):
        prove_int8([], [])


def test_a_layers_own_name_counts_before_those_fused_into_it() -> None:
    """TensorRT-RTX lists nodes of neighbours in a layer's metadata."""
    layers = [layer("a", "float32", "b"), layer("b", "int8", "a")]
    with pytest.raises(EngineError, match=r"1 of 2 layers run in INT8, not a \(float32\)"):
        prove_int8(layers, ["a", "b"])


class TestDLA:
    def test_hides_its_layers(self) -> None:
        region = layer("{ForeignNode[a...b]}", role="dla")
        proof = prove_int8([region, layer("head", "float16")], ["a", "b"])
        assert (proof.on_dla, proof.int8, proof.missing) == (("a", "b"), (), ())

    def test_must_have_int8_tensors(self) -> None:
        with pytest.raises(EngineError, match=r"0 of 1 layers run in INT8, not a \(not in the engine\)"):
            prove_int8([layer("{ForeignNode[a...b]}", "float16", role="dla")], ["a"])

    def test_does_not_hide_what_stands_outside(self) -> None:
        layers = [layer("{ForeignNode[a...b]}", role="dla"), layer("c", "float16")]
        with pytest.raises(EngineError, match=r"1 of 2 layers run in INT8, not c \(float16\)"):
            prove_int8(layers, ["a", "c"])
