//! What the owner draws and computes for one device: identity, mask key, check vectors, key pairs.

use std::path::Path;
use std::sync::Arc;

use pponnx_engine::offline::{deal_check, deal_pairs};
use pponnx_engine::plan::LoadedPlan;
use pponnx_kernels::Kernels;
use pponnx_keys::ledger::LedgerOwner;
use pponnx_keys::{CheckData, CheckSecret, EpochKey, KeyFile, Ledger, PairHeader, PairWriter, SessionKey, SlotBytes};
use pponnx_net::Identity;
use pponnx_plans::constant::ConstStore;
use pponnx_plans::op::Op;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};
use crate::foreign::{engine_failure, identity_failure, store_failure};

/// Fresh random bytes of the system.
pub fn random<const N: usize>() -> Outcome<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|e| Failure::internal(format!("the system gives no random bytes: {e}")))?;
    Ok(bytes)
}

/// One device as the owner knows it.
pub struct DeviceSecrets {
    /// Its number.
    pub id: [u8; 16],
    /// Its TLS identity.
    pub identity: Identity,
    key: EpochKey,
}

impl DeviceSecrets {
    /// A new device.
    pub fn draw() -> Outcome<DeviceSecrets> {
        Ok(DeviceSecrets {
            id: *random::<16>()?,
            identity: Identity::generate().map_err(identity_failure)?,
            key: EpochKey::first(&*random::<32>()?),
        })
    }

    /// Writes a key file: the device's own, or edge B's copy.
    pub fn write_key(&self, bundle: &ValidBundle, path: &Path) -> Outcome<()> {
        let file = KeyFile { device: self.id, bundle: *bundle.digest(), key: self.key.duplicate() };
        file.create(path).map_err(store_failure)
    }

    /// The session key of dealt key pairs.
    pub fn dealt(&self) -> SessionKey {
        SessionKey::dealt(&self.key)
    }
}

/// Makes the check data of one device, from a secret that nobody else has.
pub fn check_data(bundle: &ValidBundle, constants: &ConstStore, device: [u8; 16]) -> Outcome<CheckData> {
    let secret = CheckSecret::new(&*random::<32>()?);
    deal_check(bundle, constants, device, secret).map_err(engine_failure)
}

/// Writes a new ledger whose first number is 0.
pub fn ledger(bundle: &ValidBundle, device: [u8; 16], path: &Path) -> Outcome<()> {
    let owner = LedgerOwner { device, bundle: *bundle.digest(), installation: *random::<16>()? };
    Ledger::create(path, &owner, 0).map_err(store_failure)
}

/// The offline plan, loaded once for any number of devices.
pub struct Dealer {
    plan: Arc<LoadedPlan>,
    /// Who stores the corrections.
    pub holder: Role,
    slots: Vec<SlotBytes>,
}

impl Dealer {
    /// Loads the offline plan; `None` for schemes without dealt key pairs.
    pub fn load(bundle: &Arc<ValidBundle>, constants: &ConstStore, kernels: Kernels) -> Outcome<Option<Dealer>> {
        let steps = bundle.program(Role::Offline).map(|p| p.steps.as_slice()).unwrap_or_default();
        let mut slots = Vec::new();
        let mut holder = None;
        for step in steps {
            if let Op::Store { to, slot, .. } = step.op {
                let bytes = bundle.slots.get(slot.index()).map_or(0, |s| s.bytes());
                slots.push(SlotBytes { slot: slot.0, bytes });
                holder = Some(to);
            }
        }
        slots.sort_by_key(|s| s.slot);
        let Some(holder) = holder else { return Ok(None) };
        let plan = LoadedPlan::load(Arc::clone(bundle), Role::Offline, constants, kernels).map_err(engine_failure)?;
        Ok(Some(Dealer { plan: Arc::new(plan), holder, slots }))
    }

    /// Bytes of the corrections of one request.
    pub fn bytes_per_request(&self) -> u64 {
        self.slots.iter().map(|s| s.bytes).sum()
    }

    /// Deals key pairs for `count` requests from `first` on into a folder.
    pub fn deal(&self, session: SessionKey, device: [u8; 16], first: u64, count: u64, folder: &Path) -> Outcome<()> {
        let header = PairHeader { device, bundle: *self.plan.digest(), first, count, slots: self.slots.clone() };
        let mut writer = PairWriter::create(folder, header).map_err(store_failure)?;
        let session = Arc::new(session);
        for request in first..first.saturating_add(count) {
            let mut pairs = deal_pairs(&self.plan, &session, request).map_err(engine_failure)?;
            pairs.sort_by_key(|p| p.slot);
            let corrections: Vec<Vec<u8>> = pairs.into_iter().map(|p| p.payload).collect();
            writer.push(request, &corrections).map_err(store_failure)?;
        }
        writer.finish().map_err(store_failure)?;
        Ok(())
    }
}
