//! Both edges and any number of devices in this process, over TLS on loopback, as an operator would set them up: key
//! files, ledgers, key pairs and marks in a folder, edges that can be killed and started again on the same port.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pponnx_compiler::{Compiled, FrontOptions, ModelSource, Options, Precision};
use pponnx_engine::offline::{deal_check, deal_pairs};
use pponnx_engine::{CheckMaterial, LoadedPlan, Simulation, TensorValue};
use pponnx_kernels::Kernels;
use pponnx_keys::ledger::LedgerOwner;
use pponnx_keys::{
    CheckData, EpochKey, KeyFile, Ledger, Marks, PairHeader, PairStore, PairWriter, SessionKey, SlotBytes, StoreError,
};
use pponnx_net::{Identity, Pin};
use pponnx_node::device::system_nonce;
use pponnx_node::{
    Device, DeviceSettings, EdgeAddress, EdgeSettings, Inference, Limits, Material, NodeError, Observer, PeerEntry,
    Running, ServedPlan, Timeouts, edge_a, edge_b,
};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::op::Op;
use pponnx_plans::plan::SUITES;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use pponnx_wire::message::{DeviceId, Message, PeerRole};
use tempfile::TempDir;

use crate::{check_secret, compile, npz, root};

/// Every scheme.
pub const SCHEMES: [&str; 5] = ["relay", "two-edge", "one-time", "stockpile", "plain"];

/// A compiled model with the loaded plans of its roles.
pub struct Model {
    /// The programs.
    pub bundle: Arc<ValidBundle>,
    /// All constants.
    pub constants: ConstStore,
    plans: Mutex<BTreeMap<Role, Arc<LoadedPlan>>>,
}

impl Model {
    /// The digits network; compiled once a process for each scheme and precision.
    pub fn digits(scheme: &str, precision: Precision) -> Arc<Model> {
        type Known = BTreeMap<(String, &'static str), Arc<Model>>;
        static ALL: OnceLock<Mutex<Known>> = OnceLock::new();
        let mut all = ALL.get_or_init(Mutex::default).lock().unwrap();
        let model = all
            .entry((scheme.into(), precision.name()))
            .or_insert_with(|| Model::new(compile(&root().join("onnx-models/digits/model.onnx"), scheme, precision)));
        Arc::clone(model)
    }

    /// A model from memory.
    pub fn of_bytes(bytes: Vec<u8>, scheme: &str, precision: Precision) -> Arc<Model> {
        let source = ModelSource::Bytes { name: "test".into(), bytes, dir: None };
        let scheme = pponnx_compiler::schemes::by_name(scheme).unwrap();
        let options = Options { scheme, precision, suite: SUITES[0], front: FrontOptions::default() };
        Model::new(pponnx_compiler::compile(&source, &options).unwrap_or_else(|e| panic!("{e}")))
    }

    fn new(compiled: Compiled) -> Arc<Model> {
        let (bundle, plans) = (Arc::new(compiled.bundle), Mutex::default());
        Arc::new(Model { bundle, constants: compiled.constants, plans })
    }

    /// The loaded plan of a role.
    pub fn plan(&self, role: Role) -> Arc<LoadedPlan> {
        let mut plans = self.plans.lock().unwrap();
        let plan = plans.entry(role).or_insert_with(|| {
            Arc::new(LoadedPlan::load(Arc::clone(&self.bundle), role, &self.constants, Kernels::detect()).unwrap())
        });
        Arc::clone(plan)
    }

    /// All roles in memory, with the check data of a device.
    pub fn simulation(&self) -> Simulation {
        Simulation::load(Arc::clone(&self.bundle), &self.constants, &self.check(1), Kernels::detect()).unwrap()
    }

    /// Check data of a device.
    pub fn check(&self, seed: u8) -> CheckData {
        deal_check(&self.bundle, &self.constants, [seed; 16], check_secret(seed)).unwrap()
    }

    /// Name of a slot's segment.
    pub fn segment(&self, slot: u32) -> &str {
        &self.bundle.slots[slot as usize].name
    }

    /// The correction slots that the owner fills, and who stores them.
    fn dealt(&self) -> Option<(Role, Vec<SlotBytes>)> {
        let mut slots = Vec::new();
        let mut holder = None;
        for step in self.bundle.program(Role::Offline).map(|p| p.steps.as_slice()).unwrap_or_default() {
            if let Op::Store { to, slot, .. } = step.op {
                slots.push(SlotBytes { slot: slot.0, bytes: self.bundle.slots[slot.index()].bytes() });
                holder = Some(to);
            }
        }
        slots.sort_by_key(|s| s.slot);
        holder.map(|role| (role, slots))
    }
}

/// Held-out digits as the network reads them.
pub fn digit(index: usize) -> Vec<TensorValue> {
    static IMAGES: OnceLock<Vec<f64>> = OnceLock::new();
    let images = IMAGES.get_or_init(|| {
        let file = npz(&root().join("onnx-models/digits/heldout.npz"));
        file.into_iter().find(|(name, _)| name == "x").unwrap().1.elements().to_f64()
    });
    image(images[index * 64..(index + 1) * 64].iter().map(|grey| (grey / 16.0) as f32).collect())
}

/// 64 grey values as an input.
pub fn image(grey: Vec<f32>) -> Vec<TensorValue> {
    vec![TensorValue::from_f32(vec![1, 1, 8, 8], grey).unwrap()]
}

/// A message that an edge received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who received it.
    pub edge: PeerRole,
    /// Who sent it.
    pub from: PeerRole,
    /// Its type.
    pub kind: &'static str,
    /// Request and slot, of data and corrections.
    pub place: Option<(u64, u32)>,
    /// Payload, of data and corrections; else the encoded message.
    pub bytes: Vec<u8>,
}

