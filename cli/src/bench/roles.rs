//! The roles as processes of their own: compiled into a temporary folder, started, measured from outside.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use serde_json::Value;

use crate::args::{ModelOptions, Scheme};
use crate::bench::clock::peak_memory;
use crate::bench::talker::Talker;
use crate::demo::child::Child;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::isa;
use crate::owner::folders::device_folder;
use crate::plan::read_plan;

/// How long the device process gets to connect all its devices.
const CONNECT: Duration = Duration::from_secs(120);

/// What is compiled.
pub struct Job<'a> {
    /// The model file.
    pub model: &'a Path,
    /// How it is compiled.
    pub options: &'a ModelOptions,
    /// Devices.
    pub devices: u16,
    /// Requests that are dealt to each, in schemes that deal.
    pub requests: u64,
    /// Threads of a kernel at the edges.
    pub threads: u16,
}

/// What compiling cost.
#[derive(Clone, Copy, Debug)]
pub struct Compiling {
    /// Wall time of the process in milliseconds.
    pub wall_ms: f64,
    /// Its largest resident memory in bytes, as far as the system tells.
    pub peak: Option<u64>,
}

/// Compiles a model into `out` below the folder, in a process of its own.
pub fn compile(job: &Job<'_>, folder: &Path) -> Outcome<Compiling> {
    let out = folder.join("out");
    let mut args = words(["--json", "compile"]);
    args.push(job.model.into());
    args.push("-o".into());
    args.push(out.into());
    args.extend(words(["--scheme", job.options.scheme.name(), "--precision", job.options.precision.name()]));
    args.extend(words(["--devices", &job.devices.to_string()]));
    for (name, shape) in &job.options.shapes {
        let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
        args.extend(words(["--shape", &format!("{name}={}", dims.join("x"))]));
    }
    if job.options.scheme.is_dealt() {
        args.extend(words(["--requests", &job.requests.to_string()]));
    }
    if job.options.scheme == Scheme::Plain {
        args.push("--allow-plain".into());
    }
    let (said, errors) = (folder.join("compile.out"), folder.join("compile.err"));
    let create = |path: &Path| std::fs::File::create(path).map_err(|e| Box::new(file_failure("write", path, &e)));
    let started = Instant::now();
    let mut child = own_process(&args)?;
    child.stdin(std::process::Stdio::null()).stdout(create(&said)?).stderr(create(&errors)?);
    let mut child = child.spawn().map_err(|e| Failure::internal(format!("cannot compile: {e}")))?;
    let mut peak = None;
    let status = loop {
        // The peak never falls, so the last look is the one that counts.
        peak = peak_memory(child.id()).or(peak);
        if let Some(status) = child.try_wait().map_err(|e| Failure::internal(e.to_string()))? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall_ms = started.elapsed().as_secs_f64() * 1e3;
    if status.success() {
        return Ok(Compiling { wall_ms, peak });
    }
    let printed = std::fs::read_to_string(&said).unwrap_or_default();
    let result: Value = serde_json::from_str(&printed).unwrap_or_default();
    Err(match result.get("error") {
        Some(error) => Box::new(retold(error)),
        None => Box::new(Failure::internal(std::fs::read_to_string(&errors).unwrap_or_default())),
    })
}

/// What another process of this program gave as its reason, as our own.
fn retold(error: &Value) -> Failure {
    const EXITS: [Exit; 6] =
        [Exit::Usage, Exit::Refused, Exit::Configuration, Exit::Network, Exit::Integrity, Exit::Spent];
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
    let code = error.get("exit").and_then(Value::as_u64);
    let exit = EXITS.into_iter().find(|e| code == Some(*e as u64)).unwrap_or(Exit::Internal);
    let message = text("message").unwrap_or_default();
    let mut failure = Failure::new(exit, text("code").unwrap_or_else(|| "pponnx::internal".into()), message);
    failure.help = text("help");
    failure.related = error.get("problems").and_then(Value::as_array).into_iter().flatten().map(retold).collect();
    failure
}

/// The running roles.
pub struct Roles {
    edge_a: Child,
    edge_b: Option<Child>,
    device: Talker,
    /// What they run.
    pub bundle: Arc<ValidBundle>,
    /// Milliseconds from the start of edge A's process until it was ready.
    pub edge_a_start_ms: f64,
    costs: PathBuf,
}

impl Roles {
    /// Starts the edges, then the devices, and waits until these are connected.
    pub fn start(job: &Job<'_>, folder: &Path) -> Outcome<Roles> {
        let out = folder.join("out");
        let bundle = read_plan(&out.join("device/device.plan"), Role::Device)?.bundle;
        let costs = folder.join("edge-a.costs");
        let edge = |name: &'static str, more: Vec<OsString>| -> Outcome<(Child, String, f64)> {
            let ready = folder.join(format!("{name}.ready"));
            let mut args = words(["--json", "serve", "--until-stdin-closes", "--listen", "127.0.0.1:0"]);
            args.extend(words(["--threads", &job.threads.to_string()]));
            args.extend(["-c".into(), out.join(name).join("edge.toml").into()]);
            args.extend(["--ready-file".into(), OsString::from(&ready)]);
            args.extend(more);
            let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
            let started = Instant::now();
            let mut child = Child::start(name, folder, &args)?;
            let address = child.ready(&ready)?;
            Ok((child, address, started.elapsed().as_secs_f64() * 1e3))
        };
        let (edge_a, address_a, edge_a_start_ms) = edge("edge-a", vec!["--costs".into(), OsString::from(&costs)])?;
        let edge_b = match bundle.has_role(Role::EdgeB) {
            true if job.options.scheme == Scheme::Relay => Some(edge("edge-b", words(["--edge-a", &address_a]))?),
            true => Some(edge("edge-b", Vec::new())?),
            false => None,
        };
        let mut args = words(["--json", "bench", "device", "--edge-a", &address_a]);
        if let Some((_, address, _)) = &edge_b {
            args.extend(words(["--edge-b", address]));
        }
        for index in 0..usize::from(job.devices) {
            args.extend(["-c".into(), out.join(device_folder(index)).join("device.toml").into()]);
        }
        let mut device = Talker::start(own_process(&args)?, folder.join("device.err")).map_err(device_failed)?;
        device.answer(CONNECT).map_err(device_failed)?;
        let edge_b = edge_b.map(|(child, _, _)| child);
        Ok(Roles { edge_a, edge_b, device, bundle, edge_a_start_ms, costs })
    }

    /// Gives the device process an order.
    pub fn order(&mut self, order: &Value, within: Duration) -> Outcome<Value> {
        let answer = self.device.ask(order, within).map_err(device_failed)?;
        match answer.get("error").and_then(|e| e.get("message")).and_then(Value::as_str) {
            Some(error) => Err(device_failed(error.to_owned())),
            None => Ok(answer),
        }
    }

    /// Process ids of device, edge A and edge B.
    pub fn ids(&self) -> (u32, u32, Option<u32>) {
        (self.device.id(), self.edge_a.id(), self.edge_b.as_ref().map(Child::id))
    }

    /// Ends all roles; what requests cost edge A, as it wrote it.
    pub fn stop(self) -> Outcome<Vec<Cost>> {
        self.device.end();
        if let Some(edge_b) = self.edge_b {
            edge_b.stop()?;
        }
        self.edge_a.stop()?;
        read_costs(&self.costs)
    }
}

