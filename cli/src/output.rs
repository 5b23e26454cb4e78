//! Outputs of a request: files, and a short look for people.

use std::io::{Cursor, Write};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzWriter, WritableElement, WriteNpyExt};
use pponnx_engine::value::{Elements, TensorValue};
use pponnx_plans::plan::Port;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome, file_failure};

/// How many classes are shown.
const TOP: usize = 5;

/// Which file to write, decided before anything is run.
pub fn check_path(path: &Path, ports: &[Port]) -> Outcome<()> {
    let refuse = |message: String, help: &str| {
        Err(Box::new(Failure::new(Exit::Usage, "pponnx::output::file", message).help(help)))
    };
    // Better now than after a request whose result would be lost.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kind = if path.is_dir() {
        Some(std::io::ErrorKind::IsADirectory)
    } else if folder.is_dir() {
        None
    } else {
        Some(std::io::ErrorKind::NotFound)
    };
    if let Some(kind) = kind {
        return Err(Box::new(file_failure("write", path, &kind.into())));
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("npz") => Ok(()),
        Some("npy") if ports.len() == 1 => Ok(()),
        Some("npy") => {
            refuse(format!("the network has {} outputs, an .npy file holds one", ports.len()), "write to an .npz file")
        }
        _ => refuse(format!("`{}` is neither .npz nor .npy", path.display()), "name the file y.npz or y.npy"),
    }
}

/// Writes outputs; the whole file appears at once.
pub fn write(path: &Path, ports: &[Port], values: &[TensorValue]) -> Outcome<()> {
    let bytes = if path.extension().is_some_and(|e| e == "npy") {
        let value = values.first().ok_or_else(|| Failure::internal("no output to write"))?;
        let mut bytes = Vec::new();
        npy(value, &mut bytes)?;
        bytes
    } else {
        npz(ports, values)?
    };
    write_beside(path, &bytes)
}

/// Writes a file beside its place and renames it, so that it is never seen half-written.
pub fn write_beside(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |e: std::io::Error| Box::new(file_failure("write", path, &e));
    let mut file = tempfile::Builder::new().prefix(".pponnx-").tempfile_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    readable(file.path()).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// Gives a temporary file, which is private at first, the usual mode.
#[cfg(unix)]
fn readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn internal(e: impl std::fmt::Display) -> Box<Failure> {
    Box::new(Failure::internal(format!("cannot encode an output: {e}")))
}

macro_rules! each_type {
    ($elements:expr, $v:ident => $body:expr) => {
        match $elements {
            Elements::Bool($v) => $body,
            Elements::U8($v) => $body,
            Elements::I8($v) => $body,
            Elements::U16($v) => $body,
            Elements::I16($v) => $body,
            Elements::U32($v) => $body,
            Elements::I32($v) => $body,
            Elements::U64($v) => $body,
            Elements::I64($v) => $body,
            Elements::F32($v) => $body,
            Elements::F64($v) => $body,
            // ndarray-npy has no half floats; f32 holds each of them exactly.
            Elements::F16(_) => {
                let wide: Vec<f32> = $elements.to_f64().into_iter().map(|x| x as f32).collect();
                let $v = &wide;
                $body
            }
        }
    };
}

fn array<T: Clone>(value: &TensorValue, data: &[T]) -> Outcome<ArrayD<T>> {
    ArrayD::from_shape_vec(IxDyn(&value.shape().0), data.to_vec()).map_err(internal)
}

fn npy(value: &TensorValue, bytes: &mut Vec<u8>) -> Outcome<()> {
    fn put<T: WritableElement + Clone>(value: &TensorValue, data: &[T], bytes: &mut Vec<u8>) -> Outcome<()> {
        array(value, data)?.write_npy(bytes).map_err(internal)
    }
    each_type!(value.elements(), v => put(value, v, bytes))
}

fn npz(ports: &[Port], values: &[TensorValue]) -> Outcome<Vec<u8>> {
    type Writer = NpzWriter<Cursor<Vec<u8>>>;
    fn put<T: WritableElement + Clone>(
        writer: &mut Writer,
        name: &str,
        value: &TensorValue,
        data: &[T],
    ) -> Outcome<()> {
        writer.add_array(name, &array(value, data)?).map_err(internal)
    }
    let mut writer = NpzWriter::new(Cursor::new(Vec::new()));
    for (port, value) in ports.iter().zip(values) {
        each_type!(value.elements(), v => put(&mut writer, &port.name, value, v))?;
    }
    Ok(writer.finish().map_err(internal)?.into_inner())
}

/// The largest entries of a row of classes, largest first: position and value.
pub fn top(value: &TensorValue) -> Option<Vec<(usize, f64)>> {
    if !is_classes(value) {
        return None;
    }
    let mut all: Vec<(usize, f64)> = value.elements().to_f64().into_iter().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(TOP);
    Some(all)
}

/// Whether a tensor looks like one row of class scores: `[1, N]` or `[N]`, and axes of 1 behind.
pub fn is_classes(value: &TensorValue) -> bool {
    let longer: Vec<&usize> = value.shape().0.iter().filter(|d| **d != 1).collect();
    longer.len() == 1 && value.shape().rank() <= 4 && !matches!(value.elements(), Elements::Bool(_))
}

/// The name of a class.
pub fn label(labels: Option<&[String]>, class: usize) -> String {
    match labels.and_then(|l| l.get(class)) {
        Some(name) if *name != class.to_string() => format!("{class} ({name})"),
        _ => class.to_string(),
    }
}

/// Reads class names, one a line.
pub fn read_labels(path: &Path) -> Outcome<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Box::new(file_failure("read", path, &e)))?;
    Ok(text.lines().map(|l| l.trim().to_owned()).collect())
}

