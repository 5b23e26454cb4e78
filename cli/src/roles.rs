//! Configurations to running roles: opens the files that a configuration names and hands the runtime its settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pponnx_engine::{CheckMaterial, LoadedPlan};
use pponnx_kernels::Kernels;
use pponnx_keys::atomic::readable_by_others;
use pponnx_keys::ledger::MAX_BLOCK;
use pponnx_keys::{CheckData, KeyFile, Ledger, Marks, PairStore};
use pponnx_net::{Identity, Pin};
use pponnx_node::device::system_nonce;
use pponnx_node::{
    DeviceSettings, EdgeAddress, EdgeSettings, Limits, Material, Observer, PeerEntry, ServedPlan, Timeouts,
};
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;

use crate::config::device::{DeviceConfig, Peer};
use crate::config::edge::EdgeConfig;
use crate::config::{EdgeRole, hex};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::{engine_failure, identity_failure, node_failure, store_failure};
use crate::plan::{check_memory, read_plan};

/// A TLS identity from its file.
pub fn read_identity(console: &Console, path: &Path) -> Outcome<Identity> {
    warn_if_open(console, path);
    let text = std::fs::read_to_string(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    let text = zeroize::Zeroizing::new(text);
    Identity::from_pem(&text).map_err(|e| {
        let mut failure = identity_failure(e);
        failure.message = format!("`{}`: {}", path.display(), failure.message);
        failure
    })
}

fn warn_if_open(console: &Console, path: &Path) {
    // A file that cannot be looked at is reported when it is read.
    if readable_by_others(path).is_ok_and(|open| open) {
        console.warn(format!("`{}` can be read by other users of this machine: chmod 600", path.display()));
    }
}

fn address(peer: &Peer, instead: Option<&String>) -> EdgeAddress {
    EdgeAddress { address: instead.unwrap_or(&peer.address).clone(), pin: Pin(peer.pin.0) }
}

/// A device's settings for so many requests, and the bundle it runs. Addresses given here win over those of the file.
pub fn device(
    console: &Console,
    config: &DeviceConfig,
    kernels: Kernels,
    requests: usize,
    edge_a: Option<&String>,
    edge_b: Option<&String>,
) -> Outcome<(DeviceSettings, Arc<ValidBundle>)> {
    let plan = read_plan(&config.plan, Role::Device)?;
    check_memory([(config.plan.as_path(), &plan)], config.limits.max_memory_mb)?;
    let digest = *plan.bundle.digest();
    warn_if_open(console, &config.key);
    let key = KeyFile::read(&config.key).map_err(store_failure)?;
    let id = key.device;
    key.require(&config.key, &id, &digest).map_err(store_failure)?;
    drop(key);
    let check = CheckData::read(&config.check, &id, &digest).map_err(store_failure)?;
    let check = CheckMaterial::load(&plan.bundle, &check).map_err(engine_failure)?;
    let pairs = config.pairs.as_deref().map(|p| PairStore::open(p, &id, &digest)).transpose();
    let ledger = config.ledger.as_deref().map(|p| Ledger::open(p, &id, &digest)).transpose();
    let mut ledger = ledger.map_err(store_failure)?;
    if let Some(ledger) = &mut ledger {
        // A block larger than what this process asks for would burn the rest of it.
        let block = (requests as u64).clamp(1, MAX_BLOCK);
        ledger.set_block(block).map_err(|e| node_failure(e.into()))?;
    }
    let loaded = LoadedPlan::load(Arc::clone(&plan.bundle), Role::Device, &plan.constants, kernels);
    let settings = DeviceSettings {
        plan: Arc::new(loaded.map_err(engine_failure)?),
        device: id,
        identity: read_identity(console, &config.identity)?,
        edge_a: address(&config.edge_a, edge_a),
        edge_b: config.edge_b.as_ref().map(|b| address(b, edge_b)),
        material: Material {
            key: config.key.clone(),
            check: Arc::new(check),
            pairs: pairs.map_err(store_failure)?,
            ledger,
        },
        timeouts: Timeouts { connect: config.connect_timeout, reply: config.reply_timeout },
        nonce: Box::new(system_nonce),
    };
    Ok((settings, plan.bundle))
}

/// What an edge has on disk, loaded.
pub fn edge(
    console: &Console,
    config: &EdgeConfig,
    kernels: Kernels,
    listen: String,
    edge_a: Option<&String>,
    observer: Option<Observer>,
) -> Outcome<EdgeSettings> {
    let role = match config.role {
        EdgeRole::EdgeA => Role::EdgeA,
        EdgeRole::EdgeB => Role::EdgeB,
    };
    let devices: Vec<PeerEntry> =
        config.devices.iter().map(|d| PeerEntry { device: d.id, pin: Pin(d.pin.0) }).collect();
    let read = config.plans.iter().map(|served| read_plan(&served.file, role)).collect::<Outcome<Vec<_>>>()?;
    let files = config.plans.iter().map(|served| served.file.as_path());
    check_memory(files.zip(&read), config.limits.max_memory_mb)?;
    let mut plans = Vec::new();
    for (served, plan) in config.plans.iter().zip(read) {
        let digest = *plan.bundle.digest();
        if plan.bundle.header.scheme == "plain" {
            console.warn(crate::cmd::compile::PLAIN_BANNER);
        }
        let mut stock = BTreeMap::new();
        if let Some(folder) = &served.stock {
            for device in &devices {
                // A device that was added by hand may have no stock of this plan.
                let own = folder.join(hex(&device.device));
                if own.is_dir() {
                    let store = PairStore::open(&own, &device.device, &digest).map_err(store_failure)?;
                    stock.insert(device.device, Arc::new(store));
                }
            }
        }
        let marks = served.marks.as_deref().map(Marks::open).transpose().map_err(store_failure)?;
        if let Some(keys) = &served.keys {
            check_keys(console, keys, &devices, &digest)?;
        }
        let loaded = LoadedPlan::load(Arc::clone(&plan.bundle), role, &plan.constants, kernels);
        plans.push(ServedPlan {
            plan: Arc::new(loaded.map_err(engine_failure)?),
            keys: served.keys.clone(),
            stock,
            marks: marks.map(Arc::new),
        });
    }
    Ok(EdgeSettings {
        listen,
        identity: read_identity(console, &config.identity)?,
        plans,
        devices,
        callers: config.edge_b.iter().map(|p| Pin(p.0)).collect(),
        edge_a: config.edge_a.as_ref().map(|a| address(a, edge_a)),
        limits: Limits {
            connections: config.limits.max_connections,
            sessions: config.limits.max_sessions,
            in_flight: config.limits.max_in_flight,
            prefetch: u64::from(config.prefetch),
            handshake: config.connect_timeout,
            wait: config.reply_timeout,
        },
        observer,
    })
}

/// A damaged or foreign key is said at start, not when the device calls.
fn check_keys(console: &Console, folder: &Path, devices: &[PeerEntry], digest: &[u8; 32]) -> Outcome<()> {
    let mut found = devices.is_empty();
    for device in devices {
        let path = folder.join(KeyFile::name_for(&device.device));
        if path.exists() {
            warn_if_open(console, &path);
            let key = KeyFile::read(&path).map_err(store_failure)?;
            key.require(&path, &device.device, digest).map_err(store_failure)?;
            found = true;
        }
    }
    if !found {
        console.warn(format!("`{}` holds no key of any device: nobody can use this plan", folder.display()));
    }
    Ok(())
}

/// The runtime of asynchronous tasks.
pub fn tokio() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Box::new(Failure::new(Exit::Internal, "pponnx::internal", format!("cannot start threads: {e}"))))
}

/// Runs a future with tokio's runtime; errors of the roles become failures.
pub fn block_on<T>(future: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio()?.block_on(future)
}
