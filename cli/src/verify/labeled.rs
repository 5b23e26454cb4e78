//! Many examples from one `.npz`: `x`, one example a row, and `ort_pred` or `y`, the expected classes.

use std::path::Path;

use image::{DynamicImage, GrayImage, RgbImage};
use pponnx_engine::{Elements, TensorValue};
use pponnx_plans::plan::Port;

use crate::args::Layout;
use crate::config::ImageEntry;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};
use crate::input::{self, npy, picture};

/// One example.
pub struct Example {
    /// Its row.
    pub index: usize,
    /// Fitted to the network's input.
    pub value: TensorValue,
    /// Expected class, if the file has one and it is a class.
    pub expected: Option<usize>,
}

/// Reads up to `samples` examples, spread evenly over the file.
pub fn read(path: &Path, port: &Port, samples: usize, image: &ImageEntry) -> Outcome<Vec<Example>> {
    let bytes = std::fs::read(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    let bad = |message: String| {
        Box::new(
            Failure::new(Exit::Refused, "pponnx::input::labeled", format!("`{}`: {message}", path.display()))
                .help("--labeled takes an .npz with `x`, one example a row, and `ort_pred` or `y`, one class a row"),
        )
    };
    let arrays = npy::arrays(&bytes, |name| ["x", "y", "ort_pred"].contains(&name)).map_err(bad)?;
    let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, v)| v);
    let x = find("x").ok_or_else(|| bad("it has no array `x`".into()))?;
    let (rows, example) = x.shape().0.split_first().ok_or_else(|| bad("`x` is a single number".into()))?;
    let classes = find("ort_pred").or_else(|| find("y")).filter(|c| c.shape().0 == [*rows]).and_then(whole);
    let raw = x.elements().to_le_bytes();
    let size = example.iter().product::<usize>() * x.dtype().bytes();

    let wanted = samples.min(*rows);
    let mut examples = Vec::with_capacity(wanted);
    for i in 0..wanted {
        let index = i * rows / wanted;
        let row = raw.get(index * size..(index + 1) * size).unwrap_or_default();
        let row = TensorValue::from_le_bytes(x.dtype(), example.to_vec(), row);
        let row = row.map_err(|e| Box::new(Failure::internal(e.to_string())))?;
        let value = match as_picture(&row) {
            // Bytes in the shape of a picture are one, unless the network wants them as they are.
            Some((pixels, layout)) if row.shape() != &port.shape => {
                let known = layout_of(port).or(layout);
                let settings = ImageEntry { layout: image.layout.or(known), ..image.clone() };
                picture::tensor(&pixels, port, &settings).map_err(bad)?
            }
            _ => input::fit_tensor(&row, port, path, &mut Vec::new())?,
        };
        let expected = classes.as_ref().and_then(|c| c.get(index).copied());
        examples.push(Example { index, value, expected });
    }
    Ok(examples)
}

fn whole(values: &TensorValue) -> Option<Vec<usize>> {
    let all = values.elements().to_f64();
    let is_class = |v: &f64| v.fract() == 0.0 && *v >= 0.0 && *v < 1e9;
    (!matches!(values.elements(), Elements::Bool(_)) && all.iter().all(is_class))
        .then(|| all.into_iter().map(|v| v as usize).collect())
}

/// Where the network has its channels, if its shape says so.
fn layout_of(port: &Port) -> Option<Layout> {
    let is_colour = |n: Option<&usize>| matches!(n, Some(1 | 3));
    match port.shape.0.as_slice() {
        [1, c, _, w] if is_colour(Some(c)) && !is_colour(Some(w)) => Some(Layout::Nchw),
        [1, h, _, c] if is_colour(Some(c)) && !is_colour(Some(h)) => Some(Layout::Nhwc),
        _ => None,
    }
}

/// Bytes `[h, w]`, `[h, w, 1]` or `[h, w, 3]` as a picture, as such files hold them.
fn as_picture(value: &TensorValue) -> Option<(DynamicImage, Option<Layout>)> {
    let Elements::U8(bytes) = value.elements() else { return None };
    let size = |h: usize, w: usize| Some((u32::try_from(w).ok()?, u32::try_from(h).ok()?));
    match *value.shape().0.as_slice() {
        [h, w] | [h, w, 1] => {
            let (w, h) = size(h, w)?;
            Some((GrayImage::from_raw(w, h, bytes.clone())?.into(), None))
        }
        [h, w, 3] => {
            let (w, h) = size(h, w)?;
            Some((RgbImage::from_raw(w, h, bytes.clone())?.into(), None))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use ndarray_npy::NpzWriter;
    use pponnx_plans::value::{DType, Shape};

    fn file(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("l.npz");
        let mut writer = NpzWriter::new(std::fs::File::create(&path).unwrap());
        let x = ndarray::Array3::from_shape_fn((10, 2, 2), |(n, i, j)| (n * 20 + i * 2 + j) as u8);
        writer.add_array("x", &x).unwrap();
        writer.add_array("ort_pred", &ndarray::Array1::from_iter(0..10i64)).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn rows_become_inputs_and_are_spread() {
        let dir = tempfile::tempdir().unwrap();
        let port = Port { name: "x".into(), dtype: DType::F32, shape: Shape(vec![1, 1, 2, 2]) };
        let scale = ImageEntry { scale: Some(1.0), ..ImageEntry::default() };
        let examples = read(&file(dir.path()), &port, 5, &scale).unwrap();
        let indices: Vec<usize> = examples.iter().map(|e| e.index).collect();
        assert_eq!(indices, [0, 2, 4, 6, 8]);
        assert_eq!(examples[1].expected, Some(2));
        assert_eq!(examples[1].value.as_f32().unwrap(), [40.0, 41.0, 42.0, 43.0]);
        assert_eq!(read(&file(dir.path()), &port, 99, &scale).unwrap().len(), 10);
    }

    #[test]
    fn bytes_that_fit_as_they_are_are_not_scaled() {
        let dir = tempfile::tempdir().unwrap();
        let port = Port { name: "x".into(), dtype: DType::F32, shape: Shape(vec![2, 2]) };
        let examples = read(&file(dir.path()), &port, 1, &ImageEntry::default()).unwrap();
        assert_eq!(examples[0].value.as_f32().unwrap(), [0.0, 1.0, 2.0, 3.0]);
    }
}
