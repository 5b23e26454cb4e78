//! `pponnx inspect`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use pponnx_compiler::front::front;
use pponnx_compiler::ir::split::{NodeInfo, Place, SplitGraph};
use pponnx_compiler::pipeline::assemble;
use pponnx_compiler::report::Report;
use pponnx_compiler::source::ModelSource;
use pponnx_plans::plan::Port;
use pponnx_plans::text;
use pponnx_plans::value::Role;
use serde_json::{Value, json};

use crate::args::{Inspect, ModelOptions, Precision, Scheme, Suite};
use crate::cmd::compile::options;
use crate::config::hex;
use crate::console::{Console, bytes, count, percent, table, things};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::compile_failure;
use crate::plan::{Plan, looks_like_plan, read_any};
use crate::progress::Progress;

/// Runs the command.
pub fn run(console: &Console, args: &Inspect) -> Outcome<Value> {
    let mut head = [0u8; 8];
    let read = std::fs::File::open(&args.file).and_then(|f| f.take(8).read(&mut head));
    let read = read.map_err(|e| Box::new(file_failure("read", &args.file, &e)))?;
    if looks_like_plan(head.get(..read).unwrap_or_default()) {
        return plan(console, &read_any(&args.file)?, args.text);
    }
    if args.text {
        return Err(Box::new(
            Failure::new(Exit::Usage, "pponnx::usage::text", format!("`{}` is not a plan", args.file.display()))
                .help("--text prints the programs of a plan file, such as out/device/device.plan"),
        ));
    }
    model(console, args)
}

// ------------------------------------------------------------------------------------------------- models

fn model(console: &Console, args: &Inspect) -> Outcome<Value> {
    let wishes = ModelOptions {
        scheme: Scheme::default(),
        precision: Precision::default(),
        suite: Suite::default(),
        shapes: args.shapes.clone(),
    };
    let options = options(&wishes)?;
    let (split, report) = analyse(console, &args.file, &options)?;
    for note in &split.notes {
        console.note(note);
    }
    let operators = operators(&split.nodes);
    if !console.is_json() {
        console.say(format!("{}  {}", split.model, hex(&split.model_digest)));
        ports(console, "input", &split.inputs);
        ports(console, "output", &split.outputs);
        console.say("");
        operator_table(console, &operators);
        reasons(console, &split.nodes);
        if args.all {
            nodes(console, &split.nodes);
        }
        console.say("");
        console.say(format!(
            "{}; with scheme {}, precision {}:",
            things(report.segments as u64, "segment"),
            wishes.scheme.name(),
            wishes.precision.name(),
        ));
        console.say(report.summary());
    }
    let port = |p: &Port| json!({ "name": p.name, "dtype": p.dtype.name(), "shape": p.shape.0 });
    let node = |n: &NodeInfo| {
        json!({
            "node": n.name, "op": n.op, "place": place(n.place), "reason": n.reason, "mult_adds": n.mult_adds,
            "output": n.output.as_ref().map(|(name, shape)| json!({ "name": name, "shape": shape.0 })),
        })
    };
    let operators: BTreeMap<&str, Value> = operators
        .iter()
        .map(|(op, t)| {
            (*op, json!({ "nodes": t.nodes, "outsourced": t.outsourced, "local": t.local, "mult_adds": t.mult_adds }))
        })
        .collect();
    Ok(json!({
        "kind": "model",
        "model": split.model,
        "model_digest": hex(&split.model_digest),
        "inputs": split.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": split.outputs.iter().map(port).collect::<Vec<_>>(),
        "operators": operators,
        "nodes": split.nodes.iter().map(node).collect::<Vec<_>>(),
        "segments": report.segments,
        "rounds": report.rounds,
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "mult_adds": report.mult_adds,
        "outsourced_mac_share": report.outsourced_mac_share,
        "notes": split.notes,
        "summary": report.summary(),
    }))
}

fn analyse(
    console: &Console,
    path: &Path,
    options: &pponnx_compiler::pipeline::Options,
) -> Outcome<(SplitGraph, Report)> {
    let _progress = Progress::start(console, format!("reading {}", path.display()));
    let failed = |e| compile_failure(path, e);
    let split = front(&ModelSource::Path(path.to_owned()), &options.front).map_err(failed)?;
    let report = assemble(split.clone(), options).map_err(failed)?.report;
    Ok((split, report))
}

#[derive(Default)]
struct Tally {
    nodes: usize,
    outsourced: usize,
    local: usize,
    mult_adds: u64,
}

fn operators(nodes: &[NodeInfo]) -> BTreeMap<&str, Tally> {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for node in nodes {
        let tally = tallies.entry(&node.op).or_default();
        tally.nodes += 1;
        tally.mult_adds += node.mult_adds;
        match node.place {
            Place::Outsourced => tally.outsourced += 1,
            Place::Local => tally.local += 1,
            Place::Folded => {}
        }
    }
    tallies
}

