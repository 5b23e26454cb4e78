//! The graph as text, for people: one line a step, under the ONNX node it belongs to.
//!
//! ```text
//! graph @tiny(x: f32[1,4]) -> y {
//!   # fc Gemm
//!   %1 = matmul %0, @w[3,4] : [1,3]
//!   %2 = shift %1, [1,3] : [1,3]
//!   # act Relu: local, Relu is not linear
//!   %3 = local %2
//! }
//! ```

use std::fmt::Write;

use pponnx_plans::value::ValueId;

use super::graph::{Graph, StepOp, Work};

/// Prints a graph. Weights stand by their shapes.
pub fn print(name: &str, graph: &Graph) -> String {
    let label = |v: &ValueId| {
        let value = graph.values.get(v.index());
        value.and_then(|v| v.name.clone()).unwrap_or_else(|| v.to_string())
    };
    let inputs: Vec<String> = graph
        .inputs
        .iter()
        .map(|v| {
            let dtype = graph.values.get(v.index()).and_then(|v| v.dtype).map_or("?", |d| d.name());
            format!("{}: {dtype}{}", label(v), graph.shape(*v))
        })
        .collect();
    let outputs: Vec<String> = graph.outputs.iter().map(label).collect();
    let mut text = format!("graph @{name}({}) -> {} {{\n", inputs.join(", "), outputs.join(", "));
    let join = |list: &[ValueId]| list.iter().map(label).collect::<Vec<_>>().join(", ");
    for node in &graph.nodes {
        // Writing to a string cannot fail.
        let _ = match &node.work {
            Work::Folded(why) => writeln!(text, "  # {} {}: folded, {why}", node.name, node.op),
            Work::Local(why) => {
                let _ = writeln!(text, "  # {} {}: local, {why}", node.name, node.op);
                writeln!(text, "  {} = local {}", join(&node.outputs), join(&node.inputs))
            }
            Work::Affine(steps) => {
                let _ = writeln!(text, "  # {} {}", node.name, node.op);
                for step in steps {
                    let (what, extra) = match &step.op {
                        StepOp::Linear(op) => (op.name(), op.constant().map(|w| format!(", @w{}", w.shape))),
                        StepOp::Scale { factor, .. } => ("scale", Some(format!(", {}", factor.shape))),
                        StepOp::Shift { term, .. } => ("shift", Some(format!(", {}", term.shape))),
                    };
                    let (operands, shape) = (join(&step.op.operands()), graph.shape(step.output));
                    let extra = extra.unwrap_or_default();
                    let _ = writeln!(text, "  {} = {what} {operands}{extra} : {shape}", label(&step.output));
                }
                Ok(())
            }
        };
    }
    text.push_str("}\n");
    text
}