/// What one request cost edge A, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Its number.
    pub request: u64,
    /// Running the program.
    pub compute: f64,
    /// Waiting for a thread.
    pub queue: f64,
    /// Waiting for corrections.
    pub correction: f64,
}

fn read_costs(path: &Path) -> Outcome<Vec<Cost>> {
    let text = std::fs::read_to_string(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    let of = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        let field = |key: &str| value.get(key)?.as_f64();
        let request = value.get("request")?.as_u64()?;
        Some(Cost {
            request,
            compute: field("compute_ms")?,
            queue: field("queue_ms")?,
            correction: field("correction_ms")?,
        })
    };
    let costs: Option<Vec<Cost>> = text.lines().map(of).collect();
    costs.ok_or_else(|| Box::new(Failure::internal(format!("edge A wrote what is no cost to `{}`", path.display()))))
}

/// Bytes of all files below a folder.
pub fn size_of_files(folder: &Path) -> Outcome<u64> {
    let failed = |e| Box::new(file_failure("read", folder, &e));
    let mut size = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let meta = entry.metadata().map_err(failed)?;
        size += if meta.is_dir() { size_of_files(&entry.path())? } else { meta.len() };
    }
    Ok(size)
}

fn own_process(args: &[OsString]) -> Outcome<Command> {
    let program = std::env::current_exe().map_err(|e| Failure::internal(format!("cannot find this program: {e}")))?;
    let mut command = Command::new(program);
    command.args(args);
    // Says a wrong name here, once, and not in every process.
    isa::kernels()?;
    Ok(command)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

fn device_failed(what: String) -> Box<Failure> {
    Box::new(Failure::new(Exit::Network, "pponnx::bench::process", format!("the device process {what}")))
}
