"""Writes well-known network topologies with seeded random weights into `generated/<name>/`.

The layer shapes are those of the published networks; the weights are random, so the classes the
networks name mean nothing. Compilers, kernels and cost models do not mind. Scales are chosen so that
activations keep a sensible size from the first layer to the last: He-normal weights, and batch
statistics that follow the expected second moment of what enters.

    python onnx-models/generate.py                    # all of them (about 1.1 GB)
    python onnx-models/generate.py resnet18 facenet
    python onnx-models/generate.py --list
    python onnx-models/generate.py --check            # also runs them; needs onnxruntime

Beside each `model.onnx` stand `input.npy` (a plausible input) and `meta.json`. Every tensor has its
own seed and is streamed to the file, so memory stays near the size of the largest tensor, and a second
run writes the same bytes.
"""

import argparse
import json
import math
import pathlib
import sys
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper

IR_VERSION = 8

# Random deep networks with ReLU forget their input: the activations' means, equal for all inputs, grow
# at the cost of the rest. Taking this share of its mean off every filter keeps outputs apart, without
# the sensitivity to noise that the whole mean would cause.
CENTRING = 0.5
CENTRED_GAIN = 1 / (1 - (1 - (1 - CENTRING) ** 2) / math.pi)  # makes up for the variance this takes


