"""Average pooling to a given size that any engine takes."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["average_pool", "averaging_matrix"]


def average_pool(maps: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling of maps (N, C, h, w) to (N, C, height, width), whether the sizes divide or not.

    In an exported graph it is an AveragePool where the sizes divide, else a product with a constant averaging matrix
    for each side. Engines have no pooling whose windows differ in size, and the exporter would write hundreds of
    gathers instead. Both are the same means, up to rounding.
    """
    if not torch.compiler.is_exporting():
        return functional.adaptive_avg_pool2d(maps, (height, width))
    rows, columns = int(maps.shape[2]), int(maps.shape[3])
    if rows % height == 0 and columns % width == 0:
        return functional.avg_pool2d(maps, (rows // height, columns // width))
    return _average_columns(_average_rows(maps, height), width)


def averaging_matrix(source: int, target: int) -> Tensor:
    """Matrix (target, source) float32 that averages as adaptive pooling does: row i is the mean over its window.

    Window i runs from floor(i * source / target) to ceil((i + 1) * source / target).
    """
    matrix = torch.zeros(target, source)
    for row in range(target):
        start, end = row * source // target, -(-(row + 1) * source // target)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


def _average_rows(maps: Tensor, target: int) -> Tensor:
    batch, channels, source, width = (int(n) for n in maps.shape)
    # The windows repeat: a small matrix for one period does for all of them.
    periods = gcd(source, target)
    matrix = averaging_matrix(source // periods, target // periods).to(maps)
    folded = maps.reshape(batch, channels * periods, source // periods, width)
    return torch.matmul(matrix, folded).reshape(batch, channels, target, width)


def _average_columns(maps: Tensor, target: int) -> Tensor:
    batch, channels, height, source = (int(n) for n in maps.shape)
    periods = gcd(source, target)
    matrix = averaging_matrix(source // periods, target // periods).to(maps)
    folded = maps.reshape(batch, channels, height * periods, source // periods)
    return torch.matmul(folded, matrix.t()).reshape(batch, channels, height, target)
