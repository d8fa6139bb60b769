//! The PTX texts that `build.rs` renders from `kernels/`, and where their parameters lie.
//! Read by the rest of `plan::cuda`, and by the tests that assemble and run every text.

use std::sync::{Arc, OnceLock};

/// One rendered module. Its first line names it, and the template.
#[derive(Debug)]
pub(crate) struct Text {
    /// The entry point.
    pub(crate) entry: &'static str,
    /// `plain`, `leader`, `recompute`, `shrink`, `merge`, `decode`, `gradient` or `pack`.
    pub(crate) kind: &'static str,
    /// Of the tile; of `pack`, the type that it reads; of `decode`, the adapter's.
    pub(crate) tile_name: &'static str,
    pub(crate) dtype: &'static str,
    /// w and the adapter lie across the sum.
    pub(crate) turned: bool,
    /// Loads 16 bytes at a time.
    pub(crate) aligned: bool,
    /// Ranks that its main loop carries.
    pub(crate) ranks: usize,
    pub(crate) threads: usize,
    /// Of a block; of `decode`, of each warp that streams.
    pub(crate) shared_bytes: usize,
    /// Tokens, columns, depth of a step.
    pub(crate) tile: [usize; 3],
    pub(crate) stages: usize,
    /// CTAs a multiprocessor that the registers were divided for.
    pub(crate) resident: usize,
    pub(crate) text: &'static str,
    /// `text` as plans hand it out, made once.
    pub(crate) shared: OnceLock<Arc<str>>,
}

impl Text {
    pub(crate) fn source(&self) -> Arc<str> {
        self.shared.get_or_init(|| self.text.into()).clone()
    }
}

include!(concat!(env!("OUT_DIR"), "/cuda_texts.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    /// What the driver compiles on first use, and what every build embeds.
    #[test]
    fn texts_are_few_and_small() {
        assert!(TEXTS.len() < 150, "{} texts", TEXTS.len());
        let bytes: usize = TEXTS.iter().map(|of| of.text.len()).sum();
        assert!(bytes < 6 << 20, "{bytes} bytes of text");
        for of in &TEXTS {
            let name = of.text.lines().next().unwrap();
            let lines = of.text.lines().count();
            assert!(lines < 2_000, "{name}: {lines} lines");
            assert!(of.shared_bytes <= 99 << 10, "{name}: more than sm_86 grants a block");
        }
    }

    /// ptxas refuses some texts with other characters, and takes others.
    #[test]
    fn texts_are_ascii_with_one_entry() {
        for of in &TEXTS {
            let name = of.text.lines().next().unwrap();
            assert!(of.text.is_ascii(), "{name}");
            assert!(!of.text.contains("{{") && !of.text.contains("{%"), "{name}: not rendered");
            let entry = format!(".visible .entry {}(", of.entry);
            assert_eq!(of.text.matches(".entry").count(), 1, "{name}");
            assert!(of.text.contains(&entry), "{name}: expected the entry {}", of.entry);
            assert!(of.text.contains(".target sm_80\n"), "{name}");
            let threads = format!(".maxntid {}, 1, 1", of.threads);
            assert!(of.text.contains(&threads), "{name}: {threads}");
        }
        let names = TEXTS.iter().map(|of| of.text.lines().next().unwrap());
        let distinct: std::collections::BTreeSet<_> = names.collect();
        assert_eq!(distinct.len(), TEXTS.len(), "two texts of one name");
    }
}
