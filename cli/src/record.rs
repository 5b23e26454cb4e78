//! What an edge received, as a file: one JSON object a line.
//!
//! For demonstrations only. Payloads are masked, so the file tells no more than the edge knows anyway.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pponnx_node::Observer;
use pponnx_wire::message::{Message, PeerRole};
use serde::{Deserialize, Serialize};

use crate::config::hex;
use crate::failure::{Outcome, file_failure};

/// One received message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Received {
    /// Who sent it: `device`, `edge-a` or `edge-b`.
    pub from: String,
    /// Kind of message, such as `Data`.
    pub message: String,
    /// The request, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// The slot, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Packed ring elements, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// An observer that appends what it sees to a file.
pub fn recorder(path: &Path) -> Outcome<Observer> {
    let file = File::options().create(true).append(true).open(path);
    let file = Mutex::new(file.map_err(|e| Box::new(file_failure("write", path, &e)))?);
    let shown = path.display().to_string();
    Ok(Arc::new(move |from: PeerRole, message: &Message| {
        let line = serde_json::to_string(&received(from, message)).unwrap_or_default();
        let written = file.lock().map(|mut f| writeln!(f, "{line}"));
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!(file = shown, "cannot record a message");
        }
    }))
}

fn received(from: PeerRole, message: &Message) -> Received {
    let from = match from {
        PeerRole::Device => "device",
        PeerRole::EdgeA => "edge-a",
        PeerRole::EdgeB => "edge-b",
    };
    let mut line =
        Received { from: from.into(), message: message.kind().name().into(), request: None, slot: None, payload: None };
    match message {
        Message::Data(data) => {
            (line.request, line.slot) = (Some(data.request), Some(data.slot));
            line.payload = Some(hex(&data.payload));
        }
        Message::Correction(correction) => {
            (line.request, line.slot) = (Some(correction.request), Some(correction.slot));
            line.payload = Some(hex(&correction.payload));
        }
        Message::Begin { request } => line.request = Some(*request),
        // The session's nonce and names stay out of files.
        Message::Hello(_)
        | Message::Welcome(_)
        | Message::Refuse(_)
        | Message::Ping { .. }
        | Message::Pong { .. }
        | Message::Abort(_)
        | Message::Goodbye
        | Message::OpenSession { .. }
        | Message::SessionOpen { .. }
        | Message::EpochBehind { .. }
        | Message::Attach { .. }
        | Message::Session(_)
        | Message::SessionClosed { .. }
        | Message::Credit { .. } => {}
    }
    line
}

/// Reads a record back; lines that are cut off are left out.
pub fn read(path: &Path) -> Outcome<Vec<Received>> {
    let text = std::fs::read_to_string(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
}
