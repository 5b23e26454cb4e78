//! Rules of the house that neither Cargo nor clippy holds: who imports whom, where `tract` and `unsafe` may stand, sizes
//! of files, what every file of a family has. Reads sources as text; comments and strings do not count as code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pponnx_tests::root;

/// Folders that hold no source of ours.
const SKIPPED: [&str; 5] = ["target", ".git", ".venv", "__pycache__", "onnx-models/generated"];

/// Every crate: folder, what it may depend on (of ours), and what only its tests may.
const CRATES: [(&str, &[&str], &[&str]); 10] = [
    ("plans", &[], &[]),
    ("compiler", &["plans"], &[]),
    ("runtime/kernels", &[], &["plans"]),
    ("runtime/keys", &[], &[]),
    ("runtime/wire", &[], &[]),
    ("runtime/engine", &["plans", "kernels", "keys"], &[]),
    ("runtime/net", &["wire"], &[]),
    ("runtime/node", &["plans", "engine", "keys", "wire", "net"], &["compiler", "kernels"]),
    ("cli", &["plans", "compiler", "kernels", "keys", "wire", "engine", "net", "node"], &[]),
    ("tests", &["plans", "compiler", "kernels", "keys", "wire", "engine", "net", "node", ""], &[]),
];

/// All files below the root, by their path from there.
fn files() -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            let last = name.rsplit('/').next().unwrap();
            if SKIPPED.contains(&name.as_str()) || SKIPPED.contains(&last) || path.is_symlink() {
                continue;
            }
            if path.is_dir() { walk(root, &path, found) } else { found.push(name) }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort();
    found
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn sources(folder: &str) -> Vec<String> {
    let inside = |f: &String| folder.is_empty() || f.starts_with(&format!("{folder}/"));
    files().into_iter().filter(|f| f.ends_with(".rs") && inside(f)).collect()
}

/// The text of a Rust file without comments and without what stands in quotes; lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let skip = |out: &mut String, part: &str| out.extend(part.chars().filter(|c| *c == '\n'));
    while let Some(c) = rest.chars().next() {
        let raw = raw_string(rest).filter(|_| !out.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = raw {
            len
        } else if c == '"' {
            quoted(rest, '"')
        } else if let Some(len) = character(rest) {
            len
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        skip(&mut out, &rest[..len]);
        rest = &rest[len..];
    }
    out
}

/// Length of a raw string at the start of a text.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inner = body[hashes..].strip_prefix('"')?;
    let end = inner.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some(text.len() - inner.len() + end + 1 + hashes)
}

/// Length of what stands between two marks, escapes skipped.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == mark => return i + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of a character in quotes; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let closes = inner[first.len_utf8()..].starts_with('\'');
    (first == '\\' || closes).then(|| quoted(text, '\''))
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Lines of code that hold one of the words (as whole words; `::` may stand in them), as `file:line: word`.
fn uses(files: &[String], words: &[&str]) -> Vec<String> {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    let mut found = Vec::new();
    for file in files {
        for (n, line) in code(&read(file)).lines().enumerate() {
            for word in words {
                let whole = |(at, w): (usize, &str)| {
                    edge(line[..at].chars().next_back()) && edge(line[at + w.len()..].chars().next())
                };
                if line.match_indices(word).any(whole) {
                    found.push(format!("{file}:{}: {word}", n + 1));
                }
            }
        }
    }
    found
}

fn without(files: Vec<String>, allowed: &[&str]) -> Vec<String> {
    files.into_iter().filter(|f| !allowed.iter().any(|a| f.starts_with(a))).collect()
}

#[track_caller]
fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn code_is_told_from_comments_and_strings() {
    let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\" i 'j' '\\'' &'k l r#\"m \" n\"# o\nbr\"p\" q";
    let left: Vec<String> = code(text).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(left, ["a", "f i &'k l o", "q"]);
}

#[test]
fn crates_depend_only_downwards() {
    let listed: BTreeSet<String> =
        files().iter().filter_map(|f| f.strip_suffix("/Cargo.toml").map(String::from)).collect();
    // Fuzzers are a workspace of their own.
    let listed: BTreeSet<String> = listed.into_iter().filter(|f| !f.starts_with("fuzz")).collect();
    assert_eq!(listed, CRATES.iter().map(|(folder, _, _)| folder.to_string()).collect());
    let mut found = Vec::new();
    for (folder, normal, dev) in CRATES {
        let manifest: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().unwrap();
        for (table, allowed) in [("dependencies", normal.to_vec()), ("dev-dependencies", [normal, dev].concat())] {
            let names = manifest.get(table).and_then(toml::Value::as_table);
            for name in names.into_iter().flat_map(|t| t.keys()) {
                let ours = match name.strip_prefix("pponnx") {
                    Some(rest) => rest.trim_start_matches('-'),
                    None => continue,
                };
                if !allowed.contains(&ours) {
                    found.push(format!("{folder}/Cargo.toml: {table}: {name}"));
                }
            }
        }
    }
    none("a crate depends on what it must not know", found);
}

