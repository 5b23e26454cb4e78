//! From the element type of a file to that of the network's input.
//!
//! The rule: the same type, or one that changes no value. One exception: f64 is rounded to f32, because
//! numpy makes f64 unless told otherwise.

use pponnx_engine::value::Elements;
use pponnx_plans::value::DType;

/// A number without loss: integers of any width, or a float.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Real(f64),
}

/// The elements in another type, and whether some were rounded.
///
/// # Errors
/// A sentence that names the first element that cannot be converted.
pub fn cast(elements: Elements, to: DType) -> Result<(Elements, bool), String> {
    let from = elements.dtype();
    if from == to {
        return Ok((elements, false));
    }
    let numbers = numbers(&elements);
    let mut rounded = false;
    let refuse = |i: usize, n: Number| {
        let shown = match n {
            Number::Whole(v) => v.to_string(),
            Number::Real(v) => v.to_string(),
        };
        format!("element {i} is {shown}, which {} cannot hold", to.name())
    };
    macro_rules! whole {
        ($type:ty) => {{
            let mut out = Vec::with_capacity(numbers.len());
            for (i, n) in numbers.iter().enumerate() {
                let v = whole(*n).and_then(|v| <$type>::try_from(v).ok()).ok_or_else(|| refuse(i, *n))?;
                out.push(v);
            }
            out
        }};
    }
    let out = match to {
        DType::Bool => Elements::Bool(whole!(u8).into_iter().map(|v| v != 0).collect()),
        DType::U8 => Elements::U8(whole!(u8)),
        DType::I8 => Elements::I8(whole!(i8)),
        DType::U16 => Elements::U16(whole!(u16)),
        DType::I16 => Elements::I16(whole!(i16)),
        DType::U32 => Elements::U32(whole!(u32)),
        DType::I32 => Elements::I32(whole!(i32)),
        DType::U64 => Elements::U64(whole!(u64)),
        DType::I64 => Elements::I64(whole!(i64)),
        DType::F16 => {
            return Err(format!("{} cannot be converted to f16 without loss; save the array as float16", from.name()));
        }
        DType::F32 => {
            let mut out = Vec::with_capacity(numbers.len());
            for (i, n) in numbers.iter().enumerate() {
                let (v, exact) = match *n {
                    Number::Whole(v) => (v as f32, (v as f32) as i128 == v),
                    // Not a number stays what it is: the check for finite values comes later, with its own message.
                    Number::Real(v) => (v as f32, v.is_nan() || f64::from(v as f32) == v),
                };
                let overflow = v.is_infinite() && !matches!(n, Number::Real(r) if r.is_infinite());
                if overflow || (!exact && from != DType::F64) {
                    return Err(refuse(i, *n));
                }
                rounded |= !exact;
                out.push(v);
            }
            Elements::F32(out)
        }
        DType::F64 => {
            let mut out = Vec::with_capacity(numbers.len());
            for (i, n) in numbers.iter().enumerate() {
                out.push(match *n {
                    Number::Whole(v) if (v as f64) as i128 == v => v as f64,
                    Number::Whole(_) => return Err(refuse(i, *n)),
                    Number::Real(v) => v,
                });
            }
            Elements::F64(out)
        }
    };
    Ok((out, rounded))
}

fn numbers(elements: &Elements) -> Vec<Number> {
    fn all<T: Copy + Into<i128>>(v: &[T]) -> Vec<Number> {
        v.iter().map(|x| Number::Whole((*x).into())).collect()
    }
    match elements {
        Elements::Bool(v) => v.iter().map(|b| Number::Whole(i128::from(*b))).collect(),
        Elements::U8(v) => all(v),
        Elements::I8(v) => all(v),
        Elements::U16(v) => all(v),
        Elements::I16(v) => all(v),
        Elements::U32(v) => all(v),
        Elements::I32(v) => all(v),
        Elements::U64(v) => all(v),
        Elements::I64(v) => all(v),
        Elements::F16(_) | Elements::F32(_) | Elements::F64(_) => {
            elements.to_f64().into_iter().map(Number::Real).collect()
        }
    }
}

fn whole(number: Number) -> Option<i128> {
    match number {
        Number::Whole(v) => Some(v),
        // Above 2^100 no element type of ours can hold it anyway.
        Number::Real(v) if v.fract() == 0.0 && v.abs() < 1e30 => Some(v as i128),
        Number::Real(_) => None,
    }
}

/// Position and value of the first element that is NaN or infinite.
pub fn first_not_finite(elements: &Elements) -> Option<(usize, f64)> {
    match elements {
        Elements::F16(_) => elements.to_f64().into_iter().enumerate().find(|(_, v)| !v.is_finite()),
        Elements::F32(v) => v.iter().map(|v| f64::from(*v)).enumerate().find(|(_, v)| !v.is_finite()),
        Elements::F64(v) => v.iter().copied().enumerate().find(|(_, v)| !v.is_finite()),
        Elements::Bool(_)
        | Elements::U8(_)
        | Elements::I8(_)
        | Elements::U16(_)
        | Elements::I16(_)
        | Elements::U32(_)
        | Elements::I32(_)
        | Elements::U64(_)
        | Elements::I64(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn exact_conversions_pass() {
        let f32s = |e| cast(e, DType::F32).unwrap();
        assert_eq!(f32s(Elements::U8(vec![0, 255])), (Elements::F32(vec![0.0, 255.0]), false));
        assert_eq!(f32s(Elements::I64(vec![-3])), (Elements::F32(vec![-3.0]), false));
        assert_eq!(cast(Elements::F64(vec![7.0]), DType::I64).unwrap().0, Elements::I64(vec![7]));
        assert_eq!(f32s(Elements::F16(vec![0x3c00])), (Elements::F32(vec![1.0]), false));
    }

    #[test]
    fn only_f64_is_rounded_and_it_is_said() {
        assert_eq!(cast(Elements::F64(vec![0.1]), DType::F32).unwrap(), (Elements::F32(vec![0.1]), true));
        assert_eq!(cast(Elements::F64(vec![0.5]), DType::F32).unwrap(), (Elements::F32(vec![0.5]), false));
        for (elements, to) in [
            (Elements::I64(vec![1 << 24 | 1, (1 << 40) + 1]), DType::F32),
            (Elements::F64(vec![1e300]), DType::F32),
            (Elements::F32(vec![0.5]), DType::I64),
            (Elements::F32(vec![f32::NAN]), DType::I64),
            (Elements::I64(vec![-1]), DType::U8),
            (Elements::U8(vec![2]), DType::F16),
            (Elements::I64(vec![i64::MAX]), DType::F64),
        ] {
            assert!(cast(elements.clone(), to).is_err(), "{elements:?} -> {to:?}");
        }
    }

    #[test]
    fn not_finite_survives_to_be_reported() {
        let (out, _) = cast(Elements::F64(vec![1.0, f64::INFINITY, f64::NAN]), DType::F32).unwrap();
        assert_eq!(first_not_finite(&out).unwrap().0, 1);
    }
}
