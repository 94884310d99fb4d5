"""Which TensorRT versions a graph must suit."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.errors import UsageError, unknown_name

__all__ = [
    "CANONICAL",
    "JETPACK_4",
    "NO_QUANTIZERS",
    "PROFILES",
    "STRONGLY_TYPED",
    "Profile",
    "Version",
    "get_profile",
]

Version = tuple[int, int]


@dataclass(frozen=True)
class Profile:
    """A range of TensorRT versions, up to the newest.

    Attributes:
        name: as it is asked for.
        oldest: oldest TensorRT version, (major, minor).
        newest_opset: newest ONNX opset that this version reads.
    """

    name: str
    oldest: Version
    newest_opset: int

    @property
    def versions(self) -> str:
        """The range in words."""
        return f"TensorRT {self.oldest[0]}.{self.oldest[1]} and newer"


CANONICAL = "canonical"
STRONGLY_TYPED = "strongly-typed"
NO_QUANTIZERS = "no-quantizers"
JETPACK_4 = "jetpack-4"

# Opsets: the operator lists of the onnx-tensorrt parser, branches 8.2 (9 to 13), 8.5 ("up to Opset 17") and 10.0 (9 to
# 20).
PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile(CANONICAL, (8, 5), 17),
        Profile("tensorrt-10", (10, 0), 20),
        # Strong typing is NVIDIA's advice from 10.12 on and the only way from 11.0 on.
        Profile(STRONGLY_TYPED, (10, 12), 20),
        Profile(NO_QUANTIZERS, (8, 5), 17),
        Profile(JETPACK_4, (8, 2), 13),
    )
}
"""Profiles by name; the canonical one is what bundles are held to."""


def get_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        UsageError: for an unknown name, with the nearest spelling.
    """
    if name not in PROFILES:
        raise UsageError(unknown_name("lint profile", name, PROFILES))
    return PROFILES[name]
