//! `pponnx verify`.

use std::sync::Arc;

use pponnx_compiler::front::front;
use pponnx_compiler::ir::split::SplitGraph;
use pponnx_compiler::pipeline::{Compiled, assemble};
use pponnx_compiler::source::ModelSource;
use pponnx_engine::TensorValue;
use pponnx_node::Stats;
use pponnx_plans::plan::Port;
use pponnx_plans::valid::ValidBundle;
use serde_json::{Map, Value, json};

use crate::args::{Scheme, Verify};
use crate::cluster::Cluster;
use crate::cmd::compile::{PLAIN_BANNER, options};
use crate::cmd::run::{cost_line, facts, shown_outputs};
use crate::compare::{Comparison, Difference, compare, number, read_expected};
use crate::config::ImageEntry;
use crate::console::{Console, table};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::{compile_failure, node_failure};
use crate::input;
use crate::isa;
use crate::model::declared_inputs;
use crate::plaintext::Plaintext;
use crate::progress::Progress;
use crate::random;
use crate::roles::block_on;
use crate::verify::labeled::{self, Example};
use crate::verify::layers::{Layer, Probe, probe};
use crate::verify::shapes;

/// Runs the command.
pub fn run(console: &Console, args: &Verify) -> Outcome<Value> {
    if args.options.scheme == Scheme::Plain {
        console.warn(PLAIN_BANNER);
    }
    let tolerance = args.tolerance.unwrap_or_else(|| args.options.precision.tolerance());
    let loaded = input::load(&args.inputs)?;
    let (compiled, split, mut notes) = compile(console, args, &loaded)?;
    notes.extend(compiled.report.notes.iter().cloned());
    let probe = if args.layers { Some(probe(&compiled.bundle)?) } else { None };
    let bundle = Arc::new(compiled.bundle);
    let constants = compiled.constants;

    let image = ImageEntry::from_args(&args.image);
    let values = if loaded.is_empty() && args.labeled.is_some() {
        None
    } else if loaded.is_empty() {
        let seed = args.seed;
        notes.push(format!("no --input: random values, seed {seed}"));
        let of = |(i, port): (usize, &Port)| random::value(port, seed, i as u64);
        Some(bundle.inputs.iter().enumerate().map(of).collect::<Outcome<Vec<_>>>()?)
    } else {
        let fitted = input::fit(&loaded, &bundle.inputs, &image)?;
        notes.extend(fitted.notes);
        Some(fitted.values)
    };
    drop(loaded);
    let expected = args.expected.as_deref().map(|p| read_expected(p, &bundle.outputs)).transpose()?;
    let examples = match (&args.labeled, bundle.inputs.as_slice()) {
        (Some(path), [port]) => labeled::read(path, port, args.samples, &image)?,
        (Some(_), ports) => {
            let message = format!("--labeled needs a network with one input, this one has {}", ports.len());
            return Err(Box::new(
                Failure::new(Exit::Usage, "pponnx::usage::labeled", message).help("give --input instead"),
            ));
        }
        (None, _) => Vec::new(),
    };
    for note in &notes {
        console.note(note);
    }

    let bytes = std::fs::read(&args.model).map_err(|e| Box::new(file_failure("read", &args.model, &e)))?;
    let plaintext = {
        let _progress = Progress::start(console, "preparing the plaintext model");
        Plaintext::load(&args.model, &bytes, &bundle.inputs, &bundle.outputs)?
    };
    drop(bytes);
    let mut work = Work { tolerance, plaintext, expected, probe, split, bundle };
    let found = {
        let _progress = Progress::start(console, "running");
        block_on(work.run(&constants, values, &examples))?
    };
    report(console, args, &mut work, found, notes)
}

/// Compiles, taking open axes from the inputs. The split network is kept for `--layers`.
fn compile(
    console: &Console,
    args: &Verify,
    loaded: &[input::Loaded],
) -> Outcome<(Compiled, Option<SplitGraph>, Vec<String>)> {
    let declared = declared_inputs(&args.model)?;
    let (taken, notes) = shapes::from_inputs(&declared, loaded, &args.options.shapes);
    let mut options = options(&args.options)?;
    for (name, shape) in taken {
        options.front.shapes.insert(name, shape.into_iter().map(Some).collect());
    }
    let _progress = Progress::start(console, format!("compiling {}", args.model.display()));
    let failed = |e| compile_failure(&args.model, e);
    let split = front(&ModelSource::Path(args.model.clone()), &options.front).map_err(failed)?;
    let kept = args.layers.then(|| split.clone());
    let compiled = assemble(split, &options).map_err(failed)?;
    Ok((compiled, kept, notes))
}

struct Work {
    tolerance: f64,
    plaintext: Plaintext,
    expected: Option<Vec<TensorValue>>,
    probe: Option<Probe>,
    split: Option<SplitGraph>,
    bundle: Arc<ValidBundle>,
}

