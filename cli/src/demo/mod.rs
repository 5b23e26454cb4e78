//! Parts of `pponnx demo`.

pub mod child;
pub mod picture;
