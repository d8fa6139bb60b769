//! The PTX texts that `build.rs` renders from `kernels/`, and where their parameters lie.
//! Read by the rest of `plan::cuda`, and by the tests that assemble and run every text.

use std::sync::{Arc, OnceLock};

/// One rendered module.
#[derive(Debug)]
pub(crate) struct Text {
    /// Of the file in `OUT_DIR`, and in the module's first line.
    pub(crate) name: &'static str,
    /// The entry point.
    pub(crate) entry: &'static str,
    /// `plain`, `leader`, `recompute`, `shrink` or `pack`.
    pub(crate) kind: &'static str,
    /// Of the tile; of `pack`, the type that it reads.
    pub(crate) tile_name: &'static str,
    pub(crate) dtype: &'static str,
    /// w and the adapter lie across the sum.
    pub(crate) turned: bool,
    /// Loads 16 bytes at a time.
    pub(crate) aligned: bool,
    /// Ranks that its main loop carries.
    pub(crate) ranks: usize,
    pub(crate) threads: usize,
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
