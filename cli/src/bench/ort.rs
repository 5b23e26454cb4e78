//! onnxruntime, by way of a Python script that this program carries (`tests/bench/ort.py`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pponnx_plans::plan::Port;
use serde_json::{Value, json};

use crate::bench::talker::Talker;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Environment variable that names the Python to use.
pub const VARIABLE: &str = "PPONNX_PYTHON";
const SCRIPT: &str = include_str!("../../../tests/bench/ort.py");
/// How long one order may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A Python process with onnxruntime.
pub struct Ort {
    talker: Talker,
    /// Version of onnxruntime.
    pub version: String,
}

/// What one order to run measured, a value each run.
pub struct Runs {
    /// Wall time in milliseconds.
    pub wall_ms: Vec<f64>,
    /// CPU time of the process, in milliseconds.
    pub cpu_ms: Vec<f64>,
}

/// Starts it; `None` after a line that says why, unless it is required.
pub fn start(console: &Console, folder: &Path, required: bool) -> Outcome<Option<Ort>> {
    let python = python();
    match Ort::start(&python, folder) {
        Ok(ort) => Ok(Some(ort)),
        Err(why) => {
            let said = format!("no onnxruntime with {}: {why}", python.display());
            let help =
                format!("`python3 tests/bench/install.py` installs it; or name a Python that has it in {VARIABLE}");
            if required {
                return Err(Box::new(Failure::new(Exit::Configuration, "pponnx::bench::ort", said).help(help)));
            }
            console.note(format!("{said}; its numbers are left out. {help}"));
            Ok(None)
        }
    }
}

/// The Python that is told, or that has onnxruntime by way of `install.py`, or whichever there is.
fn python() -> PathBuf {
    if let Some(told) = std::env::var_os(VARIABLE) {
        return told.into();
    }
    let own = Path::new("tests/bench/.venv/bin/python");
    if own.exists() { own.into() } else { "python3".into() }
}

impl Ort {
    fn start(python: &Path, folder: &Path) -> Result<Ort, String> {
        let mut command = Command::new(python);
        command.args(["-u", "-c", SCRIPT]);
        let talker = Talker::start(command, folder.join("ort.err"))?;
        let mut ort = Ort { talker, version: String::new() };
        let hello = ort.ask(&json!({ "op": "hello" }))?;
        ort.version = hello.get("version").and_then(Value::as_str).unwrap_or("?").to_owned();
        Ok(ort)
    }

    fn ask(&mut self, order: &Value) -> Result<Value, String> {
        let answer = self.talker.ask(order, PATIENCE).map_err(|e| last_line(&e))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    /// Loads a model file under a name, with random inputs for these ports.
    ///
    /// # Errors
    /// What onnxruntime says.
    pub fn load(&mut self, name: &str, model: &Path, threads: usize, inputs: &[Port]) -> Result<(), String> {
        let input = |p: &Port| json!({ "name": p.name, "shape": p.shape.0, "dtype": p.dtype.name() });
        let inputs: Vec<Value> = inputs.iter().map(input).collect();
        let path = model.to_str().ok_or("the path of the model is no text")?;
        self.ask(&json!({ "op": "load", "name": name, "path": path, "threads": threads, "inputs": inputs })).map(drop)
    }

    /// Loads one layer under its name; `order` is one of the script's `conv` and `matmul`.
    ///
    /// # Errors
    /// What onnxruntime says.
    pub fn layer(&mut self, order: &Value) -> Result<(), String> {
        self.ask(order).map(drop)
    }

    /// Runs what was loaded under a name.
    ///
    /// # Errors
    /// What onnxruntime says.
    pub fn run(&mut self, name: &str, repeat: usize) -> Result<Runs, String> {
        let answer = self.ask(&json!({ "op": "run", "name": name, "repeat": repeat }))?;
        Ok(Runs { wall_ms: numbers(&answer, "wall_ms"), cpu_ms: numbers(&answer, "cpu_ms") })
    }

    /// Frees what was loaded under a name.
    ///
    /// # Errors
    /// The process is gone.
    pub fn forget(&mut self, name: &str) -> Result<(), String> {
        self.ask(&json!({ "op": "drop", "name": name })).map(drop)
    }
}

/// A list of numbers in an answer.
pub fn numbers(answer: &Value, key: &str) -> Vec<f64> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// Of a Python traceback, the line that matters.
fn last_line(text: &str) -> String {
    text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or(text).to_owned()
}
