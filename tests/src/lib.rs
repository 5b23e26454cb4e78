//! What the tests share: finding models, reading arrays, compiling, comparing.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod golden;

pub mod adversary;
pub mod adversary_a;
pub mod adversary_b;
pub mod cluster;
pub mod graphs;
pub mod oracle;
pub mod parallel;

use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use pponnx_compiler::{Compiled, FrontOptions, ModelSource, Options, Precision};
use pponnx_engine::{Elements, TensorValue};
use pponnx_keys::{CheckSecret, EpochKey, SessionKey, SessionNonce};
use pponnx_plans::plan::SUITES;
use pponnx_plans::value::DType;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The folder of shared trained models; `None`, said so, when `PPONNX_MODELS` is not set.
pub fn shared_models() -> Option<PathBuf> {
    let found = std::env::var_os("PPONNX_MODELS").map(PathBuf::from).filter(|p| p.is_dir());
    if found.is_none() {
        eprintln!("skipped: PPONNX_MODELS does not name a folder of models");
    }
    found
}

/// Compiles a file.
pub fn compile(model: &Path, scheme: &str, precision: Precision) -> Compiled {
    try_compile(model, scheme, precision).unwrap_or_else(|e| panic!("{}: {e}", model.display()))
}

/// Compiles a file for another mask stream.
pub fn compile_with(model: &Path, scheme: &str, precision: Precision, suite: &'static str) -> Compiled {
    try_compile_with(model, scheme, precision, suite).unwrap_or_else(|e| panic!("{}: {e}", model.display()))
}

/// Compiles a file, or tells why not.
///
/// # Errors
/// The compiler's complaints.
pub fn try_compile(model: &Path, scheme: &str, precision: Precision) -> Result<Compiled, String> {
    try_compile_with(model, scheme, precision, SUITES[0])
}

fn try_compile_with(model: &Path, scheme: &str, precision: Precision, suite: &'static str) -> Result<Compiled, String> {
    let scheme = pponnx_compiler::schemes::by_name(scheme).unwrap();
    let options = Options { scheme, precision, suite, front: FrontOptions::default() };
    pponnx_compiler::compile(&ModelSource::Path(model.to_path_buf()), &options).map_err(|e| e.to_string())
}

/// A session that is the same in every run.
pub fn session(seed: u8) -> SessionKey {
    SessionKey::session(&EpochKey::first(&[seed; 32]), &SessionNonce([seed; 32]))
}

/// A check secret that is the same in every run.
pub fn check_secret(seed: u8) -> CheckSecret {
    CheckSecret::new(&[seed ^ 0x5a; 32])
}

/// All arrays of an .npz file as tensors, by key.
pub fn npz(path: &Path) -> Vec<(String, TensorValue)> {
    let mut file = NpzReader::new(File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap();
    let names = file.names().unwrap();
    names
        .into_iter()
        .map(|name| {
            let key = name.trim_end_matches(".npy").to_string();
            (key, array(&mut file, &name))
        })
        .collect()
}

fn array(file: &mut NpzReader<File>, name: &str) -> TensorValue {
    macro_rules! attempt {
        ($($type:ty => $variant:ident),*) => {$(
            if let Ok(a) = file.by_name::<ndarray::OwnedRepr<$type>, ndarray::IxDyn>(name) {
                return tensor(a.shape().to_vec(), Elements::$variant(a.iter().copied().collect()));
            }
        )*};
    }
    attempt!(f32 => F32, f64 => F64, i64 => I64, i32 => I32, u8 => U8, bool => Bool);
    panic!("array {name} has an element type that the tests do not know");
}

fn tensor(shape: Vec<usize>, elements: Elements) -> TensorValue {
    TensorValue::new(shape, elements).unwrap()
}

/// One f32 array of an .npy file.
pub fn npy(path: &Path) -> TensorValue {
    let a: ArrayD<f32> = ndarray_npy::read_npy(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    tensor(a.shape().to_vec(), Elements::F32(a.iter().copied().collect()))
}

/// Largest absolute difference over the largest absolute expected value.
pub fn rel_err(got: &TensorValue, expected: &TensorValue) -> f64 {
    assert_eq!(got.shape(), expected.shape(), "shapes differ");
    let (got, expected) = (got.elements().to_f64(), expected.elements().to_f64());
    let most = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let apart = got.iter().zip(&expected).fold(0.0f64, |m, (g, e)| m.max((g - e).abs()));
    if most == 0.0 { apart } else { apart / most }
}

/// Index of the largest value.
pub fn argmax(t: &TensorValue) -> usize {
    let data = t.elements().to_f64();
    data.iter().enumerate().fold(0, |best, (i, v)| if *v > data[best] { i } else { best })
}

/// Whether a tensor holds f32.
pub fn is_real(t: &TensorValue) -> bool {
    t.dtype() == DType::F32
}
