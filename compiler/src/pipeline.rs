//! The compiler as one list of steps.

use pponnx_plans::constant::ConstStore;
use pponnx_plans::plan::Header;
use pponnx_plans::valid::{self, ValidBundle, Violation};

use crate::diag::{CompileError, Diagnostic};
use crate::front;
use crate::ir::split::SplitGraph;
use crate::lower::{self, Interface};
use crate::passes::quantise;
use crate::precision::Precision;
use crate::report::Report;
use crate::schemes::Scheme;
use crate::source::{FrontOptions, ModelSource};

/// How to compile.
pub struct Options {
    /// Who corrects, and where corrections wait.
    pub scheme: &'static dyn Scheme,
    /// Widths of ring and weights.
    pub precision: Precision,
    /// Mask stream: one of [`SUITES`](pponnx_plans::plan::SUITES).
    pub suite: &'static str,
    /// Shapes and reading.
    pub front: FrontOptions,
}

/// A compiled model.
pub struct Compiled {
    /// The programs, validated.
    pub bundle: ValidBundle,
    /// Bytes of all constants.
    pub constants: ConstStore,
    /// What was decided and what it costs.
    pub report: Report,
}

/// Reads, splits, quantises and writes the programs of all roles. Same model and options, same bytes.
///
/// # Errors
/// Every problem that was found, each with its ONNX node.
pub fn compile(model: &ModelSource, options: &Options) -> Result<Compiled, CompileError> {
    let split = front::front(model, &options.front)?;
    assemble(split, options)
}

/// The part of [`compile`] behind the front end.
///
/// # Errors
/// A mistake of the compiler, reported with the segment it was found in.
pub fn assemble(split: SplitGraph, options: &Options) -> Result<Compiled, CompileError> {
    let SplitGraph {
        model,
        model_digest,
        inputs,
        input_tensors,
        outputs,
        output_tensors,
        tensors,
        parts,
        nodes,
        notes,
    } = split;
    let parts = quantise::quantise(parts, options.precision)
        .map_err(|(segment, what)| internal("quantise", Some(segment), what))?;
    let header = Header {
        model,
        model_digest,
        scheme: options.scheme.name().into(),
        precision: options.precision.name().into(),
        suite: options.suite.into(),
        total_mult_adds: nodes.iter().map(|n| n.mult_adds).sum(),
    };
    let interface =
        Interface { inputs: (&inputs, &input_tensors), outputs: (&outputs, &output_tensors), tensors: &tensors };
    let (mut bundle, constants) =
        lower::lower(header, &interface, parts, options.scheme).map_err(|e| internal("lower", None, e))?;
    bundle.cost = valid::cost(&bundle).map_err(|v| internal("cost", None, format!("{v:?}")))?;
    let bundle = valid::validate(bundle)
        .map_err(|violations| CompileError { diagnostics: violations.iter().map(broken).collect() })?;
    let report = Report::new(&bundle, bundle.digest(), &nodes, &notes);
    Ok(Compiled { bundle, constants, report })
}

/// A rule that the programs break: sizes come from the model, all else is ours.
fn broken(violation: &Violation) -> Diagnostic {
    if violation.rule == "T02" {
        return Diagnostic::new("tensor-size", violation.message.clone())
            .hint("use a smaller --shape, or a smaller model");
    }
    mistake("validate", None, violation.to_string())
}

fn internal(stage: &str, segment: Option<String>, what: String) -> CompileError {
    mistake(stage, segment, what).into()
}

fn mistake(stage: &str, segment: Option<String>, what: String) -> Diagnostic {
    let found = Diagnostic::new("internal", format!("{stage}: {what}"))
        .hint("this is a mistake of the compiler, not of the model; please report it with the model");
    match segment {
        Some(segment) => found.at(segment),
        None => found,
    }
}
