"""Writes the operator cases of this folder: for each a tiny ONNX model and its expected values.

    python tests/vectors/operators/make.py            # writes beside this file
    python tests/vectors/operators/make.py --out DIR

Needs numpy, onnx and onnxruntime. `<name>.npz` holds `in:<tensor>` for every input of
`<name>.onnx` and `out:<tensor>` for every output, as onnxruntime computes them in f32. Every case has
its own seed, its name, so adding one changes no other. Models and values of cases that are no longer
listed here are removed.
"""

import argparse
import io
import itertools
import pathlib
import zipfile
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

LARGEST_FILE = 20_000
LARGEST_FOLDER = 800_000
MAGNITUDES = (0.01, 0.3, 1.0, 4.0, 50.0)

CASES = {}


def case(build=None, *, name=None, opset=13):
    """Registers a function of a `Case` under its own name or `name`."""
    if build is None:
        return lambda f: case(f, name=name, opset=opset)
    key = name or build.__name__
    assert key not in CASES, f"two cases called {key}"
    CASES[key] = (build, opset)
    return build


class Case:
    """One model under construction. Tensors are their names."""

    def __init__(self, name, opset):
        self.name, self.opset = name, opset
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes, self.initialisers, self.inputs, self.outputs = [], [], {}, []

    def input(self, *shape, name="x", scale=None):
        """An input of seeded normal values, their magnitude drawn per case unless given."""
        drawn = self.rng.choice(MAGNITUDES)
        values = self.rng.standard_normal(shape) * (drawn if scale is None else scale)
        self.inputs[name] = values.astype(np.float32)
        return name

    def output(self, *names):
        self.outputs += names

    def const(self, values, name=None):
        """A constant with these values: floats become f32, integers i64."""
        values = np.asarray(values)
        values = values.astype(np.int64 if values.dtype.kind in "iu" else np.float32)
        name = name or f"c{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(values, name))
        return name

    def random(self, *shape, scale=1.0, tail=None):
        """A constant of normal values; `tail` makes it Student's t with that many degrees."""
        values = self.rng.standard_t(tail, shape) if tail else self.rng.standard_normal(shape)
        return self.const(np.asarray(values * scale))

    def node(self, op, inputs, outputs=1, **attributes):
        """A node with fresh output names; returns the name, or the names of several."""
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        stem = f"{op.lower()}{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=stem, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, *weight, bias=True, tail=None, **attributes):
        """Convolution with a weight of the given shape, [out, in / group, kernel..]."""
        inputs = [x, self.random(*weight, scale=np.prod(weight[1:]) ** -0.5, tail=tail)]
        if bias:
            inputs.append(self.random(weight[0], scale=0.5))
        return self.node("Conv", inputs, **attributes)

    def deconv(self, x, *weight, bias=True, **attributes):
        """Transposed convolution with a weight of the given shape, [in, out / group, kernel..]."""
        inputs = [x, self.random(*weight, scale=weight[0] ** -0.5)]
        if bias:
            inputs.append(self.random(weight[1] * attributes.get("group", 1), scale=0.5))
        return self.node("ConvTranspose", inputs, **attributes)

    def norm(self, x, channels):
        """BatchNormalization with uneven statistics."""
        inputs = [
            x,
            self.const(self.rng.uniform(0.3, 2.0, channels) * self.rng.choice([-1, 1], channels)),
            self.random(channels),
            self.random(channels, scale=0.7),
            self.const(self.rng.uniform(0.1, 3.0, channels)),
        ]
        return self.node("BatchNormalization", inputs, epsilon=1e-3)

    def model(self, shapes):
        """The model; `shapes` names the shapes of its outputs once they are known."""

        def info(name, shape):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            self.name,
            [info(name, values.shape) for name, values in self.inputs.items()],
            [info(name, shapes.get(name)) for name in self.outputs],
            self.initialisers,
        )
        return helper.make_model(
            graph,
            producer_name="pponnx-vectors",
            ir_version=8,
            opset_imports=[helper.make_opsetid("", self.opset)],
        )


# --------------------------------------------------------------------------------------------
# Conv
# --------------------------------------------------------------------------------------------

