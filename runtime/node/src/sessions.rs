//! Edge A's sessions: corrections that edge B sent ahead, by request and slot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pponnx_engine::LoadedPlan;
use pponnx_plans::value::{Role, SlotId};
use pponnx_wire::message::{Abort, BundleDigest, Correction, DeviceId, Message, Session as Announced, Sid};
use tokio::sync::{Notify, mpsc};

/// Locks even if another thread panicked while it held the lock: the maps are consistent after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why there is no correction.
#[derive(Debug)]
pub(crate) enum NoCorrection {
    /// The session ended: edge B, or the device's connection to it, is gone.
    Closed,
    /// Edge B gave up on this request.
    Aborted(Abort),
    /// The request is over, or was never within the credit.
    NotHeld,
}

struct Held {
    /// Lowest request that has not begun: all below it are under way or burnt.
    next: u64,
    /// Requests under way.
    running: BTreeSet<u64>,
    /// First request for which edge B has no credit.
    upto: u64,
    corrections: BTreeMap<(u64, SlotId), Vec<u8>>,
    aborted: BTreeMap<u64, Abort>,
    closed: bool,
}

impl Held {
    /// Whether a request may still run.
    fn wants(&self, request: u64) -> bool {
        request >= self.next || self.running.contains(&request)
    }
}

/// One session of one device.
pub(crate) struct Session {
    pub(crate) sid: Sid,
    pub(crate) device: DeviceId,
    pub(crate) bundle: BundleDigest,
    plan: Arc<LoadedPlan>,
    prefetch: u64,
    link: mpsc::UnboundedSender<Message>,
    held: Mutex<Held>,
    arrived: Notify,
}

impl Session {
    pub(crate) fn new(
        announced: &Announced,
        plan: Arc<LoadedPlan>,
        prefetch: u64,
        link: mpsc::UnboundedSender<Message>,
    ) -> Arc<Session> {
        let prefetch = prefetch.max(1);
        Arc::new(Session {
            sid: announced.sid,
            device: announced.device,
            bundle: announced.bundle,
            plan,
            prefetch,
            link,
            held: Mutex::new(Held {
                next: 0,
                running: BTreeSet::new(),
                upto: prefetch,
                corrections: BTreeMap::new(),
                aborted: BTreeMap::new(),
                closed: false,
            }),
            arrived: Notify::new(),
        })
    }

    /// Grants the first credit, once the session is known by its name.
    pub(crate) fn open(&self) {
        self.grant(self.prefetch);
    }

    fn grant(&self, upto_request: u64) {
        // a closed link closes the session as well; there is nobody left to tell
        let _ = self.link.send(Message::Credit { sid: self.sid, upto_request });
    }

    /// Takes a correction from edge B.
    ///
    /// # Errors
    /// A sentence, if it is not one that the credit and the plan allow.
    pub(crate) fn put(&self, c: Correction) -> Result<(), String> {
        let slot = SlotId(c.slot);
        let Some(bytes) = self.plan.expects(Role::EdgeB, slot) else {
            return Err(format!("a correction for slot {slot}, which takes none"));
        };
        if bytes != c.payload.len() as u64 {
            return Err(format!("a correction of {} bytes for slot {slot}, which takes {bytes}", c.payload.len()));
        }
        let mut held = lock(&self.held);
        if c.request >= held.upto {
            return Err(format!("a correction for request {} beyond the credit of {}", c.request, held.upto));
        }
        // a request that was abandoned before its corrections arrived
        if held.wants(c.request) && held.corrections.insert((c.request, slot), c.payload).is_some() {
            return Err(format!("a second correction for request {}, slot {slot}", c.request));
        }
        drop(held);
        self.arrived.notify_waiters();
        Ok(())
    }

    /// Edge B will send no (more) corrections for a request.
    pub(crate) fn abort(&self, abort: Abort) {
        let mut held = lock(&self.held);
        if held.wants(abort.request) && abort.request < held.upto {
            held.aborted.insert(abort.request, abort);
        }
        drop(held);
        self.arrived.notify_waiters();
    }

    /// Waits for a correction; it is handed out once.
    pub(crate) async fn take(&self, request: u64, slot: SlotId) -> Result<Vec<u8>, NoCorrection> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // registered before the look, so that nothing that arrives in between is missed
            arrived.as_mut().enable();
            {
                let mut held = lock(&self.held);
                if let Some(payload) = held.corrections.remove(&(request, slot)) {
                    return Ok(payload);
                }
                if let Some(abort) = held.aborted.get(&request) {
                    return Err(NoCorrection::Aborted(abort.clone()));
                }
                if !held.wants(request) {
                    return Err(NoCorrection::NotHeld);
                }
                if held.closed {
                    return Err(NoCorrection::Closed);
                }
            }
            arrived.await;
        }
    }

    /// A request starts. Numbers begin in rising order: those below that never began are burnt.
    pub(crate) fn begin(&self, request: u64) {
        self.change(|held| {
            held.next = held.next.max(request.saturating_add(1));
            held.running.insert(request);
        });
    }

    /// A request is over, with or without a result.
    pub(crate) fn finish(&self, request: u64) {
        self.change(|held| {
            held.running.remove(&request);
        });
    }

    /// Drops what no request will take any more, and lets edge B run ahead of the lowest that may still run: what waits
    /// here is for `prefetch` requests, or for those under way if they are more.
    fn change(&self, change: impl FnOnce(&mut Held)) {
        let mut held = lock(&self.held);
        change(&mut held);
        let Held { next, running, corrections, aborted, upto, .. } = &mut *held;
        let wanted = |request: u64| request >= *next || running.contains(&request);
        corrections.retain(|(request, _), _| wanted(*request));
        aborted.retain(|request, _| wanted(*request));
        let lowest = running.first().copied().unwrap_or(*next);
        let granted = lowest.saturating_add(self.prefetch).max(*next);
        let more = granted > *upto;
        *upto = granted.max(*upto);
        drop(held);
        if more {
            self.grant(granted);
        }
    }

    /// The session is over.
    pub(crate) fn close(&self) {
        lock(&self.held).closed = true;
        self.arrived.notify_waiters();
    }
}

/// All sessions by name.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<Sid, Arc<Session>>>);

impl Sessions {
    /// Adds a session; false if the name is taken or there are too many.
    pub(crate) fn insert(&self, session: Arc<Session>, limit: usize) -> bool {
        let mut all = lock(&self.0);
        if all.len() >= limit || all.contains_key(&session.sid) {
            return false;
        }
        all.insert(session.sid, session);
        true
    }

    /// The session with this name.
    pub(crate) fn find(&self, sid: &Sid) -> Option<Arc<Session>> {
        lock(&self.0).get(sid).cloned()
    }

    /// Ends a session.
    pub(crate) fn remove(&self, sid: &Sid) {
        if let Some(session) = lock(&self.0).remove(sid) {
            session.close();
        }
    }
}
