//! One of PEFT's patterns, compiled once: a regular expression of Python in the engine of `regex`, whose
//! time is linear in the path. Made by `keys` for `rank_pattern` and `alpha_pattern`, by `target`
//! for the patterns that choose modules.

use regex::{Regex, RegexBuilder};

use super::python::translate;
use super::work::Work;

/// A pattern of so many characters, repetitions written out, compiles into a few megabytes.
const MAX_SIZE: usize = 1 << 16;
/// Signs that match nothing by themselves (`|`, `()`) count as well.
const MAX_TEXT: usize = 4 * MAX_SIZE;
/// Bytes of a compiled pattern, and more for each byte of its text.
const COMPILED: usize = 1 << 20;
const COMPILED_PER_BYTE: usize = 64;
/// Steps to compile one, and for each unit of its size.
const COMPILE: usize = 20_000;
const COMPILE_PER_SIZE: usize = 200;
/// Steps to begin a search.
const SEARCH: usize = 64;
/// Most searches walk an automaton, one step a character; the worst cost the pattern's size for each.
/// What is paid lies between, so that real files pass and the others still end in seconds.
const SHARE: usize = 8;

pub(super) struct Pattern {
    regex: Regex,
    size: usize,
    ascii: Option<&'static str>,
}

impl Pattern {
    /// `re.match(rf"(.*\.)?({key})$", path)`, which is `get_pattern_key` of PEFT.
    pub(super) fn key(key: &str, work: &mut Work) -> Result<Pattern, String> {
        Pattern::new(&format!(r"(.*\.)?({key})$"), "", work)
    }

    /// `re.fullmatch(pattern, path)`.
    pub(super) fn whole(pattern: &str, work: &mut Work) -> Result<Pattern, String> {
        Pattern::new(pattern, r"\z", work)
    }

    /// `re.match(pattern, path)`: the path may go on behind it.
    pub(super) fn begin(pattern: &str, work: &mut Work) -> Result<Pattern, String> {
        Pattern::new(pattern, "", work)
    }

    fn new(pattern: &str, end: &str, work: &mut Work) -> Result<Pattern, String> {
        let of = translate(pattern)?;
        let large = || {
            "it is too large (65536 characters, repetitions written out, are the most): split it, or name \
             the modules one by one"
                .to_owned()
        };
        if of.size > MAX_SIZE || of.text.len() > MAX_TEXT {
            return Err(large());
        }
        work.spend(COMPILE.saturating_add(COMPILE_PER_SIZE.saturating_mul(of.size)))?;
        let text = format!(r"\A(?:{}){end}", of.text);
        let regex = RegexBuilder::new(&text)
            .size_limit(COMPILED + COMPILED_PER_BYTE * text.len())
            .dfa_size_limit(COMPILED)
            .build();
        let regex = regex.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => large(),
            other => format!("not a pattern: {other}"),
        })?;
        Ok(Pattern { regex, size: of.size, ascii: of.ascii })
    }

    pub(super) fn matches(&self, path: &str, work: &mut Work) -> Result<bool, String> {
        self.pay(path, self.size / SHARE, work)?;
        Ok(self.regex.is_match(path))
    }

    /// Where the pattern matches, what the group `idx` holds; empty where it took no part.
    pub(super) fn index<'p>(
        &self,
        path: &'p str,
        work: &mut Work,
    ) -> Result<Option<&'p str>, String> {
        // Groups are found by the slower engines.
        self.pay(path, self.size, work)?;
        let groups = self.regex.captures(path);
        Ok(groups.map(|groups| groups.name("idx").map_or("", |index| index.as_str())))
    }

    fn pay(&self, path: &str, each: usize, work: &mut Work) -> Result<(), String> {
        if let Some(what) = self.ascii
            && !path.is_ascii()
        {
            let why = "means something else in Python beside characters outside ASCII";
            return Err(format!(
                "{what} {why}, as in module `{}`: not supported",
                super::super::shown(path)
            ));
        }
        work.spend(SEARCH.saturating_add(path.len().saturating_mul(1 + each)))
    }
}
