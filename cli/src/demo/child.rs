//! Processes of the demonstration: killed when dropped, whatever way the demonstration ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::{Duration, Instant};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};

/// How long a process gets to be ready, to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process of this program.
pub struct Child {
    name: &'static str,
    process: Process,
    errors: PathBuf,
}

impl Child {
    /// Starts this program with arguments. Its stdout goes to `NAME.out` and its stderr to `NAME.err` in `folder`.
    pub fn start(name: &'static str, folder: &Path, args: &[&std::ffi::OsStr]) -> Outcome<Child> {
        let program = std::env::current_exe().map_err(|e| failed(name, &format!("cannot find this program: {e}")))?;
        let create = |ending: &str| {
            let path = folder.join(format!("{name}.{ending}"));
            let file = File::create(&path).map_err(|e| Box::new(file_failure("write", &path, &e)))?;
            Ok::<_, Box<Failure>>((file, path))
        };
        let ((out, _), (err, errors)) = (create("out")?, create("err")?);
        let process = Command::new(program)
            .args(args)
            // Held open while we live: an edge ends when it closes.
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| failed(name, &format!("cannot be started: {e}")))?;
        Ok(Child { name, process, errors })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until the process has written the address it listens at.
    pub fn ready(&mut self, ready_file: &Path) -> Outcome<String> {
        let started = Instant::now();
        loop {
            // The file is renamed into place, so that it is never seen half-written.
            if let Ok(text) = std::fs::read_to_string(ready_file) {
                return Ok(text.trim().to_owned());
            }
            if self.ended()?.is_some() {
                return Err(self.gone("ended before it was ready"));
            }
            if started.elapsed() > PATIENCE {
                return Err(self.gone("is not ready after a minute"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the process ends; its stdout if it ended well.
    pub fn finish(mut self, folder: &Path) -> Outcome<String> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.ended()? {
                break status;
            }
            if started.elapsed() > PATIENCE {
                return Err(self.gone("has no answer after a minute"));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if !status.success() {
            return Err(self.gone("failed"));
        }
        let path = folder.join(format!("{}.out", self.name));
        std::fs::read_to_string(&path).map_err(|e| Box::new(file_failure("read", &path, &e)))
    }

    /// Asks an edge to end and waits for it.
    pub fn stop(mut self) -> Outcome<()> {
        drop(self.process.stdin.take());
        let started = Instant::now();
        while self.ended()?.is_none() {
            if started.elapsed() > Duration::from_secs(10) {
                // Dropping kills it.
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn ended(&mut self) -> Outcome<Option<std::process::ExitStatus>> {
        self.process.try_wait().map_err(|e| failed(self.name, &format!("cannot be watched: {e}")))
    }

    fn gone(&self, what: &str) -> Box<Failure> {
        let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let mut failure = failed(self.name, what);
        if !said.trim().is_empty() {
            failure.help = Some(format!("it said:\n{}", said.trim()));
        }
        failure
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn failed(name: &str, what: &str) -> Box<Failure> {
    Box::new(Failure::new(Exit::Network, "pponnx::demo::process", format!("the {name} process {what}")))
}
