//! Text that a peer may make us print: short, UTF-8, without control characters.

use std::fmt;

/// At most [`Text::MAX`] bytes of UTF-8 without control characters, so that a hostile peer can neither fill a log nor
/// steer a terminal. Built from any string by [`Text::new`]; the decoder refuses what does not fit.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(String);

impl Text {
    /// Longest text in bytes.
    pub const MAX: usize = 512;

    /// Makes a text of any string: control characters become spaces, what exceeds [`Text::MAX`] bytes is cut at a
    /// character boundary.
    pub fn new(text: &str) -> Text {
        let mut kept = String::with_capacity(text.len().min(Text::MAX));
        for c in text.chars() {
            let c = if forbidden(c) { ' ' } else { c };
            if kept.len() + c.len_utf8() > Text::MAX {
                break;
            }
            kept.push(c);
        }
        Text(kept)
    }

    /// Accepts exactly what [`Text::new`] would leave unchanged.
    pub(crate) fn exact(text: &str) -> Option<Text> {
        (text.len() <= Text::MAX && !text.chars().any(forbidden)).then(|| Text(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Control characters, line and paragraph separators, and the characters that reorder text on a screen.
fn forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::new(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::new(&text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn control_and_reordering_characters_become_spaces() {
        assert_eq!(Text::new("a\x1b[2Jb\n\u{202e}c\u{85}").as_str(), "a [2Jb  c ");
    }

    #[test]
    fn cut_at_a_character_boundary() {
        let long = "é".repeat(400);
        assert_eq!(Text::new(&long).as_str().len(), 512);
        let odd = format!("x{long}");
        assert_eq!(Text::new(&odd).as_str().len(), 511);
    }

    #[test]
    fn exact_refuses_what_new_would_change() {
        assert!(Text::exact("plain").is_some());
        assert!(Text::exact("a\rb").is_none());
        assert!(Text::exact(&"x".repeat(513)).is_none());
        assert!(Text::exact(&"x".repeat(512)).is_some());
    }
}
