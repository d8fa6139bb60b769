//! What host and kernels agree on: the parameter block of each kernel and the header of the
//! workspace, a `#[repr(C)]` struct each. `build.rs` includes this file and gives the templates
//! the place and the PTX type of every field; `plan::cuda` includes it and fills the structs.

use core::mem::offset_of;

/// What may stand in a block.
pub(crate) trait Word {
    /// The type with which a kernel loads it; tables are loaded entry by entry, and have none.
    const PTX: &'static str = "";

    /// Appends its bytes, as they lie on the device.
    fn put(&self, bytes: &mut Vec<u8>);
}

macro_rules! words {
    ($($type:ty => $ptx:literal),*) => {$(
        impl Word for $type {
            const PTX: &'static str = $ptx;
            fn put(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

words!(u32 => "u32", u64 => "u64", f32 => "f32");

/// An address: 0 in a plan, and written by the executor where a binding says so.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(transparent)]
pub(crate) struct Pointer(u64);

impl Word for Pointer {
    const PTX: &'static str = "u64";
    fn put(&self, bytes: &mut Vec<u8>) {
        self.0.put(bytes);
    }
}

impl<T: Word, const N: usize> Word for [T; N] {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.iter().for_each(|of| of.put(bytes));
    }
}

/// A field as templates see it.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) offset: usize,
    pub(crate) ptx: &'static str,
}

/// A struct whose fields templates know by name.
pub(crate) trait Block {
    const FIELDS: &'static [Field];
}

macro_rules! block {
    ($(#[$of:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$of])*
        #[repr(C)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        // No padding: its bytes are those of its fields, one behind the other.
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);

        impl Block for $name {
            const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                offset: offset_of!($name, $field),
                ptx: <$type as Word>::PTX,
            },)*];
        }

        impl Word for $name {
            fn put(&self, bytes: &mut Vec<u8>) {
                $(self.$field.put(bytes);)*
            }
        }
    };
}

/// Products that one launch of `linear` can add up: `x·wᵀ`, then borders.
pub(crate) const SEGMENTS: usize = 4;

block! {
    /// The parameters of `linear`, `shrink` and `merge`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Linear {
        y: Pointer,
        y_offset: u64,
        gain: Pointer,
        bias: Pointer,
        down: Pointer,
        down_offset: u64,
        shrunk: Pointer,
        shrunk_offset: u64,
        header: Pointer,
        y_stride: u32,
        down_stride: u32,
        shrunk_stride: u32,
        /// Rows of x and y.
        rows: u32,
        /// Rows of w.
        columns: u32,
        /// Columns of y that are stored: a shrink's include its pad.
        stored_columns: u32,
        rank: u32,
        /// Ranks of `down` that are loaded: both parts of a pair, and what fills them.
        down_rows: u32,
        /// Rows of tiles whose leaders work out shrunk from x and `down` alone before their tile; 0: none.
        alone: u32,
        /// Of shrunk: ranks from one of its parts to the next.
        padded_rank: u32,
        /// 2 where shrunk has a high and a low part.
        shrunk_parts: u32,
        /// 1 where a tile that computes shrunk stores it.
        keep: u32,
        /// 1 where y takes 16 bytes at a time.
        vectors: u32,
        /// Of shrunk, or of all sums where nothing else is computed.
        scale: f32,
        beta: f32,
        segment_count: u32,
        main_steps: u32,
        border_steps: u32,
        tile_rows: u32,
        tile_columns: u32,
        /// Rows of tiles of a band.
        band: u32,
        /// Of an element of y.
        y_bytes: u32,
        segments: [Segment; SEGMENTS],
    }
}

block! {
    /// One product that `linear` adds up.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Segment {
        x: Pointer,
        x_offset: u64,
        w: Pointer,
        w_offset: u64,
        x_stride: u32,
        w_stride: u32,
        depth: u32,
        reserved: u32,
    }
}

