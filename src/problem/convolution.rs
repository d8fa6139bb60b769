//! A layer whose input is images: which pixels each output meets. Part of a [`Problem`](super::Problem); `product` turns
//! it into the windows that loads are read through.

use crate::{Error, Result};

/// How images lie in their buffer, and with them the columns of the weight and of lora_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Channels {
    /// A plane of pixels for each channel, as PyTorch's default is: NCHW, and weights OIHW. `x` is
    /// `[images · channels, height · width]`, `y` `[images · out_features, pixels of an output]`.
    #[default]
    First,
    /// The channels of a pixel side by side, as PyTorch's `channels_last` is: NHWC, and weights OHWI. `x` is
    /// `[images · height · width, channels]`, `y` `[tokens, out_features]`.
    Last,
}

/// A convolution in two dimensions, padded with zeros, in one group: the layer of a LoCon adapter.
///
/// ```text
/// y[n, o, p, q] = Σ over i, u, v of x[n, i, p·stride + u·dilation − padding, q·stride + v·dilation − padding]·(w + s·b·a)[o, (i,u,v)]
/// ```
///
/// It is a layer of `tokens = images · output height · output width` and of `in_features = channels · kernel height · kernel
/// width`: `w` is `[out_features, in_features]`, lora_A (`down`) `[rank, in_features]`, lora_B (`up`, which is 1 × 1)
/// `[out_features, rank]`. Columns of `w` and of lora_A are (channel, row, column) of the kernel with [`Channels::First`]
/// and (row, column, channel) with [`Channels::Last`]: tensors of PyTorch as they lie. `shrunk` and `dshrunk` stay
/// `[tokens, shrunk_stride]`, pixel by pixel.
///
/// Several groups, three dimensions, transposed convolutions and other paddings are not served, and cannot be said here. A
/// convolution in one dimension has a height of 1.
///
/// ```
/// use fused_lora::cpu::Cpu;
/// use fused_lora::{Channels, Convolution, Forward, Matrix};
///
/// // One image of 3 × 3 pixels of one channel, summed over the neighbours of each pixel; and an adapter as large again.
/// let convolution = Convolution::new(1, [3, 3], [3, 3]).padding([1, 1]).channels(Channels::Last);
/// let (x, w, a, b) = ([1.0f32; 9], [1.0f32; 9], [1.0f32; 9], [1.0f32]);
/// let mut y = [0.0f32; 9];
/// let forward = Forward::new(Matrix::new(&x, 9, 1), Matrix::new(&w, 1, 9), Matrix::new(&mut y, 9, 1))
///     .adapter(Matrix::new(&a, 1, 9), Matrix::new(&b, 1, 1))
///     .convolution(convolution);
/// Cpu::new().forward(forward)?;
/// assert_eq!(y, [8.0, 12.0, 8.0, 12.0, 18.0, 12.0, 8.0, 12.0, 8.0]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Convolution {
    /// Images.
    pub images: usize,
    /// Rows and columns of pixels of each.
    pub size: [usize; 2],
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Pixels from one output to the next, along rows and along columns.
    pub stride: [usize; 2],
    /// Rows above and below, and columns left and right of an image, that count as zeros and are not stored.
    pub padding: [usize; 2],
    /// Pixels from one element of the kernel to the next.
    pub dilation: [usize; 2],
    /// How images and weights lie.
    pub channels: Channels,
}

/// What indices along an image are kept below, so that kernels may count in 32 bits.
const MOST: usize = i32::MAX as usize;

impl Convolution {
    /// Of images of so many rows and columns and a kernel of so many; stride and dilation 1, no padding, channels first.
    pub const fn new(images: usize, size: [usize; 2], kernel: [usize; 2]) -> Convolution {
        let (stride, padding, dilation) = ([1, 1], [0, 0], [1, 1]);
        Convolution { images, size, kernel, stride, padding, dilation, channels: Channels::First }
    }

    /// With a stride.
    pub const fn stride(self, stride: [usize; 2]) -> Convolution {
        Convolution { stride, ..self }
    }

