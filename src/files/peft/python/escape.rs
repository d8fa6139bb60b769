//! Backslashes and `[…]` of a Python pattern. Called by `translate`.

use super::{Last, Translator, invalid, unsupported};

/// A class of Unicode's characters costs more than a character.
const CLASS_SIZE: usize = 16;

/// `\w` is `str.isalnum` and `_`, without the marks and joiners of Unicode's words.
const WORD: &str = r"\p{L}\p{N}_";
/// `\s` is `str.isspace`, which counts four separators of ASCII.
const SPACE: &str = r"\s\x1c-\x1f";

impl Translator<'_> {
    /// The `\` has been read.
    pub(super) fn escape(&mut self) -> Result<(), String> {
        let Some(char) = self.rest.next() else { return Err(invalid("a `\\` at the end")) };
        match char {
            'A' => self.place(r"\A"),
            'Z' => self.place(r"\z"),
            'b' | 'B' => {
                self.ascii.get_or_insert(r"`\b`");
                self.place(if char == 'b' { r"\b" } else { r"\B" });
            }
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let class = shorthand(char).unwrap_or_default();
                self.atom(&class, CLASS_SIZE);
            }
            '1'..='9' => {
                let octal = self.rest.as_str().get(..2).filter(|two| is_octal(two));
                match octal.filter(|_| char < '8') {
                    Some(two) => {
                        let code = format!("{char}{two}");
                        self.rest = self.rest.as_str()[2..].chars();
                        let char = octal_char(&code)?;
                        self.literal(char);
                    }
                    None => return Err(unsupported(&format!("the backreference `\\{char}`"))),
                }
            }
            char => {
                let char = self.escaped(char)?;
                self.literal(char);
            }
        }
        Ok(())
    }

    /// The character of an escape that means the same inside a class and outside.
    fn escaped(&mut self, char: char) -> Result<char, String> {
        let mut code = |digits: usize| {
            let text = self.rest.as_str().get(..digits);
            let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let text = text.ok_or_else(|| invalid(&format!("an incomplete `\\{char}`")))?;
            let value = u32::from_str_radix(text, 16).ok().and_then(char::from_u32);
            self.rest = self.rest.as_str()[digits..].chars();
            value.ok_or_else(|| unsupported("the code of no character"))
        };
        match char {
            'a' => Ok('\x07'),
            'f' => Ok('\x0c'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'v' => Ok('\x0b'),
            'x' => code(2),
            'u' => code(4),
            'U' => code(8),
            'N' => Err(unsupported(r"a character by name (`\N{…}`)")),
            '0' => {
                let rest = self.rest.as_str();
                let len =
                    rest.bytes().take(2).take_while(|byte| (b'0'..b'8').contains(byte)).count();
                let char = octal_char(&format!("0{}", &rest[..len]))?;
                self.rest = rest[len..].chars();
                Ok(char)
            }
            char if char.is_ascii_alphabetic() => Err(invalid(&format!("the escape `\\{char}`"))),
            char => Ok(char),
        }
    }

    /// The `[` has been read.
    pub(super) fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut size = CLASS_SIZE;
        loop {
            let Some(char) = self.rest.next() else { return Err(unclosed()) };
            // The first member may be a `]`.
            if char == ']' && size > CLASS_SIZE {
                break;
            }
            size += 1;
            let low = self.member(char)?;
            if self.rest.as_str().starts_with("-]") || !self.eat("-") {
                self.put(&low);
                continue;
            }
            let Some(char) = self.rest.next() else { return Err(unclosed()) };
            match (low, self.member(char)?) {
                (Member::Char(low), Member::Char(high)) if low <= high => {
                    self.spell(low);
                    self.out.push('-');
                    self.spell(high);
                }
                _ => return Err(invalid("a range in `[…]` that is none")),
            }
        }
        self.out.push(']');
        self.size = self.size.saturating_add(size);
        self.last = Last::Atom(size);
        Ok(())
    }

    /// One member of a class, whose first character has been read.
    fn member(&mut self, char: char) -> Result<Member, String> {
        if char != '\\' {
            return Ok(Member::Char(char));
        }
        let Some(char) = self.rest.next() else { return Err(unclosed()) };
        if let Some(class) = shorthand(char) {
            return Ok(Member::Class(class));
        }
        match char {
            'b' => Ok(Member::Char('\x08')),
            '1'..='7' => {
                // No backreferences here: up to three octal digits.
                let rest = self.rest.as_str();
                let len =
                    rest.bytes().take(2).take_while(|byte| (b'0'..b'8').contains(byte)).count();
                let char = octal_char(&format!("{char}{}", &rest[..len]))?;
                self.rest = rest[len..].chars();
                Ok(Member::Char(char))
            }
            '8' | '9' => Err(invalid(&format!("the escape `\\{char}`"))),
            char => self.escaped(char).map(Member::Char),
        }
    }

    fn put(&mut self, member: &Member) {
        match member {
            Member::Char(char) => self.spell(*char),
            Member::Class(class) => self.out.push_str(class),
        }
    }
}

enum Member {
    Char(char),
    Class(String),
}

/// `\d` and its like, as a class that may stand in a class.
fn shorthand(char: char) -> Option<String> {
    Some(match char {
        'd' => r"\p{Nd}".to_owned(),
        'D' => r"\P{Nd}".to_owned(),
        's' => format!("[{SPACE}]"),
        'S' => format!("[^{SPACE}]"),
        'w' => format!("[{WORD}]"),
        'W' => format!("[^{WORD}]"),
        _ => return None,
    })
}

fn unclosed() -> String {
    invalid("a `[` is never closed")
}

fn is_octal(text: &str) -> bool {
    text.bytes().all(|byte| (b'0'..b'8').contains(&byte))
}

fn octal_char(digits: &str) -> Result<char, String> {
    let code = u32::from_str_radix(digits, 8).ok().filter(|code| *code <= 0o377);
    code.and_then(char::from_u32).ok_or_else(|| invalid("an octal escape above `\\377`"))
}
