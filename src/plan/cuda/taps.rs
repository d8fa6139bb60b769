//! Operands that kernels gather: the window of a convolution as they have it, how far its taps lie apart in what it is multiplied
//! with, and what no kernel gathers. Called by `layer`, `transposed`,
//! `gradient` and `blocks`.

use super::abi;
use super::address::{Address, VECTOR};
use super::params::word;
use super::{Refusal, check_sizes, reason};
use crate::Channels;
use crate::product::{Load, Window};

/// The window of `load`; an error where its images are stored in planes, which no kernel gathers.
pub(super) fn window_of(load: &Load) -> Result<Option<Window>, Refusal> {
    match load.window {
        Some(of) if of.order == Channels::First => {
            let operand = load.operand;
            Err(reason(format!("does not load gathered {operand} of images stored channels first")))
        }
        window => Ok(window),
    }
}

/// Bytes from one tap of a factor to the next: it has `channels` of each side by side, or row by row.
pub(super) fn tap_bytes(of: &Address, along_rows: bool, channels: usize, size: usize) -> u64 {
    let step = if along_rows { size as u64 } else { u64::from(of.stride) };
    step.saturating_mul(channels as u64)
}

/// Refuses a factor whose taps do not all begin where 16 bytes can be loaded.
pub(super) fn check_taps(tap: u64, what: &str) -> Result<(), Refusal> {
    match tap.is_multiple_of(VECTOR as u64) {
        true => Ok(()),
        false => Err(reason(format!("{what}: taps are not 16-byte multiples"))),
    }
}

/// A window as kernels have it; `operands` and `down_tap` are the caller's to say.
pub(super) fn block(of: &Window, rows: usize) -> Result<abi::Window, Refusal> {
    let [lines, pixels] = of.pixels;
    let [height, width] = of.image;
    let images = rows / lines.saturating_mul(pixels).max(1);
    let seen = images.saturating_mul(height).saturating_mul(width);
    check_sizes(&[seen, of.taps()], i32::MAX as usize / 4)?;
    // Counted modulo 2³²: they are below 2³¹ along each axis.
    let below = |of: usize| word(of).wrapping_neg();
    let [step, reach, shift, unit] = match of.transposed {
        false => [of.stride.map(word), of.dilation.map(word), of.padding.map(below), [1; 2]],
        true => [[1; 2], of.dilation.map(below), of.padding.map(word), of.stride.map(word)],
    };
    Ok(abi::Window {
        lines: word(lines),
        pixels: word(pixels),
        height: word(height),
        width: word(width),
        kernel: word(of.kernel[1]),
        step_y: step[0],
        step_x: step[1],
        reach_y: reach[0],
        reach_x: reach[1],
        shift_y: shift[0],
        shift_x: shift[1],
        unit_y: unit[0],
        unit_x: unit[1],
        border_taps: 1,
        ..abi::Window::default()
    })
}
