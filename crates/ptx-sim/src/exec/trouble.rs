//! A failed check on its way up: the instruction knows what and which lanes, the scheduler adds where.

use crate::check::clock::Stamp;
use crate::report::FaultKind;

#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
    pub(crate) lanes: u32,
    /// The other access and whether it wrote.
    pub(crate) other: Option<(Stamp, bool)>,
}

/// Boxed: results are returned millions of times, troubles once.
pub(crate) type Res<T> = Result<T, Box<Trouble>>;

pub(crate) fn trouble<T>(kind: FaultKind, lanes: u32, message: impl Into<String>) -> Res<T> {
    Err(Box::new(Trouble { kind, message: message.into(), lanes, other: None }))
}
