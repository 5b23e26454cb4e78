//! `pponnx bench MODEL`: what a request costs, where its time goes, and what plaintext costs in the same rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use pponnx_engine::TensorValue;
use pponnx_plans::plan::SlotKind;
use pponnx_plans::valid::ValidBundle;
use serde_json::{Map, Value, json};

use crate::bench::args::Bench;
use crate::bench::clock::{cores, cpu_ms_of, peak_memory, processor, thread_cpu_ms};
use crate::bench::ort::{self, Ort, numbers};
use crate::bench::roles::{Compiling, Cost, Job, Roles, compile, size_of_files};
use crate::bench::stats::{Ratio, mean, median, percentile, spread};
use crate::compare::number;
use crate::console::{Console, bytes, table, things};
use crate::failure::{Failure, Outcome, file_failure};
use crate::isa;
use crate::plaintext::Plaintext;
use crate::progress::Progress;
use crate::random;

/// Requests before the first that counts: connections, caches and memory settle.
const WARM_UP: u64 = 3;
/// Rounds in which we and plaintext take turns, besides the first, which is dropped.
const ROUNDS: u64 = 10;
/// Requests that are measured if the user does not say, and how long they may take.
const FEWEST: u64 = 30;
const MOST: u64 = 1000;
const TIME: Duration = Duration::from_secs(10);
/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What was measured, one entry a request or a round.
#[derive(Default)]
struct Measured {
    /// By request: its number, from input to result, and the device's computation.
    request: Vec<f64>,
    wall: Vec<f64>,
    compute: Vec<f64>,
    /// By round.
    device_cpu: Vec<f64>,
    round_wall: Vec<f64>,
    tract: Vec<f64>,
    ort_1t: Vec<f64>,
    ort_2t: Vec<f64>,
    last: Value,
    /// Mean milliseconds a request of each stage of the device, and of its TLS and sockets.
    stages: Value,
    link: Vec<f64>,
}

/// Everything that is known once the roles have ended.
struct Facts {
    measured: Measured,
    costs: Vec<Cost>,
    compiling: Compiling,
    plain_load_ms: f64,
    edge_a_start_ms: f64,
    edge_a_cpu_ms: Option<f64>,
    memory: [Option<u64>; 3],
    files: u64,
    ort: Option<String>,
    isa: &'static str,
}

/// Runs the command.
pub fn run(console: &Console, args: &Bench, model: &Path) -> Outcome<Value> {
    // A wrong name is said before anything is started.
    let kernels = isa::kernels()?;
    let folder = tempfile::Builder::new().prefix("pponnx-bench-").tempdir();
    let folder = folder.map_err(|e| Box::new(file_failure("make a folder in", &std::env::temp_dir(), &e)))?;
    let file = std::fs::read(model).map_err(|e| Box::new(file_failure("read", model, &e)))?;
    let mut ort = ort::start(console, folder.path(), args.require_ort)?;
    let requests = args.requests.map(u64::from);
    let dealt = WARM_UP + 20 + 2 * requests.unwrap_or(FEWEST) + ROUNDS + 1;
    let job = Job { model, options: &args.options, devices: 1, requests: dealt, threads: args.threads };
    let progress = Progress::start(console, "compiling");
    let compiling = compile(&job, folder.path())?;
    drop(progress);
    let files = size_of_files(&folder.path().join("out/device"))?;
    let _progress = Progress::start(console, "measuring");
    let mut roles = Roles::start(&job, folder.path())?;
    let bundle = std::sync::Arc::clone(&roles.bundle);

    let started = Instant::now();
    let plaintext = Plaintext::load(model, &file, &bundle.inputs, &bundle.outputs)?;
    let plain_load_ms = started.elapsed().as_secs_f64() * 1e3;
    drop(file);
    let of = |(i, port)| random::value(port, 0, i as u64);
    let inputs = bundle.inputs.iter().enumerate().map(of).collect::<Outcome<Vec<_>>>()?;
    let version = ort.as_ref().map(|o| o.version.clone());
    if let Some(running) = &mut ort
        && let Err(why) = [1, 2].into_iter().try_for_each(|n| running.load(&n.to_string(), model, n, &bundle.inputs))
    {
        refuse_or_note(console, args, &why)?;
        ort = None;
    }
    let has_ort = ort.is_some();
    let most = args.options.scheme.is_dealt().then_some(FEWEST);
    let (measured, edge_a_cpu_ms) = measure(&mut roles, &mut ort, &plaintext, &inputs, requests, most)?;
    let (device, edge_a, edge_b) = roles.ids();
    let memory = [peak_memory(device), peak_memory(edge_a), edge_b.and_then(peak_memory)];
    let edge_a_start_ms = roles.edge_a_start_ms;
    let costs = roles.stop()?;
    let facts = Facts {
        measured,
        costs,
        compiling,
        plain_load_ms,
        edge_a_start_ms,
        edge_a_cpu_ms,
        memory,
        files,
        ort: version.filter(|_| has_ort),
        isa: kernels.isa().name(),
    };
    // It holds keys. Where it cannot be removed, the system's temporary folder keeps it.
    let _ = folder.close();
    let result = json(args, model, &bundle, &facts);
    say(console, &result);
    Ok(result)
}

