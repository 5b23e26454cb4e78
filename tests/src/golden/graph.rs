//! Networks as text, made into ONNX files of opset 13:
//!
//! ```text
//! graph fc {
//!   input x f32[1,4]
//!   const w f32[3,4] = noise 1 * 0.5
//!   const shape i64[2] = [1,-1]
//!   h = Gemm x w {transB=1, alpha=0.5}
//!   y = Relu h
//!   output y f32[1,3]
//! }
//! ```
//!
//! A line a statement. Constants are lists of numbers, `fill NUMBER`, or `noise SEED`: multiples of 1/512 in [-1, 1).
//! Attributes are integers, numbers with a point, lists of integers, or quoted strings. A node is named after its first
//! result.

use pponnx_plans::value::Shape;

use super::onnx::Message;

/// A network as an ONNX file.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The file.
    pub onnx: Vec<u8>,
}

const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// Whether a text is a graph.
pub fn is_graph(text: &str) -> bool {
    text.trim_start().starts_with("graph ")
}

/// Reads a graph.
///
/// # Errors
/// `LINE: what is wrong`.
pub fn parse(text: &str) -> Result<Network, String> {
    let mut name = None;
    let mut graph = Message::default();
    let mut closed = false;
    for (n, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what: &str| format!("{}: {what}: `{line}`", n + 1);
        if name.is_none() {
            let opened = line.strip_prefix("graph ").and_then(|l| l.strip_suffix('{'));
            name = Some(opened.ok_or_else(|| wrong("expected `graph NAME {`"))?.trim().to_string());
        } else if closed {
            return Err(wrong("something behind the graph"));
        } else if line == "}" {
            closed = true;
        } else {
            graph = statement(graph, line).ok_or_else(|| wrong("cannot read this statement"))?;
        }
    }
    let name = name.filter(|_| closed).ok_or("1: the graph does not end")?;
    let graph = graph.text(2, &name);
    let opset = Message::default().int(2, 13);
    let model = Message::default().int(1, 8).message(7, graph).message(8, opset);
    Ok(Network { name, onnx: model.into_bytes() })
}

fn statement(graph: Message, line: &str) -> Option<Message> {
    if let Some(port) = line.strip_prefix("input ") {
        return Some(graph.message(11, value(port)?));
    }
    if let Some(port) = line.strip_prefix("output ") {
        return Some(graph.message(12, value(port)?));
    }
    let (left, right) = line.split_once('=')?;
    if let Some(declared) = left.trim().strip_prefix("const ") {
        return Some(graph.message(5, constant(declared, right.trim())?));
    }
    Some(graph.message(1, node(left, right.trim())?))
}

/// `NAME TYPE[SHAPE]`.
fn typed(text: &str) -> Option<(&str, i64, Shape)> {
    let (name, ty) = text.trim().split_once(' ')?;
    let (dtype, shape) = ty.trim().split_once('[')?;
    let dtype = match dtype {
        "f32" => FLOAT,
        "i64" => INT64,
        _ => return None,
    };
    let dims = list(&format!("[{shape}"))?.into_iter().map(|d| usize::try_from(d).ok());
    Some((name, dtype, Shape(dims.collect::<Option<_>>()?)))
}

fn value(text: &str) -> Option<Message> {
    let (name, dtype, shape) = typed(text)?;
    let dims = shape.0.iter().fold(Message::default(), |m, d| m.message(1, Message::default().int(1, *d as i64)));
    let tensor = Message::default().int(1, dtype).message(2, dims);
    Some(Message::default().text(1, name).message(2, Message::default().message(1, tensor)))
}

fn constant(declared: &str, how: &str) -> Option<Message> {
    let (name, dtype, shape) = typed(declared)?;
    let tensor = shape.0.iter().fold(Message::default(), |m, d| m.int(1, *d as i64)).int(2, dtype).text(8, name);
    let data: Vec<u8> = match dtype {
        FLOAT => numbers(how, shape.len())?.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => list(how)?.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    let width = if dtype == FLOAT { 4 } else { 8 };
    (data.len() == shape.len() * width).then(|| tensor.bytes(9, &data))
}

fn numbers(how: &str, n: usize) -> Option<Vec<f32>> {
    if let Some(value) = how.strip_prefix("fill ") {
        return Some(vec![value.trim().parse().ok()?; n]);
    }
    if let Some(seed) = how.strip_prefix("noise ") {
        let (seed, factor) = seed.split_once('*').unwrap_or((seed, "1"));
        let factor: f32 = factor.trim().parse().ok()?;
        return Some(noise(seed.trim().parse().ok()?, n).into_iter().map(|v| v * factor).collect());
    }
    let inner = how.strip_prefix('[')?.strip_suffix(']')?;
    inner.split(',').map(|v| v.trim().parse().ok()).collect()
}

/// Multiples of 1/512 from -1 up to 1, the same for a seed on every machine (splitmix64).
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 54) as f32
    };
    (0..n).map(|_| (next() - 512.0) / 512.0).collect()
}

/// `[1,-2]`.
fn list(text: &str) -> Option<Vec<i64>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    match inner.is_empty() {
        true => Some(Vec::new()),
        false => inner.split(',').map(|v| v.trim().parse().ok()).collect(),
    }
}

fn node(results: &str, text: &str) -> Option<Message> {
    let (call, attributes) = match text.split_once('{') {
        Some((call, rest)) => (call, rest.strip_suffix('}')?),
        None => (text, ""),
    };
    let mut words = call.split_whitespace();
    let op = words.next()?;
    let mut node = words.fold(Message::default(), |m, x| m.text(1, x));
    for result in results.split(',') {
        node = node.text(2, result.trim());
    }
    node = node.text(3, results.split(',').next()?.trim()).text(4, op);
    for pair in split_outside(attributes) {
        let (key, value) = pair.split_once('=')?;
        node = node.message(5, attribute(key.trim(), value.trim())?);
    }
    Some(node)
}

/// Parts between commas that stand outside of brackets.
fn split_outside(text: &str) -> Vec<&str> {
    let mut depth = 0i32;
    let parts = text.split(|c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ',' && depth == 0
    });
    parts.filter(|p| !p.trim().is_empty()).collect()
}

fn attribute(key: &str, value: &str) -> Option<Message> {
    let a = Message::default().text(1, key);
    Some(match value.chars().next()? {
        '[' => list(value)?.into_iter().fold(a, |m, v| m.int(8, v)).int(20, 7),
        '"' => a.text(4, value.trim_matches('"')).int(20, 3),
        _ if value.contains('.') => a.float(2, value.parse().ok()?).int(20, 1),
        _ => a.int(3, value.parse().ok()?).int(20, 2),
    })
}
