"""What other programs read instead of a bundle: trtexec, DeepStream, Triton and jetson-inference.

Each program is a module that turns a bundle into files: the graph in the form that this program and its TensorRT take,
configuration, class names and colours, and the commands that use them.
"""

from __future__ import annotations

from edgeseg.converters.emit.emit import PROGRAMS, Emitted, emit
from edgeseg.converters.emit.options import EmitOptions, form_for, parse_version
from edgeseg.converters.emit.request import Emission, Program, Request

__all__ = [
    "PROGRAMS",
    "Emission",
    "EmitOptions",
    "Emitted",
    "Program",
    "Request",
    "emit",
    "form_for",
    "parse_version",
]
