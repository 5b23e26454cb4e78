//! Operator forms for which the ONNX reader would silently compute something else, measured against the ONNX node
//! test cases and onnxruntime.

use tract_onnx::pb;

use crate::diag::Diagnostic;

/// An attribute of a node.
fn attribute<'a>(node: &'a pb::NodeProto, name: &str) -> Option<&'a pb::AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn text<'a>(node: &'a pb::NodeProto, name: &str) -> &'a str {
    attribute(node, name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or("")
}

fn integer(node: &pb::NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|a| a.i)
}

fn integers<'a>(node: &'a pb::NodeProto, name: &str) -> &'a [i64] {
    attribute(node, name).map_or(&[], |a| &a.ints)
}

/// Reports the forms that must not be compiled.
pub(super) fn refuse(node: &pb::NodeProto, opset: i64, graph: &pb::GraphProto, mut report: impl FnMut(Diagnostic)) {
    let op = node.op_type.as_str();
    let mut wrong = |why: String, hint: &str| {
        report(Diagnostic::new("refused-operator", why).hint(hint));
    };
    for list in ["strides", "dilations", "kernel_shape"] {
        if integers(node, list).iter().any(|v| *v < 1) {
            wrong(format!("`{op}`: every entry of `{list}` must be at least 1"), "export the model again");
        }
    }
    let spatial = matches!(op, "Conv" | "ConvTranspose" | "AveragePool" | "MaxPool");
    if spatial && integers(node, "pads").iter().any(|v| *v < 0) {
        wrong(format!("`{op}` with negative padding"), "crop with Slice instead");
    }
    match op {
        "Celu" if attribute(node, "alpha").is_some_and(|a| a.f != 1.0) => {
            wrong("`Celu` with alpha other than 1 would be computed wrongly".into(), "use Elu or compose it");
        }
        "GlobalLpPool" => wrong("`GlobalLpPool` would be computed wrongly".into(), "compose it from ReduceL2"),
        "ConvTranspose" if !integers(node, "output_shape").is_empty() => wrong(
            "`ConvTranspose` with `output_shape` would be cropped wrongly".into(),
            "give `pads` and `output_padding` instead",
        ),
        "ConvTranspose" if text(node, "auto_pad").starts_with("SAME") => {
            wrong("`ConvTranspose` with SAME padding is unreliable".into(), "give `pads` instead");
        }
        "Resize" if opset <= 10 && !matches!(text(node, "mode"), "linear") => {
            wrong(
                "nearest `Resize` of operator set 10 is computed wrongly for odd scales".into(),
                "export at 11 or later",
            );
        }
        "GRU" | "LSTM" | "RNN" if !matches!(text(node, "direction"), "" | "forward") => {
            wrong(format!("`{op}` in reverse would be computed wrongly"), "reverse the input instead");
        }
        "SpaceToDepth" if text(node, "mode") == "CRD" => {
            wrong("`SpaceToDepth` in CRD mode would be computed wrongly".into(), "use Reshape and Transpose");
        }
        "BitShift" if !narrow_shift(node, graph) => {
            wrong("`BitShift` by an amount that may exceed the width".into(), "shift by a constant below the width");
        }
        "BatchNormalization" if integer(node, "training_mode") == Some(1) => {
            wrong("`BatchNormalization` in training mode".into(), "export the model for inference");
        }
        "Dropout" if node.input.get(2).is_some_and(|t| !t.is_empty() && !constant_false(graph, t)) => {
            wrong("`Dropout` that may be in training mode".into(), "export the model for inference");
        }
        _ => {}
    }
}

/// Whether the amount of a shift is an initialiser below 8 throughout.
fn narrow_shift(node: &pb::NodeProto, graph: &pb::GraphProto) -> bool {
    let amount = node.input.get(1).and_then(|n| graph.initializer.iter().find(|i| i.name == *n));
    amount.is_some_and(|t| {
        let listed = t.int32_data.iter().all(|v| (0..8).contains(v)) && t.uint64_data.iter().all(|v| *v < 8);
        listed && t.raw_data.iter().all(|b| *b < 8)
    })
}

/// Whether a tensor is a constant that holds false; unknown tensors count as true.
fn constant_false(graph: &pb::GraphProto, name: &str) -> bool {
    let made = graph.node.iter().find(|n| n.output.iter().any(|o| o == name));
    let value = graph.initializer.iter().find(|i| i.name == name);
    let value = value.or_else(|| attribute(made?, "value")?.t.as_ref());
    value.is_some_and(|t| t.int32_data.iter().all(|v| *v == 0) && t.raw_data.iter().all(|b| *b == 0))
}

/// A remark on a form on which runtimes disagree.
pub(super) fn doubtful(node: &pb::NodeProto) -> Option<&'static str> {
    let pad = text(node, "auto_pad");
    match node.op_type.as_str() {
        "MaxPool" if pad.starts_with("SAME") && integers(node, "dilations").iter().any(|d| *d > 1) => {
            Some("runtimes disagree about MaxPool with SAME padding and dilation")
        }
        "MaxPool" if pad == "VALID" && integer(node, "ceil_mode") == Some(1) => {
            Some("runtimes disagree about MaxPool with VALID padding and ceil_mode")
        }
        "Resize" if text(node, "coordinate_transformation_mode") == "align_corners" => {
            Some("runtimes disagree about Resize with align_corners")
        }
        _ => None,
    }
}
