"""What can be asked for, and the record that stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeseg.backends.tensorrt.options import TARGETS, BuildOptions
from edgeseg.errors import UsageError


class TestOptions:
    def test_defaults(self) -> None:
        options = BuildOptions()
        assert (options.chosen_library, options.int8, options.fp16, options.batch) == (
            "tensorrt",
            True,
            True,
            (1, 1, 1),
        )

    @pytest.mark.parametrize("target", TARGETS)
    def test_every_target(self, target: str) -> None:
        assert BuildOptions(target=target).chosen_library == TARGETS[target].library
        assert "SM75" not in TARGETS[target].ahead

    def test_auto_with_tensorrt_rtx(self) -> None:
        assert BuildOptions(library="tensorrt_rtx").chosen_library == "tensorrt_rtx"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target": "orion"}, "unknown target 'orion'; did you mean orin?"),
            ({"library": "trt"}, "unknown TensorRT library 'trt'"),
            ({"workspace_mb": 0}, "--workspace must be at least 1 MB, but is 0"),
            ({"optimization_level": 6}, "--optimization-level must be 0 to 5, but is 6"),
            ({"batch": (0, 1, 1)}, "--batch must be 1 <= least <= best <= largest, but is 0, 1, 1"),
            ({"batch": (1, 4, 2)}, "--batch must be 1 <= least <= best <= largest, but is 1, 4, 2"),
            ({"layer_precisions": (("a", "int4"),)}, "a layer's precision is int8, float16 or float32, but is int4"),
            ({"target": "rtx", "library": "tensorrt"}, "target rtx is built by TensorRT-RTX"),
            ({"target": "orin", "library": "tensorrt_rtx"}, "target orin is built by TensorRT on the board"),
            ({"target": "orin-nano", "dla_core": 0}, "target orin-nano has no DLA, but --dla 0 was asked for"),
            ({"target": "orin", "dla_core": 2}, "target orin has DLA cores 0 to 1, but --dla 2 was asked for"),
            ({"target": "rtx", "dla_core": 0}, "target rtx has no DLA"),
            ({"target": "rtx", "timing_cache": Path("t")}, "TensorRT-RTX keeps no timing cache"),
        ],
    )
    def test_refuses(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            BuildOptions(**options)
        assert message in str(caught.value)
