//! A network of two large branches that do not wait for each other, written byte by byte: its uploads and answers are
//! larger than what sockets buffer.

/// One field of a protocol buffer: bytes.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number << 3 | 2));
    out.extend(varint(content.len() as u64));
    out.extend(content);
    out
}

/// One field of a protocol buffer: a number.
fn number(number: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(number << 3)), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// `ValueInfoProto` of an f32 tensor.
fn port(name: &str, shape: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|d| field(1, &number(1, *d))).collect();
    let tensor = [number(1, 1), field(2, &dims)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// ONNX file: `ya = Conv1x1(a)`, `yb = Conv1x1(b)`, four channels, `side` by `side` pixels each.
pub fn two_branches(side: u64) -> Vec<u8> {
    let shape = [1, 4, side, side];
    let mut graph = Vec::new();
    for branch in ["a", "b"] {
        let (weight, output) = (format!("w{branch}"), format!("y{branch}"));
        let node = [
            field(1, branch.as_bytes()),
            field(1, weight.as_bytes()),
            field(2, output.as_bytes()),
            field(3, format!("conv_{branch}").as_bytes()),
            field(4, b"Conv"),
        ];
        graph.extend(field(1, &node.concat()));
        let values: Vec<u8> = (0..16).flat_map(|i| (i as f32 * 0.13 - 0.9).to_le_bytes()).collect();
        let dims: Vec<u8> = [4, 4, 1, 1].into_iter().flat_map(|d| number(1, d)).collect();
        let initializer = [dims, number(2, 1), field(8, weight.as_bytes()), field(9, &values)];
        graph.extend(field(5, &initializer.concat()));
        graph.extend(field(11, &port(branch, &shape)));
        graph.extend(field(12, &port(&output, &shape)));
    }
    graph.extend(field(2, b"two_branches"));
    [number(1, 8), field(8, &number(2, 13)), field(7, &graph)].concat()
}
