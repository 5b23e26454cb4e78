//! Seeded inputs for `verify` without `--input`.

use pponnx_engine::{Elements, TensorValue};
use pponnx_plans::plan::Port;
use pponnx_plans::value::DType;

use crate::failure::{Failure, Outcome};

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere for a seed. Not for secrets.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    fn real(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A value for a port: reals uniform in [-1, 1), bytes over their whole range, other integers 0 or 1.
pub fn value(port: &Port, seed: u64, index: u64) -> Outcome<TensorValue> {
    let mut random = SplitMix(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95));
    let n = port.shape.len();
    let mut bits = || random.next();
    macro_rules! of {
        ($f:expr) => {
            (0..n).map(|_| $f).collect()
        };
    }
    let elements = match port.dtype {
        DType::Bool => Elements::Bool(of!(bits() & 1 == 1)),
        DType::U8 => Elements::U8(of!(bits() as u8)),
        DType::I8 => Elements::I8(of!(bits() as i8)),
        DType::U16 => Elements::U16(of!((bits() & 1) as u16)),
        DType::I16 => Elements::I16(of!((bits() & 1) as i16)),
        DType::U32 => Elements::U32(of!((bits() & 1) as u32)),
        DType::I32 => Elements::I32(of!((bits() & 1) as i32)),
        DType::U64 => Elements::U64(of!(bits() & 1)),
        DType::I64 => Elements::I64(of!((bits() & 1) as i64)),
        // Halves of 0.5 to 1: sign and fraction random, exponent fixed.
        DType::F16 => Elements::F16(of!((bits() as u16 & 0x83ff) | 0x3800)),
        DType::F32 => Elements::F32(of!(random.real() as f32)),
        DType::F64 => Elements::F64(of!(random.real())),
    };
    TensorValue::new(port.shape.clone(), elements).map_err(|e| Box::new(Failure::internal(e.to_string())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use pponnx_plans::value::Shape;

    #[test]
    fn seeds_decide_and_reals_stay_in_range() {
        let port = |dtype| Port { name: "x".into(), dtype, shape: Shape(vec![1000]) };
        let a = value(&port(DType::F32), 1, 0).unwrap();
        assert_eq!(a, value(&port(DType::F32), 1, 0).unwrap());
        assert_ne!(a, value(&port(DType::F32), 2, 0).unwrap());
        assert_ne!(a, value(&port(DType::F32), 1, 1).unwrap());
        let v = a.as_f32().unwrap();
        assert!(v.iter().all(|x| (-1.0..1.0).contains(x)));
        assert!(v.iter().sum::<f32>().abs() < 100.0);
        for dtype in DType::ALL {
            let v = value(&port(dtype), 7, 0).unwrap();
            assert!(v.elements().to_f64().iter().all(|x| x.is_finite()), "{}", dtype.name());
        }
    }
}
