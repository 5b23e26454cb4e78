//! Inputs of a request: files to tensors that fit the network's inputs exactly.

pub mod cast;
pub mod npy;
pub mod picture;
pub mod proto;

use std::path::{Path, PathBuf};

use image::DynamicImage;
use pponnx_engine::value::TensorValue;
use pponnx_plans::plan::Port;
use pponnx_plans::value::Shape;

use crate::args::InputFile;
use crate::config::ImageEntry;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};

/// What a file holds.
enum Content {
    Tensor(TensorValue),
    Picture(Box<DynamicImage>),
}

/// One tensor or picture that was read, not yet fitted to an input.
pub struct Loaded {
    /// Which input it is for: from NAME=FILE, an `.npz` key or a `TensorProto` name.
    name: Option<String>,
    /// Whether the name was asked for, or only found in the file.
    named_by_user: bool,
    path: PathBuf,
    content: Content,
}

impl Loaded {
    /// The tensor, unless it is a picture.
    pub fn tensor(&self) -> Option<&TensorValue> {
        match &self.content {
            Content::Tensor(t) => Some(t),
            Content::Picture(_) => None,
        }
    }

    /// The name the file or the user gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The shape, unless it is a picture.
    pub fn shape(&self) -> Option<&Shape> {
        self.tensor().map(TensorValue::shape)
    }
}

/// Inputs that fit, in the order of the ports, and what was done to make them fit.
#[derive(Debug)]
pub struct Fitted {
    /// One value a port.
    pub values: Vec<TensorValue>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

fn refused(code: &'static str, message: String, help: impl Into<String>) -> Box<Failure> {
    Box::new(Failure::new(Exit::Refused, code, message).help(help))
}

/// Reads input files. The kind is told by the first bytes; only `.pb` needs its extension.
pub fn load(files: &[InputFile]) -> Outcome<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file.path).map_err(|e| Box::new(file_failure("read", &file.path, &e)))?;
        let bad = |message: String| {
            refused(
                "pponnx::input::file",
                format!("`{}`: {message}", file.path.display()),
                "inputs are .npy, .npz, .pb (ONNX TensorProto), .png or .jpg",
            )
        };
        let one = |name: Option<String>, content| Loaded {
            name: file.name.clone().or(name),
            named_by_user: file.name.is_some(),
            path: file.path.clone(),
            content,
        };
        match bytes.as_slice() {
            [] => return Err(bad("the file is empty".into())),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
                loaded.push(one(None, Content::Tensor(npy::array(&bytes).map_err(bad)?)));
            }
            [b'P', b'K', 3 | 5, ..] => {
                let arrays = npy::archive(&bytes).map_err(bad)?;
                loaded.extend(members(file, arrays)?);
            }
            [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => {
                loaded.push(one(None, Content::Picture(Box::new(picture::decode(&bytes).map_err(bad)?))));
            }
            _ if file.path.extension().is_some_and(|e| e == "pb") => {
                let (name, value) = proto::tensor(&bytes).map_err(bad)?;
                loaded.push(one(Some(name).filter(|n| !n.is_empty()), Content::Tensor(value)));
            }
            _ => return Err(bad("neither an array nor a picture".into())),
        }
    }
    Ok(loaded)
}

/// One set of inputs for each row of the arrays: index along the first axis, of which all have as many.
pub fn rows(loaded: &[Loaded]) -> Outcome<Vec<Vec<Loaded>>> {
    let bad = |message: String| {
        refused("pponnx::input::batch", message, "--batch takes arrays whose first axis counts the requests")
    };
    let mut sets: Vec<Vec<Loaded>> = Vec::new();
    for (at, entry) in loaded.iter().enumerate() {
        let path = entry.path.display();
        let rows = entry.tensor().map(crate::batch::rows).transpose()?.unwrap_or_default();
        if rows.is_empty() {
            return Err(bad(format!("`{path}` has no rows")));
        }
        if at == 0 {
            sets.resize_with(rows.len(), Vec::new);
        }
        if rows.len() != sets.len() {
            return Err(bad(format!("`{path}` has {} rows, another input has {}", rows.len(), sets.len())));
        }
        for (set, row) in sets.iter_mut().zip(rows) {
            let (name, path) = (entry.name.clone(), entry.path.clone());
            set.push(Loaded { name, named_by_user: entry.named_by_user, path, content: Content::Tensor(row) });
        }
    }
    Ok(sets)
}

