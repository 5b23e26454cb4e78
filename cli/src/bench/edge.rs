//! `pponnx bench edge`: one edge under many devices at once.
//!
//! The devices share a process, the edges have one each. Every device has one request under way at any time. The limit to
//! compare with is what the kernels alone would allow: the processors, divided by the CPU time that the edge's program
//! takes for one request with nothing around it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pponnx_engine::{Execution, LoadedPlan, Outgoing, Progress as Step, Secrets};
use pponnx_keys::{EpochKey, SessionKey, SessionNonce};
use pponnx_plans::constant::ConstStore;
use pponnx_plans::value::{Role, SlotId};
use serde_json::{Map, Value, json};

use crate::args::Scheme;
use crate::bench::args::Edge;
use crate::bench::clock::{cores, cpu_ms_of, peak_memory, processor, thread_cpu_ms};
use crate::bench::ort::numbers;
use crate::bench::roles::{Cost, Job, Roles, compile};
use crate::bench::stats::{best, mean, percentile, spread};
use crate::cmd::demo::MODEL;
use crate::compare::number;
use crate::console::{Console, things};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::engine_failure;
use crate::isa;
use crate::output::write_beside;
use crate::plan::read_plan;
use crate::progress::Progress;

/// Seconds before measuring starts: connections, caches and stocks settle.
const WARM_UP_S: u64 = 1;
/// Requests a second and device that are dealt at most, in schemes that deal.
const DEALT_PER_SECOND: u64 = 2000;
/// Runs of the edges' programs alone, of which the fastest counts.
const RUNS: usize = 30;

/// Runs the command.
pub fn run(console: &Console, args: &Edge) -> Outcome<Value> {
    if args.options.scheme == Scheme::Plain {
        console.warn(crate::cmd::compile::PLAIN_BANNER);
    }
    // A wrong name is said before anything is started.
    let kernels = isa::kernels()?;
    let folder = tempfile::Builder::new().prefix("pponnx-bench-").tempdir();
    let folder = folder.map_err(|e| Box::new(file_failure("make a folder in", &std::env::temp_dir(), &e)))?;
    let (model, shown) = match &args.model {
        Some(path) => (path.clone(), path.display().to_string()),
        None => {
            let path = folder.path().join("digits.onnx");
            write_beside(&path, MODEL)?;
            (path, "digits".to_owned())
        }
    };
    let seconds = u64::from(args.seconds);
    let job = Job {
        model: &model,
        options: &args.options,
        devices: args.devices,
        requests: (seconds + WARM_UP_S) * (DEALT_PER_SECOND / u64::from(args.devices)).max(1),
        threads: args.threads,
    };
    {
        let _progress = Progress::start(console, "compiling");
        compile(&job, folder.path())?;
    }
    let (edge_a_ms, edge_b_ms) = kernel_ms(&folder.path().join("out"))?;
    let _progress = Progress::start(console, "measuring");
    make_room(&folder.path().join("out"), args.devices)?;
    let mut roles = Roles::start(&job, folder.path())?;
    let patience = Duration::from_secs(seconds + 600);
    roles.order(&json!({ "load": WARM_UP_S }), patience)?;
    let (device, edge_a, edge_b) = roles.ids();
    let processes = [Some(device), Some(edge_a), edge_b];
    let cpu = || processes.map(|id| id.and_then(cpu_ms_of));
    let before = cpu();
    let answer = roles.order(&json!({ "load": seconds }), patience)?;
    let after = cpu();
    let memory = processes.map(|id| id.and_then(peak_memory).map(|b| b as f64 / 1e6));
    let bundle = Arc::clone(&roles.bundle);
    let costs = roles.stop()?;
    // The folder holds keys. Where it cannot be removed, the system's temporary folder keeps it.
    let _ = folder.close();

    let wall = numbers(&answer, "wall_ms");
    let elapsed = answer.get("seconds").and_then(Value::as_f64).unwrap_or(f64::NAN);
    let failures = answer.get("failures").and_then(Value::as_array).cloned().unwrap_or_default();
    let served = wall.len() as f64;
    let each = |i: usize| before[i].zip(after[i]).map(|(before, after)| (after - before) / served);
    let result = json(
        args,
        &shown,
        Facts {
            isa: kernels.isa().name(),
            mult_adds: bundle.cost.mult_adds_edge_a,
            requests_per_s: served / elapsed,
            wall: &wall,
            failures: &failures,
            kernel: [Some(edge_a_ms), edge_b_ms],
            cpu: [each(0), each(1), each(2)],
            memory,
            costs: &costs,
        },
    );
    say(console, &result);
    match failures.first() {
        None => Ok(result.into()),
        Some(first) => {
            let message = format!("{} failed", things(failures.len() as u64, "device"));
            let mut failure = Failure::new(Exit::Network, "pponnx::bench::failed", message)
                .help(format!("the first said: {}", first.as_str().unwrap_or_default()));
            failure.result = result;
            Err(Box::new(failure))
        }
    }
}