fn refuse_or_note(console: &Console, args: &Bench, why: &str) -> Outcome<()> {
    let said = format!("onnxruntime does not take this model: {why}");
    if args.require_ort {
        return Err(Box::new(Failure::new(crate::exit::Exit::Refused, "pponnx::bench::ort", said)));
    }
    console.note(format!("{said}; its numbers are left out"));
    Ok(())
}

/// Takes turns with plaintext. A pause before each request lets edge B fill the stock at edge A.
fn measure(
    roles: &mut Roles,
    ort: &mut Option<Ort>,
    plaintext: &Plaintext,
    inputs: &[TensorValue],
    requests: Option<u64>,
    most: Option<u64>,
) -> Outcome<(Measured, Option<f64>)> {
    let order = |n: u64, pause: f64| json!({ "run": n, "pause_ms": pause as u64 });
    let warm = roles.order(&order(WARM_UP, 20.0), PATIENCE)?;
    let wall = median(&numbers(&warm, "wall_ms"));
    let pause = (wall * 0.5).clamp(2.0, 500.0);
    let fitting = (TIME.as_secs_f64() * 1e3 / (wall + pause)) as u64;
    let wanted = requests.unwrap_or_else(|| fitting.clamp(FEWEST, most.unwrap_or(MOST)));
    let (rounds, each) = (wanted.min(ROUNDS), wanted.div_ceil(wanted.min(ROUNDS)));
    let mut all = Measured::default();
    let (_, edge_a, _) = roles.ids();
    let mut cpu_before = None;
    for round in 0..=rounds {
        if round == 1 {
            cpu_before = cpu_ms_of(edge_a);
        }
        let ours = roles.order(&order(if round == 0 { 1 } else { each }, pause), PATIENCE)?;
        let walls = numbers(&ours, "wall_ms");
        let tract = plain_round(plaintext, inputs, each.min(3))?;
        let mut plain = [f64::NAN; 2];
        if let Some(ort) = ort.as_mut() {
            let failed = |e| Box::new(Failure::internal(format!("onnxruntime: {e}")));
            plain[0] = median(&ort.run("1", each.min(10) as usize).map_err(failed)?.cpu_ms);
            plain[1] = median(&ort.run("2", each.min(10) as usize).map_err(failed)?.wall_ms);
        }
        if round == 0 {
            continue;
        }
        all.request.extend(numbers(&ours, "request"));
        all.link.extend(numbers(&ours, "link_cpu_ms"));
        all.compute.extend(numbers(&ours, "compute_ms"));
        all.device_cpu.push(ours.get("cpu_ms").and_then(Value::as_f64).unwrap_or(f64::NAN) / each as f64);
        all.round_wall.push(median(&walls));
        all.wall.extend(walls);
        all.tract.push(tract);
        if ort.is_some() {
            all.ort_1t.push(plain[0]);
            all.ort_2t.push(plain[1]);
        }
        all.last = ours;
    }
    let cpu = cpu_ms_of(edge_a).zip(cpu_before).map(|(after, before)| (after - before) / all.wall.len() as f64);
    let profiled = json!({ "run": each.min(20), "pause_ms": pause as u64, "profile": true });
    let profiled = roles.order(&profiled, PATIENCE)?;
    all.stages = profiled.get("stages_ms").cloned().unwrap_or_default();
    Ok((all, cpu))
}

/// CPU milliseconds of plaintext in tract: the median of some runs.
fn plain_round(plaintext: &Plaintext, inputs: &[TensorValue], runs: u64) -> Outcome<f64> {
    let mut each = Vec::new();
    for _ in 0..runs.max(1) {
        let before = thread_cpu_ms();
        plaintext.run(inputs)?;
        each.push(thread_cpu_ms() - before);
    }
    Ok(median(&each))
}

