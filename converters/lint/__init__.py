"""What TensorRT refuses, or builds without a word and runs in float: found in the graph, on a machine without a GPU.

Every pattern is a rule with a code; the rules stand in files by theme and enter `RULES` by their decorator.
docs/lint.md lists them.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

# Imported for the rules that they register.
from edgeseg.converters.lint import advice as _advice  # noqa: F401
from edgeseg.converters.lint import operators as _operators  # noqa: F401
from edgeseg.converters.lint import placement as _placement  # noqa: F401
from edgeseg.converters.lint import structure as _structure  # noqa: F401
from edgeseg.converters.lint import tensor_types as _tensor_types  # noqa: F401
from edgeseg.converters.lint import zero_points as _zero_points  # noqa: F401
from edgeseg.converters.lint.findings import RULES, Effect, Finding, Rule
from edgeseg.converters.lint.profiles import (
    CANONICAL,
    JETPACK_4,
    NO_QUANTIZERS,
    PROFILES,
    STRONGLY_TYPED,
    Profile,
    get_profile,
)
from edgeseg.converters.lint.scales import LARGEST_SCALE, SMALLEST_SCALE
from edgeseg.converters.lint.subject import Subject, node_name
from edgeseg.errors import LintError, ModelError

__all__ = [
    "CANONICAL",
    "JETPACK_4",
    "LARGEST_SCALE",
    "NO_QUANTIZERS",
    "PROFILES",
    "RULES",
    "SMALLEST_SCALE",
    "STRONGLY_TYPED",
    "Effect",
    "Finding",
    "Profile",
    "Rule",
    "advise",
    "lint",
    "require_clean",
]

_SHOWN = 5


def lint(model: onnx.ModelProto, profile: str = CANONICAL) -> list[Finding]:
    """What is wrong with a graph for TensorRT.

    Args:
        model: any ONNX graph, quantized or not, with its weights loaded.
        profile: one of PROFILES: "canonical" (TensorRT 8.5 to 11), "tensorrt-10" (10.0 to 11), "strongly-typed" (10.12
            to 11), "no-quantizers" (8.5 to 11, for what takes no Q/DQ) or "jetpack-4" (8.2, without Q/DQ and uint8).

    Returns:
        Findings in the order of the graph; empty for a graph that builds everywhere and runs in INT8 where Q/DQ asks
        for it.

    Raises:
        UsageError: for an unknown profile.
        ModelError: when the weights stand in other files and are not loaded.
    """
    return _apply(model, profile, advice=False)


def advise(model: onnx.ModelProto, profile: str = CANONICAL) -> list[Finding]:
    """What costs speed on TensorRT without changing the result; arguments and errors as for `lint`."""
    return _apply(model, profile, advice=True)


def require_clean(model: onnx.ModelProto, profile: str = CANONICAL) -> None:
    """Check that a graph has no finding.

    Raises:
        LintError: naming the first findings with their cures.
    """
    findings = lint(model, profile)
    if not findings:
        return
    shown = "; ".join(f"{f.code} {f.node}: {f.message}; cure: {f.cure}" for f in findings[:_SHOWN])
    more = f"; and {len(findings) - _SHOWN} more, see edgeseg lint" if len(findings) > _SHOWN else ""
    raise LintError(
        f"expected a graph that every version of {get_profile(profile).versions} builds as it stands, but got "
        f"{len(findings)} findings: {shown}{more}"
    )


def _apply(model: onnx.ModelProto, profile: str, *, advice: bool) -> list[Finding]:
    outside = [i.name for i in model.graph.initializer if i.data_location == TensorProto.EXTERNAL]
    if outside:
        raise ModelError(
            f"expected a graph with its weights, but {len(outside)} of them ({outside[0]} first) stand in another "
            "file; load it with onnx.load(path)"
        )
    subject = Subject(model, get_profile(profile))
    rules = [rule for rule in RULES.values() if (rule.effect == "advice") == advice]
    findings = [finding for rule in rules for finding in rule.findings(subject)]
    place = {node_name(node): number for number, node in enumerate(subject.nodes)}
    return sorted(dict.fromkeys(findings), key=lambda f: (place.get(f.node, -1), f.code))
