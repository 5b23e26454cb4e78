//! Parts of `pponnx verify`.

pub mod labeled;
pub mod layers;
pub mod shapes;
