"""What a test of `edgeseg.converters.emit` calls."""

from __future__ import annotations

from collections.abc import Callable

from edgeseg.converters.emit import Emitted

Emit = Callable[..., Emitted]
"""Emits a small bundle for a program: its name, then frames, force and fields of EmitOptions by name."""
