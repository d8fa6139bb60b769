//! Operands that are not read or written as they are stored: seen through a convolution's window, turned by its taps, written
//! as planes of images. Each has parameters of its own, by the names that the parts' files have for them. Called by `Shader`.

use super::Shader;
use super::form::{Flag, Piece};
use super::part::{Part, Word};
use super::parts::chosen::{PLANES_16, PLANES_F32, SUMMED_TAPS, TURNED, WINDOW};
use crate::plan::wgpu::layer::{Planar, Turned};
use crate::product::Window;
use crate::{Channels, DType};

/// What is stored of an operand that is seen, by the name of that.
pub(super) fn stored(name: &'static str) -> &'static str {
    match name {
        "x" => "x_images",
        "dy" => "dy_images",
        "y" => "y_images",
        "t" => "t_images",
        "w" => "w_taps",
        _ => "b_taps",
    }
}

/// Names of parameters: `$name` with each ending.
macro_rules! names {
    ($name:literal: $($end:literal)*) => { [$(concat!($name, "_", $end)),*] };
}

macro_rules! window_names {
    ($name:literal) => {
        names!($name: "first" "lines" "pixels" "height" "width" "channels" "taps" "kernel" "stride_y" "stride_x"
            "padding_y" "padding_x" "dilation_y" "dilation_x")
    };
}

/// Where an operand of a product is written, or planes.
pub(super) fn writing(dtype: DType) -> (&'static str, &'static Part) {
    match dtype {
        DType::F32 => ("f32", &PLANES_F32),
        _ => ("atomic<u32>", &PLANES_16),
    }
}

impl Shader<'_> {
    fn flag(&mut self, name: &'static str, what: &'static str, value: bool) {
        self.form.push(Piece::Flag(Flag::Of(name, what), value));
    }

    /// `name` is what `window` sees of `name_images`, from row `first` on; `fours`: these are in vectors of four.
    pub(in crate::plan::wgpu) fn sees(
        &mut self,
        name: &'static str,
        window: &Window,
        first: usize,
        fours: bool,
    ) {
        let names = match name {
            "x" => window_names!("x"),
            "dy" => window_names!("dy"),
            "y" => window_names!("y"),
            _ => window_names!("t"),
        };
        let Window { pixels, image, kernel, stride, padding, dilation, .. } = *window;
        let values = [first, pixels[0], pixels[1], image[0], image[1], window.channels]
            .into_iter()
            .chain([window.taps(), kernel[1], stride[0], stride[1], padding[0], padding[1]])
            .chain(dilation);
        for (name, value) in names.into_iter().zip(values) {
            self.uint(name, value);
        }
        let is_planes = window.order == Channels::First;
        let whole = window.taps_first && !is_planes && window.channels.is_multiple_of(4);
        self.flag(name, "BACK", window.transposed);
        self.flag(name, "PLANES", is_planes);
        self.flag(name, "TAPS_FIRST", window.taps_first);
        self.flag(name, "FOURS", whole && fours);
        self.offer(&WINDOW, [(Word::Name, name), (Word::Buffer, stored(name))]);
    }

    /// `name` is `name_taps`, tap by tap.
    pub(super) fn turns(&mut self, name: &'static str, of: Turned, is_rows: bool) {
        let names = match name {
            "w" => names!("w": "depth" "channel" "tap"),
            _ => names!("b": "depth" "channel" "tap"),
        };
        for (name, value) in names.into_iter().zip([of.depth, of.channel, of.tap]) {
            self.uint(name, value);
        }
        self.flag(name, "ROWS", is_rows);
        let from = if of.summed { "w_summed" } else { stored(name) };
        if of.summed {
            self.offer(&SUMMED_TAPS, [(Word::Name, from), (Word::Buffer, stored(name))]);
        }
        self.offer(&TURNED, [(Word::Name, name), (Word::Buffer, from)]);
    }

    /// `name` is written as planes.
    pub(super) fn planes(&mut self, name: &'static str, of: Planar) {
        let names = match name {
            "scaled" => names!("scaled": "first" "rows" "pixels" "columns"),
            _ => names!("y": "first" "rows" "pixels" "columns"),
        };
        for (name, value) in names.into_iter().zip([of.first, of.rows, of.pixels, of.columns]) {
            self.uint(name, value);
        }
    }
}