    /// With zeros around each image.
    pub const fn padding(self, padding: [usize; 2]) -> Convolution {
        Convolution { padding, ..self }
    }

    /// With gaps in the kernel.
    pub const fn dilation(self, dilation: [usize; 2]) -> Convolution {
        Convolution { dilation, ..self }
    }

    /// With images and weights that lie so.
    pub const fn channels(self, channels: Channels) -> Convolution {
        Convolution { channels, ..self }
    }

    /// Rows and columns of each output; 0 where the kernel is larger than the padded image.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| match self.room(axis) {
            Ok((image, kernel)) => (image - kernel) / self.stride[axis] + 1,
            Err(_) => 0,
        })
    }

    /// Pixels of all outputs: the layer's tokens.
    pub fn tokens(&self) -> usize {
        self.output().into_iter().fold(self.images, usize::saturating_mul)
    }

    /// Elements of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel[0].saturating_mul(self.kernel[1])
    }

    /// Those that columns of a weight count before channels.
    pub(crate) fn taps_first(&self) -> usize {
        if self.channels == Channels::Last { self.taps() } else { 1 }
    }

    /// Pixels of all images.
    pub(crate) fn pixels(&self) -> usize {
        self.size.into_iter().fold(self.images, usize::saturating_mul)
    }

    /// Pixels of an image, and of an output.
    pub(crate) fn planes(&self) -> [usize; 2] {
        [self.size, self.output()].map(|[rows, columns]| rows.saturating_mul(columns))
    }

    /// Whether it is a linear layer as its operands lie.
    pub(crate) fn is_linear(&self) -> bool {
        let Convolution { kernel, stride, padding, channels, .. } = *self;
        (kernel, stride, padding, channels) == ([1, 1], [1, 1], [0, 0], Channels::Last)
    }

    /// The padded image and the kernel with its gaps, along one axis.
    fn room(&self, axis: usize) -> Result<(usize, usize)> {
        let of = |numbers: [usize; 2]| numbers[axis];
        let least = |what, numbers: [usize; 2]| match of(numbers) {
            0 => Err(Error::Convolution { what, expected: "at least 1", got: numbers }),
            _ => Ok(of(numbers)),
        };
        let (image, kernel) = (least("size", self.size)?, least("kernel", self.kernel)?);
        let dilation = least("dilation", self.dilation)?;
        least("stride", self.stride)?;
        let padded = of(self.padding).checked_mul(2).and_then(|of| of.checked_add(image));
        let kernel = (kernel - 1).checked_mul(dilation).and_then(|of| of.checked_add(1));
        match (padded, kernel) {
            (Some(padded), Some(kernel)) if padded <= MOST && of(self.stride) <= MOST => {
                if kernel <= padded {
                    return Ok((padded, kernel));
                }
                let got = [kernel, padded];
                let expected = "no larger than the padded image";
                Err(Error::Convolution { what: "kernel and padded image", expected, got })
            }
            _ => {
                let expected = "fewer than 2^31 along each axis";
                Err(Error::Convolution { what: "size with padding", expected, got: self.size })
            }
        }
    }

    /// That it is one.
    pub(crate) fn validate(&self) -> Result<()> {
        self.room(0)?;
        self.room(1).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_of_pytorch() {
        let of = Convolution::new(2, [5, 7], [3, 3]);
        assert_eq!((of.output(), of.tokens(), of.taps()), ([3, 5], 30, 9));
        assert_eq!(of.padding([1, 1]).output(), [5, 7]);
        assert_eq!(of.padding([1, 1]).stride([2, 2]).output(), [3, 4]);
        assert_eq!(of.dilation([2, 3]).output(), [1, 1]);
        assert_eq!(of.dilation([3, 1]).output(), [0, 5]);
        assert_eq!(of.stride([0, 1]).tokens(), 0);
        assert_eq!(of.padding([usize::MAX, 0]).tokens(), 0);
    }
}
