//! What each request cost an edge: for benchmarks. Keeps nothing unless asked to.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::compute::Threads;
use crate::error::NodeError;
use crate::sessions::lock;

/// Most requests that are remembered.
const MOST: usize = 1 << 20;

/// Where the time of one request went at edge A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCost {
    /// The request's number in its session.
    pub request: u64,
    /// Running the program.
    pub compute: Duration,
    /// Waiting for a thread to run it on, with everything at hand.
    pub queue: Duration,
    /// Waiting for corrections that were not there yet.
    pub correction: Duration,
}

impl RequestCost {
    /// Runs a part of the program where the edge computes.
    pub(crate) async fn compute<T: Send + 'static>(
        &mut self,
        threads: &Threads,
        light: bool,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        let asked = Instant::now();
        let timed = move || {
            let started = Instant::now();
            let result = f();
            (result, started, Instant::now())
        };
        let (result, started, ended) = threads.run(light, timed).await?;
        self.queue += started - asked;
        self.compute += ended - started;
        Ok(result)
    }

    /// Waits for a correction.
    pub(crate) async fn correction<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let result = wait.await;
        self.correction += asked.elapsed();
        result
    }
}

/// Collects costs once it is told to.
#[derive(Debug, Default)]
pub struct Meter {
    kept: Mutex<Option<Vec<RequestCost>>>,
}

impl Meter {
    /// Remembers the requests that end from now on.
    pub fn keep(&self) {
        lock(&self.kept).get_or_insert_default();
    }

    /// What was remembered since the last call, in the order in which requests ended.
    pub fn take(&self) -> Vec<RequestCost> {
        lock(&self.kept).as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn add(&self, cost: RequestCost) {
        if let Some(kept) = lock(&self.kept).as_mut()
            && kept.len() < MOST
        {
            kept.push(cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_unless_asked() {
        let meter = Meter::default();
        let cost = RequestCost { request: 3, ..RequestCost::default() };
        meter.add(cost);
        assert!(meter.take().is_empty());
        meter.keep();
        meter.add(cost);
        assert_eq!(meter.take(), [cost]);
        assert!(meter.take().is_empty());
    }
}
