//! Groups, comments and flags of a Python pattern: all that begins with `(`. Called by `translate`.

use super::{IGNORE_CASE, Last, Translator, invalid, unsupported};

/// Deeper nesting than anybody writes; `regex` has a limit of its own behind this one.
const MAX_DEPTH: usize = 200;

impl Translator<'_> {
    /// The `(` has been read.
    pub(super) fn group(&mut self) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(unsupported("nesting of more than 200 groups"));
        }
        let open = if !self.eat("?") {
            "(".to_owned()
        } else if self.eat(":") {
            "(?:".to_owned()
        } else if self.eat("P<") {
            let Some((name, behind)) = self.rest.as_str().split_once('>') else {
                return Err(invalid("the name of a group is never closed"));
            };
            let letter = |char: char| char.is_ascii_alphanumeric() || char == '_';
            if name.is_empty() || !name.chars().all(letter) || name.as_bytes()[0].is_ascii_digit() {
                return Err(unsupported("a group name other than of letters, digits and `_`"));
            }
            self.rest = behind.chars();
            format!("(?P<{name}>")
        } else if self.eat("#") {
            // A comment is nothing: a quantifier behind it repeats what stands before.
            return match self.rest.as_str().split_once(')') {
                Some((_, behind)) => {
                    self.rest = behind.chars();
                    Ok(())
                }
                None => Err(invalid("a comment is never closed")),
            };
        } else if let Some(what) = self.needs_backtracking() {
            return Err(unsupported(what));
        } else {
            format!("(?{}:", self.flags(':')?)
        };
        self.out.push_str(&open);
        self.open.push(self.size);
        self.size = 0;
        self.last = Last::Nothing;
        Ok(())
    }

    /// The name of what is about to be read, where a linear matcher has no such thing.
    fn needs_backtracking(&self) -> Option<&'static str> {
        let forms = [
            ("=", "lookahead `(?=…)`"),
            ("!", "lookahead `(?!…)`"),
            ("<=", "lookbehind `(?<=…)`"),
            ("<!", "lookbehind `(?<!…)`"),
            ("P=", "the backreference `(?P=…)`"),
            ("(", "the condition `(?(…)…)`"),
            (">", "the atomic group `(?>…)`"),
        ];
        let rest = self.rest.as_str();
        forms.into_iter().find(|(begin, _)| rest.starts_with(begin)).map(|(_, what)| what)
    }

    /// `(?i)` at the very beginning holds for the whole pattern; elsewhere Python refuses it.
    pub(super) fn flags_of_all(&mut self) -> Result<(), String> {
        loop {
            let flags = self.rest.as_str().strip_prefix("(?").and_then(|of| of.split_once(')'));
            let letters = |of: &str| of.bytes().all(|byte| byte.is_ascii_alphabetic());
            if !flags.is_some_and(|(flags, _)| !flags.is_empty() && letters(flags)) {
                return Ok(());
            }
            self.eat("(?");
            let flags = self.flags(')')?;
            if !flags.is_empty() {
                self.out.push_str(&format!("(?{flags})"));
            }
        }
    }

    /// Flags up to `end`, as `regex` writes them. Only `i` means anything where no line breaks are.
    fn flags(&mut self, end: char) -> Result<String, String> {
        let mut flags = String::new();
        let mut off = false;
        loop {
            match self.rest.next() {
                Some(char) if char == end => return Ok(flags),
                Some('i') => {
                    self.ascii = Some(IGNORE_CASE);
                    flags.push_str(if off { "-i" } else { "i" });
                }
                Some('m' | 's') => {}
                Some('u') if !off => {}
                Some('-') if !off && end == ':' => off = true,
                Some('x') => return Err(unsupported("the verbose flag `(?x)`")),
                Some('a') => return Err(unsupported("the ASCII flag `(?a)`")),
                Some(')') => return Err(invalid("flags that are not at the beginning")),
                _ => return Err(invalid("an unknown extension `(?…`")),
            }
        }
    }
}
