//! `device.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EdgeEntry, EdgeRole, FileEntry, ImageEntry, Net, Pin, Source, check_edges};
use crate::failure::Outcome;

/// The file as written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFile {
    /// What it runs.
    pub plan: PlanEntry,
    /// Its own TLS identity.
    pub identity: FileEntry,
    /// The edges it dials.
    pub edge: Vec<EdgeEntry>,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// Time-outs.
    #[serde(default)]
    pub net: Net,
    /// Pictures as input.
    #[serde(default, skip_serializing_if = "ImageEntry::is_empty")]
    pub image: ImageEntry,
}

/// The plan and what belongs to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// The plan.
    pub file: PathBuf,
    /// The device key; its epoch advances at every start, so the file must be writable.
    pub key: PathBuf,
    /// Check data.
    pub check: PathBuf,
    /// Folder of dealt corrections (`one-time`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PathBuf>,
    /// Ledger of request numbers (`one-time`, `stockpile`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<PathBuf>,
}

/// Limits on what a plan can make the device hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory for the plan and one request, in MB.
    pub max_memory_mb: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_memory_mb: 1024 }
    }
}

/// An edge to dial.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `HOST:PORT`.
    pub address: String,
    /// Fingerprint of its key.
    pub pin: Pin,
}

/// The configuration, paths resolved, everything checked that can be without opening other files.
#[derive(Debug)]
pub struct DeviceConfig {
    /// The plan file.
    pub plan: PathBuf,
    /// The key file.
    pub key: PathBuf,
    /// The check data.
    pub check: PathBuf,
    /// Dealt corrections.
    pub pairs: Option<PathBuf>,
    /// The ledger.
    pub ledger: Option<PathBuf>,
    /// The identity file.
    pub identity: PathBuf,
    /// Edge A.
    pub edge_a: Peer,
    /// Edge B, where the scheme has one.
    pub edge_b: Option<Peer>,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Net`].
    pub connect_timeout: Duration,
    /// See [`Net`].
    pub reply_timeout: Duration,
    /// Pictures.
    pub image: ImageEntry,
}

impl DeviceConfig {
    /// Reads `device.toml`.
    pub fn read(path: &Path) -> Outcome<DeviceConfig> {
        let (source, file) = Source::read::<DeviceFile>(path)?;
        check_edges(&source, &file.edge)?;
        let peer = |role: EdgeRole| -> Outcome<Option<Peer>> {
            let Some(entry) = file.edge.iter().find(|e| *e.role.get_ref() == role) else { return Ok(None) };
            let Some(address) = &entry.address else {
                return Err(source.complain(
                    &entry.role,
                    "pponnx::config::missing-key",
                    format!("[[edge]] {} has no address", role.name()),
                    "add address = \"HOST:PORT\"",
                ));
            };
            Ok(Some(Peer { address: address.get_ref().clone(), pin: *entry.pin.get_ref() }))
        };
        let edge_b = peer(EdgeRole::EdgeB)?;
        let edge_a = peer(EdgeRole::EdgeA)?.ok_or_else(|| {
            source.complain_whole("pponnx::config::missing-key", "no [[edge]] with role = \"edge-a\"", "add it")
        })?;
        if file.limits.max_memory_mb == 0 {
            let message = "[limits] max_memory_mb is 0";
            return Err(source.complain_whole("pponnx::config::limits", message, "give at least 1"));
        }
        let (connect_timeout, reply_timeout) = file.net.durations(&source)?;
        Ok(DeviceConfig {
            plan: source.resolve(&file.plan.file),
            key: source.resolve(&file.plan.key),
            check: source.resolve(&file.plan.check),
            pairs: file.plan.pairs.as_deref().map(|p| source.resolve(p)),
            ledger: file.plan.ledger.as_deref().map(|p| source.resolve(p)),
            identity: source.resolve(&file.identity.file),
            edge_a,
            edge_b,
            limits: file.limits,
            connect_timeout,
            reply_timeout,
            image: file.image,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::{placed, to_text};
    use super::*;
    use crate::exit::Exit;

    fn sample() -> String {
        let edge = |role, port: u16, byte| EdgeEntry {
            role: placed(role),
            address: Some(placed(format!("127.0.0.1:{port}"))),
            pin: placed(Pin([byte; 32])),
        };
        let file = DeviceFile {
            plan: PlanEntry {
                file: "device.plan".into(),
                key: "device.key".into(),
                check: "check.bin".into(),
                pairs: None,
                ledger: None,
            },
            identity: FileEntry { file: "identity".into() },
            edge: vec![edge(EdgeRole::EdgeA, 7101, 1), edge(EdgeRole::EdgeB, 7102, 2)],
            limits: Limits::default(),
            net: Net::default(),
            image: ImageEntry { scale: Some(1.0), ..ImageEntry::default() },
        };
        to_text("# head", &file).unwrap()
    }

    fn read(text: &str) -> Outcome<DeviceConfig> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.toml");
        std::fs::write(&path, text).unwrap();
        DeviceConfig::read(&path)
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = read(&sample()).unwrap();
        assert!(config.plan.ends_with("device.plan") && config.plan.is_absolute());
        assert_eq!(config.edge_b.unwrap().pin, Pin([2; 32]));
        assert_eq!(config.image.scale, Some(1.0));
        assert_eq!(config.connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = sample().replace("reply_timeout_s", "reply_time_out_s");
        let line = 1 + text.lines().position(|l| l.contains("reply_time_out_s")).unwrap();
        let failure = read(&text).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_ref()), (Exit::Configuration, "pponnx::config::unknown-key"));
        assert!(failure.message.contains("reply_time_out_s"), "{}", failure.message);
        assert_eq!(failure.json()["line"], line, "{}", failure.message);
    }

    #[test]
    fn two_edges_with_one_pin_are_refused() {
        let text = sample().replace(&"02".repeat(32), &"01".repeat(32));
        assert_eq!(read(&text).unwrap_err().code, "pponnx::config::one-operator");
    }

    #[test]
    fn each_flaw_has_its_own_code() {
        for (from, to, code) in [
            ("key = \"device.key\"", "", "pponnx::config::missing-key"),
            ("127.0.0.1:7101", "127.0.0.1", "pponnx::config::address"),
            ("role = \"edge-b\"", "role = \"edge-a\"", "pponnx::config::edge-twice"),
            ("role = \"edge-b\"", "role = \"edge-c\"", "pponnx::config::unknown-key"),
            ("reply_timeout_s = 60.0", "reply_timeout_s = -1.0", "pponnx::config::timeout"),
            ("pin = \"pponnx-pin:0101", "pin = \"pponnx-pin:01", "pponnx::config::syntax"),
            ("[plan]", "[plan", "pponnx::config::syntax"),
            ("max_memory_mb = 1024", "max_memory_mb = 0", "pponnx::config::limits"),
            ("max_memory_mb = 1024", "max_memory_mb = -1", "pponnx::config::syntax"),
        ] {
            let text = sample();
            assert!(text.contains(from), "{from} not in\n{text}");
            let failure = read(&text.replacen(from, to, 1)).unwrap_err();
            assert_eq!(failure.code, code, "{from} -> {to}: {}", failure.message);
        }
    }

    #[test]
    fn a_missing_file_is_a_configuration_error() {
        let failure = DeviceConfig::read(Path::new("/nonexistent/device.toml")).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
    }
}
