//! Golden plans: every file of `plans/golden` through the driver in [`pponnx_tests::golden`].
//!
//! `PPONNX_GOLDEN=NAME` runs the files whose names contain NAME; `PPONNX_BLESS=1` accepts what comes out now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use pponnx_tests::golden::case::Case;
use pponnx_tests::golden::{check, diff, judge, kinds};
use pponnx_tests::root;

fn files() -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(root().join("plans/golden"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "pplan"))
        .map(|p| (p.file_stem().unwrap().to_str().unwrap().to_string(), p))
        .collect();
    found.sort();
    found
}

#[test]
fn every_case_is_as_written() {
    let wanted = std::env::var("PPONNX_GOLDEN").unwrap_or_default();
    let bless = std::env::var_os("PPONNX_BLESS").is_some();
    let files: Vec<_> = files().into_iter().filter(|(name, _)| name.contains(&wanted)).collect();
    assert!(!files.is_empty(), "no golden case has `{wanted}` in its name");
    let next = AtomicUsize::new(0);
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let (files, next) = (&files, &next);
        let work = move || {
            let mut failed = Vec::new();
            while let Some((name, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                failed.extend(check(path, &format!("plans/golden/{name}.pplan"), bless).err());
            }
            failed
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    assert!(outcomes.is_empty(), "{} of {} cases:\n\n{}", outcomes.len(), files.len(), outcomes.join("\n\n"));
}

/// What the folder must hold, whatever else is in it.
#[test]
fn the_folder_covers_kinds_schemes_precisions_and_rules() {
    if std::env::var_os("PPONNX_BLESS").is_some() {
        return; // The expectations are being written.
    }
    let texts: Vec<(String, String)> =
        files().into_iter().map(|(name, path)| (name, std::fs::read_to_string(path).unwrap())).collect();
    let cases: Vec<Case> = texts.iter().map(|(_, t)| Case::parse(t).unwrap()).collect();
    for (word, _) in kinds::WORDS {
        assert!(cases.iter().any(|c| c.words[0] == *word), "no case of `test {word}`");
    }
    let lowered = |key: &str, value: &str, default: &str| {
        cases.iter().any(|c| c.words[0] == "lower" && c.setting(key, default) == value)
    };
    for scheme in pponnx_compiler::schemes::ALL {
        assert!(lowered("scheme", scheme.name(), "relay"), "no bundle of scheme {}", scheme.name());
    }
    for precision in pponnx_compiler::Precision::ALL {
        assert!(lowered("precision", precision.name(), "fast"), "no bundle of precision {}", precision.name());
    }
    let refused = |rule: &str| {
        let tag = format!("error[{rule}]");
        texts.iter().filter(|(_, t)| t.starts_with("test verify") && t.contains(&tag)).count()
    };
    for rule in ["S01", "S02", "S03", "S04", "S05", "S06", "S07", "S09", "P01", "P02", "P03", "P04"] {
        assert!(refused(rule) > 0, "no hand-made bundle breaks {rule}");
    }
    for rule in ["K01", "K02", "K03", "K04"] {
        assert!(refused(rule) > 0, "no hand-made bundle breaks {rule}");
    }
    let leaks = texts.iter().filter(|(_, t)| t.starts_with("test verify") && t.contains("error[S")).count();
    assert!(leaks >= 12, "{leaks} bundles that leak");
}

const SMALL: &str = "test cost\nset scheme=plain\n;; a note\ngraph g {\n  input x f32[1,2]\n  \
                     const w f32[1,2] = [1, 2]\n  y = Gemm x w {transB=1}\n  output y f32[1,1]\n}\n; stale\n";

#[test]
fn blessing_keeps_notes_and_twice_is_once() {
    let once = judge(SMALL).unwrap();
    assert!(once.contains(";; a note\n") && !once.contains("stale"), "{once}");
    assert!(
        once.ends_with(
            "; plain fast\n;   rounds 1\n;   bytes up 8, down 4, edge link 0\n;   mult-adds edge-a 2, edge-b 0\n"
        ),
        "{once}"
    );
    assert_eq!(judge(&once).unwrap(), once);
}

#[test]
fn a_change_is_shown_with_file_line_and_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.pplan");
    std::fs::write(&path, SMALL).unwrap();
    let error = check(&path, "x/small.pplan", false).unwrap_err();
    assert!(error.starts_with("x/small.pplan:10: the outcome has changed\n"), "{error}");
    assert!(error.contains("  -; stale\n  +; plain fast\n"), "{error}");
    assert!(error.ends_with("PPONNX_GOLDEN=small PPONNX_BLESS=1 cargo test -p pponnx-tests --test golden"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), SMALL, "only blessing writes");
    check(&path, "x/small.pplan", true).unwrap();
    check(&path, "x/small.pplan", false).unwrap();
}

#[test]
fn mistakes_in_a_case_are_errors_that_blessing_does_not_hide() {
    for (text, wanted) in [
        ("", "1: the first line must be `test WORD`"),
        ("graph g {\n}\n", "1: the first line must be `test WORD`"),
        ("test lower\n", "1: the case has no input"),
        ("test lowr\nmodel x\n", "1: unknown header `test lowr` (known: parse, verify"),
        ("test lower\nset shceme=relay\nmodel x\n", "1: unknown setting `shceme`"),
        ("test lower\nset scheme=ralay\nmodel x\n", "unknown scheme"),
        ("test lower\nmodel no/such.onnx\n", "2: there is no such model"),
        ("test lower\ngraph g {\n  input x f23[1]\n}\n", "3: cannot read this statement"),
        ("test lower\ngraph g {\n", "1: the graph does not end"),
        ("test split\nmodel x\n; a\n;; b\n", "4: notes stand above the expectation"),
        ("test cheat edge-a\nmodel x\n", "1: expected `test cheat ROLE #SLOT"),
        ("test verify\nbundle 2\n", "1: line 2, column 8: expected format version 1"),
    ] {
        let error = judge(text).unwrap_err();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
}

#[test]
fn diffs_show_changed_lines_and_two_around() {
    let old = "a\nb\nc\nd\ne\nf\ng\n";
    assert_eq!(diff::lines(old, &old.replace('d', "D")), "   b\n   c\n  -d\n  +D\n   e\n   f\n");
    assert_eq!(diff::first(old, &old.replace('d', "D")), 4);
    assert_eq!(diff::lines(old, old), "");
}
