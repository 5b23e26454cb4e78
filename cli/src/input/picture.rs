//! PNG and JPEG as inputs of image networks: `(pixel * scale - mean) / std`, pixel from 0 to 255.
//!
//! Pictures are stretched to the height and width of the network's input, bilinear (triangle filter). Transparency is
//! dropped. 16-bit samples keep their upper 8 bits.

use image::DynamicImage;
use image::imageops::FilterType;
use pponnx_engine::value::{Elements, TensorValue};
use pponnx_plans::plan::Port;
use pponnx_plans::value::DType;

use crate::args::{Colour, Layout};
use crate::config::ImageEntry;

/// Decodes a picture.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    image::load_from_memory(bytes).map_err(|e| format!("cannot read the picture: {e}"))
}

/// Where the axes of an image input lie.
struct Axes {
    layout: Layout,
    channels: usize,
    height: usize,
    width: usize,
}

/// The picture as a value for this input.
///
/// # Errors
/// A sentence that says why the picture or the settings do not fit the input.
pub fn tensor(picture: &DynamicImage, port: &Port, settings: &ImageEntry) -> Result<TensorValue, String> {
    let axes = axes(port, settings)?;
    let colour = match (settings.colour, axes.channels) {
        (None | Some(Colour::Gray), 1) => Colour::Gray,
        (None, _) => Colour::Rgb,
        (Some(colour), 3) => colour,
        (Some(colour), n) => {
            let shown = if colour == Colour::Rgb { "rgb" } else { "bgr" };
            return Err(format!("{shown} pictures have 3 channels, the input {:?} has {n}", port.name));
        }
    };
    let (h, w) = (axes.height as u32, axes.width as u32);
    let picture = if (picture.height(), picture.width()) == (h, w) {
        picture.clone()
    } else {
        picture.resize_exact(w, h, FilterType::Triangle)
    };
    // One plane of samples after another.
    let planes: Vec<Vec<u8>> = match colour {
        Colour::Gray => vec![picture.to_luma8().into_raw(); axes.channels],
        Colour::Rgb | Colour::Bgr => {
            let rgb = picture.to_rgb8().into_raw();
            let plane = |c: usize| rgb.iter().skip(c).step_by(3).copied().collect();
            if colour == Colour::Rgb { (0..3).map(plane).collect() } else { (0..3).rev().map(plane).collect() }
        }
    };
    if port.dtype == DType::U8 {
        if settings.scale.is_some() || settings.mean.is_some() || settings.std.is_some() {
            return Err(format!("the input {:?} takes raw pixels (u8): drop scale, mean and std", port.name));
        }
        return value(port, Elements::U8(arranged(&planes, axes.layout)));
    }
    if port.dtype != DType::F32 {
        return Err(format!("the input {:?} is {}, pictures become f32 or u8", port.name, port.dtype.name()));
    }
    let scale = settings.scale.unwrap_or(1.0 / 255.0);
    let means = per_channel(settings.mean.as_deref(), 0.0, axes.channels, "mean")?;
    let stds = per_channel(settings.std.as_deref(), 1.0, axes.channels, "std")?;
    if stds.iter().chain(&means).any(|v| !v.is_finite()) || stds.contains(&0.0) || !scale.is_finite() {
        return Err("scale, mean and std must be finite, and std not zero".into());
    }
    let planes: Vec<Vec<f32>> = planes
        .iter()
        .zip(means.iter().zip(&stds))
        .map(|(plane, (mean, std))| plane.iter().map(|p| ((f64::from(*p) * scale - mean) / std) as f32).collect())
        .collect();
    value(port, Elements::F32(arranged(&planes, axes.layout)))
}

fn value(port: &Port, elements: Elements) -> Result<TensorValue, String> {
    TensorValue::new(port.shape.clone(), elements).map_err(|e| e.to_string())
}

fn axes(port: &Port, settings: &ImageEntry) -> Result<Axes, String> {
    let shape = &port.shape;
    let dims = match shape.0.as_slice() {
        [1, a, b, c] => [*a, *b, *c],
        [a, b, c] => [*a, *b, *c],
        [h, w] => [1, *h, *w],
        _ => return Err(format!("the input {:?} is {shape}, which takes no single picture", port.name)),
    };
    let is_colour = |n: usize| n == 1 || n == 3;
    let layout = match settings.layout {
        Some(layout) => layout,
        None if is_colour(dims[0]) && !is_colour(dims[2]) => Layout::Nchw,
        None if is_colour(dims[2]) && !is_colour(dims[0]) => Layout::Nhwc,
        None => {
            return Err(format!(
                "the input {:?} is {shape}, which does not say where its channels are; add --image-layout nchw or nhwc",
                port.name
            ));
        }
    };
    let [channels, height, width] = match layout {
        Layout::Nchw => dims,
        Layout::Nhwc => [dims[2], dims[0], dims[1]],
    };
    if !is_colour(channels) {
        return Err(format!("the input {:?} is {shape} with {channels} channels; pictures have 1 or 3", port.name));
    }
    Ok(Axes { layout, channels, height, width })
}

