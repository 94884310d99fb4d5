"""Weights from a file into a network: our own checkpoints, and the state dicts published with ESPNet and ESPNetv2."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.network import SegmentationNetwork

__all__ = ["load_weights"]

_NAMED = 3
"""Tensors of a kind that a message names."""

_CODE = r"(?i)unsupported global|call reduce|can only (build|create)"
"""What torch says of a pickle that would call or build something else than tensors."""


def load_weights(network: SegmentationNetwork, path: str | Path) -> None:
    """Load weights, every tensor of them.

    Args:
        network: is changed in place; stays as it was where the file is refused.
        path: a file of `torch.save`: a state dict of this network, a dict whose key `network` holds one (and
            maybe `ema` its moving average, which is then taken), or the state dict published with ESPNet or ESPNetv2.
            A deployed network's may lack the auxiliary heads, and FCN's the CRF of CRF-as-RNN; these then keep the
            weights that they have.

    Raises:
        InputError: for a file that cannot be read or holds more than tensors, and for the weights of another network;
            names the tensors that differ.
    """
    path = Path(path)
    state = _translated(_state_dict(_read(path), path))
    expected: Mapping[str, Tensor] = network.state_dict()
    missing = [n for n in expected if n not in state and not _optional(n, state)]
    left_over = [n for n in state if n not in expected]
    other_shape = [
        f"{n} {_shape(state[n])} where {_shape(expected[n])} is expected"
        for n in expected
        if n in state and state[n].shape != expected[n].shape
    ]
    found = {"missing": missing, "left over": left_over, "of another shape": other_shape}
    if any(found.values()):
        differing = "; ".join(_count(kind, names) for kind, names in found.items() if names)
        raise InputError(
            f"{path} does not hold the weights of this {type(network).__name__} with {network.classes} classes: "
            f"{differing}; give the name, classes and options that it was trained with"
        )
    network.load_state_dict(state, strict=False)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"expected a file of weights, but {path} is no file; check the name")
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the file") from error
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a foreign or truncated file depends on the bytes in it
        if isinstance(error, pickle.UnpicklingError) and re.search(_CODE, str(error)):
            raise InputError(
                f"{path} holds Python objects that could run code, expected tensors alone; save it again with "
                "torch.save(network.state_dict(), ...)"
            ) from error
        raise InputError(
            f"{path} is no file of torch.save, or it is truncated; fetch it again, or give a state dict"
        ) from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    state = content
    if isinstance(content, Mapping) and "network" in content:
        # A training run that kept a moving average of its weights means that one to be deployed.
        state = content["network"] if content.get("ema") is None else content["ema"]
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"expected a state dict in {path}, but it holds {_kind(state)}")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise InputError(
                f"expected a state dict in {path}, but it maps {name!r} to {_kind(value)}, not to a tensor; "
                "give the state dict itself or a dict whose key network holds it"
            )
    return dict(state)


def _kind(value: object) -> str:
    if isinstance(value, Mapping) and not value:
        return "an empty dict"
    return f"an object of type {type(value).__name__}"


def _optional(name: str, state: Mapping[str, Tensor]) -> bool:
    # Files of torch before 0.4.1 do not have the counter, and inference does not read it.
    if name.endswith("num_batches_tracked"):
        return True
    part, dot, _ = name.partition(".")
    return part in ("auxiliary", "crf") and not any(given.startswith(part + dot) for given in state)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def _count(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{more})"


@dataclass(frozen=True)
class _Published:
    """How published names of tensors become ours.

    Attributes:
        marks: names that tell these state dicts from others.
        rules: pairs of a regular expression and its replacement, done one after the other.
    """

    marks: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]


_ESPNET = _Published(
    marks=("encoder.level1.conv.weight", "level3_C.conv.weight"),
    rules=(
        (r"^br\.", "score3.norm."),
        (r"^conv\.", "last."),
        (r"^classifier\.", "prediction."),
        (r"^level3_C\.conv\.", "score2."),
        (r"^up_l3\.0\.", "up3."),
        (r"^up_l2\.", "up2."),
        (r"^combine_l2_l3\.", "combine."),
        (r"^encoder\.classifier\.", "score3."),
        (r"^encoder\.level1\.", "stem."),
        (r"^encoder\.b([123])\.", r"join\1."),
        (r"^encoder\.level([23])_0\.(bn|act)\.", r"down\1.out.\2."),
        (r"^encoder\.level([23])_0\.", r"down\1."),
        (r"^encoder\.", ""),
        (r"\.bn\.(bn|act)\.", r".out.\1."),
        (r"\.bn\.", ".norm."),
        (r"\.c1\.conv\.", ".reduce."),
        (r"\.d1\.conv\.", ".branches.0."),
        (r"\.d2\.conv\.", ".branches.1."),
        (r"\.d4\.conv\.", ".branches.2."),
        (r"\.d8\.conv\.", ".branches.3."),
        (r"\.d16\.conv\.", ".branches.4."),
    ),
)

_ESPNETV2 = _Published(
    marks=("base_net.level1.conv.weight", "bu_dec_l1.stages.0.weight"),
    rules=(
        (r"^base_net\.level1\.", "stem."),
        (r"^base_net\.level([234])_0\.", r"down\1."),
        (r"^base_net\.", ""),
        (r"\.inp_reinf\.", ".reinforce."),
        (r"\.proj_1x1\.", ".reduce."),
        (r"\.spp_dw\.(\d)\.conv\.", r".branches.\1."),
        (r"\.br_after_cat\.", ".join."),
        (r"\.conv_1x1_exp\.", ".expand."),
        (r"\.module_act\.", ".act."),
        (r"\.cbr\.0\.", ".conv."),
        (r"\.cbr\.1\.", ".norm."),
        (r"\.cbr\.2\.", ".act."),
        (r"\.br\.0\.", ".norm."),
        (r"\.br\.1\.", ".act."),
        (r"^bu_dec_l4\.merge_layer\.3\.", "prediction."),
        (r"^(bu_dec_l[123])\.merge_layer\.3\.", r"\1.expand.conv."),
        (r"^(bu_dec_l[123])\.br\.", r"\1.expand."),
        (r"^bu_dec_l1\.expand\.", "expand.0."),
        (r"^bu_dec_l2\.expand\.", "expand.1."),
        (r"^bu_dec_l3\.expand\.", "expand.2."),
        (r"\.projection_layer\.", ".project."),
        (r"\.stages\.", ".branches."),
        (r"\.merge_layer\.0\.", ".join."),
        (r"\.merge_layer\.2\.", ".fuse."),
        (r"^bu_dec_l1\.", "pyramids.0."),
        (r"^bu_dec_l2\.", "pyramids.1."),
        (r"^bu_dec_l3\.", "pyramids.2."),
        (r"^bu_dec_l4\.", "pyramids.3."),
        (r"^merge_enc_dec_l2\.", "skips.0."),
        (r"^merge_enc_dec_l3\.", "skips.1."),
        (r"^merge_enc_dec_l4\.", "skips.2."),
        (r"\.wt_layer\.1\.", ".gate."),
        (r"\.expansion_layer\.", ".expand."),
        (r"^bu_br_l2\.0\.", "joins.0.norm."),
        (r"^bu_br_l2\.1\.", "joins.0.act."),
        (r"^bu_br_l3\.0\.", "joins.1.norm."),
        (r"^bu_br_l3\.1\.", "joins.1.act."),
        (r"^bu_br_l4\.0\.", "joins.2.norm."),
        (r"^bu_br_l4\.1\.", "joins.2.act."),
        (r"\.bn\.", ".norm."),
    ),
)


def _translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with our names; as it is where it is none of the published ones."""
    for published in (_ESPNET, _ESPNETV2):
        if all(mark in state for mark in published.marks):
            return {_renamed(name, published.rules): value for name, value in state.items()}
    return state


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