fn seen(edge: PeerRole, from: PeerRole, message: &Message) -> Seen {
    let kind = message.kind().name();
    let (place, bytes) = match message {
        Message::Data(d) => (Some((d.request, d.slot)), d.payload.clone()),
        Message::Correction(c) => (Some((c.request, c.slot)), c.payload.clone()),
        other => (None, pponnx_wire::codec::encode(other).unwrap().to_vec()),
    };
    Seen { edge, from, kind, place, bytes }
}

/// A device and what the owner made for it.
pub struct Card {
    /// Its name.
    pub id: DeviceId,
    /// Its model.
    pub model: Arc<Model>,
    /// Its identity as text.
    pub identity: String,
    /// Pin of its identity.
    pub pin: Pin,
    /// Its folder: `device.key`, `ledger`, `pairs/`.
    pub folder: PathBuf,
    check: Arc<CheckMaterial>,
}

impl Card {
    /// Its key file.
    pub fn key(&self) -> PathBuf {
        self.folder.join("device.key")
    }

    /// Its ledger.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("ledger")
    }
}

/// How to set up a [`Cluster`].
pub struct Setup {
    /// Models served side by side; the devices of each come one after the other.
    pub models: Vec<Arc<Model>>,
    /// Devices of each model.
    pub devices: usize,
    /// Key pairs for each device, in schemes that deal them.
    pub requests: u64,
    /// Bounds of both edges.
    pub limits: Limits,
    /// Patience of the devices.
    pub timeouts: Timeouts,
    /// Whether [`Cluster::seen`] fills.
    pub record: bool,
}

impl Setup {
    /// One device of each model; sixteen key pairs.
    pub fn new(models: Vec<Arc<Model>>) -> Setup {
        let second = Duration::from_secs(1);
        Setup {
            models,
            devices: 1,
            requests: 16,
            limits: Limits { handshake: 20 * second, wait: 20 * second, ..Limits::default() },
            timeouts: Timeouts { connect: 20 * second, reply: 30 * second },
            record: false,
        }
    }
}

/// The edges and the devices' folders.
pub struct Cluster {
    /// The setup.
    pub setup: Setup,
    /// The devices.
    pub cards: Vec<Card>,
    /// Messages that the edges received, in order.
    pub seen: Arc<Mutex<Vec<Seen>>>,
    identity_a: String,
    identity_b: String,
    /// Where edge A is; tests may put another edge there.
    pub at_a: EdgeAddress,
    /// Where edge B is.
    pub at_b: EdgeAddress,
    running_a: Option<Running>,
    running_b: Option<Running>,
    folder: TempDir,
}

fn identity() -> (String, Pin) {
    let identity = Identity::generate().unwrap();
    (identity.to_pem().to_string(), identity.pin())
}

impl Cluster {
    /// Makes the folders and starts the edges.
    pub async fn start(setup: Setup) -> Cluster {
        let mut cluster = Cluster::prepare(setup);
        cluster.start_a().await;
        cluster.start_b().await;
        cluster
    }

