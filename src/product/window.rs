//! Operands that are read through a convolution's window: where each element of such a load lies among the pixels of its
//! images. The one place that knows a convolution's indices; kernels have the same map in their own words.

use core::ops::Range;

use super::terms::{Load, LoadKind};
use crate::{Channels, Convolution, Operand, Spec};

/// `[pixels, channels · taps]`: a row is a pixel of what is computed, a column one channel of one of the pixels around it.
///
/// ```text
/// row    = (image, p, q)           column = (c, u, v), or (u, v, c) where taps come first
/// stored pixel   p·stride + u·dilation − padding                       q alike
/// transposed     (p + padding − u·dilation) / stride, where that is whole
/// ```
///
/// Outside the image it is 0, and nothing is read.
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

    /// Each output by itself, where it is stored in planes.
    pub(crate) fn planes(of: &Convolution, channels: usize) -> Window {
        let one = Convolution::new(of.images, of.output(), [1, 1]);
        Window::of_input(&one, channels)
    }

    /// Whether each token sees the pixel of its own number alone, so that channels first nothing has to be gathered.
    pub(crate) fn is_plain(&self) -> bool {
        let Window { kernel, stride, padding, .. } = *self;
        (kernel, stride, padding) == ([1, 1], [1, 1], [0, 0])
    }

    /// Whether some tokens are parts of planes as they lie.
    pub(crate) fn is_plane(&self, rows: &Range<usize>) -> bool {
        let pixels = self.pixels[0] * self.pixels[1];
        let is_of_one = !rows.is_empty() && rows.start / pixels == (rows.end - 1) / pixels;
        self.is_plain() && self.order == Channels::First && is_of_one
    }

    /// Image and pixel of a token.
    pub(crate) fn place(&self, row: usize) -> [usize; 2] {
        let pixels = self.pixels[0] * self.pixels[1];
        [row / pixels, row % pixels]
    }

    /// Elements of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Channel and tap of a column.
    #[cfg(test)]
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

    /// Whether tokens lie side by side in its panels, and not what each of them is multiplied with.
    pub(crate) fn is_planar(&self) -> bool {
        self.window.is_some_and(|window| window.order == Channels::First)
    }
}
