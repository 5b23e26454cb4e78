//! `pponnx run`.

use std::sync::Arc;

use pponnx_engine::TensorValue;
use pponnx_node::{Device, Inference, Stats};
use pponnx_plans::plan::Port;
use pponnx_plans::valid::ValidBundle;
use serde_json::{Map, Value, json};

use crate::args::Run;
use crate::batch::{Many, infer_all, percentile, stack, stacked_port};
use crate::cmd::compile::PLAIN_BANNER;
use crate::cmd::inspect::share;
use crate::compare::{compare, number, read_expected};
use crate::config::ImageEntry;
use crate::config::device::DeviceConfig;
use crate::console::{Console, bytes, percent, things};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::foreign::node_failure;
use crate::input;
use crate::isa;
use crate::output;
use crate::progress::Progress;
use crate::roles::{block_on, block_on_alone, device};

/// Runs the command.
pub fn run(console: &Console, args: &Run) -> Outcome<Value> {
    let config = DeviceConfig::read(&args.config)?;
    let labels = args.labels.as_deref().map(output::read_labels).transpose()?;
    // Inputs are read before anything of the device's state changes.
    let loaded = input::load(&args.inputs)?;
    let kernels = isa::kernels()?;
    let sets = if args.batch { input::rows(&loaded)? } else { vec![loaded] };
    let many = sets.len();
    let requests = many.saturating_mul(args.repeat as usize);
    let (settings, bundle) = device(console, &config, kernels, requests, args.edge_a.as_ref(), args.edge_b.as_ref())?;
    if bundle.header.scheme == "plain" {
        console.warn(PLAIN_BANNER);
    }
    let ports = match args.batch {
        true => bundle.outputs.iter().map(|port| stacked_port(port, many)).collect(),
        false => bundle.outputs.clone(),
    };
    if let Some(path) = &args.output {
        output::check_path(path, &ports)?;
    }
    let expected = args.expected.as_deref().map(|p| read_expected(p, &ports)).transpose()?;
    // Better now than after a request whose result would be lost.
    for (port, value) in ports.iter().zip(expected.iter().flatten()) {
        if *value.shape() != port.shape {
            let message = format!("output `{}` is {}, --expected has {}", port.name, port.shape, value.shape());
            let failure = Failure::new(Exit::Refused, "pponnx::input::shape", message);
            return Err(Box::new(failure.help("the expected values are of another model or another input shape")));
        }
    }
    let image = ImageEntry::from_args(&args.image).or(&config.image);
    let (mut inputs, mut notes) = (Vec::with_capacity(many), Vec::new());
    for (row, set) in sets.iter().enumerate() {
        let fitted = input::fit(set, &bundle.inputs, &image).map_err(|mut failure| {
            if args.batch {
                failure.message = format!("row {row}: {}", failure.message);
            }
            failure
        })?;
        inputs.push(fitted.values);
        // Every row has the same ones.
        notes = fitted.notes;
    }
    drop(sets);
    for note in &notes {
        console.note(note);
    }
    let inputs = std::iter::repeat_n(inputs, args.repeat as usize).flatten().collect();

    let work = async {
        let _progress = Progress::start(console, "waiting for the edges");
        let device = Arc::new(Device::start(settings).await.map_err(node_failure)?);
        let allowed = device.in_flight();
        if usize::from(args.concurrency) > allowed && requests > allowed {
            console.note(format!("the edges take {} at once", things(allowed as u64, "request")));
        }
        let done = infer_all(&device, inputs, args.concurrency.into()).await;
        if let Some(device) = Arc::into_inner(device) {
            device.stop().await;
        }
        done.map_err(node_failure)
    };
    let done = if args.concurrency == 1 { block_on_alone(work)? } else { block_on(work)? };

    let mut result = facts(&bundle, &totals(&done));
    if requests > 1 {
        result.extend(many_facts(&bundle, &done, args.concurrency, labels.as_deref()));
    }
    // Repetitions give the same outputs.
    let first = done.results.get(..many).unwrap_or(&done.results);
    let outputs = match (args.batch, first.first()) {
        (false, Some(inference)) => inference.outputs.clone(),
        _ => stack(&bundle.outputs, first)?,
    };
    if let Some(path) = &args.output {
        output::write(path, &ports, &outputs)?;
        console.say(format!("wrote {}", path.display()));
        result.insert("output".into(), path.display().to_string().into());
    } else if args.batch {
        for (row, inference) in first.iter().enumerate() {
            console.say(row_line(row, &bundle, &inference.outputs, labels.as_deref()));
        }
    } else {
        for (port, value) in ports.iter().zip(&outputs) {
            for line in output::describe(port, value, labels.as_deref()) {
                console.say(line);
            }
        }
    }
    if let (false, Some(inference)) = (args.batch, first.first()) {
        result.insert("outputs".into(), shown_outputs(&bundle, &inference.outputs, labels.as_deref()));
    }
    if let Some(expected) = expected {
        let tolerance = tolerance_of(&bundle.header.precision);
        let comparison = compare(&ports, &outputs, &expected, tolerance)?;
        result.insert("max_rel_err".into(), number(comparison.max_rel_err()));
        result.insert("argmax_match".into(), comparison.argmax_match().into());
        console.say(format!(
            "against the expected outputs: largest difference {:.1e}, largest element {}",
            comparison.max_rel_err(),
            if comparison.argmax_match() { "the same" } else { "DIFFERS" },
        ));
    }
    result.insert("notes".into(), notes.into());
    console.say(cost_line(&bundle, &totals(&done)));
    if requests > 1 {
        let times = walls(&done);
        console.say(format!(
            "{requests} requests, {} in flight: {:.1} requests a second; a request {:.1} ms in the middle, {:.1} ms at most for 99 %",
            args.concurrency,
            rate(&done),
            percentile(&times, 50.0),
            percentile(&times, 99.0),
        ));
    }
    Ok(result.into())
}

