"""A made-up but realistic report: 19 Cityscapes classes, 120 layers, three worst frames, 110 calibrated tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

from edgeseg.calibration.sensitivity import Effect, LayerEffect, Sensitivity
from edgeseg.calibration.table import CalibrationTable, Entry
from edgeseg.converters.report import ReportContent, WorstFrame
from edgeseg.labels import LabelSet, load_labels
from edgeseg.manifest import FP16, InputSpec, Layer, Manifest, Network, OutputSpec, Quantization, Scores


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def layers(number: int = 120) -> tuple[Layer, ...]:
    """Stages of growing channels; the first and a few transposed convolutions stay in float."""
    listing = []
    for index in range(number):
        macs = int(2.2e8 * (1.0 + math.sin(index * 1.7)) / (1 + index / 30)) + 40_000
        name = f"/encoder/level{index // 24 + 1}/block{index % 24 // 3}/conv{index % 3}/Conv"
        reason = ""
        if index in (40, 77, 110, 119):
            reason = "ConvTranspose: TensorRT has no INT8 kernel for it"
        elif index == 0:
            reason = "fewer than 4 input channels"
        op = "ConvTranspose" if reason.startswith("ConvT") else "Conv"
        listing.append(Layer(name, op, "float" if reason else "int8", macs, reason))
    return tuple(listing)


def scores(labels: LabelSet, frames: int = 101) -> Scores:
    generator = np.random.default_rng(7)
    names = labels.classes().names
    before = {name: float(value) for name, value in zip(names, generator.uniform(31, 97, len(names)), strict=True)}
    loss = generator.exponential(0.35, len(names)) - 0.15
    after = {name: value - float(loss[i]) for i, (name, value) in enumerate(before.items())}
    absent = names[-3]
    frame_names = tuple(f"frankfurt_{i:06d}" for i in range(frames))
    present = [name for name in names if name != absent]
    return Scores(
        metric="miou",
        float_score=float(np.mean([before[n] for n in present])),
        int8_score=float(np.mean([after[n] for n in present])),
        float_iou={**before, absent: None},
        int8_iou={**after, absent: None},
        frame_names=frame_names,
        frame_digests=tuple(map(digest, frame_names)),
    )


def manifest(labels: LabelSet | None = None, **changes: object) -> Manifest:
    labels = labels or load_labels("cityscapes")
    frame_names = tuple(f"aachen_{i:06d}" for i in range(64))
    values: dict[str, object] = {
        "network": Network("espnetv2_s2.0_cityscapes", "espnetv2_s2.0_cityscapes.onnx", digest("network"), 17, "MIT"),
        "input": InputSpec("frame", 512, 1024, "RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        "output": OutputSpec("logits", "logits", len(labels), 256, 512, "half_pixel"),
        "labels": labels,
        "quantization": Quantization("mse", frame_names, tuple(map(digest, frame_names)), layers()),
        "scores": scores(labels),
        "files": {n: digest(n) for n in ("model.onnx", "calibration.json", "calibration.cache")},
        "tools": {"edgeseg": "0.1.0", "onnx": "1.19.0", "onnxsim": "0.4.36", "onnxruntime": "1.23.0", "numpy": "2.3.1"},
    }
    return Manifest(**{**values, **changes})  # type: ignore[arg-type]


def table(tensors: int = 110) -> CalibrationTable:
    """Half-normal magnitudes with a tail of growing weight."""
    entries = {}
    for index in range(tensors):
        width = 0.02 * (1 + index % 7)
        bins = np.arange(128)
        body = 2e7 * np.exp(-((bins / 18.0) ** 2)) + 900 * (1 + index % 5) * np.exp(-bins / 21.0)
        histogram = [int(v) for v in body]
        kept = 52 + index % 40
        entries[f"/encoder/level{index // 24 + 1}/block{index % 24 // 3}/act{index % 3}/output_0"] = Entry(
            amax=kept * width,
            minimum=-0.3 * width,
            maximum=float(127.5 * width),
            clipped_share=sum(histogram[kept:]) / sum(histogram),
            histogram=tuple(histogram),
            width=width,
        )
    return CalibrationTable(digest("table"), "mse", (), entries)


def ranges(**entries: Entry) -> CalibrationTable:
    """A table of a few tensors."""
    return CalibrationTable(digest("table"), "mse", (), entries)


def worst_frame(name: str, classes: int, seed: int, size: tuple[int, int] = (256, 512)) -> WorstFrame:
    """A street of blocks: a noisy photo, its class map, and a map with a shifted boundary and a lost object."""
    generator = np.random.default_rng(seed)
    height, width = size
    blocks = generator.integers(0, classes, (8, 12)).astype(np.uint8)
    float_map = np.kron(blocks, np.ones((height // 8 + 1, width // 12 + 1), np.uint8))[:height, :width]
    int8_map = float_map.copy()
    int8_map[:, 2:] = float_map[:, :-2]
    int8_map[height // 2 : height // 2 + 40, 60:120] = 0
    shade = np.linspace(210, 60, height)[:, None, None] + generator.normal(0, 6, (height, width, 3))
    frame = np.clip(shade + float_map[..., None] * 2.0, 0, 255).astype(np.uint8)
    return WorstFrame(name, 100 * float(np.mean(float_map == int8_map)), frame, float_map, int8_map)


def sensitivity(listed: tuple[Layer, ...], *, spared: bool = True, scored: bool = True, block: int = 1) -> Sensitivity:
    """Of layers, or of blocks of some number of them: ever quieter ones, but for every seventh."""

    def effect(noise: float) -> Effect:
        return Effect(noise, 100 - 40 * noise, 70.0 - 90 * noise if scored else None)

    names = [layer.name for layer in listed]
    effects = []
    for start in range(0, len(names), block):
        first, *others = names[start : start + block]
        noise = (0.04 if start // block % 7 == 3 else 0.002) / (1 + start / 20)
        effects.append(LayerEffect(first, effect(noise), effect(0.2 - noise) if spared else None, tuple(others)))
    return Sensitivity(effect(0.0), effect(0.2), tuple(effects), 4)


def report_content(**changes: object) -> ReportContent:
    """The content with any of its fields replaced."""
    values: dict[str, object] = {
        "manifest": manifest(),
        "worst": tuple(worst_frame(f"frankfurt_{i:06d}", 19, i) for i in (3, 58, 91)),
        "table": table(),
        "steps": {"load": 0.41, "simplify": 2.9, "calibrate": 61.3, "place Q/DQ": 0.8, "lint": 0.2, "verify": 44.8},
        "peak_rss_mb": 1184.6,
        "remarks": ("The ranges come from an earlier conversion of the same network with the same frames.",),
    }
    return ReportContent(**{**values, **changes})  # type: ignore[arg-type]


def _hostile_layers(text: str) -> tuple[Layer, ...]:
    return (Layer(text, text, "float", 10, text), Layer(f"a{text}", text, "int8", 10), *layers(3))


def hostile_content(text: str) -> ReportContent:
    """The same string wherever a name, reason or version can stand."""
    names = (f"a{text}", f"b{text}", "c")
    labels = LabelSet(names, ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    iou: dict[str, float | None] = dict.fromkeys(names, 50.0)
    whole = manifest(
        labels,
        network=Network(text, text, text, 17, text),
        quantization=Quantization(text, (text,), (text,), _hostile_layers(text)),
        scores=Scores("miou", 50.0, 49.0, iou, iou, (text,), (text,)),
        files={text: text},
        tools={text: text},
    )
    entry = next(iter(table(1).entries.values()))
    return report_content(
        manifest=whole,
        worst=(worst_frame(text, 3, 1, (48, 96)),),
        table=ranges(**{text: entry}),
        steps={text: 1.0},
        remarks=(text,),
        sensitivity=sensitivity(_hostile_layers(text)[:2], block=2),
    )


def small(**changes: Any) -> ReportContent:
    """Content with one small frame, quick to draw."""
    return report_content(**{"worst": (worst_frame("frame_7", 19, 7, (48, 96)),), **changes})


def floating(**changes: Any) -> ReportContent:
    """The content of an FP16 bundle: no layer quantized, nothing calibrated."""
    listed = tuple(
        dataclasses.replace(layer, precision="float", reason="the whole network is FP16") for layer in layers()
    )
    whole = manifest(quantization=Quantization(FP16, (), (), listed), files={"model.onnx": digest("model.onnx")})
    return small(**{"manifest": whole, "table": None, "remarks": (), **changes})


def scored(**changes: Any) -> Any:
    """A manifest whose scores have some fields replaced."""
    whole = manifest()
    assert whole.scores is not None
    return dataclasses.replace(whole, scores=dataclasses.replace(whole.scores, **changes))
