//! Several futures in one task: the requests of a connection, polled by whoever owns the connection.
//!
//! They share the task, so that a message which the task reads reaches its request without a change of threads.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Member<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A small set of futures, each with a tag.
pub(crate) struct Crowd<'a, K, T> {
    members: Vec<(K, Member<'a, T>)>,
}

impl<'a, K, T> Crowd<'a, K, T> {
    pub(crate) fn new() -> Crowd<'a, K, T> {
        Crowd { members: Vec::new() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds a future; it starts with the next [`Crowd::next`].
    pub(crate) fn push(&mut self, tag: K, future: impl Future<Output = T> + Send + 'a) {
        self.members.push((tag, Box::pin(future)));
    }

    /// The tags, in the order in which they were pushed.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &K> {
        self.members.iter().map(|(tag, _)| tag)
    }

    /// The tag that `wanted` chooses.
    pub(crate) fn find_mut(&mut self, wanted: impl Fn(&K) -> bool) -> Option<&mut K> {
        self.members.iter_mut().map(|(tag, _)| tag).find(|tag| wanted(tag))
    }

    /// Polls them all, in the order in which they were pushed, until one is done; never done while there are none. Safe to
    /// cancel.
    pub(crate) async fn next(&mut self) -> (K, T) {
        poll_fn(|cx| {
            for at in 0..self.members.len() {
                let Some((_, member)) = self.members.get_mut(at) else { break };
                if let Poll::Ready(done) = member.as_mut().poll(cx) {
                    let (tag, _) = self.members.remove(at);
                    return Poll::Ready((tag, done));
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn whoever_is_done_first_comes_first() {
        let mut crowd = Crowd::new();
        let (first, waits) = oneshot::channel::<u8>();
        crowd.push('a', async { waits.await.unwrap() });
        crowd.push('b', async { 2 });
        assert_eq!(crowd.next().await, ('b', 2));
        assert_eq!(crowd.len(), 1);
        first.send(1).unwrap();
        assert_eq!(crowd.next().await, ('a', 1));
        assert!(crowd.is_empty());
    }
}
