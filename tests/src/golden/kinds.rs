//! The kinds of golden cases.

use std::collections::BTreeMap;

use pponnx_compiler::{FrontOptions, front};
use pponnx_plans::plan::Bundle;
use pponnx_plans::valid::{self, Violation};
use pponnx_plans::value::Role;
use pponnx_plans::{binary, digest, text};

use super::case::{Case, Outcome};
use super::network::{self, Source};
use super::{run, show};

/// Header words, each with what it shows.
pub const WORDS: &[(&str, &str)] = &[
    ("parse", "a bundle in text form: round trips, size, digest; or where the text is wrong"),
    ("verify", "a bundle in text form: the rules it breaks, below the lines that break them"),
    ("split", "where each node of a network goes, and why"),
    ("lower", "the bundle of a network"),
    ("cost", "what one request of a network costs"),
    ("run", "a network run by all roles: equal to the integer reference, close to plaintext"),
    ("cheat", "what happens when one payload is not what it should be"),
];

/// Runs a case.
///
/// # Errors
/// `LINE: what is wrong with the case`, or a result that must never be blessed.
pub fn run(case: &Case) -> Result<Outcome, String> {
    let block = |block| Ok(Outcome { block, beside: BTreeMap::new() });
    match case.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["parse"] => case.only(&[]).and_then(|()| block(parse(case)?)),
        ["verify"] => case.only(&["cost"]).and_then(|()| verify(case)),
        ["split"] => case.only(&[]).and_then(|()| block(split(&Source::of(case)?))),
        ["lower"] => case.only(&["scheme", "precision"]).and_then(|()| {
            let setting = network::setting(case)?;
            block(Source::of(case)?.compile(setting).map_or_else(|e| e, |c| show::bundle(&c)))
        }),
        ["cost"] => case.only(&["scheme", "precision"]).and_then(|()| block(cost(case)?)),
        ["run"] => case.only(&["scheme", "precision", "seed"]).and_then(|()| block(run::run(case)?)),
        ["cheat", ..] => case.only(&["scheme", "precision"]).and_then(|()| block(run::cheat(case)?)),
        _ => {
            let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            Err(format!("1: unknown header `test {}` (known: {})", case.words.join(" "), known.join(", ")))
        }
    }
}

fn cost(case: &Case) -> Result<Vec<String>, String> {
    let (settings, source) = (network::settings(case)?, Source::of(case)?);
    let mut lines = Vec::new();
    for setting in settings {
        match source.compile(setting) {
            Ok(compiled) => {
                lines.push(setting.name());
                lines.extend(show::cost(&compiled.bundle.cost).into_iter().map(|l| format!("  {l}")));
            }
            Err(e) => lines.extend(e),
        }
    }
    Ok(lines)
}

fn split(source: &Source) -> Vec<String> {
    match front::front(&source.model(), &FrontOptions::default()) {
        Ok(graph) => show::split(&graph),
        Err(e) => e.to_string().lines().map(|l| format!("error: {l}")).collect(),
    }
}

/// The bundle in a case, or where it is wrong.
fn bundle(case: &Case) -> Result<Bundle, String> {
    let long: String = case.text().lines().map(|l| format!("{}\n", show::lengthen(l))).collect();
    text::parse(&long).map_err(|e| e.to_string())
}

fn parse(case: &Case) -> Result<Vec<String>, String> {
    let bundle = match bundle(case) {
        Ok(bundle) => bundle,
        Err(e) => return Ok(vec![format!("error: {e}")]),
    };
    if text::parse(&text::print(&bundle)).as_ref() != Ok(&bundle) {
        return Err("1: the text form does not come back".into());
    }
    let bytes = binary::encode(&bundle);
    if binary::decode(&bytes).ok().as_ref() != Some(&bundle) {
        return Err("1: the binary form does not come back".into());
    }
    let hex: String = digest::bundle_digest(&bundle).iter().map(|b| format!("{b:02x}")).collect();
    Ok(vec![format!("{} bytes", bytes.len()), format!("digest {hex}")])
}

fn verify(case: &Case) -> Result<Outcome, String> {
    let mut bundle = bundle(case).map_err(|e| format!("1: {e}"))?;
    match case.setting("cost", "declared") {
        "declared" => {}
        "counted" => bundle.cost = valid::cost(&bundle).unwrap_or(bundle.cost),
        other => return Err(format!("1: cost is `declared` or `counted`, not `{other}`")),
    }
    let violations = match valid::validate(bundle) {
        Ok(_) => return Ok(Outcome { block: vec!["admitted".into()], ..Outcome::default() }),
        Err(violations) => violations,
    };
    let mut outcome = Outcome::default();
    for Violation { rule, role, step, message } in violations {
        let text = format!("error[{rule}]: {message}");
        match role.zip(step).and_then(|(role, step)| line_of(case, role, step)) {
            Some(at) => outcome.beside.entry(at).or_default().push(text),
            None => outcome.block.push(role.map_or(text.clone(), |role| format!("{role}: {text}"))),
        }
    }
    Ok(outcome)
}

/// The line of a step, if each step has a line.
fn line_of(case: &Case, role: Role, step: usize) -> Option<usize> {
    let lines = || case.kept.iter().map(|l| l.trim()).enumerate().skip(case.input);
    let (start, _) = lines().find(|(_, l)| *l == format!("{role} {{"))?;
    let inside = lines().skip_while(|(i, _)| *i <= start).take_while(|(_, l)| *l != "}");
    let steps = inside.filter(|(_, l)| !l.is_empty() && !l.starts_with(';') && !l.starts_with("param "));
    steps.map(|(i, _)| i).nth(step)
}
