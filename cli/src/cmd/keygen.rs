//! `pponnx keygen`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pponnx_keys::{KeyFile, PairStore, SessionKey};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use serde_json::{Value, json};

use crate::args::Keygen;
use crate::cmd::compile::DEFAULT_REQUESTS;
use crate::config::device::DeviceFile;
use crate::config::edge::EdgeFile;
use crate::config::{Source, hex};
use crate::console::{Console, bytes, things};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::store_failure;
use crate::isa;
use crate::owner::deal::Dealer;
use crate::owner::folders::{Contents, device_folder, stock_folder, stored_with, write};
use crate::owner::staging::Staging;
use crate::plan::read_plan;
use crate::progress::Progress;

/// The folders that `compile` wrote, read back.
struct Existing {
    devices: Vec<(PathBuf, DeviceFile)>,
    edge_a: EdgeFile,
    edge_b: Option<EdgeFile>,
    bundle: Arc<ValidBundle>,
    constants: ConstStore,
}

/// Runs the command.
pub fn run(console: &Console, args: &Keygen) -> Outcome<Value> {
    if !args.dir.join("device/device.toml").is_file() {
        let message = format!("`{}` is not a folder that `pponnx compile` wrote", args.dir.display());
        return Err(Box::new(
            Failure::new(Exit::Configuration, "pponnx::keygen::folder", message)
                .help("give the folder that holds device/ and edge-a/"),
        ));
    }
    let existing = read(&args.dir)?;
    let holder = stored_with(&existing.bundle);
    match (args.requests, holder) {
        (Some(requests), Some(holder)) if !args.new_keys => {
            further_pairs(console, &args.dir, &existing, holder, requests)
        }
        (Some(_), None) => Err(Box::new(
            Failure::new(
                Exit::Usage,
                "pponnx::usage::requests",
                format!("--requests does not apply to scheme {}", existing.bundle.header.scheme),
            )
            .help("only one-time and stockpile have a number of requests; without it, keygen makes new keys"),
        )),
        (requests, holder) => {
            let requests = holder.map(|_| requests.unwrap_or(DEFAULT_REQUESTS));
            new_keys(console, &args.dir, existing, requests)
        }
    }
}

fn read(dir: &Path) -> Outcome<Existing> {
    let mut devices = Vec::new();
    loop {
        let folder = dir.join(device_folder(devices.len()));
        let path = folder.join("device.toml");
        if !path.is_file() {
            break;
        }
        devices.push((folder, Source::read::<DeviceFile>(&path)?.1));
    }
    let edge_a = Source::read::<EdgeFile>(&dir.join("edge-a/edge.toml"))?.1;
    let path_b = dir.join("edge-b/edge.toml");
    let edge_b = if path_b.is_file() { Some(Source::read::<EdgeFile>(&path_b)?.1) } else { None };

    let plan_a = edge_a.plan.first().map_or_else(|| PathBuf::from("edge.plan"), |p| p.file.clone());
    let edge = read_plan(&dir.join("edge-a").join(plan_a), Role::EdgeA)?;
    let mut constants = edge.constants;
    for (folder, config) in &devices {
        let path = folder.join(&config.plan.file);
        let device = read_plan(&path, Role::Device)?;
        if device.bundle.digest() != edge.bundle.digest() {
            let message = format!("`{}` is of another compilation than edge-a/edge.plan", path.display());
            return Err(Box::new(
                Failure::new(Exit::Refused, "pponnx::plan::mismatch", message).help("compile the model again"),
            ));
        }
        constants.merge(device.constants);
    }
    Ok(Existing { devices, edge_a, edge_b, bundle: edge.bundle, constants })
}

/// New keys, identities and check secrets for everyone. The old folder is replaced at once or not at all.
fn new_keys(console: &Console, dir: &Path, existing: Existing, requests: Option<u64>) -> Outcome<Value> {
    let Existing { devices, edge_a, edge_b, bundle, constants } = existing;
    let count = devices.len();
    let staging = Staging::start(dir, true)?;
    for name in ["report.json", "report.html"] {
        let path = dir.join(name);
        let kept = std::fs::read(&path).map_err(|e| Box::new(file_failure("read", &path, &e)))?;
        staging.write(name, &kept, false)?;
    }
    {
        let _progress = Progress::start(console, "making keys");
        let contents = Contents {
            bundle: Arc::clone(&bundle),
            constants: &constants,
            kernels: isa::kernels()?,
            requests: requests.unwrap_or(0),
            devices: devices.into_iter().map(|(_, config)| config).collect(),
            edge_a,
            edge_b,
        };
        write(contents, &staging)?;
        staging.publish()?;
    }
    console.say(format!("new keys for {}", things(count as u64, "device")));
    if let Some(requests) = requests {
        console
            .say(format!("dealt {} to each; `keygen --requests N` deals further ones", things(requests, "key pair")));
    }
    console.note("copy every folder again: old and new keys do not work together");
    Ok(json!({ "devices": count, "new_keys": true, "requests": requests }))
}

/// Further key pairs behind the last ones.
fn further_pairs(console: &Console, dir: &Path, existing: &Existing, holder: Role, requests: u64) -> Outcome<Value> {
    let Existing { devices, edge_a, bundle, constants, .. } = existing;
    let dealer = Dealer::load(bundle, constants, isa::kernels()?)?
        .ok_or_else(|| Failure::internal("a scheme that stores corrections has no offline program"))?;
    let _progress = Progress::start(console, "dealing key pairs");
    let mut dealt = Vec::new();
    for (folder, config) in devices {
        let key = KeyFile::read(&folder.join(&config.plan.key)).map_err(store_failure)?;
        let device = key.device;
        key.require(&folder.join(&config.plan.key), &device, bundle.digest()).map_err(store_failure)?;
        let store = match (holder, &config.plan.pairs) {
            (Role::Device, Some(pairs)) => folder.join(pairs),
            _ => stock_folder(&dir.join("edge-a"), edge_a, &device)?,
        };
        let end = PairStore::open(&store, &device, bundle.digest()).map_err(store_failure)?.end();
        dealer.deal(SessionKey::dealt(&key.key), device, end, requests, &store)?;
        dealt.push(json!({ "device": hex(&device), "first": end, "end": end + requests, "folder": store }));
        console.say(format!(
            "{}: key pairs {end} to {} dealt, {} in {}",
            folder.display(),
            end + requests - 1,
            bytes(dealer.bytes_per_request().saturating_mul(requests)),
            store.display(),
        ));
    }
    let place = if holder == Role::Device { "the device" } else { "edge A" };
    console.note(format!("copy the new .pairs files to {place}; leave ledger and marks there as they are"));
    Ok(json!({ "devices": dealt, "new_keys": false, "requests": requests }))
}
