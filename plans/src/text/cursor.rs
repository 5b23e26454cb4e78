//! Steps through the tokens of a text: what the grammar's rules are made of.

use super::lex::{Placed, TextError, Token, lex};

pub(super) type Result<T> = std::result::Result<T, TextError>;

/// Tokens and the place of the next one.
pub(super) struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    end: Placed,
}

impl Parser {
    pub(super) fn new(text: &str) -> Result<Parser> {
        let mut tokens = lex(text)?;
        // `lex` always ends with an end; the default only serves the type.
        let end = tokens.pop().unwrap_or(Placed { token: Token::End, line: 1, column: 1 });
        Ok(Parser { tokens, at: 0, end })
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &Placed {
        self.tokens.get(self.at + ahead).unwrap_or(&self.end)
    }

    pub(super) fn peek(&self) -> &Placed {
        self.peek_at(0)
    }

    pub(super) fn is_sign(&self, c: char) -> bool {
        self.peek().token == Token::Sign(c)
    }

    pub(super) fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(&self.peek_at(ahead).token, Token::Word(w) if w == word)
    }

    /// Passes over a token that has been looked at.
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    /// Passes over the next token if it was found to be the wanted one.
    pub(super) fn step_if(&mut self, yes: bool) -> bool {
        self.at += usize::from(yes);
        yes
    }

    /// What `read` makes of the next token, or an error that names what was expected.
    pub(super) fn take<T>(&mut self, expected: impl Into<String>, read: impl FnOnce(&Token) -> Option<T>) -> Result<T> {
        let next = self.peek();
        let value = read(&next.token).ok_or_else(|| next.error(expected))?;
        self.at += 1;
        Ok(value)
    }

    pub(super) fn sign(&mut self, c: char) -> Result<()> {
        self.take(format!("`{c}`"), |t| (*t == Token::Sign(c)).then_some(()))
    }

    pub(super) fn keyword(&mut self, word: &str) -> Result<()> {
        self.take(format!("`{word}`"), |t| matches!(t, Token::Word(w) if w == word).then_some(()))
    }

    pub(super) fn word<T>(&mut self, expected: impl Into<String>, read: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        self.take(expected, |t| match t {
            Token::Word(w) => read(w),
            _ => None,
        })
    }

    pub(super) fn quoted(&mut self) -> Result<String> {
        self.take("a name in quotes", |t| match t {
            Token::Quoted(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.word("a number below 2^64", digits)
    }

    pub(super) fn size(&mut self) -> Result<usize> {
        self.word(format!("a number below 2^{}", usize::BITS), |w| digits(w).and_then(|n| usize::try_from(n).ok()))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.word("a number below 2^32", |w| digits(w).and_then(|n| u32::try_from(n).ok()))
    }

    pub(super) fn handle(&mut self, expected: impl Into<String>, sigil: char) -> Result<u32> {
        self.take(expected, |t| match t {
            Token::Handle(s, text) if *s == sigil => digits(text).and_then(|n| u32::try_from(n).ok()),
            _ => None,
        })
    }

    /// The handle of a definition: handles are given out in order.
    pub(super) fn defines(&mut self, sigil: char, next: usize) -> Result<()> {
        let expected = format!("`{sigil}{next}`");
        self.take(expected, |t| match t {
            Token::Handle(s, text) if *s == sigil => (digits(text)? == next as u64).then_some(()),
            _ => None,
        })
    }

    pub(super) fn list<T>(&mut self, item: impl Fn(&mut Parser) -> Result<T>) -> Result<Vec<T>> {
        self.sign('[')?;
        let mut items = Vec::new();
        if self.step_if(self.is_sign(']')) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.step_if(self.is_sign(']')) {
                return Ok(items);
            }
            if !self.step_if(self.is_sign(',')) {
                return Err(self.peek().error("`,` or `]`"));
            }
        }
    }
}

/// A number in decimal digits and nothing else: `str::parse` alone would admit a sign.
pub(super) fn digits(word: &str) -> Option<u64> {
    word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_only() {
        assert_eq!(digits("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "+1", "-1", "1_0", "0x1", "1a"] {
            assert_eq!(digits(bad), None, "{bad}");
        }
    }
}