/// What was found about one input.
struct Main {
    stats: Stats,
    outputs: Vec<TensorValue>,
    plaintext_ms: f64,
    plain: Comparison,
    expected: Option<Comparison>,
    layers: Option<Vec<Layer>>,
}

/// What was found about one example.
struct Tried {
    index: usize,
    plain: Comparison,
    class: Option<usize>,
    expected: Option<usize>,
    stats: Stats,
    plaintext_ms: f64,
}

struct Found {
    main: Option<Main>,
    examples: Vec<Tried>,
}

impl Work {
    async fn run(
        &self,
        constants: &pponnx_plans::constant::ConstStore,
        values: Option<Vec<TensorValue>>,
        examples: &[Example],
    ) -> Outcome<Found> {
        let kernels = isa::kernels()?;
        let ports = &self.bundle.outputs;
        let requests = (u64::from(values.is_some()) + examples.len() as u64).max(1);
        let cluster = Cluster::start(&self.bundle, constants, kernels, requests).await?;
        let mut main = None;
        if let Some(values) = values {
            let (plain, plaintext_ms) = tokio::task::block_in_place(|| self.plaintext.run(&values))?;
            let inference = cluster.device.infer(values.clone()).await.map_err(node_failure)?;
            let expected = self.expected.as_ref();
            let compared = compare(ports, &inference.outputs, &plain, self.tolerance)?;
            main = Some(Main {
                stats: inference.stats,
                plaintext_ms,
                plain: compared,
                expected: expected.map(|e| compare(ports, &inference.outputs, e, self.tolerance)).transpose()?,
                layers: self.layers(constants, &values).await?,
                outputs: inference.outputs,
            });
        }
        let mut tried = Vec::new();
        for example in examples {
            let values = vec![example.value.clone()];
            let (plain, plaintext_ms) = tokio::task::block_in_place(|| self.plaintext.run(&values))?;
            let inference = cluster.device.infer(values).await.map_err(node_failure)?;
            let class = inference.outputs.first().and_then(crate::output::top).and_then(|t| t.first().map(|t| t.0));
            tried.push(Tried {
                index: example.index,
                plain: compare(ports, &inference.outputs, &plain, self.tolerance)?,
                class,
                expected: example.expected,
                stats: inference.stats,
                plaintext_ms,
            });
        }
        cluster.stop().await?;
        Ok(Found { main, examples: tried })
    }

    /// Runs the extended bundle on a cluster of its own.
    async fn layers(
        &self,
        constants: &pponnx_plans::constant::ConstStore,
        values: &[TensorValue],
    ) -> Outcome<Option<Vec<Layer>>> {
        let (Some(probe), Some(split)) = (&self.probe, &self.split) else { return Ok(None) };
        let cluster = Cluster::start(&probe.bundle, constants, isa::kernels()?, 1).await?;
        let inference = cluster.device.infer(values.to_vec()).await.map_err(node_failure)?;
        cluster.stop().await?;
        let layers = tokio::task::block_in_place(|| probe.compare(split, values, &inference.outputs))?;
        Ok(Some(layers))
    }
}

