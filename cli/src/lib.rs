//! Compile an ONNX model for private inference on two edge servers, and run it.
