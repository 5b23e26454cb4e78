//! `pponnx demo`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use pponnx_compiler::pipeline::compile;
use pponnx_compiler::source::ModelSource;
use pponnx_engine::TensorValue;
use pponnx_plans::plan::SlotKind;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use serde_json::{Value, json};

use crate::args::{Demo, ModelOptions, Scheme};
use crate::cmd::compile::{PLAIN_BANNER, Wishes, options, write_folders};
use crate::compare::{Comparison, compare, number};
use crate::config::ImageEntry;
use crate::console::{Console, bytes, percent, table, things};
use crate::demo::child::Child;
use crate::demo::picture::{Grid, Page, Seen, html};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::compile_failure;
use crate::input::npy;
use crate::output::{self, write_beside};
use crate::owner::staging::Staging;
use crate::plaintext::Plaintext;
use crate::record::{self, Received};

/// A small network that was trained on scikit-learn's digits (`onnx-models/digits`).
pub const MODEL: &[u8] = include_bytes!("../../../onnx-models/digits/model.onnx");
/// A digit that it was not trained on.
const INPUT: &[u8] = include_bytes!("../../../onnx-models/digits/input.npy");
const LABELS: &str = include_str!("../../../onnx-models/digits/labels.txt");
/// Name of the picture.
pub const PICTURE: &str = "pponnx-demo.html";

/// Runs the command.
pub fn run(console: &Console, args: &Demo) -> Outcome<Value> {
    if args.scheme == Scheme::Plain {
        console.warn(PLAIN_BANNER);
    }
    let folder = tempfile::Builder::new().prefix("pponnx-demo-").tempdir();
    let folder = folder.map_err(|e| Box::new(file_failure("make a folder in", &std::env::temp_dir(), &e)))?;
    let input = npy::array(INPUT).map_err(Failure::internal)?;
    let labels: Vec<String> = LABELS.lines().map(str::to_owned).collect();

    console.say("1. compile a network that reads handwritten digits, and make a folder for each party");
    let (bundle, summary) = compiled(args, folder.path())?;
    console.say(format!("   {summary}"));
    let told = processes(console, folder.path(), &bundle, args.scheme)?;

    let plaintext = Plaintext::load(Path::new("model.onnx"), MODEL, &bundle.inputs, &bundle.outputs)?;
    let (plain, plaintext_ms) = plaintext.run(std::slice::from_ref(&input))?;
    let tolerance = args.precision.tolerance();
    let comparison = compare(&bundle.outputs, &told.outputs, &plain, tolerance)?;
    let classes = classes(&told.outputs, &plain, &labels);
    let grid = input_grid(&input);

    console.say("");
    console.say("   the input, which only the device sees:");
    console.say("");
    for line in grid.ascii() {
        console.say(format!("      {line}"));
    }
    console.say("");
    let head = ["   digit", "private", "plaintext"].map(String::from).to_vec();
    let rows = classes.iter().map(|(l, a, b)| vec![format!("   {l}"), format!("{a:.5}"), format!("{b:.5}")]);
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[1, 2]) {
        console.say(line);
    }
    let cost = |key: &str| told.result.get(key).and_then(Value::as_u64).unwrap_or(0);
    let share = told.result.get("outsourced_mac_share").and_then(Value::as_f64).unwrap_or(0.0);
    console.say("");
    console.say(format!(
        "   {} of the mult-adds outsourced; {}; {} up, {} down; largest difference {:.1e}",
        percent(share),
        things(cost("rounds"), "round"),
        bytes(cost("bytes_up")),
        bytes(cost("bytes_down")),
        comparison.max_rel_err(),
    ));

    let page = Page {
        input: grid,
        edge_a: seen(&bundle, &told.edge_a),
        edge_b: kinds(&told.edge_b),
        classes,
        settings: (&bundle.header.scheme, &bundle.header.precision),
        rounds: cost("rounds"),
        up: cost("bytes_up"),
        down: cost("bytes_down"),
        share,
        max_rel_err: comparison.max_rel_err(),
    };
    let picture = write_picture(&args.output, &html(&page))?;
    console.say(format!("   what each party saw: {}", picture.display()));
    finish(console, told, &comparison, tolerance, plaintext_ms, &picture, &labels)
}

