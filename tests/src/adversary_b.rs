//! A lying edge B: derives the right session, runs the real program, and lets a closure alter its corrections.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pponnx_engine::{Execution, LoadedPlan, Outgoing, Secrets};
use pponnx_keys::{KeyFile, SessionKey, SessionNonce};
use pponnx_net::{ClientTls, Connection, Deadline, Identity, Listener, ServerTls, connect};
use pponnx_node::topology::Corrections;
use pponnx_node::{EdgeAddress, EdgeSettings};
use pponnx_wire::Limits;
use pponnx_wire::message::{Correction, Data, Message, Session};
use pponnx_wire::states::edge::{AwaitHelloAtB, greet_edge_a};
use tokio::task::JoinHandle;

/// Alters the correction of a request and slot.
pub type Wrong = Arc<Mutex<dyn FnMut(u64, u32, &mut Vec<u8>) + Send>>;

/// A running lying edge B that serves one plan.
pub struct EvilB {
    /// Where it listens.
    pub address: String,
    task: JoinHandle<()>,
}

struct Own {
    plan: Arc<LoadedPlan>,
    keys: std::path::PathBuf,
    identity: Identity,
    edge_a: EdgeAddress,
    /// Corrections of requests below this are sent, whatever edge A grants.
    ahead: u64,
    wrong: Wrong,
}

impl EvilB {
    /// Starts it with an honest edge's settings; it sends corrections for `ahead` requests at once.
    pub async fn start(
        mut settings: EdgeSettings,
        ahead: u64,
        wrong: impl FnMut(u64, u32, &mut Vec<u8>) + Send + 'static,
    ) -> EvilB {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = ServerTls::new(&settings.identity, |_| true).unwrap();
        let served = settings.plans.remove(0);
        let own = Arc::new(Own {
            plan: served.plan,
            keys: served.keys.unwrap(),
            identity: settings.identity,
            edge_a: settings.edge_a.unwrap(),
            ahead,
            wrong: Arc::new(Mutex::new(wrong)),
        });
        let task = tokio::spawn(async move {
            let mut calls = tokio::task::JoinSet::new();
            while let Ok(incoming) = listener.accept().await {
                let (tls, own) = (tls.clone(), Arc::clone(&own));
                calls.spawn(async move {
                    let Ok(c) = incoming.handshake(&tls, soon()).await else { return };
                    device(&own, c).await;
                });
            }
        });
        EvilB { address, task }
    }
}

impl Drop for EvilB {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

impl Own {
    fn corrections(&self, session: &Arc<SessionKey>, request: u64) -> Vec<(u32, Vec<u8>)> {
        let secrets = Secrets::EdgeB { session: Arc::clone(session) };
        let mut execution = Execution::new(Arc::clone(&self.plan), request, secrets, Vec::new()).unwrap();
        execution.resume().unwrap();
        let mut wrong = self.wrong.lock().unwrap();
        let mut alter = |Outgoing { slot, mut payload, .. }: Outgoing| {
            wrong(request, slot.0, &mut payload);
            (slot.0, payload)
        };
        execution.outgoing().into_iter().map(&mut alter).collect()
    }
}

async fn device(own: &Own, mut c: Connection) {
    let state = AwaitHelloAtB.handle(c.reader.read(soon()).await.unwrap()).unwrap();
    let hello = state.hello().clone();
    let (open, welcome) = state.welcome(1);
    c.writer.write(&welcome).await.unwrap();
    c.writer.flush().await.unwrap();
    let opening = open.handle(c.reader.read(soon()).await.unwrap()).unwrap();
    let key = KeyFile::accept(&own.keys.join(KeyFile::name_for(&hello.device)), opening.epoch()).unwrap();
    let session = Arc::new(SessionKey::session(&key.key, &SessionNonce(*opening.nonce().as_bytes())));
    let sid = session.sid();
    let mut link = None;
    if Corrections::of(own.plan.bundle()).attaches() {
        let tls = ClientTls::new(&own.identity, &[own.edge_a.pin]).unwrap();
        let mut a = connect(&own.edge_a.address, &tls, soon()).await.unwrap();
        let (_, hello_a) = greet_edge_a([0; 32]);
        a.writer.write(&hello_a).await.unwrap();
        a.writer.flush().await.unwrap();
        a.reader.read(soon()).await.unwrap();
        let announced = Session { sid, device: hello.device, bundle: hello.bundle };
        a.writer.write(&Message::Session(announced)).await.unwrap();
        a.writer.flush().await.unwrap();
        a.reader.read(soon()).await.unwrap();
        for request in 0..own.ahead {
            for (slot, payload) in own.corrections(&session, request) {
                // edge A may have closed the link by now
                let correction = Message::Correction(Correction { sid, request, slot, payload });
                let _ = a.writer.write(&correction).await;
            }
        }
        let _ = a.writer.flush().await;
        link = Some(a);
    }
    let (_, opened) = opening.opened(sid);
    c.writer.write(&opened).await.unwrap();
    c.writer.flush().await.unwrap();
    c.reader.set_limits(Limits::handshake());
    while let Ok(message) = c.reader.read(Deadline::never()).await {
        if let Message::Begin { request } = message {
            for (slot, payload) in own.corrections(&session, request) {
                let _ = c.writer.write(&Message::Data(Data { request, slot, payload })).await;
            }
            let _ = c.writer.flush().await;
        }
    }
    drop(link);
}