    /// Makes the folders; no edge runs yet.
    pub fn prepare(setup: Setup) -> Cluster {
        let folder = TempDir::new().unwrap();
        let mut cards = Vec::new();
        for (m, model) in setup.models.iter().enumerate() {
            let keys = folder.path().join(format!("keys-{m}"));
            std::fs::create_dir(&keys).unwrap();
            for _ in 0..setup.devices {
                let seed = cards.len() as u8 + 1;
                cards.push(enroll(folder.path(), &keys, model, seed, setup.requests));
            }
        }
        let ((identity_a, pin_a), (identity_b, pin_b)) = (identity(), identity());
        let nowhere = |pin| EdgeAddress { address: "127.0.0.1:0".into(), pin };
        Cluster {
            setup,
            cards,
            seen: Arc::default(),
            identity_a,
            identity_b,
            at_a: nowhere(pin_a),
            at_b: nowhere(pin_b),
            running_a: None,
            running_b: None,
            folder,
        }
    }

    fn observer(&self, edge: PeerRole) -> Option<Observer> {
        let log = Arc::clone(&self.seen);
        let observer: Observer = Arc::new(move |from, message| log.lock().unwrap().push(seen(edge, from, message)));
        self.setup.record.then_some(observer)
    }

    /// Settings of an edge. Locks of files that a killed edge held may take a moment to go.
    pub async fn edge_settings(&self, role: Role) -> EdgeSettings {
        let mut plans = Vec::new();
        for (m, model) in self.setup.models.iter().enumerate() {
            let dealt = model.dealt();
            let mut stock = BTreeMap::new();
            if role == Role::EdgeA && dealt.as_ref().is_some_and(|(holder, _)| *holder == Role::EdgeA) {
                for card in self.cards.iter().filter(|c| Arc::ptr_eq(&c.model, model)) {
                    let store = PairStore::open(&card.folder.join("pairs"), &card.id, model.bundle.digest()).unwrap();
                    stock.insert(card.id, Arc::new(store));
                }
            }
            let marks = match (role, dealt) {
                (Role::EdgeA, Some(_)) => Some(Arc::new(self.marks(m).await)),
                _ => None,
            };
            let keys = (role == Role::EdgeB).then(|| self.folder.path().join(format!("keys-{m}")));
            plans.push(ServedPlan { plan: model.plan(role), keys, stock, marks });
        }
        let (text, at) =
            if role == Role::EdgeA { (&self.identity_a, &self.at_a) } else { (&self.identity_b, &self.at_b) };
        EdgeSettings {
            listen: at.address.clone(),
            identity: Identity::from_pem(text).unwrap(),
            plans,
            devices: self.cards.iter().map(|c| PeerEntry { device: c.id, pin: c.pin }).collect(),
            callers: vec![self.at_b.pin],
            edge_a: (role == Role::EdgeB).then(|| self.at_a.clone()),
            limits: self.setup.limits,
            observer: self.observer(if role == Role::EdgeA { PeerRole::EdgeA } else { PeerRole::EdgeB }),
        }
    }

    async fn marks(&self, model: usize) -> Marks {
        for _ in 0..200 {
            match Marks::create(&self.folder.path().join(format!("marks-{model}"))) {
                Err(StoreError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(25)).await,
                other => return other.unwrap(),
            }
        }
        panic!("the marks stayed locked: the killed edge A is still there");
    }

    /// Starts edge A; after [`Cluster::kill_a`], on the same port.
    pub async fn start_a(&mut self) {
        let settings = self.edge_settings(Role::EdgeA).await;
        let running = edge_a::serve(settings).await.unwrap();
        self.at_a.address = running.address.to_string();
        self.running_a = Some(running);
    }

    /// Starts edge B; after [`Cluster::kill_b`], on the same port.
    pub async fn start_b(&mut self) {
        let settings = self.edge_settings(Role::EdgeB).await;
        let running = edge_b::serve(settings).await.unwrap();
        self.at_b.address = running.address.to_string();
        self.running_b = Some(running);
    }

