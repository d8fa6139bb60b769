//! How the library has a text: whole, or as what it differs in from the same text of bf16. Included by `build.rs`, which writes
//! the list, and by the plan and the bundle, which read it.

use std::borrow::Cow;

/// Texts of f16 and bf16 differ by that word, and by what widens and rounds.
const WORDS: [&str; 2] = ["bf16", "f16"];

#[derive(Debug, Clone, Copy)]
pub(crate) enum Embedded {
    Whole(&'static str),
    /// `other`, with f16 for bf16 in every line, but for some lines.
    Like {
        other: &'static str,
        lines: &'static [(usize, &'static str)],
    },
}

impl Embedded {
    pub(crate) fn text(&self) -> Cow<'static, str> {
        match *self {
            Embedded::Whole(text) => text.into(),
            Embedded::Like { other, lines } => like(other, lines.iter().copied()).into(),
        }
    }
}

/// The lines of `other` in the other type's words; those at the places of `lines`, in their order, as said there.
pub(crate) fn like<'a>(
    other: &'a str,
    lines: impl IntoIterator<Item = (usize, &'a str)>,
) -> String {
    let [word, instead] = WORDS;
    let (mut lines, mut text) = (lines.into_iter().peekable(), String::new());
    for (at, line) in other.lines().enumerate() {
        match lines.next_if(|(place, _)| *place == at) {
            Some((_, line)) => text += line,
            None => text += &line.replace(word, instead),
        }
        text.push('\n');
    }
    text
}
