//! The text form of bundles: what `pponnx inspect` shows and golden tests compare. `FORMAT.md` has the grammar.
//!
//! One entry a line, values numbered in order, constants by digest: a small change of a plan is a small diff.
//! [`parse()`] gives back exactly the bundle that [`print()`] was given.

mod cursor;
mod lex;
mod parse;
mod print;

use crate::plan::Bundle;

pub use lex::TextError;

/// The bundle as text.
pub fn print(bundle: &Bundle) -> String {
    print::Page(bundle).to_string()
}

/// The bundle that a text describes. Its meaning is not looked at: that is [`crate::valid::validate`]'s part.
///
/// # Errors
/// The first place where the text does not follow the grammar, and what was expected there.
pub fn parse(text: &str) -> Result<Bundle, TextError> {
    parse::bundle(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::sample;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bundle_comes_back(bundle in sample::bundle()) {
            let text = print(&bundle);
            prop_assert_eq!(parse(&text), Ok(bundle), "{}", text);
        }

        #[test]
        fn random_text_never_panics(text in prop::collection::vec(any::<char>(), 0..200)) {
            let _ = parse(&text.into_iter().collect::<String>());
        }

        #[test]
        fn mutated_text_never_panics(
            bundle in sample::bundle(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..3u8), 1..6),
        ) {
            let mut chars: Vec<char> = print(&bundle).chars().collect();
            for (at, char, how) in edits {
                let at = at.index(chars.len());
                match how {
                    0 => chars[at] = char,
                    1 => chars.insert(at, char),
                    _ => { chars.remove(at); }
                }
            }
            let text: String = chars.into_iter().collect();
            if let Ok(other) = parse(&text) {
                prop_assert_eq!(parse(&print(&other)), Ok(other));
            }
        }
    }

    #[test]
    fn the_sample_prints_as_the_specification_shows_it() {
        let text = print(&sample::relay().0);
        let spec = include_str!("../../FORMAT.md");
        assert!(spec.contains(&format!("```\n{text}```\n")), "FORMAT.md lacks this text:\n{text}");
    }

    #[test]
    fn comments_and_white_space_mean_nothing() {
        let (bundle, _) = sample::relay();
        let spaced: String = print(&bundle).lines().map(|line| format!("  {line} ; note \" {{\r\n\n")).collect();
        assert_eq!(parse(&spaced), Ok(bundle));
    }

    /// Replaces the first `from` in the sample's text, parses and gives the error.
    fn error(from: &str, to: &str) -> String {
        let text = print(&sample::relay().0);
        assert!(text.contains(from), "{from} is not in the sample");
        parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        assert_eq!(error("bundle 1", "bundle 2"), "line 1, column 8: expected format version 1, found `2`");
        assert_eq!(error("model ", "modell "), "line 2, column 1: expected `model`, found `modell`");
        assert_eq!(error("constant @1", "constant @2"), "line 11, column 10: expected `@1`, found `@2`");
        assert_eq!(
            error("f64[1,3]", "f65[1,3]"),
            "line 11, column 13: expected an element type (bool, u8, i8, u16, i16, u32, i32, u64, i64, f16, f32, \
             f64), found `f65`"
        );
        assert_eq!(
            error("slot #0 upload", "slot #0 sideload"),
            "line 19, column 9: expected a kind of slot (upload, download, correction), found `sideload`"
        );
    }

    #[test]
    fn errors_in_steps_name_the_operation_and_field() {
        assert!(error("%1 = encode", "%2 = encode").ends_with("expected `%1`, found `%2`"));
        assert!(error("= encode", "= encoder").ends_with("found `encoder`"));
        assert!(error("groups=1", "group=1").ends_with("expected `groups` of `encode`, found `group`"));
        assert!(error("mask #0", "mask %0").ends_with("expected `slot` of `mask`, like `#0`, found `%0`"));
        assert!(error("send edge-a", "send edge-c").contains("expected a role (offline, device, edge-a, edge-b)"));
        assert!(error("[%1], %5", "[%1] %5").ends_with("expected `,`, found `%5`"));
        assert!(error("z32[1,4]", "z4294967296[1,4]").ends_with("found `z4294967296`"));
        assert!(error("z32[1,4]", "z32[1,18446744073709551616]").contains("expected a number below 2^64"));
        assert!(error("%4 = unpad", "%4294967296 = unpad").contains("expected `%4`"));
    }

    #[test]
    fn what_is_cut_off_or_left_over_is_an_error() {
        let (bundle, _) = sample::relay();
        let text = print(&bundle);
        let cost = text.find("cost ").unwrap();
        let cut = parse(&text[..cost]).unwrap_err();
        assert_eq!((cut.found.as_str(), cut.column), ("the end of the text", 1));
        assert!(cut.expected.ends_with("or `cost`"), "{cut}");
        let left = parse(&format!("{text}device {{\n}}\n")).unwrap_err();
        assert_eq!((left.expected.as_str(), left.found.as_str()), ("the end of the text", "`device`"));
        assert_eq!(left.line, text.lines().count() + 1);
        // Every prefix but those that lack only the final line feed.
        for (at, _) in text.char_indices().filter(|(at, _)| *at + 3 < text.len()) {
            assert!(parse(&text[..at]).is_err(), "a prefix of {at} bytes is read");
        }
    }

    #[test]
    fn quoted_names_are_read_as_written_or_refused() {
        assert!(error("\"fc\"", "\"fc").contains("expected a quoted name that ends on its line"));
        assert!(error("\"fc\"", r#""f\x""#).contains(r#"expected one of the escapes"#));
        assert!(error("\"fc\"", r#""f\u{110000}""#).contains("expected the code of a character"));
        let text = print(&sample::relay().0).replacen("\"fc\"", r#""\u{66}\"\\\n""#, 1);
        assert_eq!(parse(&text).unwrap().maps[0].name, "f\"\\\n");
    }
}
