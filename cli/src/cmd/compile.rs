//! `pponnx compile`.

use std::path::Path;
use std::sync::Arc;

use pponnx_compiler::pipeline::{Compiled, Options, compile};
use pponnx_compiler::precision::Precision as Width;
use pponnx_compiler::report::Report;
use pponnx_compiler::schemes;
use pponnx_compiler::source::{FrontOptions, ModelSource};
use pponnx_plans::plan::SlotKind;
use pponnx_plans::valid::ValidBundle;
use pponnx_plans::value::Role;
use serde_json::{Value, json};

use crate::args::{Compile, ModelOptions, Scheme};
use crate::config::ImageEntry;
use crate::console::{Console, bytes, things};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::foreign::compile_failure;
use crate::isa;
use crate::owner::folders::{Contents, configurations, stored_with, write};
use crate::owner::report::html;
use crate::owner::staging::Staging;
use crate::progress::Progress;

/// Key pairs that are dealt if the user does not say how many.
pub const DEFAULT_REQUESTS: u64 = 8;

/// The warning of scheme `plain`.
pub const PLAIN_BANNER: &str = "scheme plain gives NO PRIVACY: edge A sees the input, every activation and the result";

/// The compiler's options for these arguments.
pub fn options(args: &ModelOptions) -> Outcome<Options> {
    let unknown = || Failure::internal("a scheme or precision is not known to the compiler");
    Ok(Options {
        scheme: schemes::by_name(args.scheme.name()).ok_or_else(unknown)?,
        precision: Width::from_name(args.precision.name()).ok_or_else(unknown)?,
        suite: args.suite.name(),
        front: FrontOptions {
            shapes: args.shapes.iter().map(|(n, d)| (n.clone(), d.iter().copied().map(Some).collect())).collect(),
        },
    })
}

/// Compiles a model file.
pub fn compile_model(console: &Console, model: &Path, options: &Options) -> Outcome<Compiled> {
    // A missing file is not a fault of the model, so it is told apart here.
    std::fs::File::open(model).map_err(|e| Box::new(file_failure("read", model, &e)))?;
    let _progress = Progress::start(console, format!("compiling {}", model.display()));
    compile(&ModelSource::Path(model.to_owned()), options).map_err(|e| compile_failure(model, e))
}

/// Runs the command.
pub fn run(console: &Console, args: &Compile) -> Outcome<Value> {
    let scheme = args.options.scheme;
    check_arguments(args, scheme)?;
    if scheme == Scheme::Plain {
        console.warn(PLAIN_BANNER);
    }
    // Refuses an existing folder before minutes are spent on the model.
    let staging = match &args.output {
        Some(output) if !args.dry_run => Some((output, Staging::start(output, args.force)?)),
        _ => None,
    };
    let compiled = compile_model(console, &args.model, &options(&args.options)?)?;
    for note in &compiled.report.notes {
        console.note(note);
    }
    let summary = compiled.report.summary();
    let mut result = report_json(&compiled.report)?;
    if let Some((output, staging)) = staging {
        let requests = args.requests.unwrap_or(DEFAULT_REQUESTS);
        let wishes = Wishes {
            devices: args.devices,
            addresses: (&args.edge_a, &args.edge_b),
            image: ImageEntry::from_args(&args.image),
            requests,
        };
        let bundle = {
            let _progress = Progress::start(console, format!("writing {}", output.display()));
            write_folders(compiled, staging, &wishes)?
        };
        let folders = folder_names(args.devices, bundle.has_role(Role::EdgeB));
        for folder in &folders {
            console.say(format!("wrote {}", output.join(folder).display()));
        }
        if let Some(holder) = stored_with(&bundle) {
            let each: u64 = bundle.slots.iter().filter(|s| s.kind == SlotKind::Correction).map(|s| s.bytes()).sum();
            let said = if args.requests.is_none() { " (--requests N deals another number)" } else { "" };
            console.say(format!(
                "dealt {} to each device, kept at {}: {}{said}",
                things(requests, "key pair"),
                if holder == Role::Device { "the device" } else { "edge A" },
                bytes(each.saturating_mul(requests)),
            ));
            add(&mut result, "requests", requests.into());
        }
        add(&mut result, "output", output.display().to_string().into());
        add(&mut result, "folders", folders.into());
    }
    add(&mut result, "summary", summary.clone().into());
    console.say(summary);
    Ok(result)
}

/// What the folders need to know besides the compiled model.
pub struct Wishes<'a> {
    /// Number of devices.
    pub devices: u16,
    /// Addresses of edge A and edge B.
    pub addresses: (&'a str, &'a str),
    /// Pictures as input.
    pub image: ImageEntry,
    /// Key pairs to deal, where the scheme deals any.
    pub requests: u64,
}

/// Makes all keys and writes all folders and reports; the folder appears whole.
pub fn write_folders(compiled: Compiled, staging: Staging, wishes: &Wishes<'_>) -> Outcome<Arc<ValidBundle>> {
    let Compiled { bundle, constants, report, .. } = compiled;
    let bundle = Arc::new(bundle);
    let (devices, edge_a, edge_b) = configurations(&bundle, wishes.devices, wishes.addresses, &wishes.image)?;
    let contents = Contents {
        bundle: Arc::clone(&bundle),
        constants: &constants,
        kernels: isa::kernels()?,
        requests: wishes.requests,
        devices,
        edge_a,
        edge_b,
    };
    write(contents, &staging)?;
    let text = serde_json::to_string_pretty(&report_json(&report)?).map_err(|e| Failure::internal(e.to_string()))?;
    staging.write("report.json", text.as_bytes(), false)?;
    staging.write("report.html", html(&report).as_bytes(), false)?;
    staging.publish()?;
    Ok(bundle)
}

fn report_json(report: &Report) -> Outcome<Value> {
    let failed = |e| Failure::internal(format!("the report cannot be written as JSON: {e}"));
    Ok(serde_json::to_value(report).map_err(failed)?)
}

fn folder_names(devices: u16, edge_b: bool) -> Vec<String> {
    let mut names: Vec<String> = (0..usize::from(devices)).map(crate::owner::folders::device_folder).collect();
    names.push("edge-a".into());
    if edge_b {
        names.push("edge-b".into());
    }
    names
}

fn add(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    } else {
        *object = json!({ key: value });
    }
}

fn check_arguments(args: &Compile, scheme: Scheme) -> Outcome<()> {
    let refuse = |code: &'static str, message: String, help: &str| {
        Err(Box::new(Failure::new(Exit::Usage, code, message).help(help)))
    };
    if args.requests.is_some() && !scheme.is_dealt() {
        return refuse(
            "pponnx::usage::requests",
            format!("--requests does not apply to scheme {}", scheme.name()),
            "only one-time and stockpile have a number of requests; drop --requests",
        );
    }
    if scheme == Scheme::Plain && !args.allow_plain {
        return refuse(
            "pponnx::usage::plain",
            PLAIN_BANNER.into(),
            "it is a reference for tests; add --allow-plain if that is what you want",
        );
    }
    if args.edge_a == args.edge_b && !scheme.is_dealt() && scheme != Scheme::Plain {
        return refuse(
            "pponnx::usage::one-edge",
            format!("edge A and edge B have the same address, {}", args.edge_a),
            "privacy rests on two edges that do not collude: give each its own machine and operator",
        );
    }
    Ok(())
}
