"""The canonical graph in the forms that the versions of TensorRT, DLA and the programs around them read.

docs/targets.md says which form is for what.
"""

from __future__ import annotations

from edgeseg.converters.targets.forms import FORMS, Derived, Form, derive, get_form
from edgeseg.converters.targets.implicit import measure_missing, missing_ranges
from edgeseg.converters.targets.variants import with_class_map, with_planar_input

__all__ = [
    "FORMS",
    "Derived",
    "Form",
    "derive",
    "get_form",
    "measure_missing",
    "missing_ranges",
    "with_class_map",
    "with_planar_input",
]
