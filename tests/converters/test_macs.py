"""Multiply-accumulate operations by layer."""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs import GraphBuilder, toy_network

from edgeseg.converters.macs import macs
from edgeseg.errors import ModelError


def test_convolutions() -> None:
    counts = macs(toy_network())
    assert counts["stem"] == 32 * 32 * 8 * 3 * 9
    assert counts["depthwise"] == 16 * 16 * 8 * 9
    assert counts["classifier"] == 16 * 16 * 3 * 16


def test_transposed_convolution_counts_from_its_input() -> None:
    builder = GraphBuilder()
    assert macs(builder.model(builder.conv_transpose("image", 3, 5, name="up"))) == {"up": 64 * 64 * 3 * 5 * 4}


def test_matrix_products() -> None:
    builder = GraphBuilder()
    flat = builder.add("Flatten", builder.add("GlobalAveragePool", "image"))
    dense = builder.add("Gemm", flat, builder.constant(np.ones((7, 3), np.float32)), name="dense", transB=1)
    product = builder.add("MatMul", dense, builder.constant(np.ones((7, 2), np.float32)), name="product")
    assert macs(builder.model(product, output_shape=(1, 2))) == {"dense": 21, "product": 14}


def test_dynamic_shapes_are_refused() -> None:
    model = toy_network()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ModelError, match=r"static shapes around stem.*--size HxW"):
        macs(model)
