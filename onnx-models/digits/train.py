"""Trains a small convolutional network on scikit-learn's bundled digits and writes this folder.

Needs numpy, onnx, onnxruntime and scikit-learn. Training is plain numpy (im2col convolutions, Adam)
in one thread with fixed seeds, so that a second run on the same machine and the same library
versions writes the same bytes.

    python onnx-models/digits/train.py            # writes beside this file
    python onnx-models/digits/train.py --out DIR
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # a fixed order of summation; must precede the import of numpy

import argparse
import io
import pathlib
import struct
import zipfile
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

SEED = 20260
TRAIN_SIZE = 1438  # of 1797; the other 359 are held out
EPOCHS = 40
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
BN_EPSILON = 1e-5
OPSET = 13

# --------------------------------------------------------------------------------------------
# Layers: each keeps what its backward pass needs, and its gradients under the parameters' names.
# --------------------------------------------------------------------------------------------


def im2col(x):
    """Patches of a 3x3 window with padding 1: [n, c, h, w] -> [n, c, 9, h, w]."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    cols = np.empty((n, c, 9, h, w), np.float32)
    for tap in range(9):
        i, j = divmod(tap, 3)
        cols[:, :, tap] = padded[:, :, i : i + h, j : j + w]
    return cols


def col2im(cols):
    """The transpose of `im2col`."""
    n, c, _, h, w = cols.shape
    padded = np.zeros((n, c, h + 2, w + 2), np.float32)
    for tap in range(9):
        i, j = divmod(tap, 3)
        padded[:, :, i : i + h, j : j + w] += cols[:, :, tap]
    return padded[:, :, 1:-1, 1:-1]


class Layer:
    """A layer with parameters `p` and, after `backward`, gradients `g` under the same names."""

    def __init__(self, **p):
        self.p = {name: np.asarray(value, np.float32) for name, value in p.items()}
        self.g = {}


class Conv3x3(Layer):
    """Dense 3x3 convolution, padding 1."""

    def forward(self, x, _training):
        n, c, h, w = x.shape
        self.flat = im2col(x).transpose(0, 3, 4, 1, 2).reshape(n * h * w, c * 9)
        weight = self.p["weight"]
        y = self.flat @ weight.reshape(len(weight), -1).T
        if "bias" in self.p:
            y = y + self.p["bias"]
        return y.reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, dy):
        n, o, h, w = dy.shape
        weight = self.p["weight"]
        dy = dy.transpose(0, 2, 3, 1).reshape(-1, o)
        self.g["weight"] = (dy.T @ self.flat).reshape(weight.shape)
        if "bias" in self.p:
            self.g["bias"] = dy.sum(0)
        dcols = (dy @ weight.reshape(o, -1)).reshape(n, h, w, -1, 9).transpose(0, 3, 4, 1, 2)
        return col2im(dcols)


class Depthwise3x3(Layer):
    """Depthwise 3x3 convolution, padding 1."""

    def forward(self, x, _training):
        self.cols = im2col(x)
        y = np.einsum("nctij,ct->ncij", self.cols, self.p["weight"].reshape(-1, 9))
        return y + self.p["bias"][:, None, None]

    def backward(self, dy):
        weight = self.p["weight"]
        self.g["weight"] = np.einsum("nctij,ncij->ct", self.cols, dy).reshape(weight.shape)
        self.g["bias"] = dy.sum((0, 2, 3))
        return col2im(dy[:, :, None] * weight.reshape(1, -1, 9, 1, 1))


class Pointwise(Layer):
    """1x1 convolution."""

    def forward(self, x, _training):
        self.x = x
        y = np.einsum("ncij,oc->noij", x, self.p["weight"][:, :, 0, 0], optimize=True)
        return y + self.p["bias"][:, None, None]

    def backward(self, dy):
        dw = np.einsum("noij,ncij->oc", dy, self.x, optimize=True)
        self.g["weight"] = dw[:, :, None, None]
        self.g["bias"] = dy.sum((0, 2, 3))
        return np.einsum("noij,oc->ncij", dy, self.p["weight"][:, :, 0, 0], optimize=True)


