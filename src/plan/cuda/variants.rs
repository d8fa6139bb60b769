//! The PTX texts that `build.rs` renders from `kernels/`, each with its numbers. Read by the rest
//! of `plan::cuda`, which looks for them by enums.

use core::ops::Deref;
use std::sync::OnceLock;

use super::embedded::Embedded;
use super::numbers::{Kind, Numbers};
use super::{Refusal, Source};

/// One rendered module. Its first line names it, and the template.
#[derive(Debug)]
pub(super) struct Variant {
    numbers: Numbers,
    embedded: Embedded,
    key: u64,
    /// As plans hand it out, created once.
    source: OnceLock<Source>,
}

impl Variant {
    #[cfg_attr(target_family = "wasm", expect(dead_code, reason = "there are none"))]
    const fn new(_name: &str, numbers: Numbers, key: u64, embedded: Embedded) -> Variant {
        Variant { numbers, embedded, key, source: OnceLock::new() }
    }

    pub(super) fn source(&self) -> Source {
        let source = || Source::ptx(&self.embedded.text(), self.kind.entry(), self.key);
        self.source.get_or_init(source).clone()
    }

    /// The one of `kind` with the fewest ranks that are at least `ranks`, among those that fit.
    pub(super) fn find(
        kind: Kind,
        ranks: usize,
        fits: impl Fn(&Numbers) -> bool,
        missing: impl FnOnce() -> String,
    ) -> Result<&'static Variant, Refusal> {
        let serves = |of: &&Variant| of.ranks >= ranks && fits(of);
        let found = of(kind).iter().filter(serves).min_by_key(|of| of.ranks);
        found.ok_or_else(|| Refusal::Reason(missing()))
    }
}

impl Deref for Variant {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.numbers
    }
}

/// All of one kind. None in a page, which has no card: they would be most of what a visitor downloads.
pub(super) fn of(kind: Kind) -> &'static [Variant] {
    match kind {
        #[cfg(target_family = "wasm")]
        _ => &[],
        #[cfg(not(target_family = "wasm"))]
        _ => table::ALL[kind as usize],
    }
}

// Kinds are places in the table.
#[cfg(not(target_family = "wasm"))]
const _: () = {
    let mut at = 0;
    while at < Kind::ALL.len() {
        assert!(Kind::ALL[at] as usize == at && !table::ALL[at].is_empty());
        at += 1;
    }
};

/// What the build wrote: names of enums as they are.
#[cfg(not(target_family = "wasm"))]
mod table {
    use super::{Embedded, Variant};
    use crate::DType::{Bf16, F16, F32};
    use crate::plan::cuda::numbers::Kind::{
        BackwardGain, Contract, Decode, Gradient, Leader, Merge, Norm, Pack, Plain, Recompute,
        Shrink,
    };
    use crate::plan::cuda::numbers::Numbers;
    use crate::plan::cuda::numbers::Tile::{Large, Medium, Only, Small, Tf32};

    include!(concat!(env!("OUT_DIR"), "/cuda_texts.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Variant> {
        Kind::ALL.iter().flat_map(|kind| of(*kind))
    }

    /// What the driver compiles on first use, and what every build embeds: a text of f16 next to nothing
    /// ([`Embedded::Like`]). Lists, never products: a tile more, with its kinds and ranks, is 32 of them.
    #[test]
    fn texts_are_few_and_small() {
        let count = all().count();
        assert!(count <= 240, "{count} texts");
        let bytes = |of: &Embedded| match of {
            Embedded::Whole(text) => text.len(),
            Embedded::Like { lines, .. } => {
                // What a slice and a place take beside the line.
                lines.iter().map(|(_, line)| line.len() + 24).sum()
            }
        };
        let bytes: usize = all().map(|of| bytes(&of.embedded)).sum();
        assert!(bytes <= 7 << 20, "{bytes} bytes of text");
        for of in all() {
            let text = of.embedded.text();
            let name = text.lines().next().unwrap();
            let lines = text.lines().count();
            // A leader on large tiles has two interiors beside its outer loop.
            assert!(lines < 2_350, "{name}: {lines} lines");
            assert!(of.smem_bytes <= 99 << 10, "{name}: more than sm_86 grants a block");
        }
    }

    /// ptxas refuses some texts with other characters, and takes others.
    #[test]
    fn texts_are_ascii_with_one_entry() {
        for of in all() {
            let text = of.embedded.text();
            let name = text.lines().next().unwrap();
            assert!(text.is_ascii(), "{name}");
            assert!(!text.contains("{{") && !text.contains("{%"), "{name}: not rendered");
            let entry = of.kind.entry();
            assert_eq!(text.matches(".entry").count(), 1, "{name}");
            assert!(text.contains(&format!(".visible .entry {entry}(")), "{name}: {entry}");
            assert!(text.contains(".target sm_80\n"), "{name}");
            let threads = format!(".maxntid {},1,1", of.threads);
            assert!(text.contains(&threads), "{name}: {threads}");
        }
        let names = all().map(|of| of.embedded.text().lines().next().unwrap().to_owned());
        let distinct: std::collections::BTreeSet<_> = names.collect();
        assert_eq!(distinct.len(), all().count(), "two texts of one name");
    }

    #[test]
    fn keys_are_those_of_the_texts() {
        let mut keys = std::collections::BTreeSet::new();
        for of in all() {
            assert_eq!(of.key, crate::plan::key::of(&of.embedded.text()));
            assert!(keys.insert(of.key), "{}: its key is another's", of.kind.name());
        }
    }

    #[test]
    fn each_is_found_by_its_kind() {
        for kind in Kind::ALL {
            assert!(of(*kind).iter().all(|of| of.kind == *kind));
        }
    }
}
