"""Times onnxruntime for `pponnx bench`: one JSON object a line on stdin, one a line on stdout.

    {"op": "hello"}                                                  versions
    {"op": "load", "name", "path", "threads", "inputs": [{"name", "shape", "dtype"}]}   a session on a model file
    {"op": "conv", "name", "c", "size", "m", "kernel", "stride", "pad", "groups", "threads"}   a session on one Conv
    {"op": "matmul", "name", "k", "n", "rows", "threads", "copies"}  sessions on one MatMul, used in turn
    {"op": "run", "name", "repeat"}                                  wall and CPU milliseconds of each run
    {"op": "drop", "name"}                                           frees it

An answer is {"ok": true, ...} or {"ok": false, "error": "..."}. Ends with its stdin.
"""

import json
import sys
import time

import numpy as np
import onnxruntime as ort

KINDS = {
    "f32": np.float32, "f64": np.float64, "f16": np.float16, "bool": np.bool_,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
}


LEVELS = ort.GraphOptimizationLevel


def session(model, threads, level=LEVELS.ORT_ENABLE_ALL):
    """Sequential, with this many threads inside an operator; threads do not spin between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fastest(ways, feeds):
    """Of several ways to make a session for one layer, the one that is fastest on this machine."""
    def cost(way):
        made = way()
        times = []
        for _ in range(4):
            before = time.process_time_ns()
            made.run(None, feeds)
            times.append(time.process_time_ns() - before)
        return min(times[1:])

    return min(ways, key=cost)


def values(shape, kind, random):
    dtype = KINDS[kind]
    if np.issubdtype(dtype, np.floating):
        return random.uniform(-1, 1, shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def weight(shape, random):
    """Values of the size that trained weights have; none is a denormal number."""
    fan = int(np.prod(shape[1:])) or 1
    return (random.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan) ** 0.5)).astype(np.float32)


def one_node(node, shape, weights):
    """The bytes of a model with one operator, input `x`, weights `w` and output `y`."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


class Server:
    def __init__(self):
        self.loaded = {}
        self.random = np.random.default_rng(1)

    def hello(self, _):
        return {"version": ort.__version__, "numpy": np.__version__}

    def load(self, m):
        feeds = {i["name"]: values(i["shape"], i["dtype"], self.random) for i in m["inputs"]}
        self.loaded[m["name"]] = [(session(m["path"], m["threads"]), feeds)]
        return {}

    def conv(self, m):
        from onnx import helper

        node = helper.make_node(
            "Conv", ["x", "w"], ["y"], kernel_shape=[m["kernel"]] * 2, strides=[m["stride"]] * 2,
            pads=[m["pad"]] * 4, group=m["groups"],
        )
        weights = weight([m["m"], m["c"] // m["groups"], m["kernel"], m["kernel"]], self.random)
        shape = [1, m["c"], m["size"], m["size"]]
        feeds = {"x": values(shape, "f32", self.random)}
        model = one_node(node, shape, weights)
        # With all optimisations the layer's input and output are reordered, which does not always pay.
        ways = [lambda level=level: session(model, m["threads"], level) for level in (LEVELS.ORT_ENABLE_ALL, LEVELS.ORT_ENABLE_EXTENDED)]
        self.loaded[m["name"]] = [(fastest(ways, feeds)(), feeds)]
        return {}

    def matmul(self, m):
        from onnx import helper

        weights = weight([m["n"], m["k"]], self.random)
        shape = [m["rows"], m["k"]]
        feeds = {"x": values(shape, "f32", self.random)}
        models = [
            one_node(helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), shape, weights),
            one_node(helper.make_node("MatMul", ["x", "w"], ["y"]), shape, np.ascontiguousarray(weights.T)),
        ]
        ways = [lambda model=model: session(model, m["threads"]) for model in models]
        way = fastest(ways, feeds)
        self.loaded[m["name"]] = [(way(), feeds) for _ in range(m["copies"])]
        return {}

    def run(self, m):
        sessions = self.loaded[m["name"]]
        wall, cpu = [], []
        for i in range(m["repeat"]):
            model, feeds = sessions[i % len(sessions)]
            wall_before, cpu_before = time.perf_counter_ns(), time.process_time_ns()
            model.run(None, feeds)
            wall.append((time.perf_counter_ns() - wall_before) / 1e6)
            cpu.append((time.process_time_ns() - cpu_before) / 1e6)
        return {"wall_ms": wall, "cpu_ms": cpu}

    def drop(self, m):
        self.loaded.pop(m["name"], None)
        return {}


def main():
    server = Server()
    for line in sys.stdin:
        try:
            message = json.loads(line)
            if message["op"] not in ("hello", "load", "conv", "matmul", "run", "drop"):
                raise ValueError(f"unknown op {message['op']}")
            answer = {"ok": True, **getattr(server, message["op"])(message)}
        except Exception as e:  # everything is an answer: the other side decides
            answer = {"ok": False, "error": f"{type(e).__name__}: {e}".splitlines()[0]}
        print(json.dumps(answer), flush=True)


main()