/// The cost of all requests together; the number is that of the first.
fn totals(done: &Many) -> Stats {
    let mut sum = Stats { socket_bytes: done.socket_bytes, wall_ms: done.wall_ms, ..Stats::default() };
    if let [only] = done.results.as_slice() {
        return only.stats;
    }
    if let Some(first) = done.results.first() {
        (sum.request, sum.rounds) = (first.stats.request, first.stats.rounds);
    }
    for Inference { stats, .. } in &done.results {
        sum.bytes_up += stats.bytes_up;
        sum.bytes_down += stats.bytes_down;
        sum.device_cpu_ms += stats.device_cpu_ms;
        sum.link_cpu_ms += stats.link_cpu_ms;
    }
    sum
}

fn walls(done: &Many) -> Vec<f64> {
    done.results.iter().map(|r| r.stats.wall_ms).collect()
}

fn rate(done: &Many) -> f64 {
    if done.wall_ms > 0.0 { done.results.len() as f64 / done.wall_ms * 1e3 } else { 0.0 }
}

/// What several requests report besides.
fn many_facts(bundle: &ValidBundle, done: &Many, at_once: u16, labels: Option<&[String]>) -> Map<String, Value> {
    let one = |Inference { outputs, stats }: &Inference| {
        json!({
            "request": stats.request,
            "wall_ms": number(stats.wall_ms),
            "device_cpu_ms": number(stats.device_cpu_ms),
            "bytes_up": stats.bytes_up,
            "bytes_down": stats.bytes_down,
            "outputs": shown_outputs(bundle, outputs, labels),
        })
    };
    let times = walls(done);
    let mut map = Map::new();
    map.insert("concurrency".into(), at_once.into());
    map.insert("requests_per_s".into(), number(rate(done)));
    map.insert("wall_ms_p50".into(), number(percentile(&times, 50.0)));
    map.insert("wall_ms_p99".into(), number(percentile(&times, 99.0)));
    map.insert("requests".into(), done.results.iter().map(one).collect::<Vec<_>>().into());
    map
}

/// One line about the outputs of a row.
fn row_line(row: usize, bundle: &ValidBundle, outputs: &[TensorValue], labels: Option<&[String]>) -> String {
    let of = |(port, value): (&Port, &TensorValue)| match output::top(value).and_then(|top| top.first().copied()) {
        Some((class, score)) => format!("{} {} ({score:.6})", port.name, output::label(labels, class)),
        None => format!("{} {}{}", port.name, value.dtype().name(), value.shape()),
    };
    let shown: Vec<String> = bundle.outputs.iter().zip(outputs).map(of).collect();
    format!("row {row}: {}", shown.join(", "))
}

/// The tolerance of a plan's precision.
fn tolerance_of(precision: &str) -> f64 {
    pponnx_compiler::precision::Precision::from_name(precision).map_or(1e-3, |p| p.tolerance())
}

/// The outputs for `--json`: shape and, for rows of classes, the largest entries.
pub fn shown_outputs(bundle: &ValidBundle, values: &[pponnx_engine::TensorValue], labels: Option<&[String]>) -> Value {
    let of = |(port, value): (&pponnx_plans::plan::Port, &pponnx_engine::TensorValue)| {
        let top = output::top(value).map(|top| {
            let entry = |(class, score): (usize, f64)| {
                json!({ "class": class, "score": number(score), "label": labels.and_then(|l| l.get(class)) })
            };
            top.into_iter().map(entry).collect::<Vec<_>>()
        });
        json!({ "name": port.name, "dtype": value.dtype().name(), "shape": value.shape().0, "top": top })
    };
    bundle.outputs.iter().zip(values).map(of).collect::<Vec<_>>().into()
}

/// What every request reports.
pub fn facts(bundle: &ValidBundle, stats: &Stats) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, value) in [
        ("model", Value::from(bundle.header.model.clone())),
        ("scheme", bundle.header.scheme.clone().into()),
        ("precision", bundle.header.precision.clone().into()),
        ("segments", bundle.maps.len().into()),
        ("rounds", stats.rounds.into()),
        ("bytes_up", stats.bytes_up.into()),
        ("bytes_down", stats.bytes_down.into()),
        ("socket_bytes", stats.socket_bytes.into()),
        ("outsourced_mac_share", share(bundle).into()),
        ("max_rel_err", Value::Null),
        ("argmax_match", Value::Null),
        ("device_cpu_ms", number(stats.device_cpu_ms)),
        ("link_cpu_ms", number(stats.link_cpu_ms)),
        ("wall_ms", number(stats.wall_ms)),
        ("plaintext_ms", Value::Null),
        ("request", stats.request.into()),
    ] {
        map.insert(key.into(), value);
    }
    map
}

/// One line about what a request cost.
pub fn cost_line(bundle: &ValidBundle, stats: &Stats) -> String {
    format!(
        "{}, {} of the mult-adds outsourced; {}; {} up, {} down; device CPU {:.1} ms, in all {:.1} ms",
        things(bundle.maps.len() as u64, "segment"),
        percent(share(bundle)),
        things(stats.rounds, "round"),
        bytes(stats.bytes_up),
        bytes(stats.bytes_down),
        stats.device_cpu_ms,
        stats.wall_ms,
    )
}