block! {
    /// What texts that gather have behind their block: the pixels that rows of x are, and those that they see through the
    /// taps of a kernel. Along each axis the pixel `at` sees `(at·step + tap·reach + shift) / unit`, where that is whole and
    /// inside.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Window {
        /// Of each segment, or product.
        operands: [Tapped; SEGMENTS],
        /// Of `down`: bytes from one tap to the next.
        down_tap: u64,
        /// Pixels that are rows: rows of an image, and pixels of a row.
        lines: u32,
        pixels: u32,
        /// Of an image that is read.
        height: u32,
        width: u32,
        /// Taps of a row of the kernel.
        kernel: u32,
        step_y: u32,
        step_x: u32,
        /// As much less than 2³² as it is below 0; the shifts likewise.
        reach_y: u32,
        reach_x: u32,
        shift_y: u32,
        shift_x: u32,
        unit_y: u32,
        unit_x: u32,
        /// Of the border: 1 where it is not gathered.
        border_taps: u32,
    }
}

block! {
    /// How an operand meets the taps.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Tapped {
        /// Bytes from one tap to the next of what it is multiplied with.
        tap: u64,
        /// 0: its rows are what is stored.
        taps: u32,
        reserved: u32,
    }
}

/// Matrices that one launch of `pack` converts.
pub(crate) const JOBS: usize = 2;

block! {
    /// The parameters of `pack`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Pack {
        jobs: [Job; JOBS],
    }
}

block! {
    /// One conversion.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Job {
        from: Pointer,
        to: Pointer,
        high_offset: u64,
        low_offset: u64,
        outer_stride: u64,
        inner_stride: u64,
        outer: u32,
        inner: u32,
        rows: u32,
        padded: u32,
        pitch: u32,
        low: u32,
    }
}

/// Gradients that one launch forms.
pub(crate) const PRODUCTS: usize = 2;

block! {
    /// The parameters of `gradient`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Gradient {
        header: Pointer,
        slabs: Pointer,
        slabs_offset: u64,
        tokens: u32,
        rank: u32,
        padded_rank: u32,
        shrunk_parts: u32,
        splits: u32,
        /// Tokens of a split.
        span: u32,
        partials: u32,
        tickets: u32,
        beta: f32,
        /// How the result is stored: [`STORED_F32`], [`STORED_BF16`] or [`STORED_F16`].
        stored_as: u32,
        products: [Product; PRODUCTS],
    }
}

pub(crate) const STORED_F32: u32 = 0;
pub(crate) const STORED_BF16: u32 = 1;
pub(crate) const STORED_F16: u32 = 2;

block! {
    /// One gradient: out = leftᵀ·right.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Product {
        left: Pointer,
        left_offset: u64,
        right: Pointer,
        right_offset: u64,
        out: Pointer,
        /// Elements from one to the next along the rank, and along the columns.
        rank_stride: u64,
        column_stride: u64,
        left_stride: u32,
        right_stride: u32,
        columns: u32,
        column_tiles: u32,
        tiles: u32,
        reserved: u32,
    }
}

block! {
    /// The parameters of `decode`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Decode {
        x: Pointer,
        w: Pointer,
        y: Pointer,
        gain: Pointer,
        bias: Pointer,
        down: Pointer,
        down_offset: u64,
        up: Pointer,
        up_offset: u64,
        shrunk: Pointer,
        header: Pointer,
        /// Bytes from the header to the partial sums of shrunk, and to those of strips.
        partials: u64,
        slots: u64,
        x_stride: u32,
        w_stride: u32,
        y_stride: u32,
        down_stride: u32,
        up_stride: u32,
        shrunk_stride: u32,
        tokens: u32,
        depth: u32,
        columns: u32,
        rank: u32,
        padded_rank: u32,
        precise: u32,
        scale: f32,
        beta: f32,
        /// Steps of a strip.
        steps: u32,
        /// Steps of a CTA; the first `extra` have one more.
        split: u32,
        extra: u32,
        /// Partial sums of shrunk, and elements along the sum of each.
        shrinks: u32,
        span: u32,
        y_bytes: u32,
    }
}