#[test]
fn compiler_and_runtime_do_not_meet() {
    let runtime =
        ["pponnx_kernels", "pponnx_keys", "pponnx_wire", "pponnx_engine", "pponnx_net", "pponnx_node", "pponnx"];
    none("the compiler knows the runtime", uses(&sources("compiler"), &runtime));
    let src: Vec<String> = sources("runtime").into_iter().filter(|f| f.contains("/src/")).collect();
    none("the runtime knows the compiler", uses(&src, &["pponnx_compiler", "pponnx"]));
    let ours = [&runtime[..], &["pponnx_compiler"]].concat();
    none("plans import something of ours", uses(&sources("plans"), &ours));
    // Where the kernels are checked against the reference, and nowhere else.
    none("kernels know plans", uses(&sources("runtime/kernels/src"), &["pponnx_plans"]));
}

#[test]
fn operators_and_schemes_do_not_meet() {
    let schemes = ["schemes", "two_edge", "one_time", "stockpile"];
    none("an operator knows a scheme", uses(&sources("compiler/src/ops"), &schemes));
    none("a scheme knows an operator", uses(&sources("compiler/src/schemes"), &["ops", "MapOp", "source", "passes"]));
    none("the validator knows the compiler's schemes", uses(&sources("plans/src/valid"), &["schemes"]));
}

#[test]
fn the_onnx_back_end_stands_in_two_places() {
    let files = without(sources(""), &["compiler/src/source/", "runtime/engine/src/local/"]);
    let mut found = Vec::new();
    for file in files {
        for (n, line) in code(&read(&file)).lines().enumerate() {
            if line.contains("tract_") || line.contains("tract::") {
                found.push(format!("{file}:{}", n + 1));
            }
        }
    }
    // A word such as `subtract_from` is no import of tract.
    let found = found.into_iter().filter(|place| {
        let (file, n) = place.rsplit_once(':').unwrap();
        let text = code(&read(file));
        let line = text.lines().nth(n.parse::<usize>().unwrap() - 1).unwrap();
        line.match_indices("tract").any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    });
    none("tract is named outside of its two places", found.collect());
    let mut users = Vec::new();
    for (folder, _, _) in CRATES {
        let manifest: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().unwrap();
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(table).and_then(toml::Value::as_table);
            if names.into_iter().flat_map(|t| t.keys()).any(|k| k.starts_with("tract")) {
                users.push(folder);
            }
        }
    }
    assert_eq!(users, ["compiler", "runtime/engine"]);
}

#[test]
fn unsafe_code_stands_in_the_kernels_only() {
    none("unsafe outside of the kernels", uses(&without(sources(""), &["runtime/kernels/"]), &["unsafe"]));
    for (folder, _, _) in CRATES.iter().filter(|(folder, _, _)| *folder != "runtime/kernels") {
        for root in ["lib.rs", "main.rs"].map(|f| format!("{folder}/src/{f}")) {
            if files().contains(&root) {
                assert!(read(&root).contains("\n#![forbid(unsafe_code)]\n"), "{root} does not forbid unsafe code");
            }
        }
    }
}

#[test]
fn every_crate_has_the_workspace_lints_and_facts() {
    for (folder, _, _) in CRATES {
        let manifest: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().unwrap();
        let from_workspace =
            |v: Option<&toml::Value>| v.and_then(|v| v.get("workspace")).and_then(toml::Value::as_bool) == Some(true);
        assert!(from_workspace(manifest.get("lints")), "{folder}: no workspace lints");
        let package = manifest.get("package").unwrap();
        for key in ["version", "edition", "rust-version", "license"] {
            assert!(from_workspace(package.get(key)), "{folder}: {key} is not the workspace's");
        }
        assert!(package.get("description").is_some(), "{folder}: no description");
    }
}

/// Time, randomness and sockets come as arguments, so that tests can choose them and plans stay reproducible.
#[test]
fn pure_crates_use_no_clock_randomness_or_socket() {
    let pure = ["plans", "compiler", "runtime/kernels", "runtime/keys", "runtime/wire", "runtime/engine"];
    let files: Vec<String> = pure.iter().flat_map(|c| sources(&format!("{c}/src"))).collect();
    let words = ["std::net", "Instant", "SystemTime", "getrandom", "OsRng", "thread_rng", "tokio"];
    none("a clock, random source or socket in a pure crate", uses(&files, &words));
    let silent = ["plans", "runtime/kernels", "runtime/wire", "runtime/engine"];
    let files: Vec<String> = silent.iter().flat_map(|c| sources(&format!("{c}/src"))).collect();
    none("files in a crate that does no input or output", uses(&files, &["std::fs", "File"]));
}

