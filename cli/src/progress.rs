//! A spinner for work of more than a second, on terminals only.

use std::io::IsTerminal;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::console::Console;

/// Shows what is being done until it is dropped.
pub struct Progress {
    // Dropping the sender ends the thread that draws.
    _done: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Progress {
    /// Starts. Nothing is drawn before a second has passed, and nothing at all if stderr is no terminal.
    pub fn start(console: &Console, what: impl Into<String>) -> Progress {
        if console.is_json() || !std::io::stderr().is_terminal() {
            return Progress { _done: None, thread: None };
        }
        let what = what.into();
        let (done, waiting) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let ended = |wait| !matches!(waiting.recv_timeout(wait), Err(std::sync::mpsc::RecvTimeoutError::Timeout));
            if ended(Duration::from_secs(1)) {
                return;
            }
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message(what);
            while !ended(Duration::from_millis(100)) {
                bar.tick();
            }
            bar.finish_and_clear();
        });
        Progress { _done: Some(done), thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self._done = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