# name: input shape, weight shape, attributes
CONVOLUTIONS = {
    "conv_1d": ((1, 3, 11), (4, 3, 3), {}),
    "conv_1d_strides_dilations": ((1, 3, 23), (5, 3, 4), {"strides": [3], "dilations": [2]}),
    "conv_1d_asymmetric_pads": ((2, 2, 9), (3, 2, 5), {"pads": [4, 1]}),
    "conv_1d_depthwise": ((1, 6, 13), (6, 1, 3), {"group": 6, "pads": [1, 1]}),
    "conv_1d_same_lower": ((1, 2, 10), (3, 2, 4), {"auto_pad": "SAME_LOWER"}),
    "conv_2d": ((1, 3, 8, 9), (5, 3, 3, 3), {}),
    "conv_2d_pointwise": ((1, 7, 5, 6), (9, 7, 1, 1), {}),
    "conv_2d_pointwise_strided": ((1, 4, 7, 7), (6, 4, 1, 1), {"strides": [2, 2]}),
    "conv_2d_pointwise_grouped": ((1, 6, 4, 5), (4, 3, 1, 1), {"group": 2}),
    "conv_2d_uneven_strides": ((1, 3, 11, 10), (4, 3, 3, 3), {"strides": [2, 3]}),
    "conv_2d_stride_exceeds_kernel": ((1, 2, 13, 12), (3, 2, 2, 2), {"strides": [4, 5]}),
    "conv_2d_dilations": ((1, 3, 12, 13), (4, 3, 3, 3), {"dilations": [2, 3]}),
    "conv_2d_dilations_strides_pads": (
        (1, 2, 11, 12), (3, 2, 3, 2),
        {"dilations": [3, 2], "strides": [2, 1], "pads": [2, 1, 3, 0]},
    ),
    "conv_2d_groups": ((1, 6, 7, 6), (9, 2, 3, 3), {"group": 3}),
    "conv_2d_depthwise": ((1, 5, 8, 7), (5, 1, 3, 3), {"group": 5, "pads": [1] * 4}),
    "conv_2d_depthwise_strided": (
        (1, 4, 9, 10), (4, 1, 3, 3), {"group": 4, "pads": [0, 0, 1, 1], "strides": [2, 2]},
    ),
    "conv_2d_depthwise_multiplier_2": ((1, 3, 7, 7), (6, 1, 3, 3), {"group": 3, "pads": [1] * 4}),
    "conv_2d_asymmetric_pads": ((1, 3, 7, 8), (4, 3, 3, 4), {"pads": [0, 2, 1, 3]}),
    "conv_2d_pads_wider_than_kernel": ((1, 2, 4, 5), (3, 2, 2, 3), {"pads": [3, 4, 2, 3]}),
    "conv_2d_same_upper": (
        (1, 3, 9, 8), (4, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "conv_2d_same_lower": (
        (1, 3, 9, 8), (4, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ),
    "conv_2d_valid": ((1, 3, 9, 8), (4, 3, 4, 3), {"auto_pad": "VALID", "strides": [1, 2]}),
    "conv_2d_non_square_kernel": ((1, 2, 6, 12), (4, 2, 1, 7), {"pads": [0, 3, 0, 3]}),
    "conv_2d_batch_2": ((2, 3, 6, 5), (4, 3, 3, 3), {"pads": [1] * 4}),
    "conv_2d_whole_image": ((1, 4, 5, 6), (7, 4, 5, 6), {}),
    "conv_2d_one_channel": ((1, 1, 9, 9), (1, 1, 5, 3), {}),
    "conv_3d": ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 0]}),
}

for _name, (_input, _weight, _attributes) in CONVOLUTIONS.items():

    @case(name=_name)
    def _(c, x=_input, weight=_weight, attributes=_attributes):
        c.output(c.conv(c.input(*x), *weight, **attributes))


@case
def conv_2d_no_bias(c):
    c.output(c.conv(c.input(1, 3, 7, 8), 4, 3, 3, 3, bias=False, pads=[1] * 4))


@case
def conv_2d_heavy_tailed(c):
    c.output(c.conv(c.input(1, 4, 8, 8), 6, 4, 3, 3, tail=2))


@case
def conv_2d_depthwise_heavy_tailed(c):
    c.output(c.conv(c.input(1, 8, 6, 6), 8, 1, 3, 3, tail=2, group=8))


@case
def conv_2d_uneven_filters(c):
    """Filters whose magnitudes lie a factor of 10^6 apart, one of them all zeros."""
    x = c.input(1, 3, 6, 6, scale=1)
    weight = c.rng.standard_normal((5, 3, 3, 3)) * np.reshape([1e-3, 0, 1, 1e3, 30], (5, 1, 1, 1))
    c.output(c.node("Conv", [x, c.const(weight), c.random(5)]))


@case
def conv_2d_zero_weights(c):
    c.output(c.node("Conv", [c.input(1, 2, 5, 5), c.const(np.zeros((3, 2, 3, 3))), c.random(3)]))


@case
def conv_2d_zero_input(c):
    c.output(c.conv(c.input(1, 2, 5, 5, scale=0), 3, 2, 3, 3))


@case
def conv_2d_tiny_input(c):
    c.output(c.conv(c.input(1, 2, 5, 5, scale=1e-12), 3, 2, 3, 3, bias=False))


@case
def conv_2d_huge_input(c):
    c.output(c.conv(c.input(1, 2, 5, 5, scale=1e12), 3, 2, 3, 3))


@case
def conv_2d_one_large_value(c):
    """One input value 10^4 times the others: what a bound by the maximum handles worst."""
    x = c.input(1, 3, 7, 7, scale=1)
    c.inputs[x][0, 1, 3, 4] = 1e4
    c.output(c.conv(x, 4, 3, 3, 3))


@case(opset=9)
def conv_2d_opset_9(c):
    c.output(c.conv(c.input(1, 3, 6, 7), 4, 3, 3, 2, pads=[1, 0, 1, 1]))


@case(opset=17)
def conv_2d_opset_17(c):
    c.output(c.conv(c.input(1, 3, 6, 7), 4, 3, 3, 2, strides=[1, 2]))


# --------------------------------------------------------------------------------------------
# ConvTranspose
# --------------------------------------------------------------------------------------------

