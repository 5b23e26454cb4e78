//! The folders that `compile` writes, one for each machine, and how `keygen` finds its way in them again.
//!
//! | folder | holds |
//! |---|---|
//! | `device/`, `device-2/`, ... | `device.plan device.key check.bin device.toml identity`, with dealt key pairs also `ledger`, with `one-time` also `pairs/` |
//! | `edge-a/` | `edge.plan edge.toml identity`, with dealt key pairs also `marks/`, with `stockpile` also `stock/DEVICE/` |
//! | `edge-b/` | `edge.plan keys/DEVICE.key edge.toml identity`, where the scheme has an edge B |

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pponnx_kernels::Kernels;
use pponnx_keys::{KeyFile, Marks};
use pponnx_net::Identity;
use pponnx_plans::constant::ConstStore;
use pponnx_plans::file;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;

use crate::config::device::{DeviceFile, PlanEntry as DevicePlan};
use crate::config::edge::{DeviceEntry, EdgeFile, ListenEntry, PlanEntry as EdgePlan, RelayEntry, RoleEntry};
use crate::config::{EdgeEntry, EdgeRole, FileEntry, ImageEntry, Net, Pin, hex, placed, to_text};
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::{identity_failure, store_failure};
use crate::owner::deal::{Dealer, DeviceSecrets, check_data, ledger};
use crate::owner::staging::Staging;

/// What the folders hold besides keys.
pub struct Contents<'a> {
    /// The plans.
    pub bundle: Arc<ValidBundle>,
    /// Constants of all roles.
    pub constants: &'a ConstStore,
    /// Kernels for dealing.
    pub kernels: Kernels,
    /// Key pairs to deal to each device, where the scheme deals any.
    pub requests: u64,
    /// Configuration of each device; pins are filled in.
    pub devices: Vec<DeviceFile>,
    /// Configuration of edge A; pins and devices are filled in.
    pub edge_a: EdgeFile,
    /// Configuration of edge B, where there is one.
    pub edge_b: Option<EdgeFile>,
}

/// Name of the n-th device's folder, counted from 0.
pub fn device_folder(index: usize) -> String {
    if index == 0 { "device".into() } else { format!("device-{}", index + 1) }
}

/// Fresh configurations, as `compile` writes them.
pub fn configurations(
    bundle: &ValidBundle,
    devices: u16,
    addresses: (&str, &str),
    image: &ImageEntry,
) -> Outcome<(Vec<DeviceFile>, EdgeFile, Option<EdgeFile>)> {
    let has_b = bundle.has_role(Role::EdgeB);
    let stored = stored_with(bundle);
    let edge = |role, address: Option<&str>| EdgeEntry {
        role: placed(role),
        address: address.map(|a| placed(a.to_owned())),
        pin: placed(Pin([0; 32])),
    };
    let device = || DeviceFile {
        plan: DevicePlan {
            file: "device.plan".into(),
            key: "device.key".into(),
            check: "check.bin".into(),
            pairs: (stored == Some(Role::Device)).then(|| "pairs".into()),
            ledger: stored.is_some().then(|| "ledger".into()),
        },
        identity: FileEntry { file: "identity".into() },
        edge: std::iter::once(edge(EdgeRole::EdgeA, Some(addresses.0)))
            .chain(talks_to_b(bundle).then(|| edge(EdgeRole::EdgeB, Some(addresses.1))))
            .collect(),
        limits: Default::default(),
        net: Net::default(),
        image: image.clone(),
    };
    let edge_file = |role: EdgeRole, address: &str, other: Option<EdgeEntry>| -> Outcome<EdgeFile> {
        let is_a = role == EdgeRole::EdgeA;
        Ok(EdgeFile {
            role: RoleEntry { name: role },
            listen: ListenEntry { address: listen_address(address)? },
            identity: FileEntry { file: "identity".into() },
            plan: vec![EdgePlan {
                file: "edge.plan".into(),
                keys: (!is_a).then(|| "keys".into()),
                stock: (is_a && stored == Some(Role::EdgeA)).then(|| "stock".into()),
                marks: (is_a && stored.is_some()).then(|| "marks".into()),
            }],
            device: Vec::new(),
            edge: other.into_iter().collect(),
            relay: RelayEntry::default(),
            limits: Default::default(),
            net: Net::default(),
        })
    };
    let linked = bundle.cost.bytes_edge_link > 0;
    let edge_a = edge_file(EdgeRole::EdgeA, addresses.0, linked.then(|| edge(EdgeRole::EdgeB, None)))?;
    let edge_b = if has_b {
        let other = linked.then(|| edge(EdgeRole::EdgeA, Some(addresses.0)));
        Some(edge_file(EdgeRole::EdgeB, addresses.1, other)?)
    } else {
        None
    };
    Ok(((0..devices).map(|_| device()).collect(), edge_a, edge_b))
}