    /// Ends edge A in the middle of whatever it does.
    pub async fn kill_a(&mut self) {
        drop(self.running_a.take().expect("edge A runs"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Ends edge B in the middle of whatever it does.
    pub async fn kill_b(&mut self) {
        drop(self.running_b.take().expect("edge B runs"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Ends both edges politely.
    pub async fn stop(mut self) {
        self.stop_both().await;
    }

    async fn stop_both(&mut self) {
        for running in [self.running_b.take(), self.running_a.take()].into_iter().flatten() {
            running.stop(Duration::from_secs(5)).await.unwrap();
        }
    }

    /// Edge B's key file of a device.
    pub fn key_at_b(&self, card: usize) -> PathBuf {
        let card = &self.cards[card];
        let model = self.setup.models.iter().position(|m| Arc::ptr_eq(m, &card.model)).unwrap();
        self.folder.path().join(format!("keys-{model}")).join(KeyFile::name_for(&card.id))
    }

    /// Settings of a device.
    pub fn settings(&self, card: usize) -> DeviceSettings {
        let mut settings = self.settings_without_ledger(card);
        let card = &self.cards[card];
        if card.model.dealt().is_some() {
            let ledger = Ledger::open(&card.ledger(), &card.id, card.model.bundle.digest());
            settings.material.ledger = Some(ledger.unwrap());
        }
        settings
    }

    /// Settings of a device whose ledger is missing.
    pub fn settings_without_ledger(&self, card: usize) -> DeviceSettings {
        let card = &self.cards[card];
        let digest = card.model.bundle.digest();
        let dealt = card.model.dealt();
        let pairs = matches!(dealt, Some((Role::Device, _)))
            .then(|| PairStore::open(&card.folder.join("pairs"), &card.id, digest).unwrap());
        DeviceSettings {
            plan: card.model.plan(Role::Device),
            device: card.id,
            identity: Identity::from_pem(&card.identity).unwrap(),
            edge_a: self.at_a.clone(),
            edge_b: Some(self.at_b.clone()),
            material: Material { key: card.key(), check: Arc::clone(&card.check), pairs, ledger: None },
            timeouts: self.setup.timeouts,
            nonce: Box::new(system_nonce),
        }
    }

    /// Starts a device.
    ///
    /// # Errors
    /// As [`Device::start`].
    pub async fn device(&self, card: usize) -> Result<Device, NodeError> {
        Device::start(self.settings(card)).await
    }

    /// Ends the edges, edge B first, and gives what they received: nothing is still on its way.
    pub async fn stop_and_take(mut self) -> Vec<Seen> {
        self.stop_both().await;
        self.take_seen()
    }

    /// Messages that the edges received so far; empties the record.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Makes a device's folder and edge B's copy of its key. The mask key is the same in every run.
fn enroll(folder: &std::path::Path, keys: &std::path::Path, model: &Arc<Model>, seed: u8, requests: u64) -> Card {
    let id = [seed; 16];
    let own = folder.join(format!("device-{seed}"));
    std::fs::create_dir(&own).unwrap();
    let digest = *model.bundle.digest();
    let key = || EpochKey::first(&[seed ^ 0x33; 32]);
    let file = || KeyFile { device: id, bundle: digest, key: key() };
    file().create(&own.join("device.key")).unwrap();
    file().create(&keys.join(KeyFile::name_for(&id))).unwrap();
    if let Some((_, slots)) = model.dealt() {
        let pairs = own.join("pairs");
        std::fs::create_dir(&pairs).unwrap();
        let header = PairHeader { device: id, bundle: digest, first: 0, count: requests, slots };
        let mut writer = PairWriter::create(&pairs, header).unwrap();
        let (plan, session) = (model.plan(Role::Offline), Arc::new(SessionKey::dealt(&key())));
        for request in 0..requests {
            let mut dealt = deal_pairs(&plan, &session, request).unwrap();
            dealt.sort_by_key(|p| p.slot);
            writer.push(request, &dealt.into_iter().map(|p| p.payload).collect::<Vec<_>>()).unwrap();
        }
        writer.finish().unwrap();
        let owner = LedgerOwner { device: id, bundle: digest, installation: [seed; 16] };
        Ledger::create(&own.join("ledger"), &owner, 0).unwrap();
    }
    let (identity, pin) = identity();
    let check = Arc::new(CheckMaterial::load(&model.bundle, &model.check(seed)).unwrap());
    Card { id, model: Arc::clone(model), identity, pin, folder: own, check }
}

/// The bit patterns of all outputs: equal only if every bit is.
pub fn bits(outputs: &[TensorValue]) -> Vec<Vec<u8>> {
    outputs.iter().map(|t| t.elements().to_le_bytes()).collect()
}

/// The bit patterns of a request's outputs.
pub fn bits_of(inference: &Inference) -> Vec<Vec<u8>> {
    bits(&inference.outputs)
}
