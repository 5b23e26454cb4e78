#!/usr/bin/env python3
"""Makes the small ONNX and .npy files of the command-line transcripts, beside this script.

Python's standard library only. ONNX files are protocol buffers, written here field by field; the numbers are those of
onnx.proto. The same files come out every time.
"""

import struct
from pathlib import Path

HERE = Path(__file__).parent


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """One field: an integer, or anything with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def value_info(name, shape):
    """ValueInfoProto of 32-bit floats; an axis is a size or the name of an open one."""
    dims = b"".join(field(1, field(1 if isinstance(d, int) else 2, d)) for d in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def tensor(name, shape, values):
    """TensorProto of 32-bit floats."""
    head = b"".join(field(1, d) for d in shape) + field(2, 1) + field(8, name)
    return head + field(9, struct.pack(f"<{len(values)}f", *values))


def ints(name, values):
    """AttributeProto: a list of integers."""
    return field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7)


def integer(name, value):
    """AttributeProto: an integer."""
    return field(1, name) + field(3, value) + field(20, 2)


def real(name, value):
    """AttributeProto: a 32-bit float."""
    return field(1, name) + varint(2 << 3 | 5) + struct.pack("<f", value) + field(20, 1)


def node(op, name, inputs, output, *attributes, domain=""):
    out = b"".join(field(1, i) for i in inputs) + field(2, output) + field(3, name) + field(4, op)
    out += b"".join(field(5, a) for a in attributes)
    return out + (field(7, domain) if domain else b"")


def model(name, nodes, inputs, outputs, constants=()):
    graph = b"".join(field(1, n) for n in nodes) + field(2, name)
    graph += b"".join(field(5, tensor(*c)) for c in constants)
    graph += b"".join(field(11, value_info(*i)) for i in inputs)
    graph += b"".join(field(12, value_info(*o)) for o in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def npy(code, shape, values):
    """An array file, format 1.0; `code` is the type as NumPy writes it, such as <f4."""
    head = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    head += " " * (-(10 + len(head) + 1) % 64) + "\n"
    body = struct.pack("<" + {"<f4": "f", "<i4": "i", "|b1": "?"}[code] * len(values), *values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + body


WEIGHTS = ("w", [4, 3], [0.5, -1.0, 0.25, 1.5, 0.75, -0.5, -0.25, 1.0, 2.0, 0.125, -2.0, 1.0])
BIAS = ("b", [3], [0.5, -0.25, 0.0])
LAYER = [node("Gemm", "layer", ["x", "w", "b"], "h"), node("Relu", "relu", ["h"], "y")]


def fc(name, rows):
    """One layer and a ReLU."""
    return model(name, LAYER, [("x", [rows, 4])], [("y", [rows, 3])], [WEIGHTS, BIAS])


def files():
    small = fc("small", 1)
    yield "small.onnx", small
    yield "other.onnx", model(
        "other", LAYER, [("x", [1, 4])], [("y", [1, 3])], [(WEIGHTS[0], WEIGHTS[1], WEIGHTS[2][::-1]), BIAS]
    )
    yield "batch.onnx", fc("batch", "N")
    yield "truncated.onnx", small[:-60]
    yield "huge-length.onnx", small[:2] + varint(7 << 3 | 2) + varint(1 << 60) + small[2:]
    yield "empty.onnx", b""
    yield "text.onnx", b"This is not a network.\n"
    kernel = ("k", [2, 1, 3, 3], [0.125 * (i - 8) for i in range(18)])
    image = lambda shape: ("image", shape)
    conv = node("Conv", "conv", ["image", "k"], "c", ints("kernel_shape", [3, 3]))
    yield "open.onnx", model("open", [conv], [image([1, 1, "height", "width"])], [("c", [1, 2, "h", "w"])], [kernel])
    yield "refused.onnx", model(
        "refused",
        [
            node("Celu", "soft", ["image"], "s", real("alpha", 2.0)),
            node("BatchNormalization", "norm", ["s", "g", "g", "g", "g"], "n", integer("training_mode", 1)),
            node("GlobalLpPool", "pool", ["n"], "p"),
            node("Frobnicate", "odd", ["p"], "y", domain="com.example"),
        ],
        [image([1, 1, 4, 4])],
        [("y", [1, 1, 1, 1])],
        [("g", [1], [1.0])],
    )
    row = [1.0, -2.0, 0.5, 3.0]
    yield "x.npy", npy("<f4", [1, 4], row)
    yield "y.npy", npy("<f4", [1, 3], [0.0, 0.0, 5.25])
    yield "wrong-y.npy", npy("<f4", [1, 3], [0.0, 9.0, 5.25])
    yield "wide.npy", npy("<f4", [1, 5], row + [0.0])
    yield "two-rows.npy", npy("<f4", [2, 4], row + row)
    yield "large-integers.npy", npy("<i4", [1, 4], [1, 2, 3, (1 << 24) + 1])
    yield "nan.npy", npy("<f4", [1, 4], row[:3] + [float("nan")])
    yield "infinity.npy", npy("<f4", [1, 4], row[:3] + [float("inf")])
    yield "taken/notes.txt", b"A folder that somebody else made.\n"
    yield "truncated.npy", npy("<f4", [1, 4], row)[:-6]


for file, data in files():
    (HERE / file).parent.mkdir(exist_ok=True)
    (HERE / file).write_bytes(data)