/// Lines that show an output: the top classes, or shape and extremes.
pub fn describe(port: &Port, value: &TensorValue, labels: Option<&[String]>) -> Vec<String> {
    let mut lines = vec![format!("{}: {}{}", port.name, value.dtype().name(), value.shape())];
    if let Some(top) = top(value) {
        lines.extend(top.iter().map(|(class, score)| format!("  {score:>12.6}  {}", label(labels, *class))));
        return lines;
    }
    let all = value.elements().to_f64();
    if all.len() <= TOP {
        lines.extend(all.iter().map(|v| format!("  {v}")));
        return lines;
    }
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    lines.push(format!("  least {least:.6}, mean {mean:.6}, largest {most:.6}; --output y.npz keeps all of them"));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::input::npy;
    use pponnx_plans::value::{DType, Shape};

    fn port(name: &str, dims: &[usize]) -> Port {
        Port { name: name.into(), dtype: DType::F32, shape: Shape(dims.to_vec()) }
    }

    #[test]
    fn files_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let a = TensorValue::from_f32(vec![1, 3], vec![0.5, -1.0, 2.0]).unwrap();
        let b = TensorValue::new(vec![2], Elements::I64(vec![3, 4])).unwrap();
        let ports = [port("a:0", &[1, 3]), port("b", &[2])];
        let path = dir.path().join("y.npz");
        write(&path, &ports, &[a.clone(), b.clone()]).unwrap();
        let read = npy::archive(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, [("a:0".to_string(), a.clone()), ("b".to_string(), b)]);
        let path = dir.path().join("y.npy");
        write(&path, &ports[..1], std::slice::from_ref(&a)).unwrap();
        assert_eq!(npy::array(&std::fs::read(&path).unwrap()).unwrap(), a);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn unknown_endings_are_refused_before_running() {
        let ports = [port("a", &[1]), port("b", &[1])];
        assert!(check_path(Path::new("y.npz"), &ports).is_ok());
        assert!(check_path(Path::new("y.npy"), &ports[..1]).is_ok());
        assert!(check_path(Path::new("y.npy"), &ports).is_err());
        assert!(check_path(Path::new("y.txt"), &ports).is_err());
    }

    #[test]
    fn classes_are_ranked_and_ties_keep_their_order() {
        let value = TensorValue::from_f32(vec![1, 4], vec![1.0, 3.0, 3.0, -1.0]).unwrap();
        let ranked: Vec<usize> = top(&value).unwrap().into_iter().map(|(c, _)| c).collect();
        assert_eq!(ranked, [1, 2, 0, 3]);
        assert!(top(&TensorValue::from_f32(vec![2, 2], vec![0.0; 4]).unwrap()).is_none());
    }
}
