//! Roles, handles, shapes and the types of values.

use std::fmt;

/// Who executes a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The owner, at key generation: deals check vectors and, in one-edge schemes, key pairs.
    Offline,
    /// Holds the private data.
    Device,
    /// The edge that sees masked activations.
    EdgeA,
    /// The edge that computes corrections from the mask stream alone.
    EdgeB,
}

impl Role {
    /// Every role, in the order in which programs stand in a bundle.
    pub const ALL: [Role; 4] = [Role::Offline, Role::Device, Role::EdgeA, Role::EdgeB];

    /// The name used in text forms, messages and files.
    pub fn name(self) -> &'static str {
        match self {
            Role::Offline => "offline",
            Role::Device => "device",
            Role::EdgeA => "edge-a",
            Role::EdgeB => "edge-b",
        }
    }

    /// The role with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $sigil:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The handle as an index into its table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($sigil, "{}"), self.0)
            }
        }
    };
}

handle!(
    /// A value of one program or of one linear map, numbered in order of definition: `%3`.
    ValueId,
    "%"
);
handle!(
    /// A transferred or stored tensor of the bundle: `#2`. Masks belong to upload slots, pads to the others.
    SlotId,
    "#"
);
handle!(
    /// A linear map of the bundle: `$1`.
    MapId,
    "$"
);
handle!(
    /// A constant of the bundle: `@4`.
    ConstId,
    "@"
);

/// Sizes of a tensor's axes, row-major. An empty shape is a scalar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// Number of elements; `None` when it does not fit a `usize`.
    pub fn checked_len(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
    }

    /// Number of elements. Saturates, so that an absurd shape of an unchecked plan cannot wrap to a small number.
    pub fn len(&self) -> usize {
        self.checked_len().unwrap_or(usize::MAX)
    }

    /// Whether some axis has size zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1usize; self.0.len()];
        for axis in (1..self.0.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(self.0[axis]);
        }
        strides
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// Element types of plain tensors and of constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl DType {
    /// Every element type. The position is its code in the binary form.
    pub const ALL: [DType; 12] = [
        DType::Bool,
        DType::U8,
        DType::I8,
        DType::U16,
        DType::I16,
        DType::U32,
        DType::I32,
        DType::U64,
        DType::I64,
        DType::F16,
        DType::F32,
        DType::F64,
    ];

    /// The element type with this name, if there is one.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The name used in text forms.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::U16 => "u16",
            DType::I16 => "i16",
            DType::U32 => "u32",
            DType::I32 => "i32",
            DType::U64 => "u64",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::I16 | DType::F16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 => 8,
        }
    }
}

/// What a value of a program is. The secrecy rules hang on these kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A plain tensor on the device: `f32[1,3]`.
    Tensor(DType, Shape),
    /// Signed 32-bit integers made by `encode`, with the exponents chosen for this request: `x[1,3]`.
    Encoded(Shape),
    /// Residues modulo `2^k`, each stored in its low `k` bits: `z32[1,3]`.
    Ring(u32, Shape),
    /// Residues lifted to signed integers, not yet checked: `i32[...]` in `[-2^(k-1), 2^(k-1))`, written `y32[1,3]`.
    Lifted(u32, Shape),
    /// Lifted integers that passed the integrity check, the only ones `decode` takes: `c32[1,3]`.
    Checked(u32, Shape),
}

impl ValueType {
    /// The shape, whatever the kind.
    pub fn shape(&self) -> &Shape {
        match self {
            ValueType::Tensor(_, s)
            | ValueType::Encoded(s)
            | ValueType::Ring(_, s)
            | ValueType::Lifted(_, s)
            | ValueType::Checked(_, s) => s,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Tensor(d, s) => write!(f, "{}{s}", d.name()),
            ValueType::Encoded(s) => write!(f, "x{s}"),
            ValueType::Ring(k, s) => write!(f, "z{k}{s}"),
            ValueType::Lifted(k, s) => write!(f, "y{k}{s}"),
            ValueType::Checked(k, s) => write!(f, "c{k}{s}"),
        }
    }
}