def seeded(*words):
    """A random generator of its own for each combination of words."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, words)).encode()))


# --------------------------------------------------------------------------------------------
# Writing a model without holding its weights
# --------------------------------------------------------------------------------------------


def varint(n):
    """An unsigned integer in protobuf's variable-length form."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, length):
    """Tag and length of a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(length)


MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9  # field numbers of onnx.proto


def write_model(path, model, tensors):
    """Serialises `model` (without initialisers) with `tensors`, pairs of name, shape and a function
    that makes the f32 array; one array is alive at a time."""
    graph = model.graph.SerializeToString(deterministic=True)
    heads = []
    length = len(graph)
    for name, shape, _ in tensors:
        proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        raw = 4 * math.prod(shape)
        head = proto.SerializeToString(deterministic=True) + field(TENSOR_RAW_DATA, raw)
        head = field(GRAPH_INITIALIZER, len(head) + raw) + head
        heads.append(head)
        length += len(head) + raw
    outer = onnx.ModelProto()
    outer.CopyFrom(model)
    outer.ClearField("graph")
    with open(path, "wb") as file:
        file.write(outer.SerializeToString(deterministic=True))
        file.write(field(MODEL_GRAPH, length))
        file.write(graph)
        for head, (_, shape, make) in zip(heads, tensors):
            array = np.asarray(make(), "<f4", order="C")
            assert array.shape == tuple(shape)
            file.write(head)
            file.write(array.data)


# --------------------------------------------------------------------------------------------
# Building graphs
# --------------------------------------------------------------------------------------------


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


class Value:
    """A tensor of the graph: its name, its shape, its expected second moment per element, and the
    share of that moment that a ReLU keeps: 0.5 of a symmetric one, 1 of what is never negative."""

    def __init__(self, name, shape, moment, kept=0.5):
        self.name, self.shape, self.moment, self.kept = name, tuple(shape), moment, kept


class Builder:
    """Makes nodes, tracks shapes and sizes of activations, and counts the work of linear layers."""

    def __init__(self, name, input_shape, opset=13):
        self.name, self.opset = name, opset
        self.nodes, self.tensors, self.used = [], [], {}
        self.layers = []  # of each linear layer: (mult-adds, input elements, output elements)
        self.other_mult_adds = 0  # products of two activations
        self.input = Value("input", input_shape, 1.0)

    def unique(self, name):
        count = self.used[name] = self.used.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"

    def node(self, op, inputs, shape, moment, name=None, kept=0.5, **attributes):
        """Appends a node whose single output bears the node's name, which must be unique."""
        name = name or self.unique(op.lower())
        names = [v.name if isinstance(v, Value) else v for v in inputs]
        self.nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Value(name, shape, moment, kept)

    def tensor(self, name, shape, make):
        """An initialiser; `make` gets a generator of its own."""
        name = self.unique(name)
        self.tensors.append((name, shape, lambda: make(seeded(self.name, name)).astype(np.float32)))
        return name

    def ints(self, name, values):
        """A small constant of integers, as a Constant node."""
        name = self.unique(name)
        value = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=value))
        return name

    def normal(self, name, shape, std, mean=0.0):
        def make(rng):
            array = rng.standard_normal(shape, dtype=np.float32)
            array *= np.float32(std)
            if mean:
                array += np.float32(mean)
            return array

        return self.tensor(name, shape, make)

    def weights(self, name, shape, std, axes):
        """Normal weights; `axes` are those a filter extends over, the input channels first."""
        if shape[axes[0]] < 16:  # the image itself, or depthwise: nothing in common to take off
            return self.normal(name, shape, std)

        def make(rng):
            array = rng.standard_normal(shape, dtype=np.float32)
            array -= np.float32(CENTRING) * array.mean(axes, keepdims=True)
            array *= np.float32(std * math.sqrt(CENTRED_GAIN))
            return array

        return self.tensor(name, shape, make)

    def scalar(self, name, value):
        return self.tensor(name, (), lambda _: np.array(value))

    def linear(self, x, shape, fan_in, moment, gain):
        """Counts a linear layer; returns the standard deviation of its weights and of its output."""
        self.layers.append((math.prod(shape) * fan_in, math.prod(x.shape), math.prod(shape)))
        std = math.sqrt(gain / fan_in)
        return std, math.sqrt(fan_in) * std * math.sqrt(moment)

    # -- linear layers --

    def conv(self, x, out, kernel, stride=1, pad=0, group=1, bias=True, gain=2.0, name="conv"):
        """Convolution with weights of variance gain / fan-in (He-normal at gain 2)."""
        (n, c, h, w), (kh, kw), (ph, pw) = x.shape, pair(kernel), pair(pad)
        shape = (n, out, (h + 2 * ph - kh) // stride + 1, (w + 2 * pw - kw) // stride + 1)
        name = self.unique(name)
        fan_in = c // group * kh * kw
        std, scale = self.linear(x, shape, fan_in, x.moment, gain)
        inputs = [x, self.weights(f"{name}.weight", (out, c // group, kh, kw), std, (1, 2, 3))]
        if bias:
            inputs.append(self.normal(f"{name}.bias", (out,), 0.1 * scale))
        attributes = {"group": group} if group > 1 else {}
        return self.node("Conv", inputs, shape, scale**2 * (1.01 if bias else 1), name,
                         kernel_shape=[kh, kw], strides=[stride] * 2, pads=[ph, pw, ph, pw],
                         dilations=[1, 1], **attributes)

    def gemm(self, x, out, gain=2.0, bias=True, name="fc"):
        """Fully connected layer, weight [out, in], as PyTorch exports it."""
        n, features = x.shape
        name = self.unique(name)
        std, scale = self.linear(x, (n, out), features, x.moment, gain)
        inputs = [x, self.weights(f"{name}.weight", (out, features), std, (1,))]
        if bias:
            inputs.append(self.normal(f"{name}.bias", (out,), 0.1 * scale))
        return self.node("Gemm", inputs, (n, out), scale**2, name, transB=1)

    def project(self, x, out, gain=1.0, name="projection"):
        """MatMul by a constant [in, out] and Add of a bias, on the last axis."""
        shape = x.shape[:-1] + (out,)
        std, scale = self.linear(x, shape, x.shape[-1], x.moment, gain)
        name = self.unique(name)
        weight = self.normal(f"{name}.weight", (x.shape[-1], out), std)
        bias = self.normal(f"{name}.bias", (out,), 0.1 * scale)
        y = self.node("MatMul", [x, weight], shape, scale**2, f"{name}.product")
        return self.node("Add", [y, bias], shape, scale**2 * 1.01, name)

    # -- around them --

    def batch_norm(self, x, epsilon=1e-5, gamma=1.0, name="bn"):
        """BatchNormalization with statistics near those of `x`, uneven from channel to channel."""
        c, std = x.shape[1], math.sqrt(x.moment)
        name = self.unique(name)
        inputs = [
            x,
            self.tensor(f"{name}.scale", (c,), lambda rng: gamma * rng.uniform(0.6, 1.4, c)),
            self.normal(f"{name}.bias", (c,), 0.2 * gamma),
            self.normal(f"{name}.mean", (c,), 0.2 * std),
            self.tensor(f"{name}.var", (c,), lambda rng: std**2 * np.exp(0.3 * rng.normal(size=c))),
        ]
        moment = gamma**2 * (1.05 * 1.04 * 1.05 + 0.04)
        return self.node("BatchNormalization", inputs, x.shape, moment, name, epsilon=epsilon)

    def relu(self, x):
        return self.node("Relu", [x], x.shape, x.moment * x.kept, kept=1)

    def relu6(self, x):
        if not hasattr(self, "clip_bounds"):
            self.clip_bounds = [self.scalar("zero", 0.0), self.scalar("six", 6.0)]
        return self.node("Clip", [x, *self.clip_bounds], x.shape, x.moment * x.kept, kept=1)

    def pool(self, x, op, kernel, stride, pad=0):
        """MaxPool or AveragePool."""
        n, c, h, w = x.shape
        h, w = ((s + 2 * pad - kernel) // stride + 1 for s in (h, w))
        moment = x.moment * (1.5 if op == "MaxPool" else 0.8)
        return self.node(op, [x], (n, c, h, w), moment, kept=x.kept,
                         kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def global_average(self, x):
        return self.node("GlobalAveragePool", [x], x.shape[:2] + (1, 1), x.moment * 0.7)

    def flatten(self, x):
        return self.node("Flatten", [x], (x.shape[0], math.prod(x.shape[1:])), x.moment, axis=1)

    def add(self, x, y):
        assert x.shape == y.shape
        moment = x.moment + y.moment
        kept = (x.moment * x.kept + y.moment * y.kept) / moment
        return self.node("Add", [x, y], x.shape, moment, kept=kept)

    def concat(self, *parts):
        n, _, h, w = parts[0].shape
        channels = [p.shape[1] for p in parts]
        moment = sum(p.moment * c for p, c in zip(parts, channels)) / sum(channels)
        kept = min(p.kept for p in parts)
        return self.node("Concat", parts, (n, sum(channels), h, w), moment, kept=kept, axis=1)

    def reshape(self, x, shape):
        return self.node("Reshape", [x, self.ints("shape", shape)], shape, x.moment)

    def transpose(self, x, perm):
        return self.node("Transpose", [x], [x.shape[p] for p in perm], x.moment, perm=perm)

    # -- the end --

    def save(self, folder, output, sample):
        """Writes model, input and figures; returns the figures."""
        result = self.nodes[-1].output[0]
        assert result == output.name
        self.nodes[-1].output[0] = "output"
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, self.input.shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, output.shape)],
        )
        model = helper.make_model(graph, producer_name="pponnx-generate", ir_version=IR_VERSION,
                                  opset_imports=[helper.make_opsetid("", self.opset)])
        folder.mkdir(parents=True, exist_ok=True)
        write_model(folder / "model.onnx", model, self.tensors)
        np.save(folder / "input.npy", sample)
        meta = {
            "name": self.name,
            "input": list(self.input.shape),
            "output": list(output.shape),
            "mult_adds": sum(layer[0] for layer in self.layers),
            "mult_adds_of_two_activations": self.other_mult_adds,
            "linear_layers": len(self.layers),
            "elements_in": sum(layer[1] for layer in self.layers),
            "elements_out": sum(layer[2] for layer in self.layers),
            "parameters": sum(math.prod(shape) for _, shape, _ in self.tensors),
            "nodes": len(self.nodes),
            "opset": self.opset,
            "bytes": (folder / "model.onnx").stat().st_size,
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
        return meta


# --------------------------------------------------------------------------------------------
# Inputs
# --------------------------------------------------------------------------------------------


def smooth_image(name, size, mean, std):
    """A random image of soft blobs with a little noise, grey values 0..1, normalised per channel."""
    rng = seeded(name, "input")
    position = np.arange(size) / size
    image = np.zeros((3, size, size))
    for octave in range(1, 6):
        grid = rng.normal(size=(3, 2**octave + 1, 2**octave + 1)) / octave
        at = position * 2**octave
        low = at.astype(int)
        part = (1 - np.cos(np.pi * (at - low))) / 2
        rows = grid[:, low] * (1 - part)[:, None] + grid[:, low + 1] * part[:, None]
        image += rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    image += 0.05 * rng.normal(size=image.shape)
    image = 1 / (1 + np.exp(-1.5 * image))
    levels = np.rint(255 * image) / 255
    shape = (3, 1, 1)
    return ((levels - np.reshape(mean, shape)) / np.reshape(std, shape)).astype(np.float32)[None]


def photograph(name, size=224):
    """An image normalised with ImageNet's usual mean and deviation."""
    return smooth_image(name, size, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


# --------------------------------------------------------------------------------------------
# Networks: each returns its builder, its output and its input
# --------------------------------------------------------------------------------------------


def alexnet():
    """torchvision's AlexNet: no groups, no LRN."""
    b = Builder("alexnet", (1, 3, 224, 224))
    x = b.relu(b.conv(b.input, 64, 11, stride=4, pad=2))
    x = b.pool(x, "MaxPool", 3, 2)
    x = b.relu(b.conv(x, 192, 5, pad=2))
    x = b.pool(x, "MaxPool", 3, 2)
    for channels in (384, 256, 256):
        x = b.relu(b.conv(x, channels, 3, pad=1))
    x = b.flatten(b.pool(x, "MaxPool", 3, 2))
    for features in (4096, 4096):
        x = b.relu(b.gemm(x, features))
    return b, b.gemm(x, 1000), photograph("alexnet")


def alexnet_lrn():
    """The AlexNet of 2012 as one network: grouped convolutions and local response normalisation."""
    b = Builder("alexnet_lrn", (1, 3, 227, 227))

    def norm(x):
        return b.node("LRN", [x], x.shape, x.moment, kept=x.kept, size=5, alpha=1e-4, beta=0.75, bias=1.0)

    x = b.pool(norm(b.relu(b.conv(b.input, 96, 11, stride=4))), "MaxPool", 3, 2)
    x = b.pool(norm(b.relu(b.conv(x, 256, 5, pad=2, group=2))), "MaxPool", 3, 2)
    for channels, group in ((384, 1), (384, 2), (256, 2)):
        x = b.relu(b.conv(x, channels, 3, pad=1, group=group))
    x = b.flatten(b.pool(x, "MaxPool", 3, 2))
    for features in (4096, 4096):
        x = b.relu(b.gemm(x, features))
    return b, b.gemm(x, 1000), photograph("alexnet_lrn", 227)


def vgg16():
    """VGG-16 without batch normalisation."""
    b = Builder("vgg16", (1, 3, 224, 224))
    x = b.input
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = b.relu(b.conv(x, channels, 3, pad=1))
        x = b.pool(x, "MaxPool", 2, 2)
    x = b.flatten(x)
    for features in (4096, 4096):
        x = b.relu(b.gemm(x, features))
    return b, b.gemm(x, 1000), photograph("vgg16")


def resnet(name, blocks, bottleneck):
    """ResNet, the variant with its stride in the 3x3 convolution; batch normalisation unfolded."""
    b = Builder(name, (1, 3, 224, 224))

    def conv_bn(x, channels, kernel, stride=1, gamma=1.0):
        x = b.conv(x, channels, kernel, stride, kernel // 2, bias=False)
        return b.batch_norm(x, gamma=gamma)

    x = b.relu(conv_bn(b.input, 64, 7, 2))
    x = b.pool(x, "MaxPool", 3, 2, 1)
    for stage, count in enumerate(blocks):
        width = 64 << stage
        channels = 4 * width if bottleneck else width
        for block in range(count):
            stride = 2 if stage and not block else 1
            y = x
            if bottleneck:
                y = b.relu(conv_bn(y, width, 1))
                y = b.relu(conv_bn(y, width, 3, stride))
                y = conv_bn(y, channels, 1, gamma=0.5)
            else:
                y = b.relu(conv_bn(y, width, 3, stride))
                y = conv_bn(y, channels, 3, gamma=0.5)
            if y.shape != x.shape:
                x = conv_bn(x, channels, 1, stride)
            x = b.relu(b.add(y, x))
    x = b.flatten(b.global_average(x))
    return b, b.gemm(x, 1000), photograph(name)


def resnet18():
    """ResNet-18."""
    return resnet("resnet18", (2, 2, 2, 2), bottleneck=False)


def resnet50():
    """ResNet-50."""
    return resnet("resnet50", (3, 4, 6, 3), bottleneck=True)


def squeezenet():
    """SqueezeNet 1.1: ends in a convolution and a global average."""
    b = Builder("squeezenet", (1, 3, 224, 224))
    x = b.relu(b.conv(b.input, 64, 3, stride=2))
    fires = [(16, 64), (16, 64), "pool", (32, 128), (32, 128), "pool",
             (48, 192), (48, 192), (64, 256), (64, 256)]
    x = b.pool(x, "MaxPool", 3, 2)
    for fire in fires:
        if fire == "pool":
            x = b.pool(x, "MaxPool", 3, 2)
            continue
        squeeze, expand = fire
        x = b.relu(b.conv(x, squeeze, 1, name="squeeze"))
        x = b.concat(b.relu(b.conv(x, expand, 1, name="expand1x1")),
                     b.relu(b.conv(x, expand, 3, pad=1, name="expand3x3")))
    x = b.relu(b.conv(x, 1000, 1, name="conv10"))
    return b, b.flatten(b.global_average(x)), photograph("squeezenet")


def mobilenetv2():
    """MobileNetV2, width 1: inverted residuals, depthwise convolutions, Clip 0..6."""
    b = Builder("mobilenetv2", (1, 3, 224, 224))

    def conv_bn(x, channels, kernel, stride=1, group=1, gamma=1.0, name="conv"):
        x = b.conv(x, channels, kernel, stride, kernel // 2, group, bias=False, name=name)
        return b.batch_norm(x, gamma=gamma)

    x = b.relu6(conv_bn(b.input, 32, 3, 2))
    for expansion, channels, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2),
                                               (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                                               (6, 320, 1, 1)):
        for block in range(count):
            step, y = (1 if block else stride), x
            if expansion > 1:
                y = b.relu6(conv_bn(y, expansion * x.shape[1], 1, name="expand"))
            y = b.relu6(conv_bn(y, y.shape[1], 3, step, y.shape[1], name="depthwise"))
            y = conv_bn(y, channels, 1, gamma=0.7, name="project")
            x = b.add(x, y) if x.shape == y.shape else y
    x = b.relu6(conv_bn(x, 1280, 1))
    x = b.flatten(b.global_average(x))
    return b, b.gemm(x, 1000), photograph("mobilenetv2")


def facenet():
    """Inception-ResNet-v1 for faces of 160x160, with an embedding of 512 numbers and length 1."""
    b = Builder("facenet", (1, 3, 160, 160))

    def conv_bn(x, channels, kernel, stride=1, pad=0):
        x = b.conv(x, channels, kernel, stride, pad, bias=False)
        return b.relu(b.batch_norm(x, epsilon=1e-3))

    def residual(x, scale, branches, last=False):
        y = b.concat(*branches) if len(branches) > 1 else branches[0]
        y = b.conv(y, x.shape[1], 1, name="up")
        if scale != 1:
            factor = b.scalar("factor", scale)
            y = b.node("Mul", [y, factor], y.shape, y.moment * scale**2)
        x = b.add(y, x)
        return x if last else b.relu(x)

    x = conv_bn(b.input, 32, 3, 2)
    x = conv_bn(x, 32, 3)
    x = conv_bn(x, 64, 3, pad=1)
    x = b.pool(x, "MaxPool", 3, 2)
    x = conv_bn(x, 80, 1)
    x = conv_bn(x, 192, 3)
    x = conv_bn(x, 256, 3, 2)
    for _ in range(5):
        narrow = conv_bn(x, 32, 1)
        middle = conv_bn(conv_bn(x, 32, 1), 32, 3, pad=1)
        wide = conv_bn(conv_bn(conv_bn(x, 32, 1), 32, 3, pad=1), 32, 3, pad=1)
        x = residual(x, 0.17, [narrow, middle, wide])
    x = b.concat(conv_bn(x, 384, 3, 2),
                 conv_bn(conv_bn(conv_bn(x, 192, 1), 192, 3, pad=1), 256, 3, 2),
                 b.pool(x, "MaxPool", 3, 2))
    for _ in range(10):
        narrow = conv_bn(x, 128, 1)
        wide = conv_bn(x, 128, 1)
        wide = conv_bn(conv_bn(wide, 128, (1, 7), pad=(0, 3)), 128, (7, 1), pad=(3, 0))
        x = residual(x, 0.10, [narrow, wide])
    x = b.concat(conv_bn(conv_bn(x, 256, 1), 384, 3, 2),
                 conv_bn(conv_bn(x, 256, 1), 256, 3, 2),
                 conv_bn(conv_bn(conv_bn(x, 256, 1), 256, 3, pad=1), 256, 3, 2),
                 b.pool(x, "MaxPool", 3, 2))
    for block in range(6):
        narrow = conv_bn(x, 192, 1)
        wide = conv_bn(x, 192, 1)
        wide = conv_bn(conv_bn(wide, 192, (1, 3), pad=(0, 1)), 192, (3, 1), pad=(1, 0))
        x = residual(x, 0.20 if block < 5 else 1.0, [narrow, wide], last=block == 5)
    x = b.flatten(b.global_average(x))
    x = b.batch_norm(b.gemm(x, 512, gain=1.0, bias=False), epsilon=1e-3)
    norm = b.node("ReduceL2", [x], (1, 1), 512.0, axes=[1], keepdims=1)
    x = b.node("Div", [x, norm], x.shape, 1 / 512)
    return b, x, smooth_image("facenet", 160, [0.498] * 3, [0.502] * 3)


def transformer(layers=3, width=128, heads=4, length=32):
    """A small encoder, normalisation first: attention, then two projections with an exact Gelu."""
    b = Builder("transformer", (1, length, width), opset=17)
    head = width // heads

    def layer_norm(x):
        name = b.unique("norm")
        scale = b.tensor(f"{name}.scale", (width,), lambda rng: rng.uniform(0.8, 1.2, width))
        bias = b.normal(f"{name}.bias", (width,), 0.1)
        return b.node("LayerNormalization", [x, scale, bias], x.shape, 1.02, name, axis=-1,
                      epsilon=1e-5)

    def split_heads(x, perm):
        return b.transpose(b.reshape(x, (1, length, heads, head)), perm)

    def gelu(x):
        """x (1 + erf(x / sqrt 2)) / 2, in the nodes exporters write."""
        y = b.node("Div", [x, root], x.shape, x.moment / 2)
        y = b.node("Erf", [y], x.shape, 0.3)
        y = b.node("Add", [y, one], x.shape, 1.3)
        y = b.node("Mul", [x, y], x.shape, 1.6)
        return b.node("Mul", [y, half], x.shape, 0.42)

    root, one, half = b.scalar("root2", math.sqrt(2)), b.scalar("one", 1.0), b.scalar("half", 0.5)
    temperature = b.scalar("temperature", math.sqrt(head))
    x = b.input
    for _ in range(layers):
        y = layer_norm(x)
        query = split_heads(b.project(y, width, name="query"), [0, 2, 1, 3])
        key = split_heads(b.project(y, width, name="key"), [0, 2, 3, 1])
        value = split_heads(b.project(y, width, name="value"), [0, 2, 1, 3])
        scores = b.node("MatMul", [query, key], (1, heads, length, length), head, b.unique("scores"))
        scores = b.node("Div", [scores, temperature], scores.shape, 1.0)
        scores = b.node("Softmax", [scores], scores.shape, 1 / length, axis=-1)
        y = b.node("MatMul", [scores, value], value.shape, 0.3,
                   b.unique("context"))
        b.other_mult_adds += 2 * length * length * width
        y = b.reshape(b.transpose(y, [0, 2, 1, 3]), (1, length, width))
        x = b.add(x, b.project(y, width, name="attention"))
        y = gelu(b.project(layer_norm(x), 4 * width, name="up"))
        x = b.add(x, b.project(y, width, name="down"))
    x = layer_norm(x)
    rng = seeded("transformer", "input")
    return b, x, rng.standard_normal((1, length, width), dtype=np.float32)


NETWORKS = {f.__name__: f for f in (alexnet, alexnet_lrn, vgg16, resnet18, resnet50, squeezenet, mobilenetv2,
                                    facenet, transformer)}


# --------------------------------------------------------------------------------------------
# Checking and the command line
# --------------------------------------------------------------------------------------------


def check(folder):
    """Runs onnx's checker and onnxruntime; every inner tensor must be finite and of sensible size.

    Returns a line on the range of sizes met on the way and on the output."""
    import onnxruntime as ort

    path = folder / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    names = [o for n in model.graph.node if n.op_type != "Constant" for o in n.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    del model
    sample = np.load(folder / "input.npy")
    sizes = {}
    for name, array in zip(names, session.run(names, {"input": sample})):
        assert np.isfinite(array).all(), f"{name} has values that are not finite"
        sizes[name] = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
    low, high = min(sizes, key=sizes.get), max(sizes, key=sizes.get)
    assert 1e-3 < sizes[low] and sizes[high] < 1e3, (low, sizes[low], high, sizes[high])
    output = session.run(["output"], {"input": sample})[0]
    moved = session.run(["output"], {"input": sample[..., ::-1].copy()})[0]
    size = np.sqrt(np.mean(output**2))
    assert output.std() > 0.05 * size, "the output is nearly constant"
    assert np.abs(output - moved).max() > 1e-3 * size, "the output does not follow the input"
    return (f"rms {sizes[low]:.2g} ({low}) to {sizes[high]:.2g} ({high}); output rms {size:.2g}, "
            f"mirrored input moves it by {np.sqrt(np.mean((output - moved) ** 2)) / size:.2g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to make; default: all")
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent / "generated")
    parser.add_argument("--list", action="store_true", help="name the networks and stop")
    parser.add_argument("--check", action="store_true", help="run them through onnxruntime as well")
    arguments = parser.parse_args()
    if arguments.list:
        for name, make in NETWORKS.items():
            print(f"{name:12} {make.__doc__.splitlines()[0]}")
        return
    unknown = [name for name in arguments.names if name not in NETWORKS]
    if unknown:
        sys.exit(f"unknown network: {', '.join(unknown)}; known: {', '.join(NETWORKS)}")
    for name in arguments.names or NETWORKS:
        folder = arguments.out / name
        builder, output, sample = NETWORKS[name]()
        meta = builder.save(folder, output, sample)
        print(f"{name:12} {meta['bytes'] / 1e6:7.1f} MB  {meta['mult_adds'] / 1e6:8.1f} M mult-adds  "
              f"{meta['linear_layers']:3} linear layers  {meta['elements_in'] / 1e3:6.0f} k in  "
              f"{meta['elements_out'] / 1e3:6.0f} k out", flush=True)
        if arguments.check:
            print(f"{'':12} {check(folder)}", flush=True)


if __name__ == "__main__":
    main()
