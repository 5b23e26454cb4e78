//! Sizes of open axes, taken from the inputs that `verify` is given.

use std::collections::BTreeMap;

use crate::input::Loaded;
use crate::model::DeclaredInput;

/// Shapes for inputs whose axes the model leaves open and whose shape was not asked for, with a remark on each.
pub fn from_inputs(
    declared: &[DeclaredInput],
    loaded: &[Loaded],
    asked: &[(String, Vec<usize>)],
) -> (BTreeMap<String, Vec<usize>>, Vec<String>) {
    let (mut shapes, mut notes) = (BTreeMap::new(), Vec::new());
    for input in declared {
        let is_open = input.shape.as_ref().is_none_or(|s| s.iter().any(Option::is_none));
        if !is_open || asked.iter().any(|(name, _)| *name == input.name) {
            continue;
        }
        let entry = match (declared, loaded) {
            ([_], [only]) => Some(only),
            _ => loaded.iter().find(|l| l.name() == Some(input.name.as_str())),
        };
        let Some(given) = entry.and_then(Loaded::shape) else { continue };
        let shape = match &input.shape {
            Some(s) if s.len() == given.rank() + 1 => std::iter::once(1).chain(given.0.iter().copied()).collect(),
            _ => given.0.clone(),
        };
        let fits = input.shape.as_ref().is_none_or(|s| {
            s.len() == shape.len() && s.iter().zip(&shape).all(|(declared, given)| declared.is_none_or(|d| d == *given))
        });
        if fits {
            let dims = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            notes.push(format!("shape of input `{}` taken from the given file: {dims}", input.name));
            shapes.insert(input.name.clone(), shape);
        }
    }
    (shapes, notes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::args::InputFile;
    use crate::input::load;
    use ndarray_npy::WriteNpyExt;

    #[test]
    fn open_axes_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        ndarray::Array3::<f32>::zeros((3, 4, 5)).write_npy(std::fs::File::create(&path).unwrap()).unwrap();
        let loaded = load(&[InputFile { name: None, path }]).unwrap();
        let declared = |shape: Vec<Option<usize>>| [DeclaredInput { name: "x".into(), shape: Some(shape) }];
        let of = |d: &[DeclaredInput]| from_inputs(d, &loaded, &[]).0.get("x").cloned();
        assert_eq!(of(&declared(vec![None, Some(4), None])), Some(vec![3, 4, 5]));
        assert_eq!(of(&declared(vec![None, Some(3), None, None])), Some(vec![1, 3, 4, 5]));
        assert_eq!(of(&declared(vec![Some(3), Some(4), Some(5)])), None);
        assert_eq!(of(&declared(vec![None, Some(9), None])), None);
        let asked = [("x".to_string(), vec![3, 4, 5])];
        assert!(from_inputs(&declared(vec![None, Some(4), None]), &loaded, &asked).0.is_empty());
    }
}
