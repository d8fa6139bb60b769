//! What of a launch shapes its text: everything that a kernel's file says of it but values, as it was
//! said. Equal forms of one kernel have equal texts. Filled in by `Shader`, read by `Renderer`.

use core::hash::{Hash, Hasher};

use super::part::{Part, Word};
use crate::DType;
use crate::plan::WgpuCapabilities;

/// A form is a list of pieces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Form {
    /// Whether parameters come in a storage buffer.
    pub(super) storage_params: bool,
    /// Whether a browser compiles it.
    pub(super) browser: bool,
    pub(super) pieces: Vec<Piece>,
}

impl Form {
    pub(super) fn new(wgpu: &WgpuCapabilities) -> Form {
        let WgpuCapabilities { storage_params, browser, .. } = *wgpu;
        Form { storage_params, browser, pieces: Vec::with_capacity(40) }
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }
}

/// One thing that was said. Numbers and matrices are parameters, whose values are no part of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Constant(&'static str, usize),
    Flag(Flag, bool),
    Uint(&'static str),
    Float(&'static str),
    Condition(&'static str),
    /// A part with its words.
    Part(PartRef, [Option<(Word, &'static str)>; 3]),
    /// A buffer and a matrix of this name, which is a condition, too; the part reads or writes it.
    Operand {
        name: Name,
        binds: Binds,
        element: &'static str,
        part: PartRef,
        dtype: DType,
    },
    /// The buffer in which the plan keeps what goes from one launch to the next.
    Workspace,
    /// A matrix in it.
    Scratch(&'static str, PartRef),
    /// An operand in so many windows, each a [`Piece::Operand`] of its own.
    Windows(&'static str, usize),
}

/// The name of a buffer and its matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Whole(&'static str),
    Window(&'static str, usize),
}

impl Name {
    pub(super) fn text(self) -> String {
        match self {
            Name::Whole(name) => name.to_owned(),
            Name::Window(name, at) => format!("{name}{at}"),
        }
    }
}

/// How a text declares a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Binds {
    Read,
    ReadWrite,
}

/// A constant that is true or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Flag {
    KMajor(&'static str),
    RowMajor(&'static str),
    Whole(&'static str, &'static str),
    Of(&'static str, &'static str),
}

impl Flag {
    pub(super) fn text(self) -> String {
        match self {
            Flag::KMajor(name) => format!("{name}_K_MAJOR"),
            Flag::RowMajor(name) => format!("{name}_ROW_MAJOR"),
            Flag::Whole(left, right) => format!("{left}_{right}_WHOLE"),
            Flag::Of(name, what) => format!("{name}_{what}"),
        }
    }
}

/// A part by its place: each is read once.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartRef(pub(super) &'static Part);

impl PartialEq for PartRef {
    fn eq(&self, other: &PartRef) -> bool {
        core::ptr::eq(self.0, other.0)
    }
}

impl Eq for PartRef {}

impl Hash for PartRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        core::ptr::from_ref(self.0).hash(state);
    }
}