fn report(console: &Console, args: &Verify, work: &mut Work, found: Found, notes: Vec<String>) -> Outcome<Value> {
    let tolerance = work.tolerance;
    let stats = found.main.as_ref().map(|m| m.stats).or(found.examples.first().map(|e| e.stats)).unwrap_or_default();
    let mut result = facts(&work.bundle, &stats);
    let mut worst: Vec<Comparison> = Vec::new();
    let mut problems = Vec::new();

    if let Some(main) = &found.main {
        result.insert("plaintext_ms".into(), number(main.plaintext_ms));
        result.insert("outputs".into(), outputs(&work.bundle, main));
        console.say(format!(
            "{}, scheme {}, precision {}",
            args.model.display(),
            args.options.scheme.name(),
            args.options.precision.name()
        ));
        say_comparison(console, "plaintext", &main.plain);
        worst.push(main.plain.clone());
        if let Some(expected) = &main.expected {
            say_comparison(console, "expected ", expected);
            result.insert("expected".into(), expected.outputs.iter().map(Difference::json).collect::<Vec<_>>().into());
            worst.push(expected.clone());
        }
        if let Some(layers) = &main.layers {
            say_layers(console, layers, tolerance);
            result.insert("layers".into(), layers.iter().map(Layer::json).collect::<Vec<_>>().into());
            let first = layers.iter().find(|l| l.max_rel_err > tolerance).map(|l| l.name.clone());
            result.insert("first_divergent_segment".into(), first.into());
        }
    }
    if !found.examples.is_empty() {
        say_examples(console, &found.examples, &mut result);
        if found.main.is_none() {
            let ms: f64 = found.examples.iter().map(|e| e.plaintext_ms).sum();
            result.insert("plaintext_ms".into(), number(ms / found.examples.len() as f64));
        }
        for example in &found.examples {
            worst.push(example.plain.clone());
            if let (Some(class), Some(expected)) = (example.class, example.expected)
                && class != expected
            {
                problems.push(format!("example {} is class {class}, expected {expected}", example.index));
            }
        }
    }
    let max_rel_err = worst.iter().map(Comparison::max_rel_err).fold(0.0, f64::max);
    let argmax_match = worst.iter().all(Comparison::argmax_match);
    let within = worst.iter().all(|c| c.within(tolerance)) && problems.is_empty();
    result.insert("max_rel_err".into(), number(max_rel_err));
    result.insert("argmax_match".into(), (argmax_match && problems.is_empty()).into());
    result.insert("tolerance".into(), number(tolerance));
    result.insert("passed".into(), within.into());
    result.insert("notes".into(), notes.into());
    console.say(cost_line(&work.bundle, &stats));
    if within {
        console.say(format!("agrees with plaintext within {tolerance:e}"));
        return Ok(result.into());
    }
    let expected = found.main.as_ref().and_then(|m| m.expected.as_ref()).filter(|e| !e.within(tolerance));
    let plain_agrees = found.main.as_ref().is_none_or(|m| m.plain.within(tolerance));
    let mut help = "try --precision precise, and --layers to see which segment differs first";
    let message = if !problems.is_empty() {
        problems.join("; ")
    } else if let Some(expected) = expected.filter(|_| plain_agrees) {
        help = "it agrees with plaintext, so the file given with --expected is of another model or another input";
        let largest = if expected.argmax_match() { "" } else { ", and in which element is largest" };
        format!(
            "the answer differs from --expected by {:.1e} of its largest value{largest}; {tolerance:e} is accepted",
            expected.max_rel_err()
        )
    } else if max_rel_err > tolerance || !max_rel_err.is_finite() {
        format!(
            "the answer differs from plaintext by {max_rel_err:.1e} of its largest value; {tolerance:e} is accepted"
        )
    } else {
        format!("the largest element is another one than in plaintext (difference {max_rel_err:.1e})")
    };
    let mut failure = Failure::new(Exit::Differs, "pponnx::verify::differs", message).help(help);
    failure.result = result;
    Err(Box::new(failure))
}

fn outputs(bundle: &ValidBundle, main: &Main) -> Value {
    let mut shown = shown_outputs(bundle, &main.outputs, None);
    for (entry, difference) in shown.as_array_mut().into_iter().flatten().zip(&main.plain.outputs) {
        if let Some(object) = entry.as_object_mut() {
            object.insert("max_rel_err".into(), number(difference.max_rel_err));
            object.insert("argmax_match".into(), difference.argmax_match.into());
        }
    }
    shown
}

fn say_comparison(console: &Console, with: &str, comparison: &Comparison) {
    let rows: Vec<Vec<String>> = comparison
        .outputs
        .iter()
        .map(|d| {
            let largest = if d.argmax_match { "same largest element" } else { "LARGEST ELEMENT DIFFERS" };
            vec![format!("  against {with}"), format!("`{}`", d.name), format!("{:.1e}", d.max_rel_err), largest.into()]
        })
        .collect();
    for line in table(&rows, &[]) {
        console.say(line);
    }
}

fn say_layers(console: &Console, layers: &[Layer], tolerance: f64) {
    let head = ["  segment", "result", "against f64"].map(String::from).to_vec();
    let mut first = true;
    let rows = layers.iter().map(|l| {
        let mut row = vec![format!("  {}", l.name), l.shape.to_string(), format!("{:.1e}", l.max_rel_err)];
        if first && l.max_rel_err > tolerance {
            first = false;
            row.push("first that differs".into());
        }
        row
    });
    for line in table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[]) {
        console.say(line);
    }
}

fn say_examples(console: &Console, examples: &[Tried], result: &mut Map<String, Value>) {
    let agree = examples.iter().filter(|e| e.plain.argmax_match()).count();
    let judged = examples.iter().filter(|e| e.class.is_some() && e.expected.is_some()).count();
    let right = examples.iter().filter(|e| e.class.is_some() && e.class == e.expected).count();
    let worst = examples.iter().map(|e| e.plain.max_rel_err()).fold(0.0, f64::max);
    console.say(format!(
        "  {} examples: {agree} with plaintext's largest element, difference up to {worst:.1e}",
        examples.len()
    ));
    if judged > 0 {
        console.say(format!("  {right} of {judged} of the expected class"));
    }
    result.insert(
        "labeled".into(),
        json!({
            "samples": examples.len(), "argmax_match": agree, "judged": judged, "expected_class": right,
            "max_rel_err": number(worst),
        }),
    );
}