#[test]
fn every_file_of_a_family_is_documented_and_listed() {
    for folder in ["ops", "schemes", "passes", "source", "ir"].map(|f| format!("compiler/src/{f}")) {
        let list = code(&read(&format!("{folder}/mod.rs")));
        for file in sources(&folder) {
            assert!(read(&file).starts_with("//! "), "{file} does not say what it is for");
            let stem = file.strip_prefix(&format!("{folder}/")).unwrap().strip_suffix(".rs").unwrap();
            let listed = stem == "mod"
                || stem.contains('/')
                || stem.ends_with("_test")
                || list.contains(&format!("mod {stem};"));
            assert!(listed, "{file} is not listed in {folder}/mod.rs");
        }
    }
    let asked = read("compiler/src/ops/mod.rs");
    for file in sources("compiler/src/ops") {
        let stem = file.rsplit('/').next().unwrap().strip_suffix(".rs").unwrap();
        if code(&read(&file)).contains("pub fn lower(") && stem != "mod" {
            assert!(asked.contains(&format!("{stem}::lower")), "{file} is not in ops::ALL");
        }
    }
    let undocumented = sources("").into_iter().filter(|f| f.contains("/src/") && !read(f).starts_with("//!"));
    let exempt = |f: &String| f.ends_with("_test.rs") || f.contains("/tests/");
    none("files without a word on what they are for", undocumented.filter(|f| !exempt(f)).collect());
}

#[test]
fn files_are_short() {
    let long = sources("").into_iter().map(|f| (read(&f).lines().count(), f)).filter(|(n, _)| *n > 600);
    none("files above 600 lines", long.map(|(n, f)| format!("{f}: {n}")).collect());
}

#[test]
fn nothing_names_this_machine_and_nothing_is_left_to_do() {
    let paths = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"]].map(|p| p.concat());
    let marks = [["TO", "DO"], ["FIX", "ME"]].map(|p| p.concat());
    let mut found = Vec::new();
    for file in files() {
        // Models and pictures are no text.
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (n, line) in text.lines().enumerate() {
            let local = paths.iter().any(|p| line.contains(p));
            let open = marks.iter().any(|m| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == m));
            if local || (open && !file.ends_with(".onnx")) {
                found.push(format!("{file}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    none("paths of a machine, or things left to do", found);
}

#[test]
fn ignored_tests_say_why() {
    let mut found = Vec::new();
    for file in sources("") {
        let text = code(&read(&file));
        let bare = text.lines().enumerate().filter(|(_, l)| l.trim().starts_with("#[ignore]"));
        found.extend(bare.map(|(n, _)| format!("{file}:{}", n + 1)));
    }
    none("tests ignored without a reason", found);
}

#[test]
fn licences_and_contents_are_there() {
    for (file, word) in [
        ("LICENSE-MIT", "MIT License"),
        ("LICENSE-APACHE", "Apache License"),
        ("README.md", "pponnx"),
        ("ARCHITECTURE.md", "Invariants"),
        ("docs/formats.md", "Ledger"),
        ("docs/threat-model.md", "edge"),
        ("plans/FORMAT.md", "Rules"),
    ] {
        assert!(read(file).contains(word), "{file} lacks `{word}`");
    }
}

/// FORMAT.md has a row for each rule that the validator's documentation lists, and the other way round.
#[test]
fn the_format_lists_every_rule() {
    let rules = |text: &str, prefix: &str| {
        let rows = text.lines().filter_map(|l| l.trim_start_matches(prefix).trim().strip_prefix("| "));
        let row = |l: &str| {
            let (rule, sentence) = l.trim_end_matches('|').split_once('|')?;
            let rule = rule.trim();
            let digits = rule.get(1..)?;
            let numbered = rule.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
            numbered.then(|| (rule.to_string(), sentence.trim().to_string()))
        };
        rows.filter_map(row).collect::<BTreeMap<String, String>>()
    };
    let documented = rules(&read("plans/src/valid/mod.rs"), "//!");
    let listed = rules(&read("plans/FORMAT.md"), "");
    assert!(documented.len() >= 30, "{documented:?}");
    for rule in documented.keys() {
        assert!(listed.contains_key(rule), "FORMAT.md does not list {rule}");
    }
    let extra: Vec<&String> = listed.keys().filter(|r| !documented.contains_key(*r) && !r.starts_with('C')).collect();
    assert!(extra.is_empty(), "FORMAT.md lists {extra:?}");
}

/// Links between documents lead somewhere.
#[test]
fn links_in_documents_lead_somewhere() {
    let mut found = Vec::new();
    for file in files().into_iter().filter(|f| f.ends_with(".md")) {
        let text = read(&file);
        let folder = PathBuf::from(&file).parent().unwrap().to_path_buf();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ', '#', '\n']).next().unwrap();
            let local = !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            if local && !root().join(&folder).join(target).exists() {
                found.push(format!("{file}: {target}"));
            }
        }
    }
    none("links that lead nowhere", found);
}
