//! The file of a golden case: header, settings, input, expectations.

use std::collections::BTreeMap;

/// A golden case without its expectations.
#[derive(Clone, Debug)]
pub struct Case {
    /// The words behind `test`.
    pub words: Vec<String>,
    /// Settings, in the order of their names.
    pub settings: BTreeMap<String, String>,
    /// All lines but the expectations.
    pub kept: Vec<String>,
    /// Index in `kept` of the first line of the input.
    pub input: usize,
}

/// What a case yields: lines below lines of the input, and lines at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By index in [`Case::kept`].
    pub beside: BTreeMap<usize, Vec<String>>,
    /// At the end.
    pub block: Vec<String>,
}

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    /// `LINE: what is wrong`.
    pub fn parse(text: &str) -> Result<Case, String> {
        let mut case = Case { words: Vec::new(), settings: BTreeMap::new(), kept: Vec::new(), input: 0 };
        let mut expected = None;
        for (n, line) in text.lines().enumerate() {
            let (n, trimmed) = (n + 1, line.trim());
            if trimmed.starts_with(';') && !trimmed.starts_with(";;") {
                expected = expected.or(Some(n));
                continue;
            }
            case.kept.push(line.trim_end().to_string());
            if trimmed.is_empty() || trimmed.starts_with(";;") {
                if expected.is_some() && case.words.first().is_some_and(|w| w != "verify") && !trimmed.is_empty() {
                    return Err(format!("{n}: notes stand above the expectation, which blessing rewrites"));
                }
                continue;
            }
            if case.words.is_empty() {
                let words = trimmed.strip_prefix("test ").ok_or(format!("{n}: the first line must be `test WORD`"))?;
                case.words = words.split_whitespace().map(String::from).collect();
            } else if let Some(pairs) = trimmed.strip_prefix("set ").filter(|_| case.input == 0) {
                for pair in pairs.split_whitespace() {
                    let (key, value) = pair.split_once('=').ok_or(format!("{n}: `{pair}` is not key=value"))?;
                    if case.settings.insert(key.into(), value.into()).is_some() {
                        return Err(format!("{n}: `{key}` is set twice"));
                    }
                }
            } else if case.input == 0 {
                case.input = case.kept.len() - 1;
            }
        }
        while case.kept.last().is_some_and(String::is_empty) {
            case.kept.pop();
        }
        match (case.words.is_empty(), case.input) {
            (true, _) => Err("1: the first line must be `test WORD`".into()),
            (_, 0) => Err("1: the case has no input".into()),
            _ => Ok(case),
        }
    }

    /// The input, with an empty line for each line above it, so that line numbers are those of the file as long as no
    /// expectation stands in between.
    pub fn text(&self) -> String {
        let above = self.kept.iter().take(self.input).map(|_| "\n".to_string());
        above.chain(self.kept.iter().skip(self.input).map(|l| format!("{l}\n"))).collect()
    }

    /// A setting.
    pub fn setting<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.settings.get(key).map_or(default, String::as_str)
    }

    /// The settings, if all of them are known.
    ///
    /// # Errors
    /// The first unknown one.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.settings.keys().find(|k| !known.contains(&k.as_str())) {
            None => Ok(()),
            Some(k) => {
                Err(format!("1: unknown setting `{k}` of `test {}` (known: {})", self.words[0], known.join(", ")))
            }
        }
    }

    /// The file with this outcome.
    pub fn render(&self, outcome: &Outcome) -> String {
        let mut out = String::new();
        for (i, line) in self.kept.iter().enumerate() {
            out.push_str(line);
            out.push('\n');
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            for text in outcome.beside.get(&i).into_iter().flatten() {
                out.push_str(&format!("{indent}; {text}\n"));
            }
        }
        for text in &outcome.block {
            out.push_str(format!("; {text}").trim_end());
            out.push('\n');
        }
        out
    }
}
