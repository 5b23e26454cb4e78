//! What was decided and what it will cost: the data behind `report.json`, `report.html` and the last line of `compile`.

use std::collections::BTreeMap;

use pponnx_plans::plan::Bundle;
use serde::Serialize;

use crate::ir::split::{NodeInfo, Place};

/// A node that stays on the device.
#[derive(Clone, Debug, Serialize)]
pub struct LocalNode {
    /// ONNX node name.
    pub node: String,
    /// ONNX operator.
    pub op: String,
    /// Why it stays.
    pub reason: String,
}

/// One line a node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeLine {
    /// ONNX node name.
    pub node: String,
    /// ONNX operator.
    pub op: String,
    /// `outsourced`, `local` or `folded`.
    pub place: &'static str,
    /// Why.
    pub reason: String,
    /// Multiply-adds.
    pub mult_adds: u64,
}

/// Decisions and cost of one compiled model. Bytes are payload of one request, without framing.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Model name.
    pub model: String,
    /// Scheme.
    pub scheme: String,
    /// Precision.
    pub precision: String,
    /// Digest of the bundle, hexadecimal.
    pub bundle: String,
    /// Waits of the device for an edge.
    pub rounds: u64,
    /// Outsourced linear maps.
    pub segments: usize,
    /// Device to edges.
    pub bytes_up: u64,
    /// Edges to device.
    pub bytes_down: u64,
    /// Edge B to edge A.
    pub edge_link_bytes: u64,
    /// Multiply-adds of the network.
    pub mult_adds: u64,
    /// Share of them that an edge does, 0 to 1.
    pub outsourced_mac_share: f64,
    /// Nodes that an edge evaluates.
    pub outsourced_nodes: usize,
    /// Nodes of the network.
    pub all_nodes: usize,
    /// Nodes that the device evaluates, with reasons.
    pub local: Vec<LocalNode>,
    /// All nodes.
    pub nodes: Vec<NodeLine>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

impl Report {
    /// Gathers the report of a validated bundle.
    pub fn new(bundle: &Bundle, digest: &[u8; 32], nodes: &[NodeInfo], notes: &[String]) -> Report {
        let outsourced: u64 = nodes.iter().filter(|n| n.place == Place::Outsourced).map(|n| n.mult_adds).sum();
        let all: u64 = nodes.iter().filter(|n| n.place != Place::Folded).map(|n| n.mult_adds).sum();
        let local = nodes.iter().filter(|n| n.place == Place::Local);
        Report {
            model: bundle.header.model.clone(),
            scheme: bundle.header.scheme.clone(),
            precision: bundle.header.precision.clone(),
            bundle: digest.iter().map(|b| format!("{b:02x}")).collect(),
            rounds: bundle.cost.rounds,
            segments: bundle.maps.len(),
            bytes_up: bundle.cost.bytes_up,
            bytes_down: bundle.cost.bytes_down,
            edge_link_bytes: bundle.cost.bytes_edge_link,
            mult_adds: all,
            outsourced_mac_share: if all == 0 { 0.0 } else { outsourced as f64 / all as f64 },
            outsourced_nodes: nodes.iter().filter(|n| n.place == Place::Outsourced).count(),
            all_nodes: nodes.len(),
            local: local
                .map(|n| LocalNode { node: n.name.clone(), op: n.op.clone(), reason: n.reason.clone() })
                .collect(),
            nodes: nodes
                .iter()
                .map(|n| NodeLine {
                    node: n.name.clone(),
                    op: n.op.clone(),
                    place: match n.place {
                        Place::Outsourced => "outsourced",
                        Place::Local => "local",
                        Place::Folded => "folded",
                    },
                    reason: n.reason.clone(),
                    mult_adds: n.mult_adds,
                })
                .collect(),
            notes: notes.to_vec(),
        }
    }

    /// The one-line summary: `outsourced 54 of 122 nodes, 99.7 % of the mult-adds; 68 local (Relu 49, ..); 50 rounds; ..`.
    pub fn summary(&self) -> String {
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for n in &self.local {
            *count.entry(&n.op).or_default() += 1;
        }
        let mut count: Vec<_> = count.into_iter().collect();
        count.sort_by_key(|(op, n)| (std::cmp::Reverse(*n), *op));
        let mut kinds: Vec<String> = count.iter().take(4).map(|(op, n)| format!("{op} {n}")).collect();
        if count.len() > 4 {
            kinds.push("...".into());
        }
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        format!(
            "outsourced {} of {} nodes, {:.1} % of the mult-adds; {} local{kinds}; {} round{}; {} up, {} down",
            self.outsourced_nodes,
            self.all_nodes,
            // rounded down, so that "100.0" means all
            (1000.0 * self.outsourced_mac_share).floor() / 10.0,
            self.local.len(),
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
            bytes(self.bytes_up),
            bytes(self.bytes_down),
        )
    }
}

/// A number of bytes for people: decimal units, three digits.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}