TRANSPOSED = {
    "convtranspose_1d": ((1, 3, 7), (3, 4, 3), {"strides": [2]}),
    "convtranspose_1d_pads": ((1, 2, 8), (2, 3, 4), {"strides": [3], "pads": [2, 1]}),
    "convtranspose_2d": ((1, 3, 4, 5), (3, 5, 3, 3), {}),
    "convtranspose_2d_strides": ((1, 4, 4, 3), (4, 3, 2, 3), {"strides": [2, 3]}),
    "convtranspose_2d_stride_exceeds_kernel": ((1, 2, 3, 4), (2, 3, 2, 2), {"strides": [3, 4]}),
    "convtranspose_2d_pads": (
        (1, 3, 5, 4), (3, 2, 4, 3), {"strides": [2, 2], "pads": [1, 0, 2, 1]},
    ),
    "convtranspose_2d_output_padding": (
        (1, 3, 4, 4), (3, 4, 3, 3),
        {"strides": [2, 3], "pads": [1] * 4, "output_padding": [1, 2]},
    ),
    "convtranspose_2d_groups": ((1, 6, 3, 4), (6, 2, 3, 3), {"group": 3, "strides": [2, 2]}),
    "convtranspose_2d_depthwise": (
        (1, 4, 4, 3), (4, 1, 4, 4), {"group": 4, "strides": [2, 2], "pads": [1] * 4},
    ),
    "convtranspose_2d_dilations": ((1, 2, 5, 4), (2, 3, 3, 2), {"dilations": [2, 3]}),
}

for _name, (_input, _weight, _attributes) in TRANSPOSED.items():

    @case(name=_name)
    def _(c, x=_input, weight=_weight, attributes=_attributes):
        c.output(c.deconv(c.input(*x), *weight, **attributes))


@case
def convtranspose_2d_no_bias(c):
    c.output(c.deconv(c.input(2, 3, 4, 3), 3, 2, 3, 3, bias=False, strides=[2, 1]))


@case
def convtranspose_batch_norm(c):
    y = c.deconv(c.input(1, 4, 3, 4), 4, 6, 2, 2, strides=[2, 2])
    c.output(c.norm(y, 6))


# --------------------------------------------------------------------------------------------
# Gemm and MatMul
# --------------------------------------------------------------------------------------------

for _side, _a, _b in itertools.product(("right", "left"), (0, 1), (0, 1)):

    @case(name=f"gemm_constant_{_side}" + "_transa" * _a + "_transb" * _b)
    def _(c, side=_side, a=_a, b=_b):
        """y = A B + C with m, k, n = 3, 7, 5; the constant is on the named side."""
        left, right = (7, 3) if a else (3, 7), (5, 7) if b else (7, 5)
        if side == "right":
            pair = [c.input(*left), c.random(*right)]
        else:
            pair = [c.random(*left), c.input(*right)]
        c.output(c.node("Gemm", [*pair, c.random(5)], transA=a, transB=b))


for _name, _shape in {
    "none": None, "scalar": (), "vector_of_1": (1,), "1x1": (1, 1), "row": (5,), "1xn": (1, 5),
    "column": (3, 1), "full": (3, 5),
}.items():

    @case(name=f"gemm_c_{_name}")
    def _(c, shape=_shape):
        inputs = [c.input(3, 8), c.random(8, 5)]
        c.output(c.node("Gemm", inputs if shape is None else [*inputs, c.random(*shape)]))


@case
def gemm_alpha_beta(c):
    inputs = [c.input(2, 6), c.random(4, 6), c.random(4)]
    c.output(c.node("Gemm", inputs, alpha=0.25, beta=-3.0, transB=1))


@case
def gemm_alpha_negative(c):
    c.output(c.node("Gemm", [c.input(2, 6), c.random(6, 4)], alpha=-1.75))


@case
def gemm_beta_zero(c):
    c.output(c.node("Gemm", [c.input(2, 6), c.random(6, 4), c.random(4)], beta=0.0))


@case
def gemm_variable_c(c):
    """C is an activation: an addition of two variables."""
    c.output(c.node("Gemm", [c.input(2, 6), c.random(6, 4), c.input(2, 4, name="c")], beta=0.5))


@case
def gemm_heavy_tailed(c):
    c.output(c.node("Gemm", [c.input(1, 40), c.random(30, 40, tail=2), c.random(30)], transB=1))


@case
def gemm_one_output(c):
    c.output(c.node("Gemm", [c.input(1, 13), c.random(1, 13), c.random(1)], transB=1))


@case(opset=9)
def gemm_opset_9(c):
    c.output(c.node("Gemm", [c.input(2, 9), c.random(9, 4), c.random(1, 4)], alpha=2.0))


@case
def gemm_batch_norm(c):
    c.output(c.norm(c.node("Gemm", [c.input(3, 9), c.random(9, 6), c.random(6)]), 6))


# name: activation, constant
MATMUL_RIGHT = {
    "matmul_2d": ((3, 7), (7, 5)),
    "matmul_batched_activation": ((2, 3, 7), (7, 4)),
    "matmul_doubly_batched_activation": ((2, 3, 4, 5), (5, 3)),
    "matmul_batched_constant": ((3, 2, 5), (3, 5, 4)),
    "matmul_broadcast_activation": ((2, 5), (3, 5, 4)),
    "matmul_broadcast_both": ((2, 1, 3, 5), (4, 5, 2)),
    "matmul_vector_activation": ((7,), (7, 4)),
    "matmul_vector_constant": ((3, 7), (7,)),
    "matmul_batched_vector_constant": ((2, 3, 7), (7,)),
    "matmul_one_row": ((1, 33), (33, 17)),
}
MATMUL_LEFT = {
    "matmul_constant_left": ((7, 5), (3, 7)),
    "matmul_constant_left_batched_activation": ((2, 7, 3), (4, 7)),
    "matmul_constant_left_batched": ((3, 5, 2), (3, 4, 5)),
    "matmul_constant_left_vector": ((7, 4), (7,)),
    "matmul_constant_left_vector_activation": ((7,), (4, 7)),
}

