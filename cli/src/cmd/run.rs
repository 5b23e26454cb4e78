//! `pponnx run`.

use pponnx_node::{Device, Stats};
use pponnx_plans::valid::ValidBundle;
use serde_json::{Map, Value, json};

use crate::args::Run;
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
use crate::roles::{block_on, device};

/// Runs the command.
pub fn run(console: &Console, args: &Run) -> Outcome<Value> {
    let config = DeviceConfig::read(&args.config)?;
    let labels = args.labels.as_deref().map(output::read_labels).transpose()?;
    // Inputs are read before anything of the device's state changes.
    let loaded = input::load(&args.inputs)?;
    let kernels = isa::kernels()?;
    let (settings, bundle) = device(console, &config, kernels, args.edge_a.as_ref(), args.edge_b.as_ref())?;
    if bundle.header.scheme == "plain" {
        console.warn(PLAIN_BANNER);
    }
    if let Some(path) = &args.output {
        output::check_path(path, &bundle.outputs)?;
    }
    let expected = args.expected.as_deref().map(|p| read_expected(p, &bundle.outputs)).transpose()?;
    // Better now than after a request whose result would be lost.
    for (port, value) in bundle.outputs.iter().zip(expected.iter().flatten()) {
        if *value.shape() != port.shape {
            let message = format!("output `{}` is {}, --expected has {}", port.name, port.shape, value.shape());
            let failure = Failure::new(Exit::Refused, "pponnx::input::shape", message);
            return Err(Box::new(failure.help("the expected values are of another model or another input shape")));
        }
    }
    let image = ImageEntry::from_args(&args.image).or(&config.image);
    let fitted = input::fit(&loaded, &bundle.inputs, &image)?;
    drop(loaded);
    for note in &fitted.notes {
        console.note(note);
    }

    let inference = block_on(async {
        let _progress = Progress::start(console, "waiting for the edges");
        let device = Device::start(settings).await.map_err(node_failure)?;
        let inference = device.infer(fitted.values).await;
        device.stop().await;
        inference.map_err(node_failure)
    })?;

    let mut result = facts(&bundle, &inference.stats);
    if let Some(path) = &args.output {
        output::write(path, &bundle.outputs, &inference.outputs)?;
        console.say(format!("wrote {}", path.display()));
        result.insert("output".into(), path.display().to_string().into());
    }
    for (port, value) in bundle.outputs.iter().zip(&inference.outputs) {
        if args.output.is_none() {
            for line in output::describe(port, value, labels.as_deref()) {
                console.say(line);
            }
        }
    }
    result.insert("outputs".into(), shown_outputs(&bundle, &inference.outputs, labels.as_deref()));
    if let Some(expected) = expected {
        let tolerance = tolerance_of(&bundle.header.precision);
        let comparison = compare(&bundle.outputs, &inference.outputs, &expected, tolerance)?;
        result.insert("max_rel_err".into(), number(comparison.max_rel_err()));
        result.insert("argmax_match".into(), comparison.argmax_match().into());
        console.say(format!(
            "against the expected outputs: largest difference {:.1e}, largest element {}",
            comparison.max_rel_err(),
            if comparison.argmax_match() { "the same" } else { "DIFFERS" },
        ));
    }
    result.insert("notes".into(), fitted.notes.into());
    console.say(cost_line(&bundle, &inference.stats));
    Ok(result.into())
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