fn finish(
    console: &Console,
    told: Told,
    comparison: &Comparison,
    tolerance: f64,
    plaintext_ms: f64,
    picture: &Path,
    labels: &[String],
) -> Outcome<Value> {
    let mut result = told.result;
    // The device's own output file lies in a folder that goes with this process.
    result.remove("output");
    let class = told.outputs.first().and_then(output::top).and_then(|t| t.first().map(|t| t.0));
    for (key, value) in [
        ("max_rel_err", number(comparison.max_rel_err())),
        ("argmax_match", comparison.argmax_match().into()),
        ("plaintext_ms", number(plaintext_ms)),
        ("tolerance", number(tolerance)),
        ("answer", class.and_then(|c| labels.get(c)).cloned().into()),
        ("picture", picture.display().to_string().into()),
        ("processes", told.processes),
    ] {
        result.insert(key.into(), value);
    }
    if comparison.within(tolerance) {
        let answer = class.map_or_else(|| "none".into(), |c| labels.get(c).cloned().unwrap_or_else(|| c.to_string()));
        console.say("");
        console.say(format!("The answer is {answer}, as in plaintext."));
        return Ok(result.into());
    }
    let message = format!("the answer differs from plaintext by {:.1e}", comparison.max_rel_err());
    let mut failure =
        Failure::new(Exit::Differs, "pponnx::demo::differs", message).help("this is a bug in pponnx: please report it");
    failure.result = result;
    Err(Box::new(failure))
}

/// What the processes left behind.
struct Told {
    result: serde_json::Map<String, Value>,
    outputs: Vec<TensorValue>,
    edge_a: Vec<Received>,
    edge_b: Vec<Received>,
    processes: Value,
}

fn compiled(args: &Demo, folder: &Path) -> Outcome<(std::sync::Arc<ValidBundle>, String)> {
    let wishes = ModelOptions { scheme: args.scheme, precision: args.precision, suite: args.suite, shapes: Vec::new() };
    let source = ModelSource::Bytes { name: "digits".into(), bytes: MODEL.to_vec(), dir: None };
    let compiled = compile(&source, &options(&wishes)?).map_err(|e| compile_failure(Path::new("digits"), e))?;
    let summary = compiled.report.summary();
    let staging = Staging::start(&folder.join("out"), false)?;
    let wishes = Wishes {
        devices: 1,
        // The edges choose free ports and say which.
        addresses: ("127.0.0.1:0", "localhost:0"),
        image: ImageEntry::default(),
        requests: 1,
    };
    Ok((write_folders(compiled, staging, &wishes)?, summary))
}

/// Starts the edges, runs the device, stops the edges.
fn processes(console: &Console, folder: &Path, bundle: &ValidBundle, scheme: Scheme) -> Outcome<Told> {
    let out = folder.join("out");
    let edge = |name: &'static str, edge_a: Option<&str>| -> Outcome<(Child, String, PathBuf)> {
        let (ready, seen) = (folder.join(format!("{name}.ready")), folder.join(format!("{name}.seen")));
        let mut args: Vec<OsString> = ["--json", "serve", "--until-stdin-closes", "-c"].map(OsString::from).to_vec();
        args.push(out.join(name).join("edge.toml").into());
        args.extend(["--listen", "127.0.0.1:0", "--ready-file"].map(OsString::from));
        args.push(ready.clone().into());
        args.push("--record".into());
        args.push(seen.clone().into());
        if let Some(address) = edge_a {
            args.extend(["--edge-a", address].map(OsString::from));
        }
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let mut child = Child::start(name, folder, &args)?;
        let address = child.ready(&ready)?;
        console.say(format!("   {name}: process {}, listening at {address}", child.id()));
        Ok((child, address, seen))
    };
    console.say("2. start the edges and the device as processes of their own, over TLS");
    let (edge_a, address_a, seen_a) = edge("edge-a", None)?;
    let edge_b = match bundle.has_role(Role::EdgeB) {
        true => Some(edge("edge-b", (scheme == Scheme::Relay).then_some(address_a.as_str()))?),
        false => None,
    };

    let (input, answer) = (folder.join("input.npy"), folder.join("y.npz"));
    write_beside(&input, INPUT)?;
    let mut args: Vec<OsString> = ["--json", "run", "-c"].map(OsString::from).to_vec();
    args.push(out.join("device/device.toml").into());
    args.push("--input".into());
    args.push(input.into());
    args.push("--output".into());
    args.push(answer.clone().into());
    args.extend(["--edge-a", address_a.as_str()].map(OsString::from));
    if let Some((_, address, _)) = &edge_b {
        args.extend(["--edge-b", address.as_str()].map(OsString::from));
    }
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let device = Child::start("device", folder, &args)?;
    console.say(format!("   device: process {}", device.id()));
    let mut ids = json!({ "edge-a": edge_a.id(), "device": device.id() });
    let printed = device.finish(folder)?;

    let mut told_b = Vec::new();
    if let Some((child, _, seen)) = edge_b {
        if let Some(ids) = ids.as_object_mut() {
            ids.insert("edge-b".into(), child.id().into());
        }
        child.stop()?;
        told_b = record::read(&seen)?;
    }
    edge_a.stop()?;
    let result = serde_json::from_str(&printed)
        .map_err(|e| Failure::internal(format!("the device process printed no JSON: {e}")))?;
    Ok(Told {
        result,
        outputs: read_outputs(&answer, bundle)?,
        edge_a: record::read(&seen_a)?,
        edge_b: told_b,
        processes: ids,
    })
}

