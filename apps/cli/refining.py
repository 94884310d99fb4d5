"""The options of commands that refine class maps after the network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.refine import Refinement

__all__ = ["add_refine_arguments", "asked_refinement"]


def add_refine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --refine and --refine-preset."""
    group = parser.add_argument_group("refinement, after the network and at the frame's size")
    group.add_argument("--refine", metavar="NAME", help="densecrf or gridcrf; default: none")
    group.add_argument(
        "--refine-preset",
        metavar="NAME|FILE.json",
        help="parameters of densecrf: deeplab (the default), densecrf, crfasrnn, or what export wrote of a CRF-as-RNN",
    )


def asked_refinement(options: argparse.Namespace) -> Refinement | None:
    """The refinement that the options ask for; None for none.

    Raises:
        UsageError: for an unknown one, or a preset without or of another refinement.
        InputError: for a file of parameters that cannot be read.
    """
    if options.refine is None:
        if options.refine_preset is not None:
            raise UsageError("--refine-preset goes with --refine densecrf; give both or none")
        return None
    from edgeseg.refine import refinement

    return refinement(options.refine, options.refine_preset)