fn per_channel(values: Option<&[f64]>, default: f64, channels: usize, what: &str) -> Result<Vec<f64>, String> {
    match values {
        None => Ok(vec![default; channels]),
        Some([one]) => Ok(vec![*one; channels]),
        Some(all) if all.len() == channels => Ok(all.to_vec()),
        Some(all) => {
            Err(format!("{what} has {} numbers, the input {channels} channels: give 1 or {channels}", all.len()))
        }
    }
}

fn arranged<T: Copy>(planes: &[Vec<T>], layout: Layout) -> Vec<T> {
    match layout {
        Layout::Nchw => planes.concat(),
        Layout::Nhwc => {
            let pixels = planes.first().map_or(0, Vec::len);
            (0..pixels).flat_map(|i| planes.iter().filter_map(move |p| p.get(i).copied())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use pponnx_plans::value::Shape;

    fn port(dims: &[usize], dtype: DType) -> Port {
        Port { name: "x".into(), dtype, shape: Shape(dims.to_vec()) }
    }

    fn two_pixels() -> DynamicImage {
        RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([255, 51, 0]) } else { Rgb([0, 102, 204]) }).into()
    }

    fn run(p: &DynamicImage, port: &Port, s: &ImageEntry) -> Vec<f32> {
        tensor(p, port, s).unwrap().as_f32().unwrap().to_vec()
    }

    #[test]
    fn layouts_and_colours_order_the_samples() {
        let default = ImageEntry::default();
        let nchw = port(&[1, 3, 1, 2], DType::F32);
        assert_eq!(run(&two_pixels(), &nchw, &default), [1.0, 0.0, 0.2, 0.4, 0.0, 0.8]);
        let bgr = ImageEntry { colour: Some(Colour::Bgr), layout: Some(Layout::Nhwc), ..default.clone() };
        let nhwc = port(&[1, 1, 2, 3], DType::F32);
        assert_eq!(run(&two_pixels(), &nhwc, &bgr), [0.0, 0.2, 1.0, 0.8, 0.4, 0.0]);
    }

    #[test]
    fn scale_mean_and_std_follow_the_formula() {
        let settings =
            ImageEntry { scale: Some(1.0), mean: Some(vec![127.0]), std: Some(vec![128.0]), ..ImageEntry::default() };
        let picture = GrayImage::from_fn(2, 2, |x, _| Luma([if x == 0 { 255 } else { 127 }])).into();
        assert_eq!(run(&picture, &port(&[1, 1, 2, 2], DType::F32), &settings), [1.0, 0.0, 1.0, 0.0]);
        let three = ImageEntry { mean: Some(vec![0.0, 1.0, 2.0]), ..ImageEntry::default() };
        assert_eq!(run(&two_pixels(), &port(&[3, 1, 2], DType::F32), &three)[0..4], [1.0, 0.0, 0.2 - 1.0, 0.4 - 1.0]);
    }

    #[test]
    fn pictures_are_stretched() {
        let picture = GrayImage::from_pixel(40, 10, Luma([51])).into();
        assert_eq!(run(&picture, &port(&[1, 1, 4, 5], DType::F32), &ImageEntry::default()), [0.2; 20]);
    }

    #[test]
    fn raw_pixels_for_u8_inputs() {
        let value = tensor(&two_pixels(), &port(&[1, 3, 1, 2], DType::U8), &ImageEntry::default()).unwrap();
        assert_eq!(value.elements(), &Elements::U8(vec![255, 0, 51, 102, 0, 204]));
        let scaled = ImageEntry { scale: Some(0.5), ..ImageEntry::default() };
        assert!(tensor(&two_pixels(), &port(&[1, 3, 1, 2], DType::U8), &scaled).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let default = ImageEntry::default();
        for (dims, settings) in [
            (&[1, 3, 5, 3][..], default.clone()),
            (&[2, 3, 5, 5], default.clone()),
            (&[1, 4, 5, 5], ImageEntry { layout: Some(Layout::Nchw), ..default.clone() }),
            (&[640], default.clone()),
            (&[1, 1, 5, 5], ImageEntry { colour: Some(Colour::Bgr), ..default.clone() }),
            (&[1, 3, 5, 5], ImageEntry { mean: Some(vec![0.0, 1.0]), ..default.clone() }),
            (&[1, 3, 5, 5], ImageEntry { std: Some(vec![0.0]), ..default.clone() }),
        ] {
            assert!(tensor(&two_pixels(), &port(dims, DType::F32), &settings).is_err(), "{dims:?}");
        }
        assert!(decode(b"\x89PNG\r\n\x1a\nnonsense").is_err());
    }
}
