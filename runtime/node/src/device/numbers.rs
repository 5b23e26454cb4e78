//! Request numbers: each is handed out once, and begun in rising order however long its request takes to encode.

use std::collections::BTreeSet;
use std::sync::Mutex;

use pponnx_keys::Ledger;
use tokio::sync::Notify;

use crate::error::NodeError;
use crate::sessions::lock;

struct State {
    /// Owner-dealt schemes: numbers are reserved here, durably, before they are used.
    ledger: Option<Ledger>,
    /// Elsewhere: a session starts at 0.
    next: u64,
    /// Handed out and not begun yet.
    waiting: BTreeSet<u64>,
}

/// The source of request numbers.
pub(super) struct Numbers {
    state: Mutex<State>,
    moved: Notify,
}

/// A number that was handed out. It is burnt whatever happens; dropping the turn lets the next ones begin.
pub(super) struct Turn<'a> {
    numbers: &'a Numbers,
    /// The number.
    pub(super) request: u64,
}

impl Numbers {
    pub(super) fn new(ledger: Option<Ledger>) -> Numbers {
        Numbers { state: Mutex::new(State { ledger, next: 0, waiting: BTreeSet::new() }), moved: Notify::new() }
    }

    /// The next number.
    ///
    /// # Errors
    /// [`NodeError::Ledger`] if there is none left or the ledger cannot be written.
    pub(super) fn take(&self) -> Result<Turn<'_>, NodeError> {
        let mut state = lock(&self.state);
        let request = match &mut state.ledger {
            Some(ledger) => ledger.next_request()?,
            None => {
                let request = state.next;
                state.next += 1;
                request
            }
        };
        state.waiting.insert(request);
        Ok(Turn { numbers: self, request })
    }
}

impl Turn<'_> {
    /// Waits until every lower number has begun or was given up. Edges take numbers in rising order only.
    pub(super) async fn first(&self) {
        loop {
            let moved = self.numbers.moved.notified();
            tokio::pin!(moved);
            // registered before the look, so that nothing that happens in between is missed
            moved.as_mut().enable();
            if lock(&self.numbers.state).waiting.first().is_none_or(|lowest| *lowest >= self.request) {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.numbers.state).waiting.remove(&self.request);
        self.numbers.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    async fn waits(turn: &Turn<'_>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), turn.first()).await.is_err()
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_the_numbers() {
        let numbers = Numbers::new(None);
        let (a, b, c) = (numbers.take().unwrap(), numbers.take().unwrap(), numbers.take().unwrap());
        assert_eq!((a.request, b.request, c.request), (0, 1, 2));
        a.first().await;
        assert!(waits(&c).await);
        drop(b);
        assert!(waits(&c).await);
        drop(a);
        assert!(!waits(&c).await);
    }
}
