"""The report for programs: the same content as the page, without the images."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from edgeseg.calibration.table import CalibrationTable, Entry
from edgeseg.converters.report.content import ReportContent
from edgeseg.converters.report.figures import class_changes, class_scores, digests, layer_shares, moved_most
from edgeseg.converters.report.ranges import DRAWN
from edgeseg.converters.report.sensitivity import sensitivity_figures
from edgeseg.manifest import Manifest

__all__ = ["report_json"]


def report_json(content: ReportContent) -> str:
    """The report as indented JSON; docs/report.md lists the keys.

    Values that are not finite are null, so that every JSON reader takes the text.
    """
    manifest, table = content.manifest, content.table
    document = {
        "schema_version": 1,
        "network": dataclasses.asdict(manifest.network),
        "input": dataclasses.asdict(manifest.input),
        "output": dataclasses.asdict(manifest.output),
        "classes": [
            {"name": name, "color": list(color)}
            for name, color in zip(manifest.labels.names, manifest.labels.palette, strict=True)
        ],
        "number_format": manifest.quantization.number_format,
        "calibration": {
            "method": manifest.quantization.method,
            "frames": _digests(manifest.quantization.frame_names, manifest.quantization.frame_digests),
        },
        "scores": _scores(manifest),
        "layers": _layers(manifest),
        "sensitivity": _sensitivity(content),
        "worst_frames": _worst(content),
        "ranges": _ranges(table) if table else [],
        "partners": table.partners.to_dict() if table and table.partners else None,
        "steps": content.steps,
        "seconds": sum(content.steps.values()),
        "peak_rss_mb": content.peak_rss_mb,
        "remarks": list(content.remarks),
        "tools": manifest.tools,
        "files": manifest.files,
    }
    return json.dumps(_finite(document), indent=1, allow_nan=False) + "\n"


def _digests(names: tuple[str, ...], values: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"name": name, "sha256": digest} for name, digest in digests(names, values)]


def _scores(manifest: Manifest) -> dict[str, Any] | None:
    scores = manifest.scores
    if scores is None:
        return None
    return {
        "metric": scores.metric,
        "float": scores.float_score,
        "int8": scores.int8_score,
        "drop": scores.drop,
        "drop_interval": scores.drop_interval,
        "moved_most": [{"class": row.name, "change": row.change} for row in moved_most(scores)],
        "iou": [
            {"class": row.name, "float": row.float_iou, "int8": row.int8_iou, "change": row.change}
            for row in class_scores(scores)
        ],
        "frames": _digests(scores.frame_names, scores.frame_digests),
    }


def _layers(manifest: Manifest) -> dict[str, Any]:
    quantization = manifest.quantization
    return {
        "int8": quantization.count("int8"),
        "float": quantization.count("float"),
        "int8_mac_share": quantization.int8_mac_share,
        "list": [
            {**dataclasses.asdict(layer), "mac_share": share}
            for layer, share in zip(quantization.layers, layer_shares(quantization.layers), strict=True)
        ],
    }


def _sensitivity(content: ReportContent) -> dict[str, Any] | None:
    found = content.sensitivity
    if found is None:
        return None
    return {"frames": found.frames, **sensitivity_figures(found, content.manifest.quantization.layers)}


def _worst(content: ReportContent) -> list[dict[str, Any]]:
    return [
        {
            "name": frame.name,
            "agreement": frame.agreement,
            "height": frame.frame.shape[0],
            "width": frame.frame.shape[1],
            "changes": [
                {"float": change.before, "int8": change.after, "share": change.share}
                for change in class_changes(frame, content.manifest.labels)
            ],
        }
        for frame in content.worst
    ]


def _ranges(table: CalibrationTable) -> list[dict[str, Any]]:
    names = table.most_clipped(len(table.entries))
    return [_range(name, table.entries[name], index < DRAWN) for index, name in enumerate(names)]


def _range(name: str, entry: Entry, drawn: bool) -> dict[str, Any]:
    fields = {
        "tensor": name,
        "amax": float(entry.amax),
        "minimum": float(entry.minimum),
        "maximum": float(entry.maximum),
        "clipped_share": float(entry.clipped_share),
    }
    counts = {"width": float(entry.width), "histogram": [int(number) for number in entry.histogram]}
    return fields | counts if drawn else fields


def _finite(value: Any) -> Any:
    """The value with None for every float that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
