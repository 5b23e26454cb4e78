//! The `pponnx` command.
fn main() {}
