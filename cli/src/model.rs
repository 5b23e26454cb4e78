//! A look into a model file that needs no compiler: names and declared shapes of its inputs.
//!
//! `verify` takes the shapes of open axes from the input it is given, before anything is compiled.

use std::path::Path;

use prost::Message;

use crate::failure::{Outcome, file_failure};

/// `onnx.ModelProto`, as far as it matters here. Field numbers from onnx.proto.
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Named>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
}

/// `TensorProto` without its data.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(message, optional, tag = "2")]
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
}

/// An input as the file declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredInput {
    /// Name.
    pub name: String,
    /// Axes, `None` where the size is open; `None` altogether if not even the rank is declared.
    pub shape: Option<Vec<Option<usize>>>,
}

/// The inputs that a request must supply. Empty if the file is no model: the compiler says so better.
pub fn declared_inputs(path: &Path) -> Outcome<Vec<DeclaredInput>> {
    let bytes = std::fs::read(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    Ok(inputs(&bytes))
}

fn inputs(bytes: &[u8]) -> Vec<DeclaredInput> {
    let Ok(ModelProto { graph: Some(graph) }) = ModelProto::decode(bytes) else { return Vec::new() };
    let is_constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    graph
        .input
        .iter()
        .filter(|i| !is_constant(&i.name))
        .map(|i| {
            let shape = i.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
            let size = |d: &Dimension| d.dim_value.and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
            DeclaredInput { name: i.name.clone(), shape: shape.map(|s| s.dim.iter().map(size).collect()) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_bundled_model_declares_its_input() {
        let bytes = include_bytes!("../../onnx-models/digits/model.onnx");
        let found = inputs(bytes);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "image");
        assert_eq!(found[0].shape.as_ref().unwrap()[1..], [Some(1), Some(8), Some(8)]);
        assert!(inputs(b"no model").is_empty());
    }
}
