//! A lying edge A: speaks the protocol, runs the real program, and lets a closure alter what goes in and out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pponnx_engine::{Execution, Outgoing, Progress, Secrets};
use pponnx_net::{Connection, Deadline, Listener, ServerTls};
use pponnx_node::topology::Corrections;
use pponnx_node::{EdgeSettings, ServedPlan};
use pponnx_plans::op::Op;
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::Limits;
use pponnx_wire::message::{Data, Message, Sid};
use pponnx_wire::states::edge::{AwaitHelloAtA, Caller, DeviceAtA, EdgeBAtA};
use tokio::task::JoinHandle;

/// Whether an item goes into the edge's arithmetic or out to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A correction, from edge B or the stock.
    Correction,
    /// An answer to the device.
    Reply,
}

/// Something that passes through the edge.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub what: What,
    /// Its request.
    pub request: u64,
    /// Its slot.
    pub slot: u32,
    /// Packed elements.
    pub payload: Vec<u8>,
}

/// What the edge has honestly seen and computed so far, by request and slot.
#[derive(Default)]
pub struct History {
    /// Corrections.
    pub corrections: BTreeMap<(u64, u32), Vec<u8>>,
    /// Its own right answers.
    pub replies: BTreeMap<(u64, u32), Vec<u8>>,
}

/// Takes an item, gives what is used in its place: several replies, or none at all.
pub type Lie = Box<dyn FnMut(Item, &History) -> Vec<Item> + Send>;

struct Shared {
    plans: BTreeMap<[u8; 32], ServedPlan>,
    corrections: Mutex<BTreeMap<(Sid, u64, u32), Vec<u8>>>,
    history: Mutex<History>,
    lie: Mutex<Option<Lie>>,
    eager: AtomicBool,
}

/// A running lying edge A; honest while no lie is set.
pub struct EvilA {
    /// Where it listens.
    pub address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl EvilA {
    /// Starts it with an honest edge's settings.
    pub async fn start(settings: EdgeSettings) -> EvilA {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = ServerTls::new(&settings.identity, |_| true).unwrap();
        let shared = Arc::new(Shared {
            plans: settings.plans.into_iter().map(|p| (*p.plan.digest(), p)).collect(),
            corrections: Mutex::default(),
            history: Mutex::default(),
            lie: Mutex::default(),
            eager: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            while let Ok(incoming) = listener.accept().await {
                let (tls, shared) = (tls.clone(), Arc::clone(&serving));
                calls.spawn(async move {
                    let Ok(mut c) = incoming.handshake(&tls, soon()).await else { return };
                    let Ok(hello) = c.reader.read(soon()).await else { return };
                    match AwaitHelloAtA.handle(hello).unwrap() {
                        Caller::Device(state) => device(&shared, c, state).await,
                        Caller::EdgeB(state) => edge_b(&shared, c, state).await,
                    }
                });
            }
        });
        EvilA { address, shared, task }
    }

    /// From now on this happens to every item.
    pub fn lie(&self, lie: impl FnMut(Item, &History) -> Vec<Item> + Send + 'static) {
        *self.shared.lie.lock().unwrap() = Some(Box::new(lie));
    }

    /// From now on it answers every request with zeros, before it reads a single upload.
    pub fn eager(&self) {
        self.shared.eager.store(true, Ordering::SeqCst);
    }

    /// From now on it is honest.
    pub fn honest(&self) {
        *self.shared.lie.lock().unwrap() = None;
        *self.shared.history.lock().unwrap() = History::default();
    }
}

impl Drop for EvilA {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

impl Shared {
    fn pass(&self, item: Item) -> Vec<Item> {
        let mut lie = self.lie.lock().unwrap();
        let mut history = self.history.lock().unwrap();
        let known = match item.what {
            What::Correction => &mut history.corrections,
            What::Reply => &mut history.replies,
        };
        known.insert((item.request, item.slot), item.payload.clone());
        match lie.as_mut() {
            Some(lie) => lie(item, &history),
            None => vec![item],
        }
    }

    fn correction(&self, request: u64, slot: u32, payload: Vec<u8>) -> Vec<u8> {
        let passed = self.pass(Item { what: What::Correction, request, slot, payload });
        passed.into_iter().next().expect("a lie replaces a correction").payload
    }