struct Facts<'a> {
    isa: &'static str,
    mult_adds: u64,
    requests_per_s: f64,
    wall: &'a [f64],
    failures: &'a [Value],
    /// CPU milliseconds of one request's program, alone: edge A, edge B.
    kernel: [Option<f64>; 2],
    /// CPU milliseconds a request of the processes: devices, edge A, edge B.
    cpu: [Option<f64>; 3],
    memory: [Option<f64>; 3],
    costs: &'a [Cost],
}

fn json(args: &Edge, model: &str, facts: Facts<'_>) -> Map<String, Value> {
    let [edge_a, edge_b] = facts.kernel;
    let limit = edge_a.map(|ms| cores() as f64 * 1e3 / ms);
    let capacity = facts.cpu[1].map(|ms| cores() as f64 * 1e3 / ms);
    let (p50, p99) = (percentile(facts.wall, 0.5), percentile(facts.wall, 0.99));
    let column = |of: fn(&Cost) -> f64| spread(&facts.costs.iter().map(of).collect::<Vec<f64>>());
    let mut object = Map::new();
    for (key, value) in [
        ("devices", Value::from(args.devices)),
        ("requests_per_s", number(facts.requests_per_s)),
        ("kernel_limit_requests_per_s", limit.into()),
        ("p50_ms", number(p50)),
        ("p99_ms", number(p99)),
        ("failures", facts.failures.len().into()),
        ("model", model.into()),
        ("precision", args.options.precision.name().into()),
        ("scheme", args.options.scheme.name().into()),
        ("suite", args.options.suite.name().into()),
        ("isa", facts.isa.into()),
        ("threads", args.threads.into()),
        ("requests", facts.wall.len().into()),
        ("mean_ms", number(mean(facts.wall))),
        ("p99_to_p50", number(p99 / p50)),
        ("mult_adds_edge_a", facts.mult_adds.into()),
        ("kernel_ms_edge_a", edge_a.into()),
        ("kernel_ms_edge_b", edge_b.into()),
        ("edge_a_cpu_ms", facts.cpu[1].into()),
        ("edge_b_cpu_ms", facts.cpu[2].into()),
        ("device_cpu_ms", facts.cpu[0].into()),
        ("edge_a_capacity_requests_per_s", capacity.into()),
        ("kernel_share_of_edge_a_cpu", edge_a.zip(facts.cpu[1]).map(|(kernel, all)| kernel / all).into()),
        ("edge_a_rss_mb", facts.memory[1].into()),
        ("edge_b_rss_mb", facts.memory[2].into()),
        ("edge_compute_ms", column(|c| c.compute)),
        ("edge_queue_ms", column(|c| c.queue)),
        ("edge_correction_ms", column(|c| c.correction)),
        ("processor", processor().into()),
        ("cores", cores().into()),
    ] {
        object.insert(key.into(), value);
    }
    object
}

fn say(console: &Console, result: &Map<String, Value>) {
    let at = |key: &str| result.get(key).and_then(Value::as_f64);
    let shown = |key: &str| at(key).map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
    let word = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    console.say(format!(
        "{}, scheme {}, precision {}, kernels {}, {} on {}",
        word("model"),
        word("scheme"),
        word("precision"),
        word("isa"),
        things(at("devices").unwrap_or(0.0) as u64, "device"),
        things(at("cores").unwrap_or(0.0) as u64, "core"),
    ));
    console.say(format!(
        "  {} requests a second; p50 {} ms, p99 {} ms; {}",
        shown("requests_per_s"),
        shown("p50_ms"),
        shown("p99_ms"),
        things(at("failures").unwrap_or(0.0) as u64, "failure"),
    ));
    console.say(format!(
        "  CPU time of a request: edge A {} ms ({} of it kernels), edge B {} ms, device {} ms",
        shown("edge_a_cpu_ms"),
        shown("kernel_ms_edge_a"),
        shown("edge_b_cpu_ms"),
        shown("device_cpu_ms"),
    ));
    console.say(format!(
        "  edge A alone on these cores: {} requests a second; its kernels alone: {}",
        shown("edge_a_capacity_requests_per_s"),
        shown("kernel_limit_requests_per_s"),
    ));
}

