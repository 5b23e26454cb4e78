//! `edge.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::device::Peer;
use super::{EdgeEntry, EdgeRole, FileEntry, Net, Pin, Source, check_edges};
use crate::failure::Outcome;

/// The file as written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeFile {
    /// Which edge this is.
    pub role: RoleEntry,
    /// Where it listens.
    pub listen: ListenEntry,
    /// Its own TLS identity.
    pub identity: FileEntry,
    /// The plans it serves.
    pub plan: Vec<PlanEntry>,
    /// The devices it serves.
    pub device: Vec<DeviceEntry>,
    /// The other edge (`relay` only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edge: Vec<EdgeEntry>,
    /// Corrections ahead of demand (`relay`).
    #[serde(default)]
    pub relay: RelayEntry,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// Time-outs.
    #[serde(default)]
    pub net: Net,
}

/// The role's name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleEntry {
    /// `edge-a` or `edge-b`.
    pub name: EdgeRole,
}

/// Where to listen.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenEntry {
    /// `IP:PORT`; port 0 lets the system choose.
    pub address: SocketAddr,
}

/// One plan with what belongs to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// The plan.
    pub file: PathBuf,
    /// Edge B: folder of device keys, `<device>.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,
    /// Edge A, `stockpile`: folder of masked corrections, one folder a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock: Option<PathBuf>,
    /// Edge A, `one-time` and `stockpile`: folder of high-water marks, one file a device; must be writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<PathBuf>,
}

/// A device that may connect.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceEntry {
    /// A name for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number, 32 hex digits: names its key and stock files.
    #[serde(serialize_with = "super::plainly")]
    pub id: Spanned<String>,
    /// Fingerprint of its public key.
    #[serde(serialize_with = "super::plainly")]
    pub pin: Spanned<Pin>,
}

/// How far edge B works ahead.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayEntry {
    /// Requests whose corrections wait at edge A, for each session.
    pub prefetch: u32,
}

impl Default for RelayEntry {
    fn default() -> RelayEntry {
        RelayEntry { prefetch: 4 }
    }
}

/// Limits on what plans and peers can make an edge hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Memory for the plans and one request of each, in MB.
    pub max_memory_mb: u64,
    /// Requests of one device at once.
    pub max_in_flight: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_connections: 256, max_sessions: 64, max_memory_mb: 16_384, max_in_flight: 8 }
    }
}

/// A plan, paths resolved.
#[derive(Debug)]
pub struct ServedPlan {
    /// The plan file.
    pub file: PathBuf,
    /// Edge B: device keys.
    pub keys: Option<PathBuf>,
    /// Edge A: stock.
    pub stock: Option<PathBuf>,
    /// Edge A: marks.
    pub marks: Option<PathBuf>,
}

/// A device that may connect.
#[derive(Debug)]
pub struct KnownDevice {
    /// For logs.
    pub name: String,
    /// Its number.
    pub id: [u8; 16],
    /// Fingerprint of its key.
    pub pin: Pin,
}

