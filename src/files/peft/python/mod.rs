//! Python's regular expressions in the words of the crate `regex`: the same language where both have it,
//! a refusal by name where only Python has it (what needs backtracking: lookaround, backreferences,
//! conditions, atomic groups) or where Python itself reports an error. Called by `pattern`.
//!
//! `group` has what begins with `(`, `escape` backslashes and `[…]`; this file the rest.
//! Paths have no line break (`names` refuses them), so `$` is the end, and `.` anything.

mod escape;
mod group;

/// A pattern that `regex` understands.
pub(super) struct Translated {
    pub(super) text: String,
    /// Characters and classes, repetitions written out: what matching one character may cost.
    pub(super) size: usize,
    /// What the two languages agree upon in ASCII only, if the pattern uses it.
    pub(super) ascii: Option<&'static str>,
}

pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    let mut of = Translator {
        rest: pattern.chars(),
        out: String::with_capacity(pattern.len() * 2),
        open: Vec::new(),
        size: 0,
        last: Last::Nothing,
        ascii: None,
        beyond_ascii: false,
    };
    of.flags_of_all()?;
    while let Some(char) = of.rest.next() {
        of.step(char)?;
    }
    if !of.open.is_empty() {
        return Err(invalid("a `(` is never closed"));
    }
    if of.ascii == Some(IGNORE_CASE) && of.beyond_ascii {
        return Err(unsupported("`(?i)` beside characters outside ASCII"));
    }
    Ok(Translated { text: of.out, size: of.size, ascii: of.ascii })
}

const IGNORE_CASE: &str = "`(?i)`";

fn unsupported(what: &str) -> String {
    format!("{what} is not supported: write the pattern without it, or name the modules one by one")
}

fn invalid(why: &str) -> String {
    format!("not one of Python's regular expressions: {why}")
}

/// What a quantifier would repeat.
#[derive(Clone, Copy)]
enum Last {
    Nothing,
    /// `^`, `\b`, …
    Place,
    Repeated,
    /// Of this size.
    Atom(usize),
}

struct Translator<'a> {
    rest: core::str::Chars<'a>,
    out: String,
    /// For each open group the size of what stands before it.
    open: Vec<usize>,
    size: usize,
    last: Last,
    ascii: Option<&'static str>,
    beyond_ascii: bool,
}

impl Translator<'_> {
    fn step(&mut self, char: char) -> Result<(), String> {
        match char {
            '.' => self.atom(".", 1),
            '^' => self.place(r"\A"),
            '$' => self.place(r"\z"),
            '|' => {
                self.out.push('|');
                self.last = Last::Nothing;
            }
            '*' => return self.repeat(0, None),
            '+' => return self.repeat(1, None),
            '?' => return self.repeat(0, Some(1)),
            '{' => match self.counts()? {
                Some((least, most)) => return self.repeat(least, most),
                None => self.literal('{'),
            },
            '(' => return self.group(),
            ')' => {
                let Some(before) = self.open.pop() else {
                    return Err(invalid("a `)` without its `(`"));
                };
                self.out.push(')');
                self.last = Last::Atom(self.size.max(1));
                self.size = self.size.saturating_add(before);
            }
            '[' => return self.class(),
            '\\' => return self.escape(),
            char => self.literal(char),
        }
        Ok(())
    }

    fn atom(&mut self, text: &str, size: usize) {
        self.out.push_str(text);
        self.size = self.size.saturating_add(size);
        self.last = Last::Atom(size);
    }

    fn place(&mut self, text: &str) {
        self.out.push_str(text);
        self.last = Last::Place;
    }

    fn literal(&mut self, char: char) {
        self.spell(char);
        self.size = self.size.saturating_add(1);
        self.last = Last::Atom(1);
    }

    /// A character that means itself, in a class or outside.
    fn spell(&mut self, char: char) {
        self.beyond_ascii |= !char.is_ascii();
        if char.is_ascii_alphanumeric() || char == '_' || !char.is_ascii() {
            self.out.push(char);
        } else {
            self.out.push_str(&format!("\\x{:02x}", u32::from(char)));
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.as_str().strip_prefix(text) {
            Some(rest) => {
                self.rest = rest.chars();
                true
            }
            None => false,
        }
    }

    /// `least` to `most` of the last atom; the quantifier itself has been read.
    fn repeat(&mut self, least: usize, most: Option<usize>) -> Result<(), String> {
        let size = match self.last {
            Last::Atom(size) => size,
            Last::Repeated => return Err(invalid("a quantifier behind a quantifier")),
            Last::Nothing | Last::Place => {
                return Err(invalid("nothing for a quantifier to repeat"));
            }
        };
        let copies = most.unwrap_or(least).max(1);
        self.size = self.size.saturating_add(size.saturating_mul(copies - 1));
        match (least, most) {
            (0, None) => self.out.push('*'),
            (1, None) => self.out.push('+'),
            (0, Some(1)) => self.out.push('?'),
            (least, None) => self.out.push_str(&format!("{{{least},}}")),
            (least, Some(most)) => self.out.push_str(&format!("{{{least},{most}}}")),
        }
        if self.eat("?") {
            self.out.push('?');
        } else if self.eat("+") {
            return Err(unsupported("the possessive quantifier (`*+`, `++`, `?+`)"));
        }
        self.last = Last::Repeated;
        Ok(())
    }

    /// What stands behind a `{`; `None` where Python takes it for itself.
    #[allow(clippy::type_complexity)]
    fn counts(&mut self) -> Result<Option<(usize, Option<usize>)>, String> {
        let Some((inside, behind)) = self.rest.as_str().split_once('}') else { return Ok(None) };
        let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
        let digits = |of: &str| of.bytes().all(|byte| byte.is_ascii_digit());
        if inside.is_empty() || !digits(least) || !digits(most) {
            return Ok(None);
        }
        let number = |of: &str| of.parse().unwrap_or(usize::MAX);
        let bound = (!most.is_empty()).then(|| number(most));
        let least = if least.is_empty() { 0 } else { number(least) };
        if bound.is_some_and(|most| most < least) {
            return Err(invalid("a quantifier whose most is less than its least"));
        }
        self.rest = behind.chars();
        Ok(Some((least, bound)))
    }
}
