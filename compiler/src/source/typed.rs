//! Typed nodes as plain data.

use tract_onnx::prelude::*;
use tract_onnx::tract_core;
use tract_onnx::tract_hir::internal::*;

use tract_core::ops::array::{Gather, MultiBroadcastTo, Pad, PadMode, Slice, StridedSlice, Tile, TypedConcat};
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cast::Cast;
use tract_core::ops::cnn::{Conv, Deconv, KernelFormat, PaddingSpec, PoolSpec, SumPool};
use tract_core::ops::downsample::Downsample;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::konst::Const;
use tract_core::ops::nn::{DataFormat, Reduce, Reducer};
use tract_core::ops::source::TypedSource;

use super::{Arithmetic, EinsumAxis, Fill, Kind, Window};

/// What a node does. Whatever does not fit our model of an operator is [`Kind::Other`].
pub(super) fn kind(model: &TypedModel, node: &TypedNode) -> Kind {
    known_kind(model, node).unwrap_or_else(|| Kind::Other(node.op.name().to_string()))
}

fn known_kind(model: &TypedModel, node: &TypedNode) -> Option<Kind> {
    let facts = model.node_input_facts(node.id).ok()?;
    let shape = |i: usize| facts.get(i)?.shape.as_concrete();
    if node.op_is::<TypedSource>() {
        return Some(Kind::Source);
    }
    if node.op_is::<Const>() {
        return Some(Kind::Constant);
    }
    if let Some(c) = node.op_as::<Conv>() {
        let plain = c.kernel_fmt == KernelFormat::OIHW && c.q_params.is_none();
        return plain.then(|| Some(Kind::Conv(window(&c.pool_spec, shape(0)?)?, c.group))).flatten();
    }
    if let Some(c) = node.op_as::<Deconv>() {
        let s = &c.pool_spec;
        let plain = c.kernel_format == KernelFormat::OIHW && s.data_format == DataFormat::NCHW;
        let x = plain.then(|| shape(0)).flatten()?.get(2..)?;
        let (strides, dilations) = (s.strides(), s.dilations());
        let pads = s.padding.compute_for_deconv(x, &s.kernel_shape, &dilations, &strides, &c.adjustments).ok()?;
        let window = Window {
            kernel: s.kernel_shape.to_vec(),
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
            pads_before: pads.iter().map(|p| p.pad_before).collect(),
            pads_after: pads.iter().map(|p| p.pad_after).collect(),
        };
        return Some(Kind::ConvTranspose(window, c.group, c.adjustments.to_vec()));
    }
    if let Some(e) = node.op_as::<EinSum>() {
        if e.q_params.is_some() || node.inputs.len() != 2 {
            return None;
        }
        let axis = |a: &tract_core::axes::Axis| {
            Some(EinsumAxis {
                inputs: [a.inputs.first()?.to_vec(), a.inputs.get(1)?.to_vec()],
                output: a.outputs.first()?.to_vec(),
            })
        };
        return Some(Kind::Einsum(e.axes.iter_all_axes().map(axis).collect::<Option<_>>()?));
    }
    if let Some(b) = node.op_as::<TypedBinOp>() {
        return Some(Kind::Arithmetic(match b.0.name() {
            "Add" => Arithmetic::Add,
            "Sub" => Arithmetic::Sub,
            "Mul" => Arithmetic::Mul,
            "Div" => Arithmetic::Div,
            _ => return Some(Kind::Other(b.0.name().to_string())),
        }));
    }
    if let Some(e) = node.op_as::<ElementWiseOp>() {
        return Some(if e.0.name() == "Neg" { Kind::Negate } else { Kind::Other(e.0.name()) });
    }
    if let Some(p) = node.op_as::<SumPool>() {
        // In ceil mode the last window may leave the padded image; `window` refuses that.
        let window = window(&p.pool_spec, shape(0)?)?;
        return Some(Kind::SumPool { window, mean: p.normalize, count_padding: p.count_include_pad });
    }
    if let Some(r) = node.op_as::<Reduce>() {
        return Some(match r.reducer {
            Reducer::Sum => Kind::ReduceSum(r.axes.to_vec()),
            _ => Kind::Other(node.op.name().to_string()),
        });
    }
    if let Some(a) = node.op_as::<AxisOp>() {
        return Some(match a {
            AxisOp::Move(from, to) => {
                let mut perm: Vec<usize> = (0..shape(0)?.len()).collect();
                if *from >= perm.len() || *to >= perm.len() {
                    return None;
                }
                let axis = perm.remove(*from);
                perm.insert(*to, axis);
                Kind::Transpose(perm)
            }
            AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..) => Kind::Reshape,
        });
    }
    if let Some(c) = node.op_as::<TypedConcat>() {
        return Some(Kind::Concat(c.axis));
    }
    if let Some(s) = node.op_as::<Slice>() {
        // the end may be an expression that only the result's shape has in simple form
        let start = s.start.clone().simplify().to_usize().ok()?;
        let len = *node.outputs.first()?.fact.shape.as_concrete()?.get(s.axis)?;
        return Some(Kind::Slice(s.axis, start, start.checked_add(len)?));
    }
    if let Some(s) = node.op_as::<StridedSlice>() {
        return strided(s, &facts).map(Kind::Strided);
    }
    if let Some(d) = node.op_as::<Downsample>() {
        return Some(Kind::Downsample(d.axis, d.stride, d.modulo));
    }
    if let Some(p) = node.op_as::<Pad>() {
        let fill = match &p.mode {
            PadMode::Constant(v) => Fill::Value(v.cast_to_scalar::<f32>().ok()?),
            PadMode::Reflect => Fill::Reflect,
            PadMode::Edge => Fill::Edge,
        };
        return Some(Kind::Pad(p.pads.clone(), fill));
    }
    if let Some(g) = node.op_as::<Gather>() {
        return g.output_type.is_none().then_some(Kind::Gather(g.axis));
    }
    if let Some(t) = node.op_as::<Tile>() {
        return Some(Kind::Tile(t.multipliers.iter().map(|m| m.to_usize().ok()).collect::<Option<_>>()?));
    }
    if node.op_is::<MultiBroadcastTo>() {
        return Some(Kind::Broadcast);
    }
    let same_type = facts.first().is_some_and(|f| node.outputs.iter().all(|o| o.fact.datum_type == f.datum_type));
    let idle = node.op_is::<Cast>() || matches!(&*node.op.name(), "Identity" | "Dropout");
    let training =
        facts.get(2).is_some_and(|f| !f.konst.as_ref().is_some_and(|k| matches!(k.cast_to_scalar(), Ok(false))));
    (idle && same_type && !training && node.outputs.len() == 1).then_some(Kind::Identity)
}

