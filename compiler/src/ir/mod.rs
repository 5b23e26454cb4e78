//! What the compiler's stages hand to each other.

pub mod split;
