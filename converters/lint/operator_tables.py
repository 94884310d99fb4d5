"""Which operators TensorRT's ONNX parser knows, from the operator lists in the documentation of onnx-tensorrt."""

from __future__ import annotations

from edgeseg.converters.lint.profiles import Version

__all__ = ["INTEGER_OPERATORS", "KNOWN", "NEWER", "WRITTEN_OUT"]

INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
"""Quantized forms other than Q/DQ; no version has them."""

# Branches 8.5 and 8.2. NonZero and NonMaxSuppression stand in that list too, but their result has no fixed size: later
# versions take them through plug-ins that need not be there.
KNOWN = frozenset(
    (
        "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
        "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
        "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum",
        "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
        "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
        "GRU", "HardSigmoid", "Identity", "If", "ImageScaler", "InstanceNormalization", "IsNaN",
        "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool", "LRN", "LSTM",
        "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mod", "Mul", "Neg", "Not",
        "Or", "Pad", "ParametricSoftplus", "Pow", "PRelu", "QuantizeLinear", "RandomNormal", "RandomNormalLike",
        "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
        "Relu", "Reshape", "Resize", "ReverseSequence", "RNN", "RoiAlign", "Round", "ScaledTanh", "Scan", "Scatter",
        "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice",
        "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh",
        "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
    )
)  # fmt: skip
"""Operators of ONNX's own set that TensorRT 8.2 and every later version import."""

NEWER: dict[str, Version] = {
    # Missing in 8.2; two of them came with 8.4.
    **dict.fromkeys(("GridSample", "HardSwish", "OneHot"), (8, 5)),
    **dict.fromkeys(("GroupNormalization", "LayerNormalization"), (8, 6)),
    **dict.fromkeys(
        (
            "Attention", "BlackmanWindow", "CastLike", "Gelu", "HammingWindow", "HannWindow", "Hardmax", "IsInf",
            "Mish", "RMSNormalization", "RotaryEmbedding", "STFT",
        ),
        (10, 0),
    ),
}  # fmt: skip
"""Operators that came later, with the version from which edgeseg counts on them."""

WRITTEN_OUT = frozenset({"LayerNormalization"})
"""Operators that the form for TensorRT 8 writes as simpler ones, see `edgeseg.converters.targets.tensorrt8`.

Newer versions keep them: they compute them in float32 where the engine is FP16, and the simpler ones they would not.
"""
