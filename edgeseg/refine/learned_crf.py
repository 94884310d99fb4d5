"""CRF-as-RNN after training: a dense CRF whose weights by class and whose compatibility were learned with a network.

S. Zheng et al., *Conditional Random Fields as Recurrent Neural Networks*, ICCV 2015, arXiv 1502.03240. The layer that
is trained is `edgeseg.models.mean_field`; here its parameters refine what an engine gives, in NumPy.
"""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, ShapeError, UsageError
from edgeseg.refine.gaussian import Filter, Normalized, Separable, appearance_features, lattice_filter
from edgeseg.refine.probabilities import as_planes, as_rows, check_sizes, softmax

__all__ = [
    "COLOUR_DEVIATION",
    "FORMAT",
    "POSITION_DEVIATION",
    "SMOOTHNESS_DEVIATION",
    "LearnedCRF",
    "message_filters",
]

FORMAT = "edgeseg-crf-1"

POSITION_DEVIATION, COLOUR_DEVIATION, SMOOTHNESS_DEVIATION = 160.0, 3.0, 3.0
"""theta_alpha and theta_gamma in pixels, theta_beta in steps of 0..255, as published (torrvision/crfasrnn)."""

_MATRICES = ("appearance", "smoothness", "compatibility")
_NUMBERS = ("position_deviation", "colour_deviation", "smoothness_deviation", "iterations")


@dataclass(frozen=True, eq=False)
class LearnedCRF:
    """What was learned; calling it refines one frame.

    Attributes:
        appearance: (L, L) float32: row l weighs, by class, the messages of the appearance kernel for class l.
        smoothness: (L, L) float32, of the smoothness kernel.
        compatibility: (L, L) float32: the penalty of class l for what the messages say of each class; it is subtracted.
        position_deviation, colour_deviation, smoothness_deviation: of the kernels, see `DenseCRF`.
        iterations: of mean field.

    Raises:
        UsageError: for matrices of other shapes, or numbers that are not finite or out of their range.
    """

    appearance: NDArray[np.float32]
    smoothness: NDArray[np.float32]
    compatibility: NDArray[np.float32]
    position_deviation: float = POSITION_DEVIATION
    colour_deviation: float = COLOUR_DEVIATION
    smoothness_deviation: float = SMOOTHNESS_DEVIATION
    iterations: int = 10

    def __post_init__(self) -> None:
        classes = len(self.appearance)
        for name in _MATRICES:
            matrix = getattr(self, name)
            if matrix.shape != (classes, classes) or matrix.dtype != np.float32 or not np.isfinite(matrix).all():
                raise UsageError(
                    f"{name} must be a finite float32 matrix with a row and a column for each of {classes} classes, "
                    f"but is {matrix.shape} {matrix.dtype}; export the checkpoint again"
                )
        for name in _NUMBERS[:3]:
            if not 0.1 <= getattr(self, name) <= 1e4:
                raise UsageError(f"{name} must be 0.1 to 10000, but is {getattr(self, name)}")
        if self.iterations < 0:
            raise UsageError(f"iterations must be at least 0, but is {self.iterations}")

    @property
    def classes(self) -> int:
        """Classes of the network that it was trained with."""
        return len(self.appearance)

    def __call__(self, logits: NDArray[np.float32], frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refine the probabilities of one frame.

        Args:
            logits: (L, H, W) float32, of the frame's size.
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (L, H, W) float32 probabilities.

        Raises:
            ShapeError: for other shapes or types, values that are not finite, or another number of classes.
        """
        check_sizes(logits, frame)
        if len(logits) != self.classes:
            raise ShapeError(
                f"these parameters were learned with {self.classes} classes, but the network has {len(logits)}; give "
                "the file that was exported with it"
            )
        unary = as_rows(logits)
        belief = softmax(unary.copy())
        deviations = self.position_deviation, self.colour_deviation, self.smoothness_deviation
        filters = message_filters(frame, *deviations) if self.iterations else None
        # Message, weights and compatibility are linear: one matrix for each kernel.
        mixes = [np.ascontiguousarray((self.compatibility @ m).T) for m in (self.appearance, self.smoothness)]
        for _ in range(self.iterations):
            total = unary.copy()
            for kernel, mix in zip(filters or (), mixes, strict=True):
                total -= kernel(belief) @ mix
            belief = softmax(total)
        return as_planes(belief, frame.shape[:2])

    def to_json(self) -> str:
        """The text that `read` takes."""
        plain: dict[str, Any] = {"format": FORMAT, **{name: getattr(self, name) for name in _NUMBERS}}
        # The shortest decimals that give the same float32 again.
        plain |= {name: [[float(str(v)) for v in row] for row in getattr(self, name)] for name in _MATRICES}
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> LearnedCRF:
        """Read a file that `edgeseg export` wrote beside a network.

        Raises:
            InputError: for a file that cannot be read or holds something else.
        """
        try:
            plain = json.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the CRF's parameters {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path} is no JSON file; give the .crf.json that `edgeseg export` wrote") from error
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise InputError(
                f"{path} does not hold the parameters of a CRF (format {FORMAT}); give the .crf.json that "
                "`edgeseg export` wrote"
            )
        try:
            values: dict[str, Any] = {name: np.array(plain[name], np.float32) for name in _MATRICES}
            values |= {name: float(plain[name]) for name in _NUMBERS[:3]}
            return cls(**values, iterations=operator.index(plain["iterations"]))
        except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
            raise InputError(f"{path} does not hold the parameters of a CRF ({error}); export it again") from error


def message_filters(
    frame: NDArray[np.uint8], position_deviation: float, colour_deviation: float, smoothness_deviation: float
) -> tuple[Filter, Filter]:
    """The appearance and the smoothness kernel of a frame, each divided by its row sums, as in the authors' code.

    Args:
        frame: (H, W, 3) uint8 RGB.
        position_deviation, colour_deviation, smoothness_deviation: see `DenseCRF`.
    """
    height, width = frame.shape[:2]
    appearance = lattice_filter(appearance_features(frame, position_deviation, colour_deviation))
    smoothness = Separable(height, width, smoothness_deviation)
    return Normalized(appearance, height * width, "pixel"), Normalized(smoothness, height * width, "pixel")