    async fn arrived(&self, sid: Sid, request: u64, slot: u32) -> Option<Vec<u8>> {
        for _ in 0..2000 {
            if let Some(payload) = self.corrections.lock().unwrap().remove(&(sid, request, slot)) {
                return Some(payload);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

/// Takes all corrections there are.
async fn edge_b(shared: &Shared, mut c: Connection, state: EdgeBAtA) {
    let (_, welcome) = state.welcome();
    c.writer.write(&welcome).await.unwrap();
    c.writer.flush().await.unwrap();
    c.reader.set_limits(Limits::with_payload(1 << 26));
    while let Ok(message) = c.reader.read(Deadline::never()).await {
        match message {
            Message::Session(session) => {
                let credit = Message::Credit { sid: session.sid, upto_request: 6 };
                if c.writer.write(&credit).await.is_err() || c.writer.flush().await.is_err() {
                    return;
                }
            }
            Message::Correction(c) => {
                shared.corrections.lock().unwrap().insert((c.sid, c.request, c.slot), c.payload);
            }
            _ => {}
        }
    }
}

async fn device(shared: &Shared, mut c: Connection, state: DeviceAtA) {
    let hello = state.hello().clone();
    let served = &shared.plans[&hello.bundle];
    let (attach, welcome) = state.welcome(None, 1);
    c.writer.write(&welcome).await.unwrap();
    c.writer.flush().await.unwrap();
    let mut sid = None;
    if Corrections::of(served.plan.bundle()).attaches() {
        let Ok(message) = c.reader.read(soon()).await else { return };
        sid = Some(attach.handle(message).unwrap().0);
    }
    c.reader.set_limits(Limits::with_payload(1 << 26));
    while let Ok(message) = c.reader.read(Deadline::never()).await {
        if let Message::Begin { request } = message
            && request_of(shared, &mut c, served, hello.device, sid, request).await.is_none()
        {
            return;
        }
    }
}

/// One request; `None` when the device is gone.
async fn request_of(
    shared: &Shared,
    c: &mut Connection,
    served: &ServedPlan,
    device: [u8; 16],
    sid: Option<Sid>,
    request: u64,
) -> Option<()> {
    if shared.eager.load(Ordering::SeqCst) {
        for step in served.plan.bundle().program(Role::EdgeA).map(|p| p.steps.as_slice()).unwrap_or_default() {
            if let Op::Send { to: Role::Device, slot, .. } = step.op {
                let bytes = served.plan.slot(slot).unwrap().bytes() as usize;
                let data = Data { request, slot: slot.0, payload: vec![0; bytes] };
                c.writer.write(&Message::Data(data)).await.ok()?;
            }
        }
        c.writer.flush().await.ok()?;
        while !matches!(c.reader.read(Deadline::never()).await.ok()?, Message::Abort(_)) {}
        return None;
    }
    let mut loaded = BTreeMap::new();
    if let Some(stock) = served.stock.get(&device) {
        for (slot, payload) in stock.take(request).unwrap() {
            loaded.insert(SlotId(slot), shared.correction(request, slot, payload));
        }
    }
    let plan = Arc::clone(&served.plan);
    let mut execution = Execution::new(plan, request, Secrets::EdgeA { loaded }, Vec::new()).unwrap();
    loop {
        let progress = execution.resume().unwrap();
        for Outgoing { slot, payload, .. } in execution.outgoing() {
            for item in shared.pass(Item { what: What::Reply, request, slot: slot.0, payload }) {
                let data = Data { request: item.request, slot: item.slot, payload: item.payload };
                c.writer.write(&Message::Data(data)).await.ok()?;
            }
        }
        c.writer.flush().await.ok()?;
        match progress {
            Progress::Done => return Some(()),
            Progress::Wait { from: Role::EdgeB, slot } => {
                let payload = shared.arrived(sid?, request, slot.0).await?;
                let payload = shared.correction(request, slot.0, payload);
                execution.supply(Role::EdgeB, slot, payload).unwrap();
            }
            Progress::Wait { from, .. } => match c.reader.read(Deadline::never()).await.ok()? {
                Message::Data(data) => execution.supply(from, SlotId(data.slot), data.payload).unwrap(),
                _ => return None,
            },
        }
    }
}
