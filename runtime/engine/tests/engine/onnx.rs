//! Smallest possible ONNX files, written by hand so that the tests need no exporter.

/// Fields of a protobuf message.
#[derive(Default, Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    /// A field of bytes: a string or a message.
    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, field: u64, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u64, message: Message) -> Message {
        self.bytes(field, &message.0)
    }

    pub fn int(mut self, field: u64, v: u64) -> Message {
        self.varint(field << 3);
        self.varint(v);
        self
    }

    pub fn float(mut self, field: u64, v: f32) -> Message {
        self.varint(field << 3 | 5);
        self.0.extend(v.to_le_bytes());
        self
    }
}

/// ONNX number of an element type.
pub const FLOAT: u64 = 1;
pub const INT64: u64 = 7;
pub const BOOL: u64 = 9;

/// A typed name. `None` leaves an axis open.
pub fn value(name: &str, dtype: u64, shape: &[Option<usize>]) -> Message {
    let dims = shape.iter().enumerate().fold(Message::default(), |m, (i, d)| {
        let dim = match d {
            Some(d) => Message::default().int(1, *d as u64),
            None => Message::default().text(2, &format!("axis{i}")),
        };
        m.message(1, dim)
    });
    let tensor = Message::default().int(1, dtype).message(2, dims);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

/// A node without attributes.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let m = inputs.iter().fold(Message::default(), |m, i| m.text(1, i));
    let m = outputs.iter().fold(m, |m, o| m.text(2, o));
    m.text(3, "node").text(4, op)
}

impl Message {
    /// An attribute of a node.
    fn attribute(self, name: &str, kind: u64, value: impl FnOnce(Message) -> Message) -> Message {
        self.message(5, value(Message::default().text(1, name)).int(20, kind))
    }

    pub fn with_float(self, name: &str, v: f32) -> Message {
        self.attribute(name, 1, |m| m.float(2, v))
    }

    pub fn with_int(self, name: &str, v: i64) -> Message {
        self.attribute(name, 2, |m| m.int(3, v as u64))
    }

    pub fn with_text(self, name: &str, v: &str) -> Message {
        self.attribute(name, 3, |m| m.text(4, v))
    }

    pub fn with_ints(self, name: &str, v: &[usize]) -> Message {
        self.attribute(name, 7, |m| v.iter().fold(m, |m, v| m.int(8, *v as u64)))
    }
}

/// A constant of f32.
pub fn floats(name: &str, shape: &[usize], data: &[f32]) -> Message {
    let raw: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    constant(name, FLOAT, shape, &raw)
}

/// A constant list of i64.
pub fn ints(name: &str, data: &[i64]) -> Message {
    let raw: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    constant(name, INT64, &[data.len()], &raw)
}

fn constant(name: &str, dtype: u64, shape: &[usize], raw: &[u8]) -> Message {
    let dims = shape.iter().fold(Message::default(), |m, d| m.int(1, *d as u64));
    dims.int(2, dtype).text(8, name).bytes(9, raw)
}

/// A model of opset 13.
pub fn model(name: &str, nodes: &[Message], inputs: &[Message], outputs: &[Message]) -> Vec<u8> {
    model_of(13, name, nodes, &[], inputs, outputs)
}

/// A model with constants.
pub fn model_of(
    opset: u64,
    name: &str,
    nodes: &[Message],
    constants: &[Message],
    inputs: &[Message],
    outputs: &[Message],
) -> Vec<u8> {
    let graph = nodes.iter().fold(Message::default(), |m, n| m.message(1, n.clone())).text(2, name);
    let graph = constants.iter().fold(graph, |m, c| m.message(5, c.clone()));
    let graph = inputs.iter().fold(graph, |m, i| m.message(11, i.clone()));
    let graph = outputs.iter().fold(graph, |m, o| m.message(12, o.clone()));
    let opset = Message::default().int(2, opset);
    Message::default().int(1, 8).message(7, graph).message(8, opset).0
}

/// `y = relu(x)`.
pub fn relu(shape: &[usize]) -> Vec<u8> {
    let shape: Vec<Option<usize>> = shape.iter().map(|d| Some(*d)).collect();
    let io = |name| value(name, FLOAT, &shape);
    model("relu", &[node("Relu", &["x"], &["y"])], &[io("x")], &[io("y")])
}