/// The configuration, paths resolved, everything checked that can be without opening other files.
#[derive(Debug)]
pub struct EdgeConfig {
    /// Which edge.
    pub role: EdgeRole,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The identity file.
    pub identity: PathBuf,
    /// Plans.
    pub plans: Vec<ServedPlan>,
    /// Devices.
    pub devices: Vec<KnownDevice>,
    /// Edge B: where edge A is.
    pub edge_a: Option<Peer>,
    /// Edge A: the key of edge B, which dials.
    pub edge_b: Option<Pin>,
    /// See [`RelayEntry`].
    pub prefetch: u32,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Net`].
    pub connect_timeout: std::time::Duration,
    /// See [`Net`].
    pub reply_timeout: std::time::Duration,
}

impl EdgeConfig {
    /// Reads `edge.toml`.
    pub fn read(path: &Path) -> Outcome<EdgeConfig> {
        let (source, file) = Source::read::<EdgeFile>(path)?;
        check_edges(&source, &file.edge)?;
        if file.plan.is_empty() {
            return Err(source.complain_whole("pponnx::config::missing-key", "no [[plan]]", "add the plan to serve"));
        }
        let mut edge_a = None;
        let mut edge_b = None;
        for entry in &file.edge {
            let role = *entry.role.get_ref();
            if role == file.role.name {
                return Err(source.complain(
                    &entry.role,
                    "pponnx::config::edge-twice",
                    format!("[[edge]] names {} itself", role.name()),
                    "list only the other edge",
                ));
            }
            match (role, &entry.address) {
                (EdgeRole::EdgeA, Some(address)) => {
                    edge_a = Some(Peer { address: address.get_ref().clone(), pin: *entry.pin.get_ref() });
                }
                (EdgeRole::EdgeA, None) => {
                    return Err(source.complain(
                        &entry.role,
                        "pponnx::config::missing-key",
                        "[[edge]] edge-a has no address",
                        "edge B dials edge A: add address = \"HOST:PORT\"",
                    ));
                }
                (EdgeRole::EdgeB, _) => edge_b = Some(*entry.pin.get_ref()),
            }
        }
        let devices = devices(&source, &file)?;
        if file.relay.prefetch == 0 || file.relay.prefetch > 1024 {
            return Err(source.complain_whole(
                "pponnx::config::limits",
                format!("[relay] prefetch is {}", file.relay.prefetch),
                "give 1 to 1024 requests",
            ));
        }
        if file.limits.max_connections == 0 || file.limits.max_sessions == 0 || file.limits.max_memory_mb == 0 {
            return Err(source.complain_whole(
                "pponnx::config::limits",
                "a limit under [limits] is 0",
                "give at least 1",
            ));
        }
        if file.limits.max_in_flight == 0 || file.limits.max_in_flight > 64 {
            return Err(source.complain_whole(
                "pponnx::config::limits",
                format!("[limits] max_in_flight is {}", file.limits.max_in_flight),
                "give 1 to 64 requests",
            ));
        }
        let (connect_timeout, reply_timeout) = file.net.durations(&source)?;
        let resolve = |p: &Option<PathBuf>| p.as_deref().map(|p| source.resolve(p));
        Ok(EdgeConfig {
            role: file.role.name,
            listen: file.listen.address,
            identity: source.resolve(&file.identity.file),
            plans: file
                .plan
                .iter()
                .map(|p| ServedPlan {
                    file: source.resolve(&p.file),
                    keys: resolve(&p.keys),
                    stock: resolve(&p.stock),
                    marks: resolve(&p.marks),
                })
                .collect(),
            devices,
            edge_a,
            edge_b,
            prefetch: file.relay.prefetch,
            limits: file.limits,
            connect_timeout,
            reply_timeout,
        })
    }
}

fn devices(source: &Source, file: &EdgeFile) -> Outcome<Vec<KnownDevice>> {
    let mut ids = BTreeMap::new();
    let mut pins: BTreeMap<Pin, String> =
        file.edge.iter().map(|e| (*e.pin.get_ref(), e.role.get_ref().name().to_owned())).collect();
    let mut devices = Vec::new();
    for entry in &file.device {
        let text = entry.id.get_ref();
        let Some(id) = super::unhex(text).and_then(|id| <[u8; 16]>::try_from(id).ok()) else {
            return Err(source.complain(
                &entry.id,
                "pponnx::config::device",
                format!("device number `{text}` is not 32 hex digits"),
                "copy it from the edge.toml that `pponnx compile` wrote",
            ));
        };
        let name = entry.name.clone().unwrap_or_else(|| text.clone());
        if ids.insert(id, ()).is_some() {
            return Err(source.complain(
                &entry.id,
                "pponnx::config::device",
                format!("device `{text}` is listed twice"),
                "keep one [[device]] of each number",
            ));
        }
        if let Some(other) = pins.insert(*entry.pin.get_ref(), name.clone()) {
            return Err(source.complain(
                &entry.pin,
                "pponnx::config::device",
                format!("{name} and {other} have the same pin"),
                "every device and edge has an identity of its own",
            ));
        }
        devices.push(KnownDevice { name, id, pin: *entry.pin.get_ref() });
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const EDGE_B: &str = r#"
[role]
name = "edge-b"
[listen]
address = "127.0.0.1:7102"
[identity]
file = "identity"
[[plan]]
file = "edge.plan"
keys = "keys"
[[device]]
id = "000102030405060708090a0b0c0d0eff"
pin = "pponnx-pin:0101010101010101010101010101010101010101010101010101010101010101"
[[edge]]
role = "edge-a"
address = "127.0.0.1:7101"
pin = "pponnx-pin:0202020202020202020202020202020202020202020202020202020202020202"
"#;

    const TWICE: &str = r#"
[[device]]
id = "000102030405060708090A0B0C0D0EFF"
pin = "pponnx-pin:0303030303030303030303030303030303030303030303030303030303030303"
[[edge]]"#;

    fn read(text: &str) -> Outcome<EdgeConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.toml");
        std::fs::write(&path, text).unwrap();
        EdgeConfig::read(&path)
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = read(EDGE_B).unwrap();
        assert_eq!((config.role, config.prefetch), (EdgeRole::EdgeB, 4));
        assert_eq!(config.devices[0].id[..2], [0, 1]);
        assert_eq!(config.devices[0].name, "000102030405060708090a0b0c0d0eff");
        assert_eq!(config.edge_a.unwrap().address, "127.0.0.1:7101");
    }

    #[test]
    fn each_flaw_is_refused() {
        for (from, to, code) in [
            ("0d0eff", "0d0ef", "pponnx::config::device"),
            ("[[edge]]", "[[device]]\nid = \"00FF\"\npin = \"03\"\n[[edge]]", "pponnx::config::syntax"),
            ("[[edge]]", TWICE, "pponnx::config::device"),
            (&"02".repeat(32), &"01".repeat(32), "pponnx::config::device"),
            ("role = \"edge-a\"", "role = \"edge-b\"", "pponnx::config::edge-twice"),
            ("address = \"127.0.0.1:7101\"", "", "pponnx::config::missing-key"),
            ("127.0.0.1:7102", "localhost", "pponnx::config::syntax"),
            ("[identity]", "[relay]\nprefetch = 0\n[identity]", "pponnx::config::limits"),
            ("[identity]", "[relay]\ndepth = 3\n[identity]", "pponnx::config::unknown-key"),
        ] {
            let failure = read(&EDGE_B.replacen(from, to, 1)).unwrap_err();
            assert_eq!(failure.code, code, "{from} -> {to}: {}", failure.message);
        }
    }
}
