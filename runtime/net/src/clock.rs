//! Deadlines.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{NetError, Phase};

/// A point in time by which something must be done, or none. `Copy`, so that one deadline can bound several steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now.
    pub fn after(duration: Duration) -> Deadline {
        // A duration beyond the clock's range is as good as none.
        Deadline(Instant::now().checked_add(duration))
    }

    /// At this time.
    pub fn at(instant: Instant) -> Deadline {
        Deadline(Some(instant))
    }

    /// None: waits for ever. Only where the peer may rightly be silent for any time.
    pub fn never() -> Deadline {
        Deadline(None)
    }

    /// Whichever of the two comes first.
    pub fn earlier(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.min(b))),
            (a, b) => Deadline(a.or(b)),
        }
    }

    /// The instant, if there is one.
    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Runs a future until it is done or the deadline passes; the future is then dropped.
    ///
    /// # Errors
    /// The future's, or [`NetError::Timeout`] with this phase and the time waited here.
    pub async fn bound<T>(
        self,
        phase: Phase,
        future: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        let Some(instant) = self.0 else { return future.await };
        let start = Instant::now();
        match tokio::time::timeout_at(instant, future).await {
            Ok(result) => result,
            Err(_) => Err(NetError::Timeout { phase, after: start.elapsed() }),
        }
    }
}