fn operator_table(console: &Console, operators: &BTreeMap<&str, Tally>) {
    let mut sorted: Vec<_> = operators.iter().collect();
    sorted.sort_by_key(|(op, t)| (std::cmp::Reverse(t.mult_adds), std::cmp::Reverse(t.nodes), **op));
    let head = ["operator", "nodes", "outsourced", "local", "folded", "mult-adds"].map(String::from).to_vec();
    let rows = sorted.into_iter().map(|(op, t)| {
        let folded = t.nodes - t.outsourced - t.local;
        let dash = |n: usize| if n == 0 { "-".to_owned() } else { n.to_string() };
        let mult_adds = if t.mult_adds == 0 { "-".into() } else { count(t.mult_adds) };
        vec![(*op).to_owned(), t.nodes.to_string(), dash(t.outsourced), dash(t.local), dash(folded), mult_adds]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[1, 2, 3, 4, 5]) {
        console.say(line);
    }
}

/// Why nodes stay on the device, operators with the same reason together.
fn reasons(console: &Console, nodes: &[NodeInfo]) {
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(|n| n.place == Place::Local) {
        groups.entry((&node.op, &node.reason)).or_default().push(&node.name);
    }
    if groups.is_empty() {
        return;
    }
    console.say("");
    console.say("on the device, and why:");
    let rows = groups.into_iter().map(|((op, reason), names)| {
        let example = match names.as_slice() {
            [only] => format!("`{only}`"),
            [first, ..] => format!("`{first}` and {} more", names.len() - 1),
            [] => String::new(),
        };
        vec![format!("  {op}"), reason.to_owned(), example]
    });
    for line in table(&rows.collect::<Vec<_>>(), &[]) {
        console.say(line);
    }
}

fn nodes(console: &Console, nodes: &[NodeInfo]) {
    console.say("");
    let head = ["node", "operator", "runs at", "output", "mult-adds"].map(String::from).to_vec();
    let rows = nodes.iter().map(|n| {
        let output = n.output.as_ref().map_or_else(String::new, |(_, shape)| shape.to_string());
        let mult_adds = if n.mult_adds == 0 { "-".into() } else { count(n.mult_adds) };
        vec![n.name.clone(), n.op.clone(), place(n.place).into(), output, mult_adds]
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[4]) {
        console.say(line);
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Outsourced => "outsourced",
        Place::Local => "local",
        Place::Folded => "folded",
    }
}

fn ports(console: &Console, what: &str, ports: &[Port]) {
    for port in ports {
        console.say(format!("  {what} `{}`: {}{}", port.name, port.dtype.name(), port.shape));
    }
}

// -------------------------------------------------------------------------------------------------- plans

fn plan(console: &Console, plan: &Plan, as_text: bool) -> Outcome<Value> {
    let bundle = &plan.bundle;
    let (header, cost) = (&bundle.header, &bundle.cost);
    let share = share(bundle);
    let printed = as_text.then(|| text::print(bundle));
    let constant_bytes: u64 = plan.constants.iter().map(|(_, size)| size).sum();
    if let Some(printed) = &printed {
        console.say(printed.trim_end());
    } else {
        console.say(format!("plan of {} for {}", plan.role, header.model));
        console.say(format!("  bundle {}", hex(bundle.digest())));
        console.say(format!("  scheme {}, precision {}, masks {}", header.scheme, header.precision, header.suite));
        ports(console, "input", &bundle.inputs);
        ports(console, "output", &bundle.outputs);
        for role in Role::ALL {
            let steps = bundle.program(role).map_or(0, |p| p.steps.len());
            console.say(format!("  {role}: {}", things(steps as u64, "step")));
        }
        console.say(format!(
            "  {} for this role, {}",
            things(plan.constants.len() as u64, "constant"),
            bytes(constant_bytes)
        ));
        console.say(format!(
            "{}, {} of the mult-adds outsourced; {}; {} up, {} down, {} between edges",
            things(bundle.maps.len() as u64, "segment"),
            percent(share),
            things(cost.rounds, "round"),
            bytes(cost.bytes_up),
            bytes(cost.bytes_down),
            bytes(cost.bytes_edge_link),
        ));
        let head = ["segment", "operations", "slot", "k", "shape"].map(String::from).to_vec();
        let rows = bundle.slots.iter().map(|slot| {
            let map = bundle.maps.iter().find(|m| m.name == slot.name && slot.kind.name() != "upload");
            let ops = map.map_or_else(String::new, |m| m.ops.iter().map(|o| o.name()).collect::<Vec<_>>().join(" "));
            vec![slot.name.clone(), ops, slot.kind.name().into(), slot.k.to_string(), slot.shape.to_string()]
        });
        for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[3]) {
            console.say(line);
        }
    }
    let port = |p: &Port| json!({ "name": p.name, "dtype": p.dtype.name(), "shape": p.shape.0 });
    Ok(json!({
        "kind": "plan",
        "role": plan.role.name(),
        "model": header.model,
        "model_digest": hex(&header.model_digest),
        "bundle": hex(bundle.digest()),
        "scheme": header.scheme,
        "precision": header.precision,
        "inputs": bundle.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": bundle.outputs.iter().map(port).collect::<Vec<_>>(),
        "segments": bundle.maps.len(),
        "rounds": cost.rounds,
        "bytes_up": cost.bytes_up,
        "bytes_down": cost.bytes_down,
        "edge_link_bytes": cost.bytes_edge_link,
        "mult_adds_edge_a": cost.mult_adds_edge_a,
        "mult_adds_edge_b": cost.mult_adds_edge_b,
        "outsourced_mac_share": share,
        "constants": plan.constants.len(),
        "constant_bytes": constant_bytes,
        "text": printed,
    }))
}

/// Share of the network's mult-adds that edge A does.
pub fn share(bundle: &pponnx_plans::plan::Bundle) -> f64 {
    match bundle.header.total_mult_adds {
        0 => 0.0,
        // Padding counts in a plan and not in a model, so that the quotient may pass 1 by a little.
        all => (bundle.cost.mult_adds_edge_a as f64 / all as f64).min(1.0),
    }
}
