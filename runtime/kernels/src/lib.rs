//! Ring kernels behind one dispatch: the only crate with unsafe code.