for _name, (_input, _weight) in (MATMUL_RIGHT | MATMUL_LEFT).items():

    @case(name=_name)
    def _(c, x=_input, weight=_weight, left=_name in MATMUL_LEFT):
        pair = [c.input(*x), c.random(*weight)]
        c.output(c.node("MatMul", reversed(pair) if left else pair))


@case(opset=17)
def matmul_bias_opset_17(c):
    c.output(c.node("Add", [c.node("MatMul", [c.input(2, 3, 6), c.random(6, 5)]), c.random(5)]))


@case
def matmul_two_variables(c):
    """Not linear: both operands depend on the input."""
    x = c.input(1, 3, 6, scale=1)
    left = c.node("MatMul", [x, c.random(6, 4)])
    right = c.node("Transpose", c.node("MatMul", [x, c.random(6, 4)]), perm=[0, 2, 1])
    c.output(c.node("MatMul", [left, right]))


# --------------------------------------------------------------------------------------------
# Pools and reductions
# --------------------------------------------------------------------------------------------

for _include, _where in itertools.product((0, 1), ("after", "before")):

    @case(name=f"averagepool_{_where}_conv_count_include_pad_{_include}")
    def _(c, include=_include, where=_where):
        x = c.input(1, 3, 9, 8)
        pool = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
        pool["count_include_pad"] = include
        if where == "after":
            c.output(c.node("AveragePool", c.conv(x, 4, 3, 3, 3), **pool))
        else:
            c.output(c.conv(c.node("AveragePool", x, **pool), 4, 3, 3, 3))


@case
def averagepool_overlapping_strides(c):
    y = c.conv(c.input(1, 2, 10, 9), 3, 2, 1, 1)
    c.output(c.node("AveragePool", y, kernel_shape=[3, 3], strides=[2, 3]))


@case
def averagepool_same_upper(c):
    y = c.conv(c.input(1, 2, 7, 8), 3, 2, 3, 3)
    c.output(c.node("AveragePool", y, kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"))


@case
def averagepool_1d(c):
    y = c.conv(c.input(1, 2, 15), 4, 2, 3)
    c.output(c.node("AveragePool", y, kernel_shape=[3], strides=[2]))


@case
def globalaveragepool_after_conv(c):
    c.output(c.node("GlobalAveragePool", c.conv(c.input(1, 3, 7, 6), 5, 3, 3, 3)))


@case
def globalaveragepool_flatten_gemm(c):
    y = c.node("Flatten", c.node("GlobalAveragePool", c.input(1, 6, 5, 4)))
    c.output(c.node("Gemm", [y, c.random(4, 6), c.random(4)], transB=1))


@case
def reducemean_after_conv(c):
    c.output(c.node("ReduceMean", c.conv(c.input(1, 3, 7, 6), 5, 3, 3, 3), axes=[2, 3], keepdims=0))


@case
def reducemean_negative_axis(c):
    y = c.node("MatMul", [c.input(2, 5, 6), c.random(6, 4)])
    c.output(c.node("ReduceMean", y, axes=[-2], keepdims=1))


@case
def reducesum_after_conv(c):
    y = c.conv(c.input(1, 2, 5, 6), 4, 2, 3, 3)
    c.output(c.node("ReduceSum", [y, c.const([1])], keepdims=1))


# --------------------------------------------------------------------------------------------
# Affine operators around linear layers
# --------------------------------------------------------------------------------------------


@case
def add_two_branches(c):
    x = c.input(1, 3, 7, 7)
    y = c.conv(x, 4, 3, 3, 3, pads=[1] * 4)
    c.output(c.node("Add", [y, c.conv(x, 4, 3, 1, 1)]))


@case
def add_branches_of_uneven_size(c):
    """The branches lie a factor of 10^4 apart."""
    x = c.input(1, 3, 6, 6)
    small = c.node("Conv", [x, c.random(4, 3, 1, 1, scale=1e-4)])
    c.output(c.node("Add", [c.conv(x, 4, 3, 1, 1), small]))


@case
def add_broadcast_branches(c):
    x = c.input(1, 3, 5, 4)
    pooled = c.conv(c.node("GlobalAveragePool", x), 4, 3, 1, 1)
    c.output(c.node("Add", [c.conv(x, 4, 3, 1, 1), pooled]))


@case
def sub_two_branches(c):
    x = c.input(1, 3, 7, 7)
    y = c.conv(x, 4, 3, 3, 3, pads=[1] * 4)
    c.output(c.node("Sub", [y, c.conv(x, 4, 3, 1, 1)]))


@case
def sum_three_branches(c):
    x = c.input(1, 3, 5, 6)
    c.output(c.node("Sum", [c.conv(x, 4, 3, 1, 1) for _ in range(3)]))


@case
def add_same_branch_twice(c):
    y = c.conv(c.input(1, 2, 5, 5), 3, 2, 3, 3)
    c.output(c.node("Add", [y, y]))


@case
def add_constant_per_channel(c):
    c.output(c.node("Add", [c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3), c.random(1, 4, 1, 1)]))


@case
def add_constant_full(c):
    c.output(c.node("Add", [c.random(1, 4, 3, 4), c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)]))


