//! Both edges and a device in this process, over TLS on loopback: what `verify` runs a bundle on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pponnx_engine::{CheckMaterial, LoadedPlan};
use pponnx_kernels::Kernels;
use pponnx_keys::{Ledger, Marks, PairStore};
use pponnx_net::Identity;
use pponnx_node::device::system_nonce;
use pponnx_node::{
    Device, DeviceSettings, EdgeAddress, EdgeSettings, Limits, Material, PeerEntry, Running, ServedPlan, Timeouts,
    edge_a, edge_b,
};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use tempfile::TempDir;

use crate::failure::{Outcome, file_failure};
use crate::foreign::{engine_failure, identity_failure, node_failure, store_failure};
use crate::owner::deal::{Dealer, DeviceSecrets, check_data, ledger};

/// How long the edges get to end.
const GRACE: Duration = Duration::from_secs(5);

/// A device with an open session, and its edges.
pub struct Cluster {
    /// The device.
    pub device: Device,
    edge_a: Running,
    edge_b: Option<Running>,
    /// Key files, ledger and key pairs; gone when the cluster is dropped.
    _folder: TempDir,
}

impl Cluster {
    /// Draws keys, starts the edges on free ports, and opens a session for up to `requests` requests.
    pub async fn start(
        bundle: &Arc<ValidBundle>,
        constants: &ConstStore,
        kernels: Kernels,
        requests: u64,
    ) -> Outcome<Cluster> {
        let folder = tempfile::Builder::new().prefix("pponnx-verify-").tempdir();
        let folder = folder.map_err(|e| Box::new(file_failure("make a folder in", &std::env::temp_dir(), &e)))?;
        let secrets = DeviceSecrets::draw()?;
        let key = folder.path().join("device.key");
        secrets.write_key(bundle, &key)?;
        let check = check_data(bundle, constants, secrets.id)?;
        let check = CheckMaterial::load(bundle, &check).map_err(engine_failure)?;

        let (mut pairs, mut stock, mut device_ledger, mut marks) = (None, BTreeMap::new(), None, None);
        if let Some(dealer) = Dealer::load(bundle, constants, kernels)? {
            dealer.deal(secrets.dealt(), secrets.id, 0, requests, folder.path())?;
            let store = PairStore::open(folder.path(), &secrets.id, bundle.digest()).map_err(store_failure)?;
            if dealer.holder == Role::Device {
                pairs = Some(store);
            } else {
                stock.insert(secrets.id, Arc::new(store));
            }
            let path = folder.path().join("ledger");
            ledger(bundle, secrets.id, &path)?;
            device_ledger = Some(Ledger::open(&path, &secrets.id, bundle.digest()).map_err(store_failure)?);
            marks = Some(Arc::new(Marks::create(&folder.path().join("marks")).map_err(store_failure)?));
        }

        let draw = || Identity::generate().map_err(identity_failure);
        let (identity_a, identity_b) = (draw()?, draw()?);
        let (pin_a, pin_b) = (identity_a.pin(), identity_b.pin());
        let load = |role| {
            let plan = LoadedPlan::load(Arc::clone(bundle), role, constants, kernels);
            plan.map(Arc::new).map_err(engine_failure)
        };
        let devices = vec![PeerEntry { device: secrets.id, pin: secrets.identity.pin() }];
        let settings = |identity, plan, edge_a| EdgeSettings {
            listen: "127.0.0.1:0".into(),
            identity,
            plans: vec![plan],
            devices: devices.clone(),
            callers: vec![pin_b],
            edge_a,
            limits: Limits { wait: Duration::from_secs(600), ..Limits::default() },
            observer: None,
        };
        let plan = ServedPlan { plan: load(Role::EdgeA)?, keys: None, stock, marks };
        let running_a = edge_a::serve(settings(identity_a, plan, None)).await.map_err(node_failure)?;
        let at_a = EdgeAddress { address: running_a.address.to_string(), pin: pin_a };
        let running_b = if bundle.has_role(Role::EdgeB) {
            let keys = folder.path().join("keys");
            std::fs::create_dir(&keys).map_err(|e| Box::new(file_failure("make", &keys, &e)))?;
            secrets.write_key(bundle, &keys.join(pponnx_keys::KeyFile::name_for(&secrets.id)))?;
            let plan = ServedPlan { plan: load(Role::EdgeB)?, keys: Some(keys), stock: BTreeMap::new(), marks: None };
            let settings = settings(identity_b, plan, Some(at_a.clone()));
            Some(edge_b::serve(settings).await.map_err(node_failure)?)
        } else {
            None
        };
        let at_b = running_b.as_ref().map(|b| EdgeAddress { address: b.address.to_string(), pin: pin_b });
        let device = Device::start(DeviceSettings {
            plan: load(Role::Device)?,
            device: secrets.id,
            identity: secrets.identity,
            edge_a: at_a,
            edge_b: at_b,
            material: Material { key, check: Arc::new(check), pairs, ledger: device_ledger },
            timeouts: Timeouts { connect: Duration::from_secs(30), reply: Duration::from_secs(600) },
            nonce: Box::new(system_nonce),
        })
        .await
        .map_err(node_failure)?;
        Ok(Cluster { device, edge_a: running_a, edge_b: running_b, _folder: folder })
    }

    /// Ends the session and the edges.
    pub async fn stop(self) -> Outcome<()> {
        self.device.stop().await;
        if let Some(edge_b) = self.edge_b {
            edge_b.stop(GRACE).await.map_err(node_failure)?;
        }
        self.edge_a.stop(GRACE).await.map_err(node_failure)
    }
}
