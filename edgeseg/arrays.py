"""What every CPU engine checks before it reads an array's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends import TensorSpec
from edgeseg.errors import ShapeError

__all__ = ["contiguous_arrays"]


def contiguous_arrays(arrays: Sequence[NDArray[Any]], inputs: tuple[TensorSpec, ...]) -> list[NDArray[Any]]:
    """The arrays as an engine may read them in place: checked, and copied only where they are not contiguous.

    Raises:
        ShapeError: for a wrong number, shape or dtype of arrays.
    """
    if len(arrays) != len(inputs):
        raise ShapeError(f"the engine takes {len(inputs)} arrays, but got {len(arrays)}")
    for array, spec in zip(arrays, inputs, strict=True):
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ShapeError(
                f"input {spec.name} must be {spec.shape} {spec.dtype}, but got {array.shape} {array.dtype}; "
                "the engine neither resizes nor converts"
            )
    return [np.ascontiguousarray(array) for array in arrays]
