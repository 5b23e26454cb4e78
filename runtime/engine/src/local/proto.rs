//! A read-only view of ONNX nodes and constants.

use tract_onnx::pb;

/// A constant of the model.
#[derive(Clone, Debug)]
pub enum Constant {
    /// Numbers of f32.
    Float(Vec<usize>, Vec<f32>),
    /// Integers: axes, shapes, indices.
    Int(Vec<usize>, Vec<i64>),
}

/// The elements of a constant; `None` for types that no native operator reads.
pub fn constant(t: &pb::TensorProto) -> Option<Constant> {
    if t.data_location.unwrap_or(0) != 0 || t.segment.is_some() {
        return None;
    }
    let shape = t.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<usize>>>()?;
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let raw = &t.raw_data;
    if t.data_type == pb::tensor_proto::DataType::Float as i32 {
        let (words, rest) = raw.as_chunks();
        let data =
            if raw.is_empty() { t.float_data.clone() } else { words.iter().map(|b| f32::from_le_bytes(*b)).collect() };
        (rest.is_empty() && data.len() == n).then_some(Constant::Float(shape, data))
    } else if t.data_type == pb::tensor_proto::DataType::Int64 as i32 {
        let (words, rest) = raw.as_chunks();
        let data =
            if raw.is_empty() { t.int64_data.clone() } else { words.iter().map(|b| i64::from_le_bytes(*b)).collect() };
        (rest.is_empty() && data.len() == n).then_some(Constant::Int(shape, data))
    } else {
        None
    }
}

/// The type and shape of an input or output: f32 and fixed, or `None`.
pub fn fixed(info: &pb::ValueInfoProto) -> Option<Vec<usize>> {
    let pb::type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    if tensor.elem_type != pb::tensor_proto::DataType::Float as i32 {
        return None;
    }
    let dims = tensor.shape.as_ref()?.dim.iter().map(|d| match d.value.as_ref()? {
        pb::tensor_shape_proto::dimension::Value::DimValue(d) => usize::try_from(*d).ok(),
        pb::tensor_shape_proto::dimension::Value::DimParam(_) => None,
    });
    dims.collect()
}

/// A node.
pub struct Node<'a> {
    proto: &'a pb::NodeProto,
    /// Version of the operator set.
    pub opset: i64,
}

impl<'a> Node<'a> {
    /// A view of a node of the standard operators; `None` for others.
    pub fn new(proto: &'a pb::NodeProto, opset: i64) -> Option<Node<'a>> {
        let standard = proto.domain.is_empty() || proto.domain == "ai.onnx";
        standard.then_some(Node { proto, opset })
    }

    /// The operator.
    pub fn op(&self) -> &'a str {
        &self.proto.op_type
    }

    /// Names of the outputs.
    pub fn outputs(&self) -> &'a [String] {
        &self.proto.output
    }

    /// Number of inputs, those left out at the end not counted.
    pub fn inputs(&self) -> usize {
        self.proto.input.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    /// The name of an input; `None` where it is left out.
    pub fn input(&self, i: usize) -> Option<&'a str> {
        self.proto.input.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// `None` if the node has an attribute that is not listed: it may mean something that nobody looks at.
    pub fn only(&self, names: &[&str]) -> Option<()> {
        let listed = |a: &pb::AttributeProto| names.contains(&a.name.as_str()) && a.ref_attr_name.is_empty();
        self.proto.attribute.iter().all(listed).then_some(())
    }

    fn attribute(&self, name: &str) -> Option<&'a pb::AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name == name)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|a| a.i)
    }

    /// A number.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).map(|a| a.f)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&'a [u8]> {
        self.attribute(name).map(|a| a.s.as_slice())
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    /// A constant.
    pub fn tensor(&self, name: &str) -> Option<Constant> {
        constant(self.attribute(name)?.t.as_ref()?)
    }
}
