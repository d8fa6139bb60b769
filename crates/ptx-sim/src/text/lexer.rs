//! Splits PTX into tokens with their lines and columns. Called by the parser.

use crate::error::PtxError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    /// An identifier, `%r1` and `$L` included.
    Word(String),
    /// `.word`, without the dot; may hold `::` as in `.L2::128B`.
    Dot(String),
    /// An integer and whether it was written with a leading minus is left to the parser.
    Int(u64),
    /// `0f…`: the bits of an f32.
    F32(u32),
    /// `0d…` or a decimal literal: the bits of an f64.
    F64(u64),
    Str(String),
    Punct(char),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) tok: Tok,
    pub(super) line: u32,
    pub(super) column: u32,
    /// No blank lies between the previous token and this one.
    pub(super) glued: bool,
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$'
}

struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    start_of_line: usize,
}

impl Cursor<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn bump(&mut self) {
        if self.peek(0) == b'\n' {
            self.line += 1;
            self.start_of_line = self.at + 1;
        }
        self.at += 1;
    }

    fn take(&mut self, keep: impl Fn(u8) -> bool) -> String {
        let from = self.at;
        while self.at < self.bytes.len() && keep(self.peek(0)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.bytes[from..self.at]).into_owned()
    }

    fn error(&self, message: impl Into<String>) -> PtxError {
        let column = (self.at.saturating_sub(self.start_of_line) + 1) as u32;
        PtxError { file: self.file.into(), line: self.line, column, message: message.into() }
    }

    /// Skips blanks and comments; says whether there were any.
    fn skip_blank(&mut self) -> Result<bool, PtxError> {
        let from = self.at;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\r' | b'\n', _) => self.bump(),
                (b'/', b'/') => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => {
                    let open = self.error("comment is never closed");
                    self.at += 2;
                    while !(self.peek(0) == b'*' && self.peek(1) == b'/') {
                        if self.at >= self.bytes.len() {
                            return Err(open);
                        }
                        self.bump();
                    }
                    self.at += 2;
                }
                _ => break,
            }
        }
        Ok(self.at > from)
    }

    fn number(&mut self) -> Result<Tok, PtxError> {
        let bad = |c: &Self, text: &str| c.error(format!("malformed number `{text}`"));
        let from = self.at;
        let mut text = self.take(is_word);
        // A decimal literal: digits, a dot, digits, an optional exponent.
        let decimal = text.bytes().all(|c| c.is_ascii_digit());
        if decimal && self.peek(0) == b'.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            let mut fraction = self.take(is_word);
            if fraction.ends_with(['e', 'E']) && matches!(self.peek(0), b'+' | b'-') {
                self.at += 1;
                fraction =
                    format!("{fraction}{}{}", self.bytes[self.at - 1] as char, self.take(is_word));
            }
            text = format!("{text}.{fraction}");
            let value: f64 = text.parse().map_err(|_| bad(self, &text))?;
            return Ok(Tok::F64(value.to_bits()));
        }
        self.at = from;
        let lower = self.take(is_word).to_ascii_lowercase();
        let hex = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| bad(self, &lower));
        if let Some(digits) = lower.strip_prefix("0f") {
            if digits.len() != 8 {
                return Err(bad(self, &lower));
            }
            return Ok(Tok::F32(hex(digits)? as u32));
        }
        if let Some(digits) = lower.strip_prefix("0d") {
            if digits.len() != 16 {
                return Err(bad(self, &lower));
            }
            return Ok(Tok::F64(hex(digits)?));
        }
        let body = lower.strip_suffix('u').unwrap_or(&lower);
        let value = if let Some(digits) = body.strip_prefix("0x") {
            hex(digits)?
        } else if let Some(digits) = body.strip_prefix("0b") {
            u64::from_str_radix(digits, 2).map_err(|_| bad(self, &lower))?
        } else if body.len() > 1 && body.starts_with('0') {
            u64::from_str_radix(&body[1..], 8).map_err(|_| bad(self, &lower))?
        } else {
            body.parse().map_err(|_| bad(self, &lower))?
        };
        Ok(Tok::Int(value))
    }

    fn next(&mut self) -> Result<Tok, PtxError> {
        let c = self.peek(0);
        if c.is_ascii_digit() {
            return self.number();
        }
        if c.is_ascii_alphabetic() || matches!(c, b'_' | b'$') {
            return Ok(Tok::Word(self.take(is_word)));
        }
        match c {
            b'%' => {
                self.at += 1;
                let name = self.take(is_word);
                if name.is_empty() {
                    return Err(self.error("`%` without a name"));
                }
                Ok(Tok::Word(format!("%{name}")))
            }
            b'.' => {
                self.at += 1;
                let mut name = self.take(is_word);
                if name.is_empty() {
                    return Err(self.error("`.` without a name"));
                }
                while self.peek(0) == b':' && self.peek(1) == b':' {
                    self.at += 2;
                    name = format!("{name}::{}", self.take(is_word));
                }
                Ok(Tok::Dot(name))
            }
            b'"' => {
                self.at += 1;
                let text = self.take(|c| c != b'"' && c != b'\n');
                if self.peek(0) != b'"' {
                    return Err(self.error("string is never closed"));
                }
                self.at += 1;
                Ok(Tok::Str(text))
            }
            b',' | b';' | b':' | b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b'+'
            | b'-' | b'|' | b'=' | b'!' | b'@' | b'*' | b'/' | b'&' | b'^' | b'~' => {
                self.at += 1;
                Ok(Tok::Punct(c as char))
            }
            _ => {
                Err(self.error(format!("unexpected character `{}`", (c as char).escape_default())))
            }
        }
    }
}

/// All tokens of `source`, ended by [`Tok::End`].
pub(super) fn tokens(file: &str, source: &str) -> Result<Vec<Token>, PtxError> {
    let mut cursor = Cursor { file, bytes: source.as_bytes(), at: 0, line: 1, start_of_line: 0 };
    let mut out = Vec::new();
    loop {
        let glued = !cursor.skip_blank()?;
        let line = cursor.line;
        let column = (cursor.at - cursor.start_of_line + 1) as u32;
        if cursor.at >= cursor.bytes.len() {
            out.push(Token { tok: Tok::End, line, column, glued });
            return Ok(out);
        }
        let tok = cursor.next()?;
        out.push(Token { tok, line, column, glued });
    }
}
