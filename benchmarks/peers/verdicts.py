"""The questions that the comparison answers, each in one sentence made from the measured rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from results import EDGESEG, Results, Row

__all__ = ["accuracy_verdict", "ahead_verdict", "best_symmetric_peer", "cost_verdicts", "is_noise"]

NEAR = 1.0
"""Points of mIoU below edgeseg's within which a peer counts as one that keeps the accuracy."""

MEMORY_SHARE = 1 / 3
"""Of the median peer's memory, at most."""


def is_noise(row: Row) -> bool:
    """Whether the interval of the difference to edgeseg holds 0."""
    return row.behind_interval is not None and row.behind_interval[0] <= 0 <= row.behind_interval[1]


def _ours(results: Results) -> Row | None:
    return next((r for r in results.rows if (r.tool, r.setting, r.problem) == (EDGESEG, "default", "")), None)


def _peers(results: Results) -> list[Row]:
    return [r for r in results.rows if r.tool != EDGESEG]


def best_symmetric_peer(results: Results) -> Row | None:
    """The peer's row with the highest mIoU among those whose quantized tensors all have zero point 0."""
    rows = [(r.miou, r) for r in _peers(results) if r.symmetric and r.miou is not None]
    return max(rows, key=lambda pair: pair[0])[1] if rows else None


def accuracy_verdict(results: Results) -> str | None:
    """edgeseg against the best symmetric peer; None where one of both is missing."""
    ours, best = _ours(results), best_symmetric_peer(results)
    if ours is None or best is None or best.behind is None or best.behind_interval is None:
        return None
    theirs, own = _shares(best, ours)
    less = [
        *(["no higher mIoU"] if best.behind <= 0 else []),
        *(["the difference is noise"] if is_noise(best) else []),
        *(["a smaller INT8 share"] if own < theirs else []),
        *([f"TensorRT: {ours.tensorrt}"] if ours.tensorrt not in ("passes", None) else []),
    ]
    low, high = best.behind_interval
    return (
        f"of {len(_peers(results))} measured settings of peers the best symmetric one is {best.tool} `{best.setting}` "
        f"with {best.miou:.2f} and {100 * theirs:.1f} % of the MACs in INT8; edgeseg has {ours.miou:.2f} and "
        f"{100 * own:.1f} %, and is higher by {best.behind:.2f} "
        f"({low:.2f} to {high:.2f}). {_reached(less)}"
    )


def _shares(peer: Row, ours: Row) -> tuple[float, float]:
    """INT8 shares of two networks: in TensorRT's engines where there are both, else as the tools quantized."""
    if peer.tensorrt_mac_share is not None and ours.tensorrt_mac_share is not None:
        return peer.tensorrt_mac_share, ours.tensorrt_mac_share
    return peer.int8_mac_share or 0.0, ours.int8_mac_share or 0.0


def _unscored(results: Results) -> Row | None:
    """edgeseg's conversion with next to no proof."""
    return next((r for r in results.rows if (r.tool, r.setting) == (EDGESEG, "one-scored-frame")), None)


def _reached(less: list[str]) -> str:
    return f"**Not reached**: {', '.join(less)}." if less else "**Reached.**"


def ahead_verdict(results: Results) -> str:
    """The peers whose score is higher than edgeseg's beyond noise, symmetric or not."""
    ahead = [r for r in _peers(results) if r.behind is not None and r.behind < 0 and not is_noise(r)]
    if not ahead:
        return "No peer's score is higher beyond noise."
    named = (
        f"{r.tool} `{r.setting}` by {-(r.behind or 0):.2f}{'' if r.symmetric else ' (asymmetric)'}"
        for r in sorted(ahead, key=lambda r: r.behind or 0)
    )
    return f"**Higher than edgeseg beyond noise**: {', '.join(named)}."


def cost_verdicts(results: Results) -> Iterator[str]:
    """Time against the fastest accurate peer, memory against the median peer."""
    ours, peers = _ours(results), _peers(results)
    if ours is None or ours.miou is None or ours.seconds is None or not peers:
        return
    least = ours.miou - NEAR
    accurate = [(r.seconds, r) for r in peers if r.miou is not None and r.miou >= least and r.seconds is not None]
    if accurate:
        seconds, fastest = min(accurate, key=lambda pair: pair[0])
        unscored = _unscored(results)
        less = [
            *(["slower"] if ours.seconds >= seconds else []),
            *(["more processor time"] if unscored and unscored.cpu_seconds >= fastest.cpu_seconds else []),
        ]
        beside = f", {unscored.cpu_seconds:.0f} with one scored frame" if unscored else ""
        yield (
            f"Time: the fastest peer within {NEAR:g} point of edgeseg's mIoU is {fastest.tool} `{fastest.setting}` "
            f"with {seconds:.1f} s (processor time of the whole process {fastest.cpu_seconds:.0f} s); edgeseg takes "
            f"{ours.seconds:.1f} s ({ours.cpu_seconds:.0f} s with its proof{beside}). {_reached(less)}"
        )
    else:
        yield f"Time: no peer comes within {NEAR:g} point of edgeseg's mIoU; edgeseg takes {ours.seconds:.1f} s."
    median, smallest = statistics.median(r.peak_mb for r in peers), min(peers, key=lambda r: r.peak_mb)
    share = ours.peak_mb / median
    less = [f"{share:.2f} times the median"] if share > MEMORY_SHARE else []
    yield (
        f"Memory: the median of the peers' {len(peers)} settings is {median:.0f} MB, the smallest "
        f"{smallest.peak_mb:.0f} MB ({smallest.tool} `{smallest.setting}`), edgeseg needs {ours.peak_mb:.0f} MB. "
        f"{_reached(less)}"
    )
