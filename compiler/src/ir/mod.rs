//! What the compiler's stages hand to each other.

pub mod integer;
pub mod dense;
pub mod graph;
pub mod split;