/// Whether devices of this bundle dial edge B: it opens their sessions, and in `two-edge` it answers them.
fn talks_to_b(bundle: &ValidBundle) -> bool {
    bundle.has_role(Role::EdgeB)
}

/// With whom the offline program stores corrections.
pub fn stored_with(bundle: &ValidBundle) -> Option<Role> {
    use pponnx_plans::op::Op;
    bundle.program(Role::Offline)?.steps.iter().find_map(|s| match s.op {
        Op::Store { to, .. } => Some(to),
        _ => None,
    })
}

/// An edge listens at every interface of its machine, unless the address given for it is of this machine only.
fn listen_address(address: &str) -> Outcome<std::net::SocketAddr> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port: u16 = port.parse().map_err(|_| Failure::internal(format!("address `{address}` was not checked")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let local: Option<std::net::IpAddr> = match host {
        "localhost" => Some(std::net::Ipv4Addr::LOCALHOST.into()),
        _ => host.parse().ok().filter(std::net::IpAddr::is_loopback),
    };
    Ok((local.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()), port).into())
}

/// Draws all keys and writes all folders into a staging folder.
pub fn write(contents: Contents<'_>, staging: &Staging) -> Outcome<()> {
    let Contents { bundle, constants, kernels, requests, devices, mut edge_a, mut edge_b } = contents;
    let dealer = Dealer::load(&bundle, constants, kernels)?;
    let draw = || Identity::generate().map_err(identity_failure);
    let (identity_a, identity_b) = (draw()?, if edge_b.is_some() { Some(draw()?) } else { None });
    let pin_of = |role: EdgeRole| match role {
        EdgeRole::EdgeA => Pin(identity_a.pin().0),
        EdgeRole::EdgeB => Pin(identity_b.as_ref().map_or([0; 32], |i| i.pin().0)),
    };
    let pinned = |edges: &mut Vec<EdgeEntry>| {
        for edge in edges {
            edge.pin = placed(pin_of(*edge.role.get_ref()));
        }
    };

    let device_plan = file::write(&bundle, Role::Device, constants).map_err(encode_failure)?;
    let names: Vec<Option<String>> = edge_a.device.iter().map(|d| d.name.clone()).collect();
    edge_a.device.clear();
    for (index, mut config) in devices.into_iter().enumerate() {
        let secrets = DeviceSecrets::draw()?;
        let folder = PathBuf::from(device_folder(index));
        staging.write(folder.join(&config.plan.file), &device_plan, false)?;
        staging.write(folder.join(&config.identity.file), secrets.identity.to_pem().as_bytes(), true)?;
        secrets.write_key(&bundle, &staging.path(folder.join(&config.plan.key))?)?;
        let check = check_data(&bundle, constants, secrets.id)?;
        check.write(&staging.path(folder.join(&config.plan.check))?).map_err(store_failure)?;
        if let Some(path) = &config.plan.ledger {
            ledger(&bundle, secrets.id, &staging.path(folder.join(path))?)?;
        }
        if let Some(dealer) = &dealer {
            let store = match (dealer.holder, &config.plan.pairs) {
                (Role::Device, Some(pairs)) => staging.folder(folder.join(pairs))?,
                _ => staging.folder(stock_folder(Path::new("edge-a"), &edge_a, &secrets.id)?)?,
            };
            dealer.deal(secrets.dealt(), secrets.id, 0, requests, &store)?;
        }
        pinned(&mut config.edge);
        staging.write(folder.join("device.toml"), to_text(DEVICE_HEAD, &config)?.as_bytes(), false)?;
        if let Some(keys) = edge_b.as_ref().and_then(|b| b.plan.first()).and_then(|p| p.keys.as_ref()) {
            let path = Path::new("edge-b").join(keys).join(KeyFile::name_for(&secrets.id));
            secrets.write_key(&bundle, &staging.path(path)?)?;
        }
        edge_a.device.push(DeviceEntry {
            name: names.get(index).cloned().flatten().or_else(|| Some(device_folder(index))),
            id: placed(hex(&secrets.id)),
            pin: placed(Pin(secrets.identity.pin().0)),
        });
    }
    drop(device_plan);

    write_edge(staging, "edge-a", Role::EdgeA, &bundle, constants, &identity_a, |edges| pinned(edges), &mut edge_a)?;
    if let Some(marks) = edge_a.plan.first().and_then(|p| p.marks.as_ref()) {
        let folder = staging.path(Path::new("edge-a").join(marks))?;
        Marks::create(&folder).map_err(store_failure)?;
    }
    if let (Some(edge_b), Some(identity)) = (&mut edge_b, &identity_b) {
        edge_b.device = edge_a
            .device
            .iter()
            .map(|d| DeviceEntry { name: d.name.clone(), id: d.id.clone(), pin: d.pin.clone() })
            .collect();
        write_edge(staging, "edge-b", Role::EdgeB, &bundle, constants, identity, |edges| pinned(edges), edge_b)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn write_edge(
    staging: &Staging,
    folder: &str,
    role: Role,
    bundle: &ValidBundle,
    constants: &ConstStore,
    identity: &Identity,
    pinned: impl Fn(&mut Vec<EdgeEntry>),
    config: &mut EdgeFile,
) -> Outcome<()> {
    let folder = Path::new(folder);
    let name = config.plan.first().map_or_else(|| "edge.plan".into(), |p| p.file.clone());
    let plan = |out: &mut File| file::write_to(bundle, role, constants, out);
    let path = folder.join(name);
    staging.stream(&path, plan, |e| match e {
        file::FormatError::Unwritable { kind, .. } => Box::new(file_failure("write", &path, &kind.into())),
        e => encode_failure(e),
    })?;
    staging.write(folder.join(&config.identity.file), identity.to_pem().as_bytes(), true)?;
    pinned(&mut config.edge);
    staging.write(folder.join("edge.toml"), to_text(EDGE_HEAD, config)?.as_bytes(), false)
}

/// Where edge A keeps the corrections of a device.
pub fn stock_folder(edge_a: &Path, config: &EdgeFile, device: &[u8; 16]) -> Outcome<PathBuf> {
    let stock = config.plan.first().and_then(|p| p.stock.as_ref());
    let stock = stock.ok_or_else(|| Failure::internal("edge A has no stock folder"))?;
    Ok(edge_a.join(stock).join(hex(device)))
}

fn encode_failure(e: file::FormatError) -> Box<Failure> {
    Box::new(Failure::internal(format!("cannot write a plan: {e}")))
}

const DEVICE_HEAD: &str = "# pponnx device. Copy this folder whole to the device; paths are relative to it.
# Set the addresses under [[edge]] to where the edges are. Unknown keys are errors.";

const EDGE_HEAD: &str = "# pponnx edge. Copy this folder whole to the edge's machine; paths are relative to it.
# Edge A and edge B must belong to different operators. Unknown keys are errors.";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn edges_listen_where_others_can_reach_them() {
        let of = |a: &str| listen_address(a).unwrap().to_string();
        assert_eq!(of("127.0.0.1:7101"), "127.0.0.1:7101");
        assert_eq!(of("localhost:0"), "127.0.0.1:0");
        assert_eq!(of("[::1]:5"), "[::1]:5");
        assert_eq!(of("edge.example:7101"), "0.0.0.0:7101");
        assert_eq!(of("10.0.0.5:7101"), "0.0.0.0:7101");
    }

    #[test]
    fn device_folders_are_numbered_from_the_second_on() {
        assert_eq!((device_folder(0), device_folder(1)), ("device".into(), "device-2".into()));
    }
}