@case
def add_constant_before_conv_with_pads(c):
    """The constant does not reach the padding: its image under the convolution varies by place."""
    x = c.node("Add", [c.input(1, 3, 5, 6, scale=1), c.random(1, 3, 1, 1)])
    c.output(c.conv(x, 4, 3, 3, 3, pads=[1] * 4))


@case
def sub_constant_minus_conv(c):
    c.output(c.node("Sub", [c.random(4, 1, 1), c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)]))


@case
def mul_constant_per_channel(c):
    c.output(c.node("Mul", [c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3), c.random(1, 4, 1, 1)]))


@case
def mul_constant_before_conv(c):
    x = c.node("Mul", [c.random(3, 1, 1), c.input(1, 3, 5, 6)])
    c.output(c.conv(x, 4, 3, 3, 3))


@case
def mul_scalar_after_gemm(c):
    y = c.node("Gemm", [c.input(2, 6), c.random(6, 4), c.random(4)])
    c.output(c.node("Mul", [y, c.const(-0.17)]))


@case
def div_constant_per_channel(c):
    y = c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)
    c.output(c.node("Div", [y, c.const(c.rng.uniform(0.5, 3, (4, 1, 1)))]))


@case
def neg_after_conv(c):
    c.output(c.node("Neg", c.conv(c.input(1, 2, 5, 5), 3, 2, 3, 3)))


@case
def mul_two_variables(c):
    """Not linear: a gate computed from the input."""
    x = c.input(1, 3, 5, 5, scale=1)
    gate = c.node("Sigmoid", c.conv(c.node("GlobalAveragePool", x), 4, 3, 1, 1))
    c.output(c.node("Mul", [c.conv(x, 4, 3, 1, 1), gate]))


@case
def batchnormalization_after_conv(c):
    c.output(c.norm(c.conv(c.input(1, 3, 7, 6), 5, 3, 3, 3), 5))


@case
def batchnormalization_after_conv_no_bias(c):
    c.output(c.norm(c.conv(c.input(1, 3, 7, 6), 5, 3, 3, 3, bias=False), 5))


@case
def batchnormalization_after_depthwise(c):
    c.output(c.norm(c.conv(c.input(1, 5, 6, 6), 5, 1, 3, 3, group=5), 5))


@case
def batchnormalization_before_conv_with_pads(c):
    x = c.norm(c.input(1, 3, 6, 5, scale=1), 3)
    c.output(c.conv(x, 4, 3, 3, 3, pads=[1] * 4))


@case(opset=9)
def batchnormalization_opset_9(c):
    c.output(c.norm(c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3), 4))


@case(opset=17)
def batchnormalization_opset_17(c):
    c.output(c.norm(c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3), 4))


@case
def batchnormalization_shared_conv(c):
    """The convolution has a second reader, so the normalisation cannot just be folded into it."""
    y = c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)
    c.output(c.norm(y, 4), c.node("Relu", y))


# --------------------------------------------------------------------------------------------
# Operators that move elements
# --------------------------------------------------------------------------------------------


@case
def concat_branches(c):
    x = c.input(1, 3, 7, 7)
    parts = [c.conv(x, 4, 3, 3, 3, pads=[1] * 4), c.conv(x, 2, 3, 1, 1)]
    c.output(c.node("Concat", parts, axis=1))


@case
def concat_last_axis(c):
    x = c.input(1, 3, 5, 6)
    parts = [c.conv(x, 2, 3, 3, 3), c.conv(x, 2, 3, 3, 1)]
    c.output(c.node("Concat", parts, axis=-1))


@case
def concat_with_constant(c):
    parts = [c.random(1, 2, 3, 4), c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)]
    c.output(c.node("Concat", parts, axis=1))


@case
def concat_input_with_conv(c):
    """One part is the input itself."""
    x = c.input(1, 3, 5, 6)
    c.output(c.node("Concat", [x, c.conv(x, 2, 3, 3, 3, pads=[1] * 4)], axis=1))


@case
def reshape_between(c):
    y = c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)
    y = c.node("Relu", c.node("Reshape", [y, c.const([0, 2, -1])]))
    c.output(c.node("MatMul", [y, c.random(24, 5)]))


@case
def reshape_does_nothing(c):
    """A Reshape to the same shape between a convolution and its ReLU."""
    y = c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)
    c.output(c.node("Relu", c.node("Reshape", [y, c.const([1, 4, 3, 4])])))


@case
def flatten_between(c):
    y = c.node("Relu", c.conv(c.input(1, 3, 5, 4), 4, 3, 3, 3))
    y = c.node("Gemm", [c.node("Flatten", y), c.random(5, 24), c.random(5)], transB=1)
    c.output(y)


@case
def flatten_axis_2(c):
    y = c.node("Flatten", c.conv(c.input(1, 3, 5, 4), 4, 3, 3, 3), axis=2)
    c.output(c.node("Relu", y))


@case
def transpose_after_conv(c):
    c.output(c.node("Transpose", c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3), perm=[0, 2, 3, 1]))