class BatchNorm(Layer):
    """Batch normalisation over [n, h, w]; `mean` and `var` are the running statistics."""

    def __init__(self, channels):
        super().__init__(scale=np.ones(channels), bias=np.zeros(channels))
        self.mean = np.zeros(channels, np.float32)
        self.var = np.ones(channels, np.float32)

    def forward(self, x, training):
        mean, var = self.mean, self.var
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.mean = (0.95 * self.mean + 0.05 * mean).astype(np.float32)
            self.var = (0.95 * self.var + 0.05 * var).astype(np.float32)
        self.inv = 1 / np.sqrt(var + np.float32(BN_EPSILON))
        self.hat = (x - mean[:, None, None]) * self.inv[:, None, None]
        return self.hat * self.p["scale"][:, None, None] + self.p["bias"][:, None, None]

    def backward(self, dy):
        self.g["scale"] = (dy * self.hat).sum((0, 2, 3))
        self.g["bias"] = dy.sum((0, 2, 3))
        count = dy.shape[0] * dy.shape[2] * dy.shape[3]
        mean_dy = (self.g["bias"] / count)[:, None, None]
        mean_dy_hat = (self.g["scale"] / count)[:, None, None]
        scale = (self.p["scale"] * self.inv)[:, None, None]
        return scale * (dy - mean_dy - self.hat * mean_dy_hat)


class Relu(Layer):
    def forward(self, x, _training):
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy):
        return dy * self.positive


