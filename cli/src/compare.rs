//! How far an answer is from plaintext.

use std::path::Path;

use pponnx_engine::TensorValue;
use pponnx_plans::plan::Port;
use pponnx_plans::value::DType;
use serde_json::{Value, json};

use crate::args::InputFile;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::input;
use crate::output::is_classes;

/// One output beside its plaintext value.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Output name.
    pub name: String,
    /// Largest absolute difference over the largest absolute plaintext value; the difference itself if all of
    /// plaintext is 0.
    pub max_rel_err: f64,
    /// Whether our largest element is plaintext's largest one. In tensors that are not one row of classes, where an
    /// element within the tolerance of the largest counts as largest too.
    pub argmax_match: bool,
}

impl Difference {
    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "max_rel_err": number(self.max_rel_err), "argmax_match": self.argmax_match })
    }
}

/// All outputs of a request beside their plaintext values.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// One an output.
    pub outputs: Vec<Difference>,
}

impl Comparison {
    /// The largest of the outputs' differences.
    pub fn max_rel_err(&self) -> f64 {
        // An answer that is not a number is as far from plaintext as can be, and `max` would skip it.
        let worst = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
        self.outputs.iter().map(|d| d.max_rel_err).fold(0.0, worst)
    }

    /// Whether all outputs agree about their largest element.
    pub fn argmax_match(&self) -> bool {
        self.outputs.iter().all(|d| d.argmax_match)
    }

    /// Whether the answer counts as plaintext's.
    pub fn within(&self, tolerance: f64) -> bool {
        self.max_rel_err() <= tolerance && self.argmax_match()
    }
}

/// A number for JSON, which has no infinity.
pub fn number(v: f64) -> Value {
    serde_json::Number::from_f64(v).map_or(Value::Null, Value::Number)
}

/// Compares outputs with their plaintext values, in the order of the ports.
pub fn compare(ports: &[Port], ours: &[TensorValue], plain: &[TensorValue], tolerance: f64) -> Outcome<Comparison> {
    if ours.len() != ports.len() || plain.len() != ports.len() {
        let text = format!("{} outputs and {} plaintext values for {} ports", ours.len(), plain.len(), ports.len());
        return Err(Box::new(Failure::internal(text)));
    }
    let mut outputs = Vec::new();
    for (port, (ours, plain)) in ports.iter().zip(ours.iter().zip(plain)) {
        if ours.shape() != plain.shape() {
            let message = format!("output `{}` is {}, expected {}", port.name, ours.shape(), plain.shape());
            return Err(Box::new(
                Failure::new(Exit::Differs, "pponnx::verify::shape", message)
                    .help("the plaintext values are of another model or another input shape"),
            ));
        }
        outputs.push(difference(port, ours, plain, tolerance));
    }
    Ok(Comparison { outputs })
}

fn difference(port: &Port, ours: &TensorValue, plain: &TensorValue, tolerance: f64) -> Difference {
    let (a, b) = (ours.elements().to_f64(), plain.elements().to_f64());
    let largest = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let mut worst = 0.0f64;
    for (x, y) in a.iter().zip(&b) {
        // Equal infinities agree; what is not a number agrees with itself only.
        let d = if x == y || (x.is_nan() && y.is_nan()) { 0.0 } else { (x - y).abs() };
        worst = if d.is_nan() { f64::INFINITY } else { worst.max(d) };
    }
    let max_rel_err = if largest > 0.0 { worst / largest } else { worst };
    let argmax = |v: &[f64]| v.iter().enumerate().max_by(|x, y| x.1.total_cmp(y.1).then(y.0.cmp(&x.0))).map(|m| m.0);
    let (at, should) = (argmax(&a), argmax(&b));
    let near = || match (at.and_then(|i| b.get(i)), should.and_then(|i| b.get(i))) {
        (Some(x), Some(most)) => most - x <= 2.0 * tolerance * largest,
        _ => true,
    };
    Difference { name: port.name.clone(), max_rel_err, argmax_match: at == should || (!is_classes(plain) && near()) }
}

/// Reads expected outputs: `.npz` with output names as keys, or one array for the only output.
pub fn read_expected(path: &Path, ports: &[Port]) -> Outcome<Vec<TensorValue>> {
    let loaded = input::load(&[InputFile { name: None, path: path.to_owned() }])?;
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    let indices = input::assign(&loaded, &names).map_err(|mut f| {
        f.message = format!("`{}` as expected outputs: {}", path.display(), f.message.replace("input", "output"));
        f.help = f.help.map(|h| h.replace("input", "output"));
        f
    })?;
    let mut values = Vec::new();
    for (index, port) in indices.into_iter().zip(ports) {
        let value = loaded.get(index).and_then(input::Loaded::tensor);
        let value = value.ok_or_else(|| {
            Failure::new(Exit::Refused, "pponnx::input::file", format!("`{}` is a picture", path.display()))
                .help("expected outputs are .npy or .npz")
        })?;
        // Expected values need not be of the port's type, only of its shape; a missing batch axis is added.
        let same = value.shape() == &port.shape;
        let value = if !same && value.shape().checked_len() == port.shape.checked_len() {
            TensorValue::new(port.shape.clone(), value.elements().clone())
                .map_err(|e| Box::new(Failure::internal(e.to_string())))?
        } else {
            value.clone()
        };
        if value.dtype() == DType::Bool && port.dtype != DType::Bool {
            return Err(Box::new(Failure::new(
                Exit::Refused,
                "pponnx::input::type",
                format!("expected output `{}` is bool, not {}", port.name, port.dtype.name()),
            )));
        }
        values.push(value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use pponnx_plans::value::Shape;

    fn diff(dims: &[usize], a: &[f32], b: &[f32]) -> Difference {
        let port = Port { name: "y".into(), dtype: DType::F32, shape: Shape(dims.to_vec()) };
        let of = |v: &[f32]| TensorValue::from_f32(dims.to_vec(), v.to_vec()).unwrap();
        compare(&[port], &[of(a)], &[of(b)], 1e-3).unwrap().outputs.remove(0)
    }

    #[test]
    fn error_is_relative_to_the_largest_plaintext_value() {
        let d = diff(&[1, 3], &[1.0, -7.0, 0.5], &[1.0, -8.0, 0.0]);
        assert_eq!((d.max_rel_err, d.argmax_match), (1.0 / 8.0, true));
        assert_eq!(diff(&[1, 2], &[0.5, 0.0], &[0.0, 0.0]).max_rel_err, 0.5);
    }

    #[test]
    fn classes_must_agree_exactly_and_maps_within_the_tolerance() {
        assert!(!diff(&[1, 2], &[1.0, 1.0001], &[1.0, 0.9999]).argmax_match);
        assert!(diff(&[1, 2, 2], &[1.0, 1.0001, 0.0, 0.0], &[1.0, 0.9999, 0.0, 0.0]).argmax_match);
        assert!(!diff(&[1, 2, 2], &[1.0, 1.1, 0.0, 0.0], &[1.0, 0.9, 0.0, 0.0]).argmax_match);
    }

    #[test]
    fn what_is_not_a_number_never_passes() {
        let d = diff(&[1, 2], &[f32::NAN, 1.0], &[0.0, 1.0]);
        assert!(d.max_rel_err.is_infinite());
        assert_eq!(number(d.max_rel_err), Value::Null);
        let both = Comparison { outputs: vec![d] };
        assert!(!both.within(1e9));
        assert_eq!(diff(&[1, 2], &[f32::INFINITY, 1.0], &[f32::INFINITY, 1.0]).max_rel_err, 0.0);
    }
}
