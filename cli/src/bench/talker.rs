//! A process that is spoken to in lines of JSON: one order on its stdin, one answer on its stdout.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

/// A process under orders; killed when dropped.
pub struct Talker {
    process: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
    errors: PathBuf,
}

impl Talker {
    /// Starts a process; its stderr goes to the file `errors`.
    ///
    /// # Errors
    /// A sentence.
    pub fn start(mut command: Command, errors: PathBuf) -> Result<Talker, String> {
        let file = File::create(&errors).map_err(|e| format!("cannot write `{}`: {e}", errors.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut process = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
        let (orders, answers) = (process.stdin.take(), process.stdout.take());
        let (told, heard) = channel();
        // A thread, because a pipe cannot be read with a time limit. It ends with the process.
        std::thread::spawn(move || {
            let lines = answers.into_iter().flat_map(|out| BufReader::new(out).lines());
            for line in lines.map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Talker { process, orders, answers: heard, errors })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Gives an order and waits for its answer.
    ///
    /// # Errors
    /// A sentence, with what the process said if it ended.
    pub fn ask(&mut self, order: &Value, within: Duration) -> Result<Value, String> {
        let written = match &mut self.orders {
            Some(orders) => writeln!(orders, "{order}").and_then(|()| orders.flush()),
            None => return Err("has been told to end".into()),
        };
        if written.is_err() {
            return Err(self.gone());
        }
        self.answer(within)
    }

    /// Waits for a line.
    ///
    /// # Errors
    /// As [`Talker::ask`].
    pub fn answer(&mut self, within: Duration) -> Result<Value, String> {
        match self.answers.recv_timeout(within) {
            Ok(line) => serde_json::from_str(&line).map_err(|e| format!("said what is no JSON ({e}): {line}")),
            Err(RecvTimeoutError::Timeout) => Err(format!("said nothing for {} s", within.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
        }
    }

    /// Closes its stdin, which ends it, and waits a moment.
    pub fn end(mut self) {
        self.orders = None;
        let _ = self.answers.recv_timeout(Duration::from_secs(5));
    }

    fn gone(&mut self) -> String {
        // Its last words may still be on the way.
        let _ = self.process.wait();
        let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
        match said.trim() {
            "" => "ended without a word".into(),
            said => format!("ended: {said}"),
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn shell(script: &str) -> (Talker, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        (Talker::start(command, dir.path().join("errors")).unwrap(), dir)
    }

    #[test]
    fn answers_follow_orders() {
        let (mut talker, _dir) = shell("cat");
        assert_eq!(talker.ask(&json!({"a": 1}), Duration::from_secs(10)).unwrap(), json!({"a": 1}));
        talker.end();
    }

    #[test]
    fn silence_nonsense_and_an_end_are_told_apart() {
        let within = Duration::from_millis(50);
        assert!(shell("sleep 10").0.ask(&json!(1), within).unwrap_err().contains("nothing"));
        let patient = Duration::from_secs(10);
        assert!(shell("echo no json; cat >/dev/null").0.ask(&json!(1), patient).unwrap_err().contains("no JSON"));
        assert!(shell("echo why >&2; exit 3").0.answer(patient).unwrap_err().contains("why"));
    }
}
