"""One range for tensors that a concatenation brings together, and what sharing it costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeseg.calibration.measure import Feed
from edgeseg.calibration.table import SharedRange
from edgeseg.converters.trials import Trials

__all__ = ["share_ranges"]


def share_ranges(
    trials: Trials, groups: Iterable[tuple[str, ...]], ranges: Mapping[str, float], feeds: Iterable[Feed]
) -> tuple[SharedRange, ...]:
    """Of the ranges that a group's tensors have, the one that serves them all with the least noise.

    Args:
        trials: of the network.
        groups: tensors that are to share, see `edgeseg.converters.partners.shared_groups`.
        ranges: each tensor's own amax.
        feeds: frames to try them on; the groups are tried side by side, once for every member of the largest.

    Returns:
        A range for each group; where no layer reads any of its tensors, the widest, which clips none.
    """
    found, frames = tuple(groups), list(feeds)
    if not found:
        return ()
    own = trials.noise_by_tensor(ranges, frames)
    candidates = [sorted({ranges[tensor] for tensor in group}, reverse=True) for group in found]
    best: list[tuple[float, float] | None] = [None] * len(found)
    for number in range(max(len(each) for each in candidates)):
        tried = dict(ranges)
        for group, each in zip(found, candidates, strict=True):
            tried.update(dict.fromkeys(group, each[min(number, len(each) - 1)]))
        noise = trials.noise_by_tensor(tried, frames)
        for place, group in enumerate(found):
            total = sum(noise.get(tensor, 0.0) for tensor in group)
            known = best[place]
            if known is None or total < known[0]:
                best[place] = (total, tried[group[0]])
    return tuple(
        SharedRange(group, chosen[1], chosen[0], sum(own.get(tensor, 0.0) for tensor in group))
        for group, chosen in zip(found, best, strict=True)
        if chosen is not None
    )
