//! Where an edge computes: few computations at a time, in the order in which they were asked for.

use std::sync::Arc;

use pponnx_engine::LoadedPlan;
use pponnx_plans::value::Role;
use tokio::sync::Semaphore;

use crate::error::NodeError;

/// A plan with at most this many mult-adds a round on average is computed where its messages are read: handing the work
/// to another thread and back would cost more than the work.
const LIGHT: u64 = 1 << 20;

/// As [`LIGHT`], for bytes that the device encodes or decodes in a round.
const LIGHT_BYTES: u64 = 1 << 16;

/// Whether a role's steps are short.
pub(crate) fn is_light(plan: &LoadedPlan) -> bool {
    let cost = &plan.bundle().cost;
    let rounds = cost.rounds.max(1);
    match plan.role() {
        Role::EdgeA => cost.mult_adds_edge_a / rounds <= LIGHT,
        // What the edges do not multiply the device does.
        Role::Device => {
            let local = plan.bundle().header.total_mult_adds.saturating_sub(cost.mult_adds_edge_a);
            local / rounds <= LIGHT && cost.bytes_up.saturating_add(cost.bytes_down) / rounds <= LIGHT_BYTES
        }
        // Edge B computes the corrections of a whole request in one go.
        Role::EdgeB | Role::Offline => cost.mult_adds_edge_b <= LIGHT,
    }
}

/// Threads that compute for one edge.
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    /// As many at once as the processor has cores, where each operation takes `each` of them.
    pub(crate) fn new(each: usize) -> Threads {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Threads(Arc::new(Semaphore::new((cores / each.max(1)).max(1))))
    }

    /// Computes: at once if the work is light, else when a thread is free.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        light: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        if light {
            return Ok(work());
        }
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(|e| NodeError::Internal(e.to_string()))?;
        // The place goes with the work: a request that is dropped meanwhile does not make its thread free any sooner.
        blocking(move || {
            let done = work();
            drop(place);
            done
        })
        .await
    }
}

/// Runs file access or arithmetic away from the threads that move frames.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(f).await.map_err(|e| NodeError::Internal(e.to_string()))
}
