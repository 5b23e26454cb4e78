//! What the compiler's stages hand to each other.

pub mod dense;
pub mod floats;
pub mod graph;
pub mod integer;
pub mod split;
pub mod text;