@case
def transpose_channels_last(c):
    """Channels last outside, channels first inside, as converters from TensorFlow write it."""
    x = c.node("Transpose", c.input(1, 6, 5, 3), perm=[0, 3, 1, 2])
    y = c.node("Relu", c.conv(x, 4, 3, 3, 3))
    c.output(c.node("Transpose", y, perm=[0, 2, 3, 1]))


@case
def squeeze_unsqueeze_between(c):
    y = c.conv(c.input(1, 3, 1, 9), 4, 3, 1, 3)
    y = c.node("Unsqueeze", [c.node("Relu", c.node("Squeeze", [y, c.const([2])])), c.const([-1])])
    c.output(c.conv(y, 2, 4, 3, 1))


@case(opset=9)
def squeeze_unsqueeze_opset_9(c):
    y = c.conv(c.input(1, 3, 1, 9), 4, 3, 1, 3)
    c.output(c.node("Unsqueeze", c.node("Squeeze", y, axes=[0, 2]), axes=[0, 3]))


@case(opset=11)
def pad_before_conv_opset_11(c):
    x = c.node("Pad", [c.input(1, 3, 5, 6), c.const([0, 0, 1, 2, 0, 0, 2, 0])])
    c.output(c.conv(x, 4, 3, 3, 3))


@case
def pad_before_conv_with_pads(c):
    x = c.node("Pad", [c.input(1, 2, 5, 5), c.const([0, 0, 0, 1, 0, 0, 1, 0]), c.const(0.0)])
    c.output(c.conv(x, 3, 2, 3, 3, pads=[1] * 4, strides=[2, 2]))


@case
def pad_after_conv(c):
    y = c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)
    c.output(c.node("Pad", [y, c.const([0, 1, 2, 0, 0, 0, 1, 3])]))


@case
def pad_value_after_conv(c):
    """A pad value that is not zero: an affine part of the output."""
    y = c.conv(c.input(1, 3, 5, 6), 4, 3, 3, 3)
    c.output(c.node("Pad", [y, c.const([0, 0, 1, 1, 0, 0, 0, 2]), c.const(-1.5)]))


@case
def pad_reflect_before_conv(c):
    x = c.node("Pad", [c.input(1, 2, 5, 6), c.const([0, 0, 1, 2, 0, 0, 2, 1])], mode="reflect")
    c.output(c.conv(x, 3, 2, 3, 3))


@case(opset=9)
def pad_opset_9(c):
    x = c.node("Pad", c.input(1, 3, 5, 6), pads=[0, 0, 1, 0, 0, 0, 2, 1])
    c.output(c.conv(x, 4, 3, 3, 3))


# name: starts, ends, axes, steps
SLICES = {
    "slice_after_conv": ([1, 0], [3, 4], [1, 3], [1, 1]),
    "slice_steps": ([0, 1], [5, 6], [2, 3], [2, 3]),
    "slice_negative_indices": ([-3, -4], [-1, 2**62], [1, -1], [1, 1]),
    "slice_negative_steps": ([-1, 5], [-(2**62), 0], [2, 3], [-1, -2]),
}

for _name, _arguments in SLICES.items():

    @case(name=_name)
    def _(c, arguments=_arguments):
        y = c.conv(c.input(1, 3, 7, 8), 4, 3, 3, 3)
        c.output(c.node("Slice", [y, *map(c.const, arguments)]))


@case(opset=9)
def slice_opset_9(c):
    y = c.conv(c.input(1, 3, 6, 6), 4, 3, 3, 3)
    c.output(c.node("Slice", y, starts=[1, -3], ends=[3, 4], axes=[1, 2]))


@case
def slice_before_conv(c):
    """A space-to-depth stem: four strided slices of the input, joined."""
    x = c.input(1, 2, 6, 8)
    ends = c.const([2**62, 2**62])
    axes, steps = c.const([2, 3]), c.const([2, 2])
    parts = [
        c.node("Slice", [x, c.const([i, j]), ends, axes, steps]) for i in (0, 1) for j in (0, 1)
    ]
    c.output(c.conv(c.node("Concat", parts, axis=1), 3, 8, 3, 3))


@case
def gather_shuffles_channels(c):
    y = c.conv(c.input(1, 3, 5, 5), 6, 3, 3, 3)
    c.output(c.node("Gather", [y, c.const([0, 3, 1, 4, 2, 5])], axis=1))


@case
def channel_shuffle_between_groups(c):
    """Reshape, Transpose, Reshape between two grouped convolutions, as in ShuffleNet."""
    y = c.node("Relu", c.conv(c.input(1, 6, 4, 5), 6, 3, 1, 1, group=2))
    y = c.node("Transpose", c.node("Reshape", [y, c.const([1, 2, 3, 4, 5])]), perm=[0, 2, 1, 3, 4])
    c.output(c.conv(c.node("Reshape", [y, c.const([1, 6, 4, 5])]), 4, 3, 1, 1, group=2))


@case
def depthtospace_dcr(c):
    y = c.conv(c.input(1, 3, 4, 5), 8, 3, 3, 3, pads=[1] * 4)
    c.output(c.node("DepthToSpace", y, blocksize=2, mode="DCR"))


@case
def depthtospace_crd(c):
    y = c.conv(c.input(1, 3, 4, 5), 12, 3, 1, 1)
    c.output(c.node("DepthToSpace", y, blocksize=2, mode="CRD"))


@case
def spacetodepth_before_conv(c):
    c.output(c.conv(c.node("SpaceToDepth", c.input(1, 2, 6, 8), blocksize=2), 3, 8, 3, 3))


