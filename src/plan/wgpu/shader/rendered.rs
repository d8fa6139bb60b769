//! Rendered forms, kept for the whole process: a text is rendered once, and all plans that launch it
//! share one allocation.

use core::hash::BuildHasherDefault;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::form::{Form, PartRef};
use super::part::Part;
use super::render::render;
use crate::Result;
use crate::plan::Source;
use crate::plan::key::Key;

/// Beyond so many forms, of some 15 KB each, all are forgotten; texts live on in their plans.
const MOST: usize = 1 << 9;

/// A text, and where each value of a launch goes.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) source: Source,
    /// Bytes of the parameter block.
    pub(super) params: usize,
    /// Where in it each parameter of the form lies, if the text has it.
    pub(super) places: Vec<Option<u32>>,
    pub(super) scale: Option<u32>,
    pub(super) beta: Option<u32>,
    /// The form's buffers that the text binds, in order, and where the offset of its matrix lies.
    pub(super) buffers: Vec<(usize, Option<u32>)>,
}

type Kept = HashMap<(PartRef, Form), Arc<Rendered>, BuildHasherDefault<Key>>;

/// What comes of `form` in `kernel`.
///
/// # Errors
/// [`Error::Rejected`](crate::Error::Rejected), with the name that nothing gives.
pub(super) fn of(kernel: &'static Part, form: Form) -> Result<Arc<Rendered>> {
    static KEPT: LazyLock<RwLock<Kept>> = LazyLock::new(RwLock::default);
    let key = (PartRef(kernel), form);
    if let Some(rendered) = KEPT.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(rendered.clone());
    }
    // No lock is held meanwhile; where another thread is faster, its text stays.
    let rendered = Arc::new(render(kernel, &key.1)?);
    let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= MOST {
        kept.clear();
    }
    Ok(kept.entry(key).or_insert(rendered).clone())
}