fn read_outputs(path: &Path, bundle: &ValidBundle) -> Outcome<Vec<TensorValue>> {
    let data = std::fs::read(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    let arrays = npy::archive(&data).map_err(Failure::internal)?;
    let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let values: Option<Vec<TensorValue>> = bundle.outputs.iter().map(|p| find(&p.name)).collect();
    values.ok_or_else(|| Box::new(Failure::internal("the device process left out an output")))
}

/// Our score and plaintext's for the top classes of plaintext.
fn classes(ours: &[TensorValue], plain: &[TensorValue], labels: &[String]) -> Vec<(String, f64, f64)> {
    let scores = ours.first().map(|v| v.elements().to_f64()).unwrap_or_default();
    let top = plain.first().and_then(output::top).unwrap_or_default();
    let label = |c: usize| labels.get(c).cloned().unwrap_or_else(|| c.to_string());
    top.into_iter().map(|(c, p)| (label(c), scores.get(c).copied().unwrap_or(f64::NAN), p)).collect()
}

/// The digit as a picture: in the network's input 0 is paper and 1 is ink.
fn input_grid(input: &TensorValue) -> Grid {
    let columns = input.shape().0.last().copied().unwrap_or(1);
    let grey = |v: f64| (255.0 - v.clamp(0.0, 1.0) * 255.0) as u8;
    Grid { columns, values: input.elements().to_f64().into_iter().map(grey).collect() }
}

/// The tensors that edge A received from the device, as edge A could draw them.
fn seen(bundle: &ValidBundle, received: &[Received]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for message in received.iter().filter(|m| m.from == "device") {
        let (Some(slot), Some(payload)) = (message.slot, &message.payload) else { continue };
        let Some(slot) = bundle.slots.get(slot as usize).filter(|s| s.kind == SlotKind::Upload) else { continue };
        let Some(payload) = crate::config::unhex(payload) else { continue };
        // Feature maps one below the other would make a long strip: as near to a square as their width allows.
        let width = slot.shape.0.last().copied().unwrap_or(1);
        let square = (slot.shape.len() as f64).sqrt();
        let columns = width * ((square / width as f64).round() as usize).max(1);
        seen.push(Seen {
            caption: format!("{} values of {} bits, tensor {}", slot.shape.len(), slot.k, slot.name),
            grid: Grid::of_packed(&payload, slot.k, columns),
        });
    }
    seen
}

fn kinds(received: &[Received]) -> Vec<(String, usize)> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for message in received.iter().filter(|m| m.from == "device") {
        *kinds.entry(&message.message).or_default() += 1;
    }
    kinds.into_iter().map(|(k, n)| (k.to_owned(), n)).collect()
}

fn write_picture(folder: &Path, page: &str) -> Outcome<PathBuf> {
    std::fs::create_dir_all(folder).map_err(|e| Box::new(file_failure("make", folder, &e)))?;
    let path = folder.join(PICTURE);
    write_beside(&path, page.as_bytes())?;
    Ok(path)
}