@case
def split_after_conv(c):
    y = c.conv(c.input(1, 3, 5, 6), 6, 3, 3, 3)
    a, b = c.node("Split", [y, c.const([2, 4])], outputs=2, axis=1)
    c.output(c.node("Relu", a), c.conv(c.node("Relu", b), 2, 4, 1, 1))


@case
def split_equal_parts_rejoined(c):
    y = c.conv(c.input(1, 3, 5, 6), 6, 3, 3, 3)
    a, b, d = c.node("Split", y, outputs=3, axis=1)
    c.output(c.node("Add", [a, c.node("Sub", [b, d])]))


@case
def dropout_identity_between(c):
    y = c.conv(c.input(1, 3, 6, 6), 4, 3, 3, 3)
    y = c.node("Relu", c.node("Identity", c.node("Dropout", y)))
    c.output(c.conv(c.node("Dropout", y), 2, 4, 3, 3))


@case
def expand_after_gemm(c):
    y = c.node("Gemm", [c.input(1, 5), c.random(5, 4), c.random(4)])
    c.output(c.node("Expand", [y, c.const([3, 4])]))


@case
def tile_after_conv(c):
    y = c.conv(c.input(1, 2, 3, 4), 3, 2, 2, 2)
    c.output(c.node("Tile", [y, c.const([1, 1, 2, 3])]))


# --------------------------------------------------------------------------------------------
# Small graphs
# --------------------------------------------------------------------------------------------


@case
def graph_conv_relu_conv(c):
    y = c.node("Relu", c.conv(c.input(1, 3, 8, 7), 5, 3, 3, 3))
    c.output(c.conv(y, 4, 5, 3, 3))


