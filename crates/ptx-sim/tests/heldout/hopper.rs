//! Kernels for sm_90a.

use super::case::*;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