fn json(args: &Bench, model: &Path, bundle: &ValidBundle, facts: &Facts) -> Value {
    let m = &facts.measured;
    let whole = |key: &str| m.last.get(key).cloned().unwrap_or(Value::Null);
    let plain_bytes: u64 = {
        let carried = |kind| bundle.slots.iter().filter(move |s| s.kind == kind).map(|s| s.shape.len() as u64 * 4);
        carried(SlotKind::Upload).chain(carried(SlotKind::Download)).sum()
    };
    let middle = |samples: &[f64]| number(median(samples));
    let megabytes = |b: Option<u64>| b.map(|b| b as f64 / 1e6);
    let [device, edge_a, edge_b] = facts.memory;
    let link = whole("bytes_up").as_u64().zip(whole("bytes_down").as_u64()).map(|(u, d)| (u + d) as f64);
    let ratio = |a: &[f64], b: &[f64]| Ratio::of(a, b).map(|r| r.json());
    let mut object = Map::new();
    for (key, value) in [
        ("model", Value::from(model.display().to_string())),
        ("precision", args.options.precision.name().into()),
        ("scheme", args.options.scheme.name().into()),
        ("suite", args.options.suite.name().into()),
        ("isa", facts.isa.into()),
        ("threads", args.threads.into()),
        ("requests", m.wall.len().into()),
        ("processor", processor().into()),
        ("cores", cores().into()),
        ("device_cpu_ms", middle(&m.device_cpu)),
        ("wall_ms_p50", number(percentile(&m.wall, 0.5))),
        ("wall_ms_p99", number(percentile(&m.wall, 0.99))),
        ("ort_1t_ms", middle(&m.ort_1t)),
        ("ort_2t_ms", middle(&m.ort_2t)),
        ("tract_ms", middle(&m.tract)),
        ("device_rss_mb", megabytes(device).into()),
        ("edge_a_rss_mb", megabytes(edge_a).into()),
        ("edge_b_rss_mb", megabytes(edge_b).into()),
        ("device_files_bytes", facts.files.into()),
        ("bytes_up", whole("bytes_up")),
        ("bytes_down", whole("bytes_down")),
        ("socket_bytes", whole("socket_bytes")),
        ("declared_bytes", (bundle.cost.bytes_up + bundle.cost.bytes_down).into()),
        ("plain_f32_bytes", plain_bytes.into()),
        ("rounds", whole("rounds")),
        ("latency_ms", latency(m, &facts.costs)),
        ("device_cpu_split", split(m)),
        ("edge_a_cpu_ms", facts.edge_a_cpu_ms.into()),
        ("edge_a_start_ms", number(facts.edge_a_start_ms)),
        ("compile_ms", number(facts.compiling.wall_ms)),
        ("compile_rss_mb", megabytes(facts.compiling.peak).into()),
        ("tract_load_ms", number(facts.plain_load_ms)),
        ("onnxruntime", facts.ort.clone().into()),
    ] {
        object.insert(key.into(), value);
    }
    object.insert(
        "ratios".into(),
        json!({
            "device_cpu_to_ort_1t": ratio(&m.device_cpu, &m.ort_1t),
            "device_cpu_to_tract": ratio(&m.device_cpu, &m.tract),
            "wall_to_ort_2t": ratio(&m.round_wall, &m.ort_2t),
            "payload_to_plain_f32": link.map(|b| b / plain_bytes as f64),
            "socket_to_payload": link.zip(whole("socket_bytes").as_f64()).map(|(b, s)| s / b),
            "compile_to_tract_load": facts.compiling.wall_ms / facts.plain_load_ms,
        }),
    );
    object.into()
}

/// Where the device's CPU time goes, in milliseconds a request: the stages of its computation, TLS and sockets, and what
/// remains (threads waking up, memory).
fn split(m: &Measured) -> Value {
    let mut object = m.stages.as_object().cloned().unwrap_or_default();
    let known: f64 = object.values().filter_map(Value::as_f64).sum();
    let link = mean(&m.link);
    object.remove("apply");
    object.insert("link".into(), number(link));
    object.insert("other".into(), number((median(&m.device_cpu) - known - link).max(0.0)));
    object.into()
}

