//! Short forms of bundles and split networks: what changes if and only if the compiler decides differently.

use pponnx_compiler::Compiled;
use pponnx_compiler::ir::split::{Part, Place, SplitGraph, TensorId};
use pponnx_plans::plan::{Bundle, Cost};
use pponnx_plans::text;
use pponnx_plans::value::DType;

use super::onnx::operators;

/// Digits of a digest that stand for the whole one.
const DIGITS: usize = 12;

/// The text form of a compiled bundle without its header, digests cut to 12 digits, and the operators of local
/// segments in place of their bytes.
pub fn bundle(compiled: &Compiled) -> Vec<String> {
    let bundle: &Bundle = &compiled.bundle;
    let text = text::print(bundle);
    let mut lines: Vec<String> = text.lines().skip_while(|l| !l.is_empty()).skip(1).map(shorten).collect();
    for (i, decl) in bundle.constants.iter().enumerate().filter(|(_, c)| c.dtype == DType::U8) {
        let start = format!("constant @{i} ");
        let ops = compiled.constants.load(&decl.digest).ok().and_then(|bytes| operators(&bytes));
        if let (Some(ops), Some(line)) = (ops, lines.iter_mut().find(|l| l.starts_with(&start))) {
            *line = format!("{start}segment {}", ops.join(", "));
        }
    }
    lines
}

/// Cuts a digest at the end of a line.
pub fn shorten(line: &str) -> String {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match line.rsplit_once(' ') {
        Some((before, digest)) if digest.len() == 64 && digest.chars().all(hex) => {
            format!("{before} {}..", &digest[..DIGITS])
        }
        _ => line.to_string(),
    }
}

/// Writes out short digests, with zeros in place of the digits that are missing.
pub fn lengthen(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((before, digest)) if digest.len() == DIGITS + 2 && digest.ends_with("..") => {
            format!("{before} {}{}", &digest[..DIGITS], "0".repeat(64 - DIGITS))
        }
        _ => line.to_string(),
    }
}

/// The cost of one request.
pub fn cost(cost: &Cost) -> Vec<String> {
    vec![
        format!("rounds {}", cost.rounds),
        format!("bytes up {}, down {}, edge link {}", cost.bytes_up, cost.bytes_down, cost.bytes_edge_link),
        format!("mult-adds edge-a {}, edge-b {}", cost.mult_adds_edge_a, cost.mult_adds_edge_b),
    ]
}

/// Where each node went and why, then the parts in order.
pub fn split(split: &SplitGraph) -> Vec<String> {
    let tensor =
        |t: &TensorId| split.tensors.get(t.0).map_or_else(|| "?".to_string(), |t| format!("{}{}", t.name, t.shape));
    let list = |ts: &[TensorId]| ts.iter().map(tensor).collect::<Vec<_>>().join(" ");
    let mut lines = Vec::new();
    for node in &split.nodes {
        let place = match node.place {
            Place::Outsourced => "edges",
            Place::Local => "device",
            Place::Folded => "folded",
        };
        lines.push(format!("{} {}: {place}, {} mult-adds; {}", node.op, node.name, node.mult_adds, node.reason));
    }
    for part in &split.parts {
        match part {
            Part::Local(local) => {
                let ops = operators(&local.onnx).unwrap_or_default().join(", ");
                lines.push(format!("local {} -> {}: {ops}", list(&local.inputs), list(&local.outputs)));
            }
            Part::Stage(stage) => {
                lines.push("stage".into());
                for m in &stage.maps {
                    let ops: Vec<&str> = m.map.ops.iter().map(|op| op.name()).collect();
                    let post = if m.post.is_some() { ", factor" } else { "" };
                    let bias = if m.bias.is_some() { ", bias" } else { "" };
                    let (from, to) = (list(&m.inputs), tensor(&m.output));
                    lines.push(format!("  {from} -> {to}: {}{post}{bias}", ops.join(", ")));
                }
            }
        }
    }
    lines.extend(split.notes.iter().map(|n| format!("note: {n}")));
    lines
}