fn members(file: &InputFile, mut arrays: Vec<(String, TensorValue)>) -> Outcome<Vec<Loaded>> {
    let keys = arrays.iter().map(|(k, _)| format!("`{k}`")).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = &file.name {
        // NAME=FILE.npz: the array of that name, or the only one.
        if let Some(at) = arrays.iter().position(|(k, _)| k == wanted) {
            arrays = vec![arrays.swap_remove(at)];
        }
        if arrays.len() != 1 {
            return Err(refused(
                "pponnx::input::name",
                format!("`{}` has no array `{wanted}`", file.path.display()),
                format!("its arrays are {keys}"),
            ));
        }
    }
    if arrays.is_empty() {
        return Err(refused(
            "pponnx::input::file",
            format!("`{}` holds no array", file.path.display()),
            "save arrays with numpy.savez",
        ));
    }
    Ok(arrays
        .into_iter()
        .map(|(key, value)| Loaded {
            name: Some(file.name.clone().unwrap_or(key)),
            named_by_user: file.name.is_some(),
            path: file.path.clone(),
            content: Content::Tensor(value),
        })
        .collect())
}

/// Which loaded entry belongs to which port: one index a port.
pub fn assign(loaded: &[Loaded], names: &[&str]) -> Outcome<Vec<usize>> {
    let all = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    for entry in loaded.iter().filter(|l| l.named_by_user) {
        if !entry.name.as_deref().is_some_and(|n| names.contains(&n)) {
            return Err(refused(
                "pponnx::input::name",
                format!("the network has no input `{}`", entry.name.as_deref().unwrap_or_default()),
                format!("its inputs are {all}"),
            ));
        }
    }
    // A lone tensor goes to a lone input whatever a file calls it.
    if let ([_], [_]) = (loaded, names) {
        return Ok(vec![0]);
    }
    let mut assigned = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let mut of_name = loaded.iter().enumerate().filter(|(_, l)| l.name.as_deref() == Some(*name));
        match (of_name.next(), of_name.next()) {
            (Some((i, _)), None) => assigned.push(i),
            (Some(_), Some(_)) => {
                return Err(refused(
                    "pponnx::input::name",
                    format!("input `{name}` is given twice"),
                    "give each input once",
                ));
            }
            (None, _) => missing.push(format!("`{name}`")),
        }
    }
    if !missing.is_empty() {
        let (missing, nameless) = (missing.join(", "), loaded.iter().filter(|l| l.name.is_none()).count());
        let help = if nameless > 0 {
            format!("write --input NAME=FILE; the network's inputs are {all}")
        } else {
            let found = loaded.iter().filter_map(|l| l.name.as_deref()).map(|n| format!("`{n}`"));
            format!("the files hold {}; the network's inputs are {all}", found.collect::<Vec<_>>().join(", "))
        };
        return Err(refused("pponnx::input::missing", format!("no value for input {missing}"), help));
    }
    Ok(assigned)
}

/// Fits what was loaded to the ports: element type, batch axis, finite values. Nothing is sent before this passes.
pub fn fit(loaded: &[Loaded], ports: &[Port], image: &ImageEntry) -> Outcome<Fitted> {
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    let mut fitted = Fitted { values: Vec::new(), notes: Vec::new() };
    for (index, port) in assign(loaded, &names)?.into_iter().zip(ports) {
        let Some(entry) = loaded.get(index) else { continue };
        let value = match &entry.content {
            Content::Tensor(value) => fit_tensor(value, port, &entry.path, &mut fitted.notes)?,
            Content::Picture(picture) => picture::tensor(picture, port, image).map_err(|e| {
                refused(
                    "pponnx::input::picture",
                    format!("`{}`: {e}", entry.path.display()),
                    "see --image-layout, --image-colour, --image-scale, --image-mean and --image-std",
                )
            })?,
        };
        fitted.values.push(value);
    }
    Ok(fitted)
}

