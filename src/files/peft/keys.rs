//! Keys of `rank_pattern` and `alpha_pattern`: which one holds for which module. Called by `config`.
//!
//! PEFT takes the first key for which `re.match(rf"(.*\.)?({key})$", path)` holds, and where none does
//! a key that is the path letter by letter. Keys that only spell out names, with `.` for any
//! character, are matched all at once; the others are compiled and tried one after another.

use std::collections::HashMap;

use super::pattern::Pattern;
use super::suffixes::{ANY, START, Suffixes};
use super::work::Work;

/// For each of `paths` the place of its key among `keys`. Errors are reasons, with the field's name.
pub(super) fn first<T>(
    field: &str,
    keys: &[(String, T)],
    paths: &[&str],
    work: &mut Work,
) -> Result<Vec<Option<usize>>, String> {
    let mut first = vec![None; paths.len()];
    if keys.is_empty() {
        return Ok(first);
    }
    let mut spelled = Vec::new();
    let mut patterns = Vec::new();
    for (at, (key, _)) in keys.iter().enumerate() {
        match spelled_out(key) {
            Some(text) => spelled.push((at, text)),
            None => patterns.push((at, key.as_str())),
        }
    }
    let too_much = |reason| format!("{field}: {reason}");
    let spelled = Suffixes::new(spelled.into_iter());
    for (path, first) in paths.iter().zip(&mut first) {
        let found = |at| *first = Some(first.map_or(at, |old: usize| old.min(at)));
        spelled.each(path, work, found).map_err(too_much)?;
    }
    // One at a time: thousands of compiled patterns would need much more memory than their texts. Each is
    // compiled for its errors' sake even where no path is left for it.
    for (at, key) in patterns {
        let reason = |reason| format!("{field}, key `{}`: {reason}", super::super::shown(key));
        let pattern = Pattern::key(key, work).map_err(reason)?;
        for (path, first) in paths.iter().zip(&mut first) {
            if first.is_none_or(|old| at < old) && pattern.matches(path, work).map_err(reason)? {
                *first = Some(at);
            }
        }
    }
    let mut exact = HashMap::new();
    for (at, (key, _)) in keys.iter().enumerate() {
        exact.entry(key.as_str()).or_insert(at);
    }
    for (path, first) in paths.iter().zip(&mut first) {
        *first = first.or_else(|| exact.get(path).copied());
    }
    Ok(first)
}

/// A key without anything but characters, `.`, an escaped sign, `^` before and `$` behind.
fn spelled_out(key: &str) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(key.len());
    let mut chars = key.chars();
    if let Some(rest) = key.strip_prefix('^') {
        text.push(START);
        chars = rest.chars();
    }
    while let Some(char) = chars.next() {
        let char = match char {
            '.' => {
                text.push(ANY);
                continue;
            }
            '$' if chars.as_str().is_empty() => break,
            '\\' => chars.next().filter(char::is_ascii_punctuation)?,
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | '{' | '|' => return None,
            char => char,
        };
        text.extend(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(text)
}

/// A key that holds for the module at `path`, under PEFT of any age: the path itself, but for signs that
/// mean something else in a pattern.
pub(super) fn key_of(path: &str) -> String {
    let mut key = String::with_capacity(path.len());
    for char in path.chars() {
        if char.is_ascii_punctuation() && !['.', '_', '-'].contains(&char) {
            key.push('\\');
        }
        key.push(char);
    }
    key
}