@case
def graph_conv_maxpool_gemm_softmax(c):
    y = c.node("Relu", c.conv(c.input(1, 1, 10, 10, scale=1), 3, 1, 3, 3))
    y = c.node("Flatten", c.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    y = c.node("Gemm", [y, c.random(5, 48, scale=0.2), c.random(5)], transB=1)
    c.output(c.node("Softmax", y, axis=1))


@case
def graph_two_convs_in_a_row(c):
    c.output(c.conv(c.conv(c.input(1, 3, 8, 7), 5, 3, 3, 3), 4, 5, 3, 3))


@case
def graph_three_gemms_in_a_row(c):
    y = c.input(1, 9)
    for features in (9, 8, 7):
        y = c.node("Gemm", [y, c.random(features, features - 1), c.random(features - 1)])
    c.output(y)


@case
def graph_inception(c):
    x = c.input(1, 4, 6, 6)
    parts = [c.conv(x, 2, 4, 1, 1), c.conv(x, 3, 4, 3, 3, pads=[1] * 4),
             c.conv(x, 2, 4, 5, 5, pads=[2] * 4)]
    c.output(c.node("Relu", c.node("Concat", parts, axis=1)))


@case
def graph_residual_block(c):
    x = c.input(1, 4, 6, 6)
    y = c.norm(c.conv(x, 4, 4, 3, 3, bias=False, pads=[1] * 4), 4)
    y = c.norm(c.conv(c.node("Relu", y), 4, 4, 3, 3, bias=False, pads=[1] * 4), 4)
    c.output(c.node("Relu", c.node("Add", [x, y])))


@case
def graph_residual_block_with_projection(c):
    x = c.input(1, 3, 8, 8)
    y = c.node("Relu", c.norm(c.conv(x, 5, 3, 3, 3, bias=False, pads=[1] * 4, strides=[2, 2]), 5))
    y = c.norm(c.conv(y, 5, 5, 3, 3, bias=False, pads=[1] * 4), 5)
    z = c.norm(c.conv(x, 5, 3, 1, 1, bias=False, strides=[2, 2]), 5)
    c.output(c.node("Relu", c.node("Add", [y, z])))


@case
def graph_inverted_residual(c):
    def clip(y):
        return c.node("Clip", [y, c.const(0.0), c.const(6.0)])

    x = c.input(1, 3, 6, 5)
    y = clip(c.conv(x, 9, 3, 1, 1))
    y = clip(c.conv(y, 9, 1, 3, 3, group=9, pads=[1] * 4))
    c.output(c.node("Add", [x, c.conv(y, 3, 9, 1, 1)]))


@case
def graph_dense_block(c):
    x = c.input(1, 3, 5, 5)
    for _ in range(3):
        channels = 3 + 2 * len([n for n in c.nodes if n.op_type == "Concat"])
        y = c.conv(c.node("Relu", x), 2, channels, 3, 3, pads=[1] * 4)
        x = c.node("Concat", [x, y], axis=1)
    c.output(x)


@case
def graph_shared_by_depthwise_and_pointwise(c):
    x = c.input(1, 4, 6, 6)
    y = c.conv(x, 4, 1, 3, 3, group=4, pads=[1] * 4)
    c.output(c.node("Relu", y), c.node("Relu", c.conv(x, 5, 4, 1, 1)))


@case
def graph_shared_weights(c):
    """Two convolutions read the same weight."""
    weight = c.random(3, 3, 3, 3, scale=0.2)
    y = c.node("Relu", c.node("Conv", [c.input(1, 3, 7, 7), weight]))
    c.output(c.node("Conv", [y, weight]))


@case
def graph_two_inputs_added(c):
    y = c.conv(c.input(1, 3, 6, 6), 4, 3, 3, 3)
    z = c.conv(c.input(1, 2, 4, 4, name="z"), 4, 2, 1, 1)
    c.output(c.node("Add", [y, z]))


@case
def graph_two_inputs_apart(c):
    y = c.conv(c.input(1, 3, 6, 6), 4, 3, 3, 3)
    z = c.node("Gemm", [c.input(1, 7, name="z"), c.random(7, 4)])
    c.output(c.node("Relu", y), z)


@case
def graph_two_outputs(c):
    y = c.node("Relu", c.conv(c.input(1, 3, 6, 6, scale=1), 4, 3, 3, 3))
    score = c.node("Gemm", [c.node("Flatten", y), c.random(64, 3)])
    c.output(c.node("Softmax", score, axis=-1), c.conv(y, 2, 4, 1, 1))


@case
def graph_inner_tensor_is_output(c):
    """The output of the first convolution is also an output of the model."""
    y = c.conv(c.input(1, 3, 6, 6), 4, 3, 3, 3)
    c.output(c.conv(c.node("Relu", y), 2, 4, 3, 3), y)


@case
def graph_input_normalised(c):
    """Mean and deviation of the image inside the model."""
    x = c.input(1, 3, 6, 6, scale=1)
    c.inputs[x] = np.rint(255 / (1 + np.exp(-c.inputs[x]))).astype(np.float32)
    x = c.node("Sub", [x, c.const(np.reshape([123.7, 116.3, 103.5], (1, 3, 1, 1)))])
    x = c.node("Div", [x, c.const(np.reshape([58.4, 57.1, 57.4], (1, 3, 1, 1)))])
    c.output(c.node("Relu", c.conv(x, 4, 3, 3, 3, pads=[1] * 4)))


@case
def graph_linear_only(c):
    """Linear from the input to the output."""
    y = c.node("GlobalAveragePool", c.conv(c.input(1, 3, 6, 6), 4, 3, 3, 3))
    c.output(c.node("Reshape", [y, c.const([4])]))


@case
def graph_non_linear_only(c):
    """Nothing to outsource."""
    c.output(c.node("Softmax", c.node("Relu", c.input(2, 7, scale=2)), axis=1))


@case
def graph_light_only(c):
    """Linear, but without a convolution or a matrix product."""
    x = c.node("Transpose", c.input(1, 3, 4, 5), perm=[0, 2, 3, 1])
    c.output(c.node("Mul", [x, c.random(3)]))


@case
def graph_unused_weights(c):
    """A node and an initialiser that no output needs."""
    x = c.input(1, 3, 5, 5)
    c.conv(x, 2, 3, 1, 1)
    c.random(6)
    c.output(c.conv(x, 4, 3, 3, 3))


@case
def graph_attention(c):
    """Projections with constant weights around a product of two activations."""
    x = c.input(1, 5, 8, scale=1)
    q, k, v = (c.node("MatMul", [x, c.random(8, 8, scale=0.35)]) for _ in range(3))
    scores = c.node("MatMul", [q, c.node("Transpose", k, perm=[0, 2, 1])])
    scores = c.node("Softmax", c.node("Mul", [scores, c.const(8**-0.5)]), axis=-1)
    y = c.node("MatMul", [c.node("MatMul", [scores, v]), c.random(8, 8, scale=0.35)])
    c.output(c.node("Add", [x, c.node("Add", [y, c.random(8)])]))


@case
def graph_gated_unit(c):
    """Split after a convolution, one half gating the other."""
    y = c.conv(c.input(1, 3, 5, 5, scale=1), 8, 3, 3, 3)
    a, b = c.node("Split", y, outputs=2, axis=1)
    c.output(c.conv(c.node("Mul", [a, c.node("Sigmoid", b)]), 3, 4, 1, 1))


# --------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------


def write_npz(path, arrays):
    """Like `numpy.savez`, with fixed time stamps: the same arrays, the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue())


def write_case(folder, name):
    """Makes, runs and writes one case; returns its size in bytes."""
    build, opset = CASES[name]
    c = Case(name, opset)
    build(c)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(c.model({}).SerializeToString(), options,
                                   providers=["CPUExecutionProvider"])
    results = dict(zip(c.outputs, session.run(c.outputs, c.inputs)))
    for output, values in results.items():
        assert values.dtype == np.float32 and values.size and np.isfinite(values).all(), output
    model = c.model({output: values.shape for output, values in results.items()})
    onnx.checker.check_model(model, full_check=True)
    paths = folder / f"{name}.onnx", folder / f"{name}.npz"
    paths[0].write_bytes(model.SerializeToString(deterministic=True))
    arrays = {f"in:{k}": v for k, v in c.inputs.items()}
    write_npz(paths[1], arrays | {f"out:{k}": v for k, v in results.items()})
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes) < LARGEST_FILE, f"{name}: {sizes} bytes"
    return sum(sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".onnx", ".npz") and path.stem not in CASES:
            print(f"removed {path.name}")
            path.unlink()
    total = 0
    for name in CASES:
        try:
            total += write_case(folder, name)
        except Exception as error:
            error.add_note(f"in case {name}")
            raise
    assert total < LARGEST_FOLDER, f"{total} bytes"
    print(f"{len(CASES)} cases, {total} bytes")


if __name__ == "__main__":
    main()
