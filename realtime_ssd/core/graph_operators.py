"""The operators that a graph of an SSD may have, and how large their outputs can be."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

__all__ = ["OPERATORS", "Growth"]


class Growth(Enum):
    """How the size of an operator's output follows from the sizes of its inputs."""

    FIRST = "at most the elements of the first input"
    SUM = "the elements of all inputs together"
    PRODUCT = "at most the product of the elements of all inputs"
    INDICES = "at most eight times the elements of all inputs"
    SHAPE = "only known if the shape of the output is"


_FIRST = """
    Abs ArgMax ArgMin BatchNormalization Cast CastLike Ceil Clip Compress Cos CumSum
    DepthToSpace DequantizeLinear Dropout Elu Erf Exp Flatten Floor Gelu GlobalAveragePool
    GlobalMaxPool HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Log LogSoftmax Mish Neg Not PRelu QuantizeLinear Reciprocal
    ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Round ScatterElements ScatterND Selu Sigmoid Sign Sin Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Swish Tanh ThresholdedRelu TopK Transpose Unsqueeze
"""
_PRODUCT = """
    Add And BitShift Div Equal Gather GatherElements GatherND Greater GreaterOrEqual Less
    LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor
"""
_SHAPE = """
    AveragePool Constant ConstantOfShape Conv ConvInteger ConvTranspose Expand Gemm LpPool
    MatMul MatMulInteger MaxPool OneHot Pad QLinearConv QLinearMatMul Range Resize Tile Upsample
"""
OPERATORS = MappingProxyType(
    {
        **dict.fromkeys(_FIRST.split(), Growth.FIRST),
        **dict.fromkeys(_PRODUCT.split(), Growth.PRODUCT),
        **dict.fromkeys(_SHAPE.split(), Growth.SHAPE),
        **dict.fromkeys(("NonMaxSuppression", "NonZero", "Shape"), Growth.INDICES),
        "Concat": Growth.SUM,
    }
)
"""Operators of the standard domain that end, have no side effects and read no files."""
