"""The fully connected CRF with Gaussian edge potentials, by mean field.

Kraehenbuehl and Koltun, *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials*, NIPS 2011. The
energy of a labelling is the sum of -log p of the network's probabilities, and for every two pixels of different classes
of w1 exp(-|p_i - p_j|**2 / 2a**2 - |I_i - I_j|**2 / 2b**2) + w2 exp(-|p_i - p_j|**2 / 2g**2). As in the authors' code,
from which the published parameters come, and unlike the paper's formula, a pixel's message includes its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.refine.gaussian import (
    AllPairs,
    Filter,
    Normalization,
    Normalized,
    Separable,
    appearance_features,
    lattice_filter,
)
from edgeseg.refine.probabilities import as_planes, as_rows, check_sizes, log_softmax, softmax

__all__ = ["PRESETS", "DenseCRF"]


@dataclass(frozen=True)
class DenseCRF:
    """Parameters of the CRF; calling it refines one frame.

    Attributes:
        appearance_weight: w1.
        position_deviation: a (theta_alpha), in pixels.
        colour_deviation: b (theta_beta), in steps of 0..255.
        smoothness_weight: w2.
        smoothness_deviation: g (theta_gamma), in pixels.
        iterations: of mean field.
        normalization: of each kernel matrix K with row sums D: "symmetric" D**-1/2 K D**-1/2, as the authors' code;
            "pixel" D**-1 K, as CRF-as-RNN; "none", for exact filtering: the lattice's scale is not the kernel's.
        filtering: "lattice", or "exact" over all pairs of pixels of small frames (`gaussian.EXACT_PIXELS`).
    """

    appearance_weight: float = 4.0
    position_deviation: float = 67.0
    colour_deviation: float = 3.0
    smoothness_weight: float = 3.0
    smoothness_deviation: float = 1.0
    iterations: int = 10
    normalization: Normalization = "symmetric"
    filtering: Literal["lattice", "exact"] = "lattice"

    def __post_init__(self) -> None:
        for name in ("position_deviation", "colour_deviation", "smoothness_deviation"):
            if not 0.1 <= getattr(self, name) <= 1e4:
                raise UsageError(f"{name} must be 0.1 to 10000, but is {getattr(self, name)}")
        for name in ("appearance_weight", "smoothness_weight"):
            if not 0 <= getattr(self, name) <= 1e4:
                raise UsageError(f"{name} must be 0 to 10000, but is {getattr(self, name)}")
        if self.iterations < 0:
            raise UsageError(f"iterations must be at least 0, but is {self.iterations}")
        for name, known in (("normalization", ("symmetric", "pixel", "none")), ("filtering", ("lattice", "exact"))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be one of {', '.join(known)}, but is {getattr(self, name)!r}")

    def __call__(self, logits: NDArray[np.float32], frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refine the probabilities of one frame.

        Args:
            logits: (C, H, W) float32 logits, or logarithms of probabilities, of the frame's size.
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (C, H, W) float32 probabilities: the mean field's marginals.

        Raises:
            ShapeError: for other shapes or types, or values that are not finite.
        """
        check_sizes(logits, frame)
        unary = log_softmax(as_rows(logits))
        kernels = self._kernels(frame) if self.iterations else []
        belief = softmax(unary.copy())
        # Compiled code and OpenCV hold no lock of Python's: both kernels run at once.
        with ThreadPoolExecutor(max_workers=2) as pool:
            for _ in range(self.iterations):
                total = unary.copy()
                running = [(weight, pool.submit(kernel, belief)) for weight, kernel in kernels]
                for weight, found in running:
                    message = found.result()
                    message *= np.float32(weight)
                    total += message
                belief = softmax(total)
        return as_planes(belief, frame.shape[:2])

    def _kernels(self, frame: NDArray[np.uint8]) -> list[tuple[float, Filter]]:
        """Weight and filter of every kernel that has one."""
        kernels: list[tuple[float, Filter]] = []
        if self.appearance_weight:
            features = appearance_features(frame, self.position_deviation, self.colour_deviation)
            exact = self.filtering == "exact"
            kernels.append((self.appearance_weight, AllPairs(features) if exact else lattice_filter(features)))
        if self.smoothness_weight:
            smooth = Separable(frame.shape[0], frame.shape[1], self.smoothness_deviation)
            kernels.append((self.smoothness_weight, smooth))
        return [
            (weight, Normalized(kernel, frame.shape[0] * frame.shape[1], self.normalization))
            for weight, kernel in kernels
        ]


PRESETS: dict[str, DenseCRF] = {
    "deeplab": DenseCRF(4.0, 67.0, 3.0, 3.0, 1.0, 10),
    "densecrf": DenseCRF(10.0, 80.0, 13.0, 3.0, 3.0, 10),
    "crfasrnn": DenseCRF(5.0, 160.0, 3.0, 3.0, 3.0, 10, "pixel"),
}
"""Published parameters: DeepLab's for PASCAL VOC (kazuto1011/deeplab-pytorch, voc12.yaml), those of the example of
pydensecrf, and the initial ones of CRF-as-RNN (torrvision/crfasrnn). Standard deviations are pixels of VOC's frames, of
about 500x375."""
