//! The front end: from an ONNX file to the split network.

use crate::diag::{CompileError, Diagnostic};
use crate::import::import;
use crate::ir::split::{Part, SplitGraph, TensorId};
use crate::passes::split::split;
use crate::source::{self, Sample};

pub use crate::source::{FrontOptions, ModelSource};

/// Reads a model, classifies its nodes, folds constants, and splits it into local segments and outsourced stages.
///
/// # Errors
/// Every problem found, each with the ONNX node it belongs to.
pub fn front(model: &ModelSource, options: &FrontOptions) -> Result<SplitGraph, CompileError> {
    let network = source::read(model, options)?;
    let graph = import(&network);
    let split = split(&network, graph)?;
    try_local_segments(&split)?;
    Ok(split)
}

/// Loads each local segment, and runs it once if its inputs are real numbers: some operators fail only then.
fn try_local_segments(split: &SplitGraph) -> Result<(), CompileError> {
    let mut found = Vec::new();
    for part in &split.parts {
        let Part::Local(segment) = part else { continue };
        let sample = |id: &TensorId| {
            let t = &split.tensors[id.0];
            // Any small numbers do, the result is not looked at.
            let data = (0..t.shape.len()).map(|i| (i % 7) as f32 * 0.125).collect();
            Sample { dtype: t.dtype, shape: t.shape.clone(), data }
        };
        let inputs: Vec<Sample> = segment.inputs.iter().map(sample).collect();
        if let Err(e) = source::probe(&segment.onnx, &inputs) {
            let text = format!("the local segment that starts here fails: {e}");
            found.push(Diagnostic::new("local-segment", text).at(segment.name.clone()));
        }
    }
    CompileError::unless_empty(found)
}