/// Fits one tensor to a port; remarks go to `notes`.
pub fn fit_tensor(value: &TensorValue, port: &Port, path: &Path, notes: &mut Vec<String>) -> Outcome<TensorValue> {
    let shape = value.shape();
    let lacks_batch = port.shape.0.split_first().is_some_and(|(first, rest)| *first == 1 && rest == shape.0.as_slice());
    if lacks_batch {
        notes.push(format!("input `{}`: {shape} was taken as {} (leading axis of 1 added)", port.name, port.shape));
    } else if *shape != port.shape {
        return Err(refused(
            "pponnx::input::shape",
            format!("input `{}`: expected {}, got {shape} in `{}`", port.name, port.shape, path.display()),
            "the shape was fixed when the model was compiled; reshape the input, or compile with another --shape",
        ));
    }
    let (elements, rounded) = cast::cast(value.elements().clone(), port.dtype).map_err(|e| {
        refused(
            "pponnx::input::type",
            format!("input `{}`: expected {}, got {}: {e}", port.name, port.dtype.name(), value.dtype().name()),
            format!("convert the array in `{}` to {}", path.display(), port.dtype.name()),
        )
    })?;
    if rounded {
        notes.push(format!("input `{}`: f64 was rounded to {}", port.name, port.dtype.name()));
    }
    if let Some((at, bad)) = cast::first_not_finite(&elements) {
        return Err(refused(
            "pponnx::input::not-finite",
            format!("input `{}`: element {at} is {bad}", port.name),
            "inputs must be finite; nothing was sent",
        ));
    }
    TensorValue::new(port.shape.clone(), elements).map_err(|e| Box::new(Failure::internal(e.to_string())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use ndarray_npy::{NpzWriter, WriteNpyExt};
    use pponnx_plans::value::DType;

    fn port(name: &str, dims: &[usize]) -> Port {
        Port { name: name.into(), dtype: DType::F32, shape: Shape(dims.to_vec()) }
    }

    fn npy(dir: &Path, name: &str, array: &impl WriteNpyExt) -> InputFile {
        let path = dir.join(name);
        array.write_npy(std::fs::File::create(&path).unwrap()).unwrap();
        InputFile { name: None, path }
    }

    fn all(files: &[InputFile], ports: &[Port]) -> Outcome<Fitted> {
        fit(&load(files)?, ports, &ImageEntry::default())
    }

    #[test]
    fn a_missing_batch_axis_is_added_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = npy(dir.path(), "x.npy", &ndarray::arr1(&[1f32, 2.0]));
        let fitted = all(std::slice::from_ref(&file), &[port("x", &[1, 2])]).unwrap();
        assert_eq!(fitted.values[0].shape().0, [1, 2]);
        assert_eq!(fitted.notes.len(), 1);
        let failure = all(&[file], &[port("x", &[1, 3])]).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("[1,3]") && failure.message.contains("[2]"), "{}", failure.message);
    }

    #[test]
    fn nan_and_wrong_types_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let nan = npy(dir.path(), "nan.npy", &ndarray::arr1(&[1f32, f32::NAN]));
        assert_eq!(all(&[nan], &[port("x", &[2])]).unwrap_err().code, "pponnx::input::not-finite");
        let big = npy(dir.path(), "big.npy", &ndarray::arr1(&[1i64, (1 << 40) + 1]));
        assert_eq!(all(&[big], &[port("x", &[2])]).unwrap_err().code, "pponnx::input::type");
        std::fs::write(dir.path().join("text.npy"), "hello").unwrap();
        let text = InputFile { name: None, path: dir.path().join("text.npy") };
        assert_eq!(all(&[text], &[port("x", &[2])]).unwrap_err().code, "pponnx::input::file");
    }

    #[test]
    fn several_inputs_go_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let ports = [port("a", &[1]), port("b", &[2])];
        let path = dir.path().join("both.npz");
        let mut writer = NpzWriter::new(std::fs::File::create(&path).unwrap());
        writer.add_array("b", &ndarray::arr1(&[2f32, 3.0])).unwrap();
        writer.add_array("a", &ndarray::arr1(&[1f32])).unwrap();
        writer.finish().unwrap();
        let both = InputFile { name: None, path: path.clone() };
        assert_eq!(all(&[both], &ports).unwrap().values[1].as_f32().unwrap(), [2.0, 3.0]);

        let a = InputFile { name: Some("a".into()), path: path.clone() };
        let b = npy(dir.path(), "b.npy", &ndarray::arr1(&[5f32, 6.0]));
        let failure = all(&[a.clone(), b.clone()], &ports).unwrap_err();
        assert_eq!(failure.code, "pponnx::input::missing");
        assert!(failure.help.unwrap().contains("NAME=FILE"));
        let b = InputFile { name: Some("b".into()), ..b };
        assert_eq!(all(&[a.clone(), b.clone()], &ports).unwrap().values[1].as_f32().unwrap(), [5.0, 6.0]);
        assert_eq!(all(&[a.clone(), a.clone(), b], &ports).unwrap_err().code, "pponnx::input::name");
        let c = InputFile { name: Some("c".into()), path };
        assert_eq!(all(&[a, c], &ports).unwrap_err().code, "pponnx::input::name");
    }
}
