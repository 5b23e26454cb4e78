//! Ring widths and weight widths of the named precisions.

/// How many bits the outsourced arithmetic uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit ring, 16-bit weights: 4 bytes an element.
    Fast,
    /// 40-bit ring, 32-bit weights: 5 bytes an element.
    Balanced,
    /// 52-bit ring, 32-bit weights: 6.5 bytes an element.
    Precise,
}

impl Precision {
    /// Every precision, narrowest first.
    pub const ALL: [Precision; 3] = [Precision::Fast, Precision::Balanced, Precision::Precise];

    /// The name on the command line and in plans.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fast => "fast",
            Precision::Balanced => "balanced",
            Precision::Precise => "precise",
        }
    }

    /// The precision with this name.
    pub fn from_name(name: &str) -> Option<Precision> {
        Precision::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Ring width k in bits.
    pub fn ring_bits(self) -> u32 {
        match self {
            Precision::Fast => 32,
            Precision::Balanced => 40,
            Precision::Precise => 52,
        }
    }

    /// Largest magnitude of an integer weight.
    pub fn weight_limit(self) -> f64 {
        match self {
            Precision::Fast => 32767.0,
            Precision::Balanced | Precision::Precise => 33_554_432.0,
        }
    }

    /// Largest difference to plaintext that the project promises on trained networks, relative to the largest output.
    pub fn tolerance(self) -> f64 {
        match self {
            Precision::Fast => 1e-2,
            Precision::Balanced => 1e-3,
            Precision::Precise => 2e-5,
        }
    }
}
