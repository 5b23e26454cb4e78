//! Words, handles and signs of the text form, each with its place.

use std::iter::Peekable;
use std::str::Chars;

/// A text that does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct TextError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What the grammar wants there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// A piece of the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Letters, digits, `-` and `_`: keywords, numbers, types, digests.
    Word(String),
    /// One of `% # $ @` and the digits behind it.
    Handle(char, String),
    /// A quoted name, escapes resolved.
    Quoted(String),
    /// Any other sign.
    Sign(char),
    /// Behind the last.
    End,
}

impl Token {
    /// The token for messages, cut to a length that fits them.
    pub(super) fn show(&self) -> String {
        let cut = |text: &str| match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.to_string(),
        };
        match self {
            Token::Word(w) => format!("`{}`", cut(w)),
            Token::Handle(sigil, digits) => format!("`{sigil}{}`", cut(digits)),
            Token::Quoted(text) => format!("the name {:?}", cut(text)),
            Token::Sign(c) if c.is_control() => format!("the character {:?}", c),
            Token::Sign(c) => format!("`{c}`"),
            Token::End => "the end of the text".into(),
        }
    }
}

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Placed {
    pub(super) fn error(&self, expected: impl Into<String>) -> TextError {
        TextError { line: self.line, column: self.column, expected: expected.into(), found: self.token.show() }
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    column: usize,
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// All tokens of a text; the last is [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Placed>, TextError> {
    let mut lexer = Lexer { chars: text.chars().peekable(), line: 1, column: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let (line, column) = (lexer.line, lexer.column);
        let token = lexer.token()?;
        let last = token == Token::End;
        tokens.push(Placed { token, line, column });
        if last {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.chars.peek().copied().filter(|c| wanted(*c)) {
            text.push(c);
            self.next();
        }
        text
    }

    /// Skips white space and comments, which begin with `;` and end with the line.
    fn skip_blank(&mut self) {
        while let Some(c) = self.chars.peek() {
            match c {
                ';' => drop(self.take_while(|c| c != '\n')),
                c if c.is_whitespace() => drop(self.next()),
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, TextError> {
        let Some(c) = self.chars.peek().copied() else {
            return Ok(Token::End);
        };
        if in_word(c) {
            return Ok(Token::Word(self.take_while(in_word)));
        }
        self.next();
        match c {
            '%' | '#' | '$' | '@' => Ok(Token::Handle(c, self.take_while(in_word))),
            '"' => self.quoted().map(Token::Quoted),
            c => Ok(Token::Sign(c)),
        }
    }

    fn error(&self, expected: &str, found: Option<char>) -> TextError {
        let found = match found {
            None => Token::End.show(),
            Some('\n') => "the end of the line".into(),
            Some(c) => Token::Sign(c).show(),
        };
        TextError { line: self.line, column: self.column, expected: expected.into(), found }
    }

    /// The rest of a name whose first quote has been read.
    fn quoted(&mut self) -> Result<String, TextError> {
        let mut text = String::new();
        loop {
            match self.chars.peek().copied() {
                Some('"') => {
                    self.next();
                    return Ok(text);
                }
                Some('\\') => {
                    self.next();
                    text.push(self.escape()?);
                }
                found @ (None | Some('\n')) => {
                    return Err(self.error("a quoted name that ends on its line", found));
                }
                Some(c) => {
                    text.push(c);
                    self.next();
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, TextError> {
        let found = self.chars.peek().copied();
        let c = match found {
            Some(c @ ('"' | '\\')) => c,
            Some('n') => '\n',
            Some('u') => {
                self.next();
                return self.code();
            }
            _ => return Err(self.error(r#"one of the escapes \", \\, \n and \u{..}"#, found)),
        };
        self.next();
        Ok(c)
    }

    /// The character whose code stands in braces.
    fn code(&mut self) -> Result<char, TextError> {
        let expected = "the code of a character, like `{1f}`";
        let found = self.chars.peek().copied();
        if found != Some('{') {
            return Err(self.error(expected, found));
        }
        self.next();
        let (line, column) = (self.line, self.column);
        let digits = self.take_while(|c| c.is_ascii_hexdigit());
        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        let found = self.chars.peek().copied();
        match code {
            Some(code) if found == Some('}') => {
                self.next();
                Ok(code)
            }
            Some(_) => Err(self.error("`}`", found)),
            None => Err(Placed { token: Token::Word(digits), line, column }.error(expected)),
        }
    }
}
