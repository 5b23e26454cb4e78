//! `pponnx bench device`: devices in a process of their own, so that their CPU time and memory can be told from those of
//! everybody else. Takes orders on stdin, one JSON object a line, and answers each with one.
//!
//! | order | answer |
//! |---|---|
//! | `{"run": N, "pause_ms": P}` | requests of the first device, one after the other; what each cost, and the CPU time of the process; with `"profile": true` also where its computation went |
//! | `{"load": S}` | requests of all devices at once for S seconds: how many, latencies, failures |

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pponnx_engine::{Stage, TensorValue};
use pponnx_node::Device as Node;
use pponnx_node::Stats;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bench::args::Device;
use crate::bench::clock::process_cpu_ms;
use crate::config::device::DeviceConfig;
use crate::console::Console;
use crate::failure::{Failure, Outcome};
use crate::foreign::node_failure;
use crate::isa;
use crate::random;
use crate::roles::{device, tokio};

/// Request numbers that a device with a ledger takes at a time.
const LEDGER_BLOCK: usize = 64;

/// Whether requests count where their time goes. Reading the clock costs some of it.
static PROFILING: AtomicBool = AtomicBool::new(false);

/// Nanoseconds while profiling; else it stands still. Wall time, because the clock of a thread takes a system call.
fn clock() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    if !PROFILING.load(Ordering::Relaxed) {
        return 0;
    }
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A connected device and its input.
struct Ready {
    node: Node,
    inputs: Vec<TensorValue>,
}

/// Runs the command.
pub fn run(console: &Console, args: &Device) -> Outcome<Value> {
    let runtime = tokio()?;
    let mut devices = Vec::new();
    for (seed, path) in args.configs.iter().enumerate() {
        let config = DeviceConfig::read(path)?;
        let kernels = isa::kernels()?;
        let (mut settings, bundle) =
            device(console, &config, kernels, LEDGER_BLOCK, Some(&args.edge_a), args.edge_b.as_ref())?;
        // Nobody else holds it yet.
        if let Some(plan) = Arc::into_inner(settings.plan) {
            settings.plan = Arc::new(plan.with_clock(clock));
        } else {
            return Err(Box::new(Failure::internal("the plan is in use")));
        }
        let of = |(i, port)| random::value(port, seed as u64, i as u64);
        let inputs = bundle.inputs.iter().enumerate().map(of).collect::<Outcome<Vec<_>>>()?;
        let node = runtime.block_on(Node::start(settings)).map_err(node_failure)?;
        devices.push(Ready { node, inputs });
    }
    console.event(&json!({ "ready": devices.len() }));
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Failure::internal(format!("orders cannot be read: {e}")))?;
        let order: Value = serde_json::from_str(&line).map_err(|e| Failure::internal(format!("no order: {e}")))?;
        let number = |key: &str| order.get(key).and_then(Value::as_u64);
        let answer = match (number("run"), number("load")) {
            (Some(requests), _) => {
                PROFILING.store(order.get("profile") == Some(&Value::Bool(true)), Ordering::Relaxed);
                let pause = Duration::from_millis(number("pause_ms").unwrap_or(0));
                runtime.block_on(requests_of(devices.first_mut(), requests, pause))?
            }
            (_, Some(seconds)) => {
                let (answer, back) = runtime.block_on(load(devices, Duration::from_secs(seconds)));
                devices = back;
                answer
            }
            _ => return Err(Box::new(Failure::internal("an order that is not known"))),
        };
        console.event(&answer);
    }
    runtime.block_on(async {
        for ready in devices {
            ready.node.stop().await;
        }
    });
    Ok(Value::Null)
}

/// One request after the other. Pauses cost no CPU time.
async fn requests_of(ready: Option<&mut Ready>, requests: u64, pause: Duration) -> Outcome<Value> {
    let ready = ready.ok_or_else(|| Failure::internal("no device"))?;
    let mut all: Vec<Stats> = Vec::new();
    let before = process_cpu_ms();
    for _ in 0..requests {
        if !pause.is_zero() {
            ::tokio::time::sleep(pause).await;
        }
        all.push(ready.node.infer(ready.inputs.clone()).await.map_err(node_failure)?.stats);
    }
    let cpu_ms = process_cpu_ms() - before;
    let column = |of: fn(&Stats) -> f64| all.iter().map(of).collect::<Vec<f64>>();
    let stage = |stage: Stage| {
        let spent: u64 = all.iter().map(|s| s.stages.of(stage)).sum();
        (stage.name().to_owned(), Value::from(spent as f64 / 1e6 / all.len().max(1) as f64))
    };
    let stages: serde_json::Map<String, Value> = Stage::ALL.into_iter().map(stage).collect();
    let last = all.last().copied().unwrap_or_default();
    Ok(json!({
        "cpu_ms": cpu_ms,
        "request": column(|s| s.request as f64),
        "wall_ms": column(|s| s.wall_ms),
        "compute_ms": column(|s| s.device_cpu_ms),
        "link_cpu_ms": column(|s| s.link_cpu_ms),
        "stages_ms": stages,
        "rounds": last.rounds,
        "bytes_up": last.bytes_up,
        "bytes_down": last.bytes_down,
        "socket_bytes": last.socket_bytes,
    }))
}

/// What one device did under load.
#[derive(Default)]
struct Done {
    wall_ms: Vec<f64>,
    failure: Option<String>,
}

/// All devices at once, each with one request under way. A device ends with its first failure.
async fn load(devices: Vec<Ready>, time: Duration) -> (Value, Vec<Ready>) {
    let before = process_cpu_ms();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for ready in devices {
        tasks.spawn(async move {
            let mut done = Done::default();
            while started.elapsed() < time {
                match ready.node.infer(ready.inputs.clone()).await {
                    Ok(inference) => done.wall_ms.push(inference.stats.wall_ms),
                    Err(error) => {
                        done.failure = Some(error.to_string());
                        break;
                    }
                }
            }
            (ready, done)
        });
    }
    let (mut wall_ms, mut failures, mut back) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((ready, done)) => {
                wall_ms.extend(done.wall_ms);
                failures.extend(done.failure);
                back.push(ready);
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let answer = json!({
        "seconds": seconds,
        "cpu_ms": process_cpu_ms() - before,
        "wall_ms": wall_ms,
        "failures": failures,
    });
    (answer, back)
}