class MaxPool2(Layer):
    """2x2 maximum, stride 2; a tie passes its gradient to the first of the tied elements."""

    def forward(self, x, _training):
        n, c, h, w = x.shape
        self.shape = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        x = x.reshape(n, c, h // 2, w // 2, 4)
        self.best = x.argmax(-1)[..., None]
        return np.take_along_axis(x, self.best, -1)[..., 0]

    def backward(self, dy):
        n, c, h, w = self.shape
        dx = np.zeros((n, c, h // 2, w // 2, 4), np.float32)
        np.put_along_axis(dx, self.best, dy[..., None], -1)
        dx = dx.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
        return dx.reshape(n, c, h, w)


class Gemm(Layer):
    """Fully connected layer on the flattened input; the weight is [out, in]."""

    def forward(self, x, _training):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return self.x @ self.p["weight"].T + self.p["bias"]

    def backward(self, dy):
        self.g["weight"] = dy.T @ self.x
        self.g["bias"] = dy.sum(0)
        return (dy @ self.p["weight"]).reshape(self.shape)


class Network:
    """conv1, BN, ReLU; conv2, ReLU; max pool; depthwise, pointwise, residual, ReLU; fc."""

    def __init__(self, rng):
        def he(*shape):
            return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))

        self.conv1 = Conv3x3(weight=he(16, 1, 3, 3))
        self.bn1 = BatchNorm(16)
        self.conv2 = Conv3x3(weight=he(32, 16, 3, 3), bias=np.zeros(32))
        self.depthwise = Depthwise3x3(weight=he(32, 1, 3, 3), bias=np.zeros(32))
        self.pointwise = Pointwise(weight=he(32, 32, 1, 1), bias=np.zeros(32))
        self.fc = Gemm(weight=he(10, 512), bias=np.zeros(10))
        self.head = [self.conv1, self.bn1, Relu(), self.conv2, Relu(), MaxPool2()]
        self.branch = [self.depthwise, self.pointwise]
        self.tail = [Relu(), self.fc]
        self.layers = self.head + self.branch + self.tail

    def forward(self, x, training=False):
        for layer in self.head:
            x = layer.forward(x, training)
        y = x
        for layer in self.branch:
            y = layer.forward(y, training)
        x = x + y
        for layer in self.tail:
            x = layer.forward(x, training)
        return x

    def backward(self, d):
        for layer in reversed(self.tail):
            d = layer.backward(d)
        branch = d
        for layer in reversed(self.branch):
            branch = layer.backward(branch)
        d = d + branch
        for layer in reversed(self.head):
            d = layer.backward(d)


# --------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------


def shifted(x, rng):
    """Each image moved by at most one pixel in each direction, filled with zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty_like(x)
    for k, (i, j) in enumerate(rng.choice(3, size=(len(x), 2), p=[0.2, 0.6, 0.2])):
        out[k] = padded[k, :, i : i + 8, j : j + 8]
    return out


def train(x, y, rng):
    """Adam with a cosine schedule; the running statistics are exact at the end."""
    net = Network(rng)
    moments = {}
    steps = EPOCHS * (len(x) // BATCH)
    step = 0
    for epoch in range(EPOCHS):
        order = rng.permutation(len(x))
        total = 0.0
        for start in range(0, len(x) - BATCH + 1, BATCH):
            pick = order[start : start + BATCH]
            logits = net.forward(shifted(x[pick], rng), training=True)
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            total += -np.log(p[np.arange(BATCH), y[pick]] + 1e-12).mean()
            p[np.arange(BATCH), y[pick]] -= 1
            net.backward(p / BATCH)
            step += 1
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for k, layer in enumerate(net.layers):
                for name, gradient in layer.g.items():
                    m, v = moments.get((k, name), (0.0, 0.0))
                    m = 0.9 * m + 0.1 * gradient
                    v = 0.999 * v + 0.001 * gradient**2
                    moments[k, name] = m, v
                    update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                    if name == "weight":
                        update = update + WEIGHT_DECAY * layer.p[name]
                    layer.p[name] = (layer.p[name] - rate * update).astype(np.float32)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}: loss {total * BATCH / len(x):.4f}")
    response = net.conv1.forward(x, False)
    net.bn1.mean, net.bn1.var = response.mean((0, 2, 3)), response.var((0, 2, 3))
    return net


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


def to_onnx(net):
    """The trained network as ONNX, BatchNormalization kept as a node of its own."""
    initialisers = []

    def constant(name, array):
        initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def weights(name, layer):
        return [constant(f"{name}.{k}", v) for k, v in layer.p.items()]

    def node(op, inputs, output, **attributes):
        return helper.make_node(op, inputs, [output], name=output, **attributes)

    bn = weights("bn1", net.bn1) + [
        constant("bn1.mean", net.bn1.mean),
        constant("bn1.var", net.bn1.var),
    ]
    pad = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["image", *weights("conv1", net.conv1)], "conv1", **pad),
        node("BatchNormalization", ["conv1", *bn], "bn1", epsilon=BN_EPSILON),
        node("Relu", ["bn1"], "relu1"),
        node("Conv", ["relu1", *weights("conv2", net.conv2)], "conv2", **pad),
        node("Relu", ["conv2"], "relu2"),
        node("MaxPool", ["relu2"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pool", *weights("depthwise", net.depthwise)], "depthwise", group=32, **pad),
        node("Conv", ["depthwise", *weights("pointwise", net.pointwise)], "pointwise",
             kernel_shape=[1, 1]),
        node("Add", ["pool", "pointwise"], "residual"),
        node("Relu", ["residual"], "relu3"),
        node("Flatten", ["relu3"], "flat", axis=1),
        node("Gemm", ["flat", *weights("fc", net.fc)], "logits", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        initialisers,
    )
    model = helper.make_model(
        graph,
        producer_name="pponnx-digits",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def png(pixels):
    """An 8-bit grayscale PNG of a [h, w] array."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    )


def write_npz(path, **arrays):
    """Like `numpy.savez`, with fixed time stamps: the same arrays, the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED
            archive.writestr(entry, buffer.getvalue())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    digits = load_digits()
    raw = digits.images.astype(np.uint8)  # [1797, 8, 8], 0..16
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(raw))
    training, heldout = order[:TRAIN_SIZE], np.sort(order[TRAIN_SIZE:])
    images = (raw[:, None] / np.float32(16)).astype(np.float32)

    net = train(images[training], labels[training], np.random.default_rng(SEED + 1))
    model = to_onnx(net)
    (out / "model.onnx").write_bytes(model)

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(image):
        return session.run(["logits"], {"image": image[None]})[0]

    logits = np.concatenate([run(images[k]) for k in heldout])
    ours = net.forward(images[heldout])
    difference = np.abs(logits - ours).max() / np.abs(ours).max()
    assert difference < 1e-5, f"onnxruntime differs from the trained network by {difference}"
    predicted = logits.argmax(1).astype(np.uint8)
    right = int((predicted == labels[heldout]).sum())

    # The example: the first held-out digit whose picture and whose input get the right class.
    for k in heldout:
        pixels = np.rint(raw[k] * (255 / 16)).astype(np.uint8)
        picture = (pixels[None] / np.float32(255)).astype(np.float32)
        if run(images[k]).argmax() == run(picture).argmax() == labels[k]:
            break
    np.save(out / "input.npy", images[k][None])
    np.save(out / "expected.npy", run(images[k]))
    (out / "input.png").write_bytes(png(pixels))
    write_npz(out / "heldout.npz", x=raw[heldout], y=labels[heldout], ort_pred=predicted)
    (out / "labels.txt").write_text("".join(f"{n}\n" for n in digits.target_names))

    parameters = sum(v.size for layer in net.layers for v in layer.p.values())
    readme = README.format(
        accuracy=f"{100 * right / len(heldout):.1f} % ({right} of {len(heldout)})",
        example=labels[k],
        heldout=len(heldout),
        kilobytes=f"{len(model) / 1000:.0f}",
        parameters=parameters,
        train=TRAIN_SIZE,
    )
    (out / "README.md").write_text(readme)
    print(f"held-out accuracy {right}/{len(heldout)}; {len(model)} bytes; example {labels[k]}")


README = """\
# Digits

A small convolutional network that reads handwritten digits of 8x8 pixels: trained weights, real
data, {kilobytes} kB. Written by `train.py`, this file included.

| | |
|---|---|
| held-out accuracy, onnxruntime | {accuracy} |
| trained on | {train} digits; the {heldout} others of the set were held out by a fixed random split |
| parameters | {parameters} |
| input | `image`, f32 [1, 1, 8, 8], grey values 0..16 divided by 16: 0 is paper, 1 is ink |
| output | `logits`, f32 [1, 10]; the largest one names the digit |

    image -> Conv 3x3 (16) -> BatchNormalization -> Relu -> Conv 3x3 (32) -> Relu -> MaxPool 2
          -> Conv 3x3 depthwise -> Conv 1x1 (32) -> Add (residual) -> Relu -> Flatten -> Gemm (10)

| file | is |
|---|---|
| `model.onnx` | the network, opset 13 |
| `input.npy` | one held-out digit, a {example}, as the network reads it |
| `input.png` | the same digit as an 8x8 grayscale picture; pixel / 255 is the input to within 1/510, since 16 grey levels do not divide 255 |
| `expected.npy` | the logits onnxruntime gives for `input.npy`, f32 [1, 10] |
| `heldout.npz` | `x` uint8 [{heldout}, 8, 8] with grey values 0..16, `y` the true classes, `ort_pred` the classes onnxruntime gives for `x / 16` |
| `labels.txt` | the class names, one a line |

Remake (under a minute; numpy, onnx, onnxruntime, scikit-learn):

    python onnx-models/digits/train.py

The seeds are fixed. Another version of numpy, or a processor that sums in another order, gives
slightly different weights, and the held-out predictions may then differ for a few digits.

## Licence of the data

The digits are the test part of *Optical Recognition of Handwritten Digits* by E. Alpaydin and
C. Kaynak (1998), UCI Machine Learning Repository, doi:10.24432/C50P49, published under Creative
Commons Attribution 4.0 (CC BY 4.0); scikit-learn bundles them as `load_digits`. `input.npy`,
`input.png` and `heldout.npz` contain excerpts, unchanged but for the scaling described above.
"""

if __name__ == "__main__":
    main()