/// The axes that a slice with constant bounds cuts, each with its first element and step.
fn strided(s: &StridedSlice, facts: &[&TypedFact]) -> Option<Vec<(usize, usize, isize)>> {
    let list = |i: usize| -> Option<Vec<i64>> {
        let t = facts.get(i)?.konst.as_ref()?.cast_to::<i64>().ok()?;
        Some(t.to_plain_array_view::<i64>().ok()?.iter().copied().collect())
    };
    let shape = facts.first()?.shape.as_concrete()?;
    let (begin, end) = (facts.get(1)?.konst.as_ref()?, facts.get(2)?.konst.as_ref()?);
    let axes = match s.optional_axes_input {
        Some(i) => list(i)?,
        None => (0..begin.len() as i64).collect(),
    };
    let steps: Vec<i32> = match s.optional_steps_input {
        Some(i) => list(i)?.into_iter().map(|v| i32::try_from(v).ok()).collect::<Option<_>>()?,
        None => vec![1; axes.len()],
    };
    let cut = |(i, axis): (usize, &i64)| {
        let axis = usize::try_from(if *axis < 0 { axis + shape.len() as i64 } else { *axis }).ok()?;
        let dim = s.prepare_one_dim(i, &shape.get(axis)?.to_dim(), begin, end, &steps).ok()?;
        (!dim.shrink).then_some((axis, dim.begin.to_usize().ok()?, dim.stride as isize))
    };
    axes.iter().enumerate().map(cut).collect()
}

/// The window of a convolution or a pool on an input of this shape, padding resolved.
fn window(spec: &PoolSpec, x: &[usize]) -> Option<Window> {
    if spec.data_format != DataFormat::NCHW {
        return None;
    }
    let pads = spec.computed_padding(x.get(2..)?);
    let (strides, dilations) = (spec.strides().to_vec(), spec.dilations().to_vec());
    if let PaddingSpec::ExplicitOnnxPool(_, _, true) = spec.padding {
        for (a, p) in pads.iter().enumerate() {
            let end = p.convoluted.checked_sub(1)? * strides[a] + (spec.kernel_shape[a] - 1) * dilations[a];
            if end >= x[a + 2] + p.pad_before + p.pad_after {
                return None;
            }
        }
    }
    Some(Window {
        kernel: spec.kernel_shape.to_vec(),
        strides,
        dilations,
        pads_before: pads.iter().map(|p| p.pad_before).collect(),
        pads_after: pads.iter().map(|p| p.pad_after).collect(),
    })
}

/// A sentence about a node that the reader accepts although it has no meaning.
pub(super) fn problem(model: &TypedModel, node: &TypedNode) -> Option<String> {
    let facts = model.node_input_facts(node.id).ok()?;
    let x = facts.first()?.shape.as_concrete()?;
    let spec = node.op_as::<Conv>().map(|c| &c.pool_spec);
    let spec = spec.or_else(|| node.op_as::<SumPool>().map(|p| &p.pool_spec));
    let spec = spec.or_else(|| node.op_as::<tract_core::ops::cnn::MaxPool>().map(|p| &p.pool_spec));
    if let Some(s) = spec {
        let image = s.data_format.shape(x).ok()?;
        let same = matches!(s.padding, PaddingSpec::SameUpper | PaddingSpec::SameLower);
        for (a, (d, p)) in image.hw_dims().iter().zip(s.computed_padding(image.hw_dims())).enumerate() {
            let span = (s.kernel_shape[a] - 1) * s.dilation(a) + 1;
            if !same && span > d + p.pad_before + p.pad_after {
                return Some(format!("node \"{}\": a window of {span} is larger than its input", node.name));
            }
        }
    }
    if let Some(g) = node.op_as::<Gather>() {
        let d = *x.get(g.axis)? as i64;
        let indices = facts.get(1)?.konst.as_ref()?.cast_to::<i64>().ok()?;
        let view = indices.try_as_plain_ram().ok()?;
        if view.as_slice::<i64>().ok()?.iter().any(|i| *i < -d || *i >= d) {
            return Some(format!("node \"{}\": a Gather index lies outside its axis of {d}", node.name));
        }
    }
    let softmax = node.op_as::<tract_core::ops::nn::Softmax>();
    let outside = softmax.is_some_and(|s| s.axes.iter().any(|a| *a >= x.len()));
    outside.then(|| format!("node \"{}\": the Softmax axis lies outside the tensor", node.name))
}