block! {
    /// The parameters of `contract`: what each index adds, in elements.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Contract {
        left: Pointer,
        left_offset: u64,
        right: Pointer,
        right_offset: u64,
        out: Pointer,
        out_offset: u64,
        left_x1: u64,
        left_x2: u64,
        left_y1: u64,
        left_y2: u64,
        left_y3: u64,
        left_s: u64,
        left_t: u64,
        right_x1: u64,
        right_x2: u64,
        right_y1: u64,
        right_y2: u64,
        right_y3: u64,
        right_s: u64,
        right_t: u64,
        /// Added to each sum before gain and bias; `has_addend` says whether there is one.
        addend: Pointer,
        addend_offset: u64,
        addend_row: u64,
        addend_column: u64,
        gain: Pointer,
        bias: Pointer,
        out_row: u64,
        out_column: u64,
        /// Of out.
        elements: u64,
        /// Bytes from a high part of out to its low one; 0: there is one part.
        low_offset: u64,
        /// Of out.
        columns: u32,
        /// How many values x2, y2 and y3 take.
        x2: u32,
        y2: u32,
        y3: u32,
        /// Of each sum, and of them those that t counts.
        terms: u32,
        inner: u32,
        /// 0: it stands for 1.
        has_left: u32,
        has_right: u32,
        has_addend: u32,
        left_as: u32,
        right_as: u32,
        addend_as: u32,
        bias_as: u32,
        diagonal: u32,
        /// 1: a warp shares each sum.
        shared: u32,
        stored_as: u32,
        /// Of all sums.
        scale: f32,
        beta: f32,
    }
}

block! {
    /// The parameters of `norm`: what a row and a column add, in elements.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    Norm {
        w: Pointer,
        w_offset: u64,
        a: Pointer,
        b: Pointer,
        magnitude: Pointer,
        gain: Pointer,
        w_row: u64,
        w_column: u64,
        a_row: u64,
        a_column: u64,
        b_row: u64,
        b_column: u64,
        /// Of w.
        columns: u32,
        rank: u32,
        /// How w is stored, and a and b: [`STORED_F32`], [`STORED_BF16`] or [`STORED_F16`].
        w_as: u32,
        adapter_as: u32,
        scale: f32,
        /// 0: a block is whole words of eight bytes.
        reserved: u32,
    }
}

block! {
    /// The parameters of `backward_gain`.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    BackwardGain {
        dy: Pointer,
        y: Pointer,
        bias: Pointer,
        gain: Pointer,
        magnitude: Pointer,
        scaled: Pointer,
        gradient: Pointer,
        dy_stride: u64,
        y_stride: u64,
        scaled_stride: u64,
        tokens: u32,
        columns: u32,
        /// How dy, bias and scaled are stored, how y, and how the gradient.
        stored_as: u32,
        y_as: u32,
        gradient_as: u32,
        beta: f32,
    }
}

/// Bytes at the head of the workspace that all launches share. Zeroed once, when a workspace is
/// created; a launch leaves it ready for the next.
pub(crate) const HEADER: usize = 64 << 10;
/// Words on a line of their own: no two are meant to share one.
type Line = [u32; 32];
/// Strips that several CTAs of `decode` share have a counter each.
pub(crate) const COUNTERS: usize = 1 << 10;
/// Rows of tiles, slabs and partial sums that others wait for have a flag each.
pub(crate) const FLAGS: usize = HEADER / 4 - 3 * 32 - COUNTERS;

block! {
    /// The head of the workspace.
    Header {
        /// Of the last launch: the next one raises flags to its successor.
        epoch: Line,
        ticket: Line,
        /// CTAs that have left.
        done: Line,
        flags: [u32; FLAGS],
        counters: [u32; COUNTERS],
    }
}

const _: () = assert!(size_of::<Header>() == HEADER);

/// Whether these bytes of a header are those between two launches: no ticket is drawn, nobody has left, no
/// strip is begun. Flags and epoch may be anything.
pub(crate) fn is_idle(header: &[u8; HEADER]) -> bool {
    let words = [offset_of!(Header, ticket), offset_of!(Header, done)];
    let counters = offset_of!(Header, counters);
    words.iter().all(|at| header[*at..*at + 4] == [0; 4])
        && header[counters..counters + 4 * COUNTERS].iter().all(|byte| *byte == 0)
}
