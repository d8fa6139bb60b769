//! Operands that are read through a convolution's window: where each element of such a load lies among the pixels of its
//! images. The one place that knows a convolution's indices; kernels have the same map in their own words.

use super::terms::{Load, LoadKind};
use crate::{Channels, Convolution, Operand, Spec};

/// `[pixels, channels · taps]`: a row is a pixel of what is computed, a column one channel of one of the pixels around it.
///
/// ```text
/// row    = (image, p, q)           column = (c, u, v), or (u, v, c) where taps come first
/// stored pixel   p·stride + u·dilation − padding                       q alike
/// transposed     (phase + p·step + padding − u·dilation) / stride, where that is whole
/// ```
///
/// Outside the image it is 0, and nothing is read. Transposed, the pixels may be every `step`-th alone, from `phase` on:
/// with the stride as step they all see the same taps of the kernel, the others none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Rows and columns of the pixels that the load's rows are, of each image.
    pub(crate) pixels: [usize; 2],
    /// Rows and columns of each image that is read.
    pub(crate) image: [usize; 2],
    /// Of each pixel that is read.
    pub(crate) channels: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Whether it is the way back: which outputs a pixel of the input is part of.
    pub(crate) transposed: bool,
    /// Of the way back: which rows and columns of pixels are meant.
    pub(crate) phase: [usize; 2],
    pub(crate) step: [usize; 2],
    /// How the images are stored.
    pub(crate) order: Channels,
    /// Whether columns count taps first.
    pub(crate) taps_first: bool,
}

impl Window {
    /// What each output of `of` sees of the input.
    pub(crate) fn of_input(of: &Convolution, channels: usize) -> Window {
        Window {
            pixels: of.output(),
            image: of.size,
            channels,
            kernel: of.kernel,
            stride: of.stride,
            padding: of.padding,
            dilation: of.dilation,
            transposed: false,
            phase: [0; 2],
            step: [1; 2],
            order: of.channels,
            taps_first: of.channels == Channels::Last,
        }
    }

    /// What each pixel of the input is part of, of something with so many channels that is stored in `order`.
    pub(crate) fn of_output(of: &Convolution, channels: usize, order: Channels) -> Window {
        Window {
            pixels: of.size,
            image: of.output(),
            channels,
            transposed: true,
            order,
            taps_first: true,
            ..Window::of_input(of, channels)
        }
    }

    /// Of the way back, the pixels of one phase: as many as see the same taps.
    pub(crate) fn of_phase(self, phase: [usize; 2]) -> Window {
        let pixels = [0, 1].map(|axis| {
            let behind = self.pixels[axis].saturating_sub(phase[axis]);
            behind.div_ceil(self.stride[axis])
        });
        Window { pixels, phase, step: self.stride, ..self }
    }

    /// Of a phase: how far a pixel's number is from the place that the tap sees along one axis, `place − at`. `None`: the tap sees
    /// nothing from these pixels.
    pub(crate) fn shift(&self, axis: usize, tap: usize) -> Option<isize> {
        let reach = (tap * self.dilation[axis]) as isize;
        let (ahead, stride) =
            ((self.phase[axis] + self.padding[axis]) as isize, self.stride[axis] as isize);
        let shift = ahead - reach;
        (shift.rem_euclid(stride) == 0).then(|| shift.div_euclid(stride))
    }

    /// The pixel of the image that a phase's pixel is: both count through all images.
    pub(crate) fn whole(&self, at: usize, [of_rows, of_columns]: [usize; 2]) -> usize {
        let [rows, columns] = self.pixels;
        let (line, q) = (at / columns, at % columns);
        let (image, p) = (line / rows, line % rows);
        let [p, q] = [(0, p), (1, q)].map(|(axis, at)| self.phase[axis] + at * self.step[axis]);
        (image * of_rows + p) * of_columns + q
    }

    /// Each output by itself, where it is stored in planes.
    pub(crate) fn planes(of: &Convolution, channels: usize) -> Window {
        let one = Convolution::new(of.images, of.output(), [1, 1]);
        Window::of_input(&one, channels)
    }

    /// Elements of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Channel and tap of a column.
    pub(crate) fn column(&self, at: usize) -> (usize, usize) {
        match self.taps_first {
            true => (at % self.channels, at / self.channels),
            false => (at / self.taps(), at % self.taps()),
        }
    }

    /// Along one axis, the place that `tap` sees from `at`; `None` outside.
    pub(crate) fn axis(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let (stride, reach) = (self.stride[axis], tap * self.dilation[axis]);
        let place = match self.transposed {
            false => (at * stride + reach).checked_sub(self.padding[axis])?,
            true => {
                let at = self.phase[axis] + at * self.step[axis];
                let place = (at + self.padding[axis]).checked_sub(reach)?;
                place.is_multiple_of(stride).then_some(place / stride)?
            }
        };
        (place < self.image[axis]).then_some(place)
    }
}

impl Load {
    /// An operand that is read through `window`.
    pub(crate) fn gathered(operand: Operand, spec: Spec, k_major: bool, window: Window) -> Load {
        let (kind, window) = (LoadKind::Gathered, Some(window));
        Load { kind, window, ..Load::stored(operand, spec, k_major) }
    }
}
