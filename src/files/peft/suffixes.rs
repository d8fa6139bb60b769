//! Many names at once against the end of a module's path: `q_proj`, `layers.3.q_proj` or the whole path,
//! from its start or from behind a dot. Made by `keys` (keys without anything to repeat) and `names`.
//!
//! The names lie sorted by their last character, then the last but one, …: those that still fit a
//! path, read from its end, are one range of that order, and each character narrows it by a
//! search. A character that may be anything splits a range in two. So a path costs its own length
//! whatever the number of names is, unless they were made to split at every step; `Work` ends that.

use core::ops::Range;

use super::work::Work;

/// Stands in a name for any one character; no UTF-8 text has this byte.
pub(super) const ANY: u8 = 0xff;
/// Stands in a name for the start of the path.
pub(super) const START: u8 = 0xfe;

/// What the two or three searches for a character cost, far from each other in memory.
const STEP: usize = 64;

/// The names, ready to match.
pub(super) struct Suffixes {
    /// All names, each backwards.
    text: Vec<u8>,
    /// Sorted by their part of `text`, then by number.
    names: Vec<Name>,
}

struct Name {
    at: Range<usize>,
    number: usize,
}

impl Suffixes {
    /// Of names, each with the number under which it is found again.
    pub(super) fn new<N: AsRef<[u8]>>(of: impl Iterator<Item = (usize, N)>) -> Suffixes {
        let mut text = Vec::new();
        let mut names = Vec::new();
        for (number, name) in of {
            let begin = text.len();
            text.extend(name.as_ref().iter().rev());
            names.push(Name { at: begin..text.len(), number });
        }
        names.sort_by(|a, b| (&text[a.at.clone()], a.number).cmp(&(&text[b.at.clone()], b.number)));
        Suffixes { text, names }
    }

    /// Calls `found` with the number of every name that matches the end of `path`.
    pub(super) fn each(
        &self,
        path: &str,
        work: &mut Work,
        mut found: impl FnMut(usize),
    ) -> Result<(), String> {
        // Ranges of names that fit so far, and how many of their bytes that took.
        let mut fitting = vec![(0..self.names.len(), 0)];
        let mut narrowed = Vec::new();
        let mut rest = path;
        loop {
            if rest.is_empty() || rest.ends_with('.') {
                for (range, depth) in &fitting {
                    self.ended(range, *depth, work, &mut found)?;
                }
            }
            let Some(char) = rest.chars().next_back() else { break };
            rest = &rest[..rest.len() - char.len_utf8()];
            let mut utf8 = [0; 4];
            let bytes = char.encode_utf8(&mut utf8).as_bytes();
            for (range, depth) in fitting.drain(..) {
                work.spend(STEP)?;
                let any = self.narrow(&range, depth, ANY);
                let exact = bytes
                    .iter()
                    .rev()
                    .enumerate()
                    .fold(range, |range, (nth, &byte)| self.narrow(&range, depth + nth, byte));
                let fit = [(any, depth + 1), (exact, depth + bytes.len())];
                narrowed.extend(fit.into_iter().filter(|(range, _)| !range.is_empty()));
            }
            core::mem::swap(&mut fitting, &mut narrowed);
            if fitting.is_empty() {
                return Ok(());
            }
        }
        for (range, depth) in fitting {
            work.spend(STEP)?;
            let range = self.narrow(&range, depth, START);
            self.ended(&range, depth + 1, work, &mut found)?;
        }
        Ok(())
    }

    /// The names of `range` whose byte at `depth` is this one.
    fn narrow(&self, range: &Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let names = &self.names[range.clone()];
        let at = |name: &Name| self.text[name.at.clone()].get(depth).copied();
        let begin = names.partition_point(|name| at(name) < Some(byte));
        let count = names[begin..].partition_point(|name| at(name) == Some(byte));
        range.start + begin..range.start + begin + count
    }

    /// The names of `range` that end at `depth`: the shortest come first.
    fn ended(
        &self,
        range: &Range<usize>,
        depth: usize,
        work: &mut Work,
        found: &mut impl FnMut(usize),
    ) -> Result<(), String> {
        for name in self.names[range.clone()].iter().take_while(|name| name.at.len() == depth) {
            work.spend(STEP)?;
            found(name.number);
        }
        Ok(())
    }
}
