"""What a program's module gets, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from edgeseg.converters.emit.graphs import with_batch, with_plain_names
from edgeseg.converters.emit.options import EmitOptions, Version, version_text
from edgeseg.converters.lint.operator_tables import NEWER
from edgeseg.converters.targets import Derived, derive
from edgeseg.errors import UnsupportedModelError
from edgeseg.labels import LabelSet
from edgeseg.manifest import Manifest

__all__ = ["CACHE", "COLORS", "LABELS", "MODEL", "Emission", "Program", "Request", "label_files"]

MODEL = "model.onnx"
CACHE = "calibration.cache"
LABELS = "labels.txt"
COLORS = "colors.txt"


@dataclass(frozen=True)
class Request:
    """One bundle for one program.

    Attributes:
        manifest: of the bundle.
        model: its canonical graph.
        options: how to emit.
        form: of `edgeseg.converters.targets.FORMS`.
        ranges: amax by tensor name beyond those of the Q/DQ; complete where the form needs all.
    """

    manifest: Manifest
    model: onnx.ModelProto
    options: EmitOptions
    form: str
    ranges: Mapping[str, float]

    def derive(self, variant: onnx.ModelProto, names: Mapping[str, str] | None = None) -> Derived:
        """The form of a variant of the graph, with the batch asked for and node names that every program can write.

        Args:
            variant: of `model`.
            names: new names of tensors that have others in `model`.

        Raises:
            UnsupportedModelError: for an operator that came later than the TensorRT version.
        """
        ranges = {(names or {}).get(tensor, tensor): amax for tensor, amax in self.ranges.items()}
        derived = derive(self.form, with_plain_names(with_batch(variant, self.options.batch)), ranges)
        self._require_operators(derived.model)
        return derived

    def _require_operators(self, model: onnx.ModelProto) -> None:
        version = self.options.tensorrt
        for node in model.graph.node:
            since = NEWER.get(node.op_type, version)
            if since > version:
                raise UnsupportedModelError(
                    f"TensorRT {version_text(version)} has no {node.op_type} ({node.name}), which came by "
                    f"{version_text(since)}, and the form {self.form} keeps it; emit for a newer version, or with Q/DQ"
                )

    def require_logits(self, program: str) -> None:
        """Refuse a bundle whose graph gives class numbers, for a program that finds the classes by itself.

        Raises:
            UnsupportedModelError: with how to convert instead.
        """
        if self.manifest.output.kind != "logits":
            raise UnsupportedModelError(
                f"{program} chooses the class of a pixel by itself and takes the scores of every class, but the graph "
                "of this bundle gives the class map; convert the network without --output class-map"
            )


@dataclass(frozen=True)
class Emission:
    """What a program reads.

    Attributes:
        files: content by path inside the folder; a path that ends in "/" is an empty folder.
        commands: to type in the folder, in this order.
        notes: what to know before.
    """

    files: Mapping[str, bytes]
    commands: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A program that files are emitted for.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
        make: turns a request into files.
        before: first TensorRT version that it is not emitted for; None where none is known.
        takes: names of the options that it can follow beyond those that all can.
        always_implicit: whether it knows INT8 from a calibration cache only.
    """

    name: str
    title: str
    make: Callable[[Request], Emission]
    before: Version | None = None
    takes: frozenset[str] = frozenset()
    always_implicit: bool = False


def label_files(labels: LabelSet) -> dict[str, bytes]:
    """Class names, and red, green and blue of each class, one line a class, in the order of the classes."""
    names = [" ".join(name.split()) for name in labels.names]
    colors = [" ".join(map(str, color)) for color in labels.palette]
    return {LABELS: _lines(names), COLORS: _lines(colors)}


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
