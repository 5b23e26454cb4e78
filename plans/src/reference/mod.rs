//! The integer meaning of every operation, in safe scalar Rust.
//!
//! Kernels, schemes and the runtime must agree with this module bit for bit; it is also the arithmetic the
//! compiler uses to evaluate linear segments in `f64`. Nothing here depends on a scheme, a key or the network.
//!
//! * [`scalar`], [`tensor`]: what linear maps can be evaluated over.
//! * [`linear`]: linear maps, their adjoints, and their mult-adds.
//! * [`number`]: real numbers to integers and back.
//! * [`check`]: the integrity check over F_p.
//! * [`run`]: all roles of one request in one process.

pub mod check;
pub mod linear;
pub(crate) mod moves;
pub mod number;
pub mod run;
pub mod scalar;
pub mod tensor;
#[cfg(test)]
mod tests;
mod windows;

/// What can go wrong when a linear map is evaluated. A validated bundle with its constants causes none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Shapes that an operation does not accept.
    #[error("{op}: {reason}")]
    Shape {
        /// Name of the operation.
        op: &'static str,
        /// The rule that is broken.
        reason: String,
    },
    /// No weights were given for an operation that needs them.
    #[error("{op}: its weights are missing")]
    Weights {
        /// Name of the operation.
        op: &'static str,
    },
    /// A tensor whose number of elements is not that of its shape.
    #[error("a tensor of shape {shape} holds {len} elements")]
    Length {
        /// The shape.
        shape: crate::value::Shape,
        /// How many elements there are.
        len: usize,
    },
    /// A value that is not defined where it is read.
    #[error("segment {map}: value {value} is read before it is defined")]
    Undefined {
        /// Name of the map.
        map: String,
        /// The value.
        value: crate::value::ValueId,
    },
    /// Inputs or a result that do not fit the map.
    #[error("segment {map}: {reason}")]
    Inputs {
        /// Name of the map.
        map: String,
        /// What does not fit.
        reason: String,
    },
}
