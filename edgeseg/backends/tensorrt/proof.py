"""The proof of INT8: an engine is called INT8 only when every layer that its bundle promises runs in INT8."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.backends.tensorrt.layers import COMPUTE, EngineLayer
from edgeseg.errors import EngineError
from edgeseg.manifest import Manifest

__all__ = ["Proof", "promised_layers", "prove_int8"]

_log = logging.getLogger(__name__)
_LISTED = 20


@dataclass(frozen=True)
class Proof:
    """What became of the layers that a bundle promises in INT8, by ONNX node name.

    Attributes:
        int8: run in INT8.
        on_dla: inside a DLA's region, whose layers nothing lists, with INT8 tensors at its edge.
        in_float: run in another precision, with that precision.
        missing: no layer of the engine names them.
        convolutions: number of the engine's convolutions, deconvolutions and matrix products by precision.
    """

    int8: tuple[str, ...]
    on_dla: tuple[str, ...]
    in_float: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    convolutions: dict[str, int]


def promised_layers(manifest: Manifest) -> tuple[str, ...]:
    """Names of the compute layers that a bundle's manifest says to be INT8."""
    return tuple(layer.name for layer in manifest.quantization.layers if layer.precision == "int8")


def prove_int8(layers: Sequence[EngineLayer], promised: Sequence[str]) -> Proof:
    """Look for each promised layer among an engine's.

    Args:
        layers: the engine's.
        promised: ONNX node names; empty where only some INT8 layer is asked for.

    Returns:
        The proof.

    Raises:
        EngineError: when the engine has no INT8 layer, or fewer than promised, with their names.
    """
    proof = _examine(layers, promised)
    wanted, found = len(promised), len(proof.int8) + len(proof.on_dla)
    faults = [f"{name} ({precision or 'unknown type'})" for name, precision in proof.in_float]
    faults += [f"{name} (not in the engine)" for name in proof.missing]
    if found < wanted:
        _log.info("not INT8: %s", ", ".join(faults))
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise EngineError(
            f"the engine is not the INT8 network that its bundle promises: {found} of {wanted} layers run in INT8, not "
            f"{', '.join(faults[:_LISTED])}{more}; find the cause with: edgeseg lint, or build with --fp16-only"
        )
    if not found and not proof.convolutions.get("int8"):
        names = [layer.name for layer in layers if layer.role in COMPUTE]
        raise EngineError(
            f"the engine has no INT8 layer: its {len(names)} convolutions run in other types "
            f"({', '.join(names[:_LISTED]) or 'it has none'}); find the cause with: edgeseg lint, or build with "
            "--fp16-only"
        )
    return proof


def _examine(layers: Sequence[EngineLayer], promised: Sequence[str]) -> Proof:
    owned: dict[str, str] = {}
    shared: dict[str, str] = {}
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.role in COMPUTE:
            counts[layer.precision or "unknown"] = counts.get(layer.precision or "unknown", 0) + 1
            # A layer is called after its own node; one in the metadata of several counts for the one with its name.
            owned.update((node, layer.precision) for node in layer.own)
            shared.update((node, layer.precision) for node in layer.nodes)
    precisions = {**shared, **owned}
    regions = [layer for layer in layers if layer.role == "dla"]
    hidden = [name for name in promised if name not in precisions]
    dla_in_int8 = bool(regions) and all("int8" in layer.inputs + layer.outputs for layer in regions)
    return Proof(
        int8=tuple(name for name in promised if precisions.get(name) == "int8"),
        on_dla=tuple(hidden) if dla_in_int8 else (),
        in_float=tuple((name, precisions[name]) for name in promised if precisions.get(name, "int8") != "int8"),
        missing=() if dla_in_int8 else tuple(hidden),
        convolutions=counts,
    )
