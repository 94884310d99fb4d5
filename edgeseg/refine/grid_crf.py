"""The grid CRF: a contrast-sensitive Potts model between neighbouring pixels, by mean field or by ICM.

The energy of a labelling is the sum of -log p of the network's probabilities, and for every two neighbours of different
classes of weight * exp(-beta |I_i - I_j|**2) / distance, with beta = 1 / (2 <|I_i - I_j|**2>), the mean over the pairs
of the frame (Boykov and Jolly, ICCV 2001; beta as in Rother, Kolmogorov and Blake, *GrabCut*, 2004). Pixels are
updated one after the other, so that neither mean field's free energy nor the energy of ICM (Besag 1986) ever rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import ShapeError, UsageError
from edgeseg.kernels import run_compiled
from edgeseg.refine.probabilities import PURPOSE, as_planes, as_rows, check_sizes, log_softmax, softmax

__all__ = ["GridCRF"]

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""(dy, dx) to half of a pixel's neighbours: 4-neighbourhoods take the first two."""


@dataclass(frozen=True)
class GridCRF:
    """Parameters of the CRF; calling it refines one frame.

    Attributes:
        weight: cost of two neighbours of different classes and the same colour.
        neighbours: 4 or 8.
        iterations: sweeps over the frame; it stops earlier where nothing changes any more.
        method: "meanfield" gives marginals; "icm" a labelling, whose probabilities are 0 and 1.
    """

    weight: float = 1.0
    neighbours: Literal[4, 8] = 8
    iterations: int = 10
    method: Literal["meanfield", "icm"] = "meanfield"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1e4:
            raise UsageError(f"weight must be 0 to 10000, but is {self.weight}")
        if self.neighbours not in (4, 8):
            raise UsageError(f"neighbours must be 4 or 8, but is {self.neighbours}")
        if self.iterations < 0:
            raise UsageError(f"iterations must be at least 0, but is {self.iterations}")
        if self.method not in ("meanfield", "icm"):
            raise UsageError(f"method must be meanfield or icm, but is {self.method!r}")

    def __call__(self, logits: NDArray[np.float32], frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refine the probabilities of one frame.

        Args:
            logits: (C, H, W) float32 logits, or logarithms of probabilities, of the frame's size.
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (C, H, W) float32: marginals, or 1 for the class that ICM found and 0 for the others.

        Raises:
            ShapeError: for other shapes or types, or values that are not finite.
        """
        check_sizes(logits, frame)
        scores = log_softmax(as_rows(logits)).reshape(*frame.shape[:2], len(logits))
        weights = self.edge_weights(frame)
        if self.method == "icm":
            class_map = scores.argmax(axis=2)
            run_compiled(PURPOSE, _icm, scores, weights, class_map, self.iterations)
            classes = np.arange(len(logits))[:, None, None]
            found: NDArray[np.float32] = (classes == class_map).astype(np.float32)
            return found
        belief = softmax(scores.reshape(-1, len(logits)).copy()).reshape(scores.shape)
        run_compiled(PURPOSE, _mean_field, scores, weights, belief, self.iterations, np.float32(1e-4))
        return as_planes(belief.reshape(-1, len(logits)), frame.shape[:2])

    def edge_weights(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Cost of different classes at both ends of every edge.

        Args:
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (2 or 4, H, W) float32: to the pixel on the right, below, and for 8 neighbours below on the right and below
            on the left; 0 where there is none.
        """
        height, width = frame.shape[:2]
        steps = _STEPS[: self.neighbours // 2]
        pixels = frame.astype(np.float32)
        squares, there = np.zeros((len(steps), height, width)), np.zeros((len(steps), height, width), bool)
        for k, (dy, dx) in enumerate(steps):
            rows, columns = slice(0, height - dy), slice(max(-dx, 0), width - max(dx, 0))
            other = pixels[dy:, max(dx, 0) : width + min(dx, 0)]
            squares[k, rows, columns] = ((pixels[rows, columns] - other) ** 2).sum(axis=2)
            there[k, rows, columns] = True
        mean = squares.sum() / max(int(there.sum()), 1)
        distance = np.array([np.hypot(*step) for step in steps])[:, None, None]
        # A frame of one colour has no contrast to measure: all its edges cost the same.
        contrast = np.exp(-squares / (2 * mean)) if mean else np.ones_like(squares)
        weights: NDArray[np.float32] = (self.weight * there * contrast / distance).astype(np.float32)
        return weights

    def energy(self, logits: NDArray[np.float32], frame: NDArray[np.uint8], class_map: NDArray[np.integer]) -> float:
        """Energy of a labelling.

        Args:
            logits, frame: as for a call.
            class_map: (H, W) class indices.

        Raises:
            ShapeError: for other shapes or types, or classes that have no logits.
        """
        check_sizes(logits, frame)
        if class_map.shape != frame.shape[:2] or class_map.min() < 0 or class_map.max() >= len(logits):
            raise ShapeError(
                f"class_map must be {frame.shape[:2]} of classes 0..{len(logits) - 1}, but is {class_map.shape} of "
                f"{class_map.min()}..{class_map.max()}"
            )
        scores = log_softmax(as_rows(logits)).reshape(*frame.shape[:2], len(logits))
        total = -float(np.take_along_axis(scores, class_map[..., None].astype(np.int64), 2).sum(dtype=np.float64))
        weights = self.edge_weights(frame)
        for k, (dy, dx) in enumerate(_STEPS[: self.neighbours // 2]):
            # Rolled around the frame's edge only onto weights of 0.
            differs = class_map != np.roll(class_map, (-dy, -dx), (0, 1))
            total += float(weights[k][differs].sum(dtype=np.float64))
        return total


def _mean_field(scores, weights, belief, iterations, tolerance):  # type: ignore[no-untyped-def]
    """Sweep over the pixels; each takes its best distribution given its neighbours'."""
    height, width, channels = scores.shape
    row = np.empty(channels, np.float32)
    for _ in range(iterations):
        largest = np.float32(0)
        for y in range(height):
            for x in range(width):
                for c in range(channels):
                    row[c] = scores[y, x, c]
                for k in range(2 * len(weights)):
                    kind = k // 2
                    dy = 0 if kind == 0 else 1
                    dx = 0 if kind == 1 else (-1 if kind == 3 else 1)
                    if k % 2:
                        ny, nx = y - dy, x - dx
                    else:
                        ny, nx = y + dy, x + dx
                    if ny < 0 or ny >= height or nx < 0 or nx >= width:
                        continue
                    weight = weights[kind, ny, nx] if k % 2 else weights[kind, y, x]
                    for c in range(channels):
                        row[c] += weight * belief[ny, nx, c]
                top = row[0]
                for c in range(1, channels):
                    top = max(top, row[c])
                total = np.float32(0)
                for c in range(channels):
                    row[c] = np.exp(row[c] - top)
                    total += row[c]
                for c in range(channels):
                    value = row[c] / total
                    largest = max(largest, abs(value - belief[y, x, c]))
                    belief[y, x, c] = value
        if largest < tolerance:
            break


def _icm(scores, weights, class_map, iterations):  # type: ignore[no-untyped-def]
    """Sweep over the pixels; each takes its cheapest class given its neighbours'."""
    height, width, channels = scores.shape
    row = np.empty(channels, np.float64)
    for _ in range(iterations):
        changed = False
        for y in range(height):
            for x in range(width):
                for c in range(channels):
                    row[c] = scores[y, x, c]
                for k in range(2 * len(weights)):
                    kind = k // 2
                    dy = 0 if kind == 0 else 1
                    dx = 0 if kind == 1 else (-1 if kind == 3 else 1)
                    if k % 2:
                        ny, nx = y - dy, x - dx
                    else:
                        ny, nx = y + dy, x + dx
                    if ny < 0 or ny >= height or nx < 0 or nx >= width:
                        continue
                    row[class_map[ny, nx]] += weights[kind, ny, nx] if k % 2 else weights[kind, y, x]
                best = class_map[y, x]
                for c in range(channels):
                    if row[c] > row[best]:
                        best = c
                changed = changed or best != class_map[y, x]
                class_map[y, x] = best
        if not changed:
            break