/// Where the time of each request went. What remains is the network: sockets, TLS and scheduling on both sides.
fn latency(m: &Measured, costs: &[Cost]) -> Value {
    let by_request: BTreeMap<u64, &Cost> = costs.iter().map(|c| (c.request, c)).collect();
    let mut parts: [Vec<f64>; 5] = Default::default();
    for ((request, wall), device) in m.request.iter().zip(&m.wall).zip(&m.compute) {
        let Some(cost) = by_request.get(&(*request as u64)) else { continue };
        let network = wall - device - cost.compute - cost.queue - cost.correction;
        for (part, value) in parts.iter_mut().zip([*device, network, cost.queue, cost.correction, cost.compute]) {
            part.push(value);
        }
    }
    let [device, network, queue, correction, compute] = parts;
    json!({
        "wall": spread(&m.wall),
        "device": spread(&device),
        "network": spread(&network),
        "edge_queue": spread(&queue),
        "edge_correction": spread(&correction),
        "edge_compute": spread(&compute),
    })
}

fn say(console: &Console, result: &Value) {
    let at = |path: &str| result.pointer(path).and_then(Value::as_f64);
    let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.2} ms"));
    let word = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    console.say(format!(
        "{}, scheme {}, precision {}, kernels {} with {}, {}",
        word("model"),
        word("scheme"),
        word("precision"),
        word("isa"),
        things(at("/threads").unwrap_or(0.0) as u64, "thread"),
        things(at("/requests").unwrap_or(0.0) as u64, "request"),
    ));
    let mut rows = vec![["  latency", "p50", "p90", "p99", "mean"].map(String::from).to_vec()];
    for (name, key) in [
        ("in all", "wall"),
        ("device", "device"),
        ("network", "network"),
        ("edge queue", "edge_queue"),
        ("edge waits for correction", "edge_correction"),
        ("edge compute", "edge_compute"),
    ] {
        let cells = ["p50", "p90", "p99", "mean"].map(|p| ms(at(&format!("/latency_ms/{key}/{p}"))));
        rows.push(std::iter::once(format!("  {name}")).chain(cells).collect());
    }
    rows.push(vec![String::new()]);
    let stages = ["encode", "mask", "pack", "check", "decode", "local", "link", "other"];
    rows.push(std::iter::once("  device CPU").chain(stages).map(String::from).collect());
    let cells = stages.map(|stage| ms(at(&format!("/device_cpu_split/{stage}"))));
    rows.push(std::iter::once(String::new()).chain(cells).collect());
    rows.push(vec![String::new()]);
    rows.push(["  CPU time", "each", "ratio of ours", "min", "max"].map(String::from).to_vec());
    let times = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"));
    rows.push(vec!["  device, TLS included".into(), ms(at("/device_cpu_ms"))]);
    for (name, key, ratio) in [
        ("tract, 1 thread", "tract_ms", "device_cpu_to_tract"),
        ("onnxruntime, 1 thread", "ort_1t_ms", "device_cpu_to_ort_1t"),
        ("onnxruntime, 2 threads, wall", "ort_2t_ms", "wall_to_ort_2t"),
    ] {
        let cells = ["median", "min", "max"].map(|p| times(at(&format!("/ratios/{ratio}/{p}"))));
        rows.push([format!("  {name}"), ms(at(&format!("/{key}")))].into_iter().chain(cells).collect());
    }
    for line in table(&rows, &[1, 2, 3, 4, 5, 6, 7, 8]) {
        console.say(line);
    }
    let count = |key: &str| at(&format!("/{key}")).unwrap_or(0.0) as u64;
    console.say("");
    console.say(format!(
        "  {}; {} up, {} down, {:.3} of plain f32; {} on the device",
        things(count("rounds"), "round"),
        bytes(count("bytes_up")),
        bytes(count("bytes_down")),
        at("/ratios/payload_to_plain_f32").unwrap_or(f64::NAN),
        bytes(count("device_files_bytes")),
    ));
    let memory = |key: &str| at(key).map_or_else(|| "-".to_owned(), |v| format!("{v:.0} MB"));
    console.say(format!(
        "  peak memory: device {}, edge A {}, edge B {}, compile {}",
        memory("/device_rss_mb"),
        memory("/edge_a_rss_mb"),
        memory("/edge_b_rss_mb"),
        memory("/compile_rss_mb"),
    ));
    console.say(format!(
        "  compile {} (tract loads in {}); edge A ready after {}",
        ms(at("/compile_ms")),
        ms(at("/tract_load_ms")),
        ms(at("/edge_a_start_ms")),
    ));
}