/// Lets the edges take this many devices.
fn make_room(out: &Path, devices: u16) -> Outcome<()> {
    for name in ["edge-a", "edge-b"] {
        let path = out.join(name).join("edge.toml");
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Box::new(file_failure("read", &path, &e)))?;
        let damaged = |e: String| Box::new(Failure::internal(format!("`{}`: {e}", path.display())));
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| damaged(e.to_string()))?;
        let limits = table.entry("limits").or_insert_with(|| toml::Table::new().into());
        if let Some(limits) = limits.as_table_mut() {
            limits.insert("max_connections".into(), (i64::from(devices) + 16).into());
            limits.insert("max_sessions".into(), (i64::from(devices) + 16).into());
        }
        let text = toml::to_string(&table).map_err(|e| damaged(e.to_string()))?;
        write_beside(&path, text.as_bytes())?;
    }
    Ok(())
}

/// CPU milliseconds of one request's program at edge A and at edge B, with nothing around it: the fastest of some runs.
fn kernel_ms(out: &Path) -> Outcome<(f64, Option<f64>)> {
    let kernels = isa::kernels()?;
    let load = |folder: &str, role: Role| -> Outcome<Option<Arc<LoadedPlan>>> {
        let path: PathBuf = out.join(folder).join("edge.plan");
        if !path.exists() {
            return Ok(None);
        }
        let plan = read_plan(&path, role)?;
        let constants: &ConstStore = &plan.constants;
        let loaded = LoadedPlan::load(Arc::clone(&plan.bundle), role, constants, kernels).map_err(engine_failure)?;
        Ok(Some(Arc::new(loaded)))
    };
    // Any key will do: masks cost the same whatever they are.
    let key = EpochKey::first(&[0; 32]);
    let session = Arc::new(SessionKey::session(&key, &SessionNonce([0; 32])));
    let edge_a = load("edge-a", Role::EdgeA)?.ok_or_else(|| Failure::internal("no plan of edge A was written"))?;
    let edge_b = load("edge-b", Role::EdgeB)?;
    let edge_b = edge_b.map(|plan| alone(&plan, || Secrets::EdgeB { session: Arc::clone(&session) })).transpose()?;
    let stored = |plan: &LoadedPlan| -> std::collections::BTreeMap<SlotId, Vec<u8>> {
        let bytes = |slot: &SlotId| plan.slot(*slot).map_or(0, |s| s.bytes() as usize);
        plan.loads().iter().map(|slot| (*slot, vec![0; bytes(slot)])).collect()
    };
    let edge_a = alone(&edge_a, || Secrets::EdgeA { loaded: stored(&edge_a) })?;
    Ok((edge_a, edge_b))
}

/// The fastest of some runs of a program, payloads handed in at once.
fn alone(plan: &Arc<LoadedPlan>, secrets: impl Fn() -> Secrets) -> Outcome<f64> {
    let mut times = Vec::new();
    for request in 0..RUNS {
        let mut execution =
            Execution::new(Arc::clone(plan), request as u64, secrets(), Vec::new()).map_err(engine_failure)?;
        let mut spent = 0.0;
        loop {
            let before = thread_cpu_ms();
            let step = execution.resume();
            spent += thread_cpu_ms() - before;
            let sent: Vec<Outgoing> = execution.outgoing();
            drop(sent);
            match step.map_err(engine_failure)? {
                Step::Done => break,
                Step::Wait { from, slot } => {
                    let bytes = plan.slot(slot).map_err(engine_failure)?.bytes();
                    execution.supply(from, slot, vec![0; bytes as usize]).map_err(engine_failure)?;
                }
            }
        }
        times.push(spent);
    }
    Ok(best(&times))
}
