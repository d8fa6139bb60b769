//! Images as products have them: parts of what a window sees, copied together into f32, with zeros where there is no image. Of
//! an image only what lies in it is read. Called by `source`, and by `transposed` for the rows of its own `dshrunk`.

use core::ops::Range;

use super::convert::Convert;
use super::panel::Panel;
use crate::Channels;
use crate::product::Window;

/// Pixels of a row up to which a call for each of its parts costs more than the part.
const SHORT: usize = 16;

/// Stored rows, `stride` elements apart from `offset` on.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, T> {
    pub(super) elements: &'a [T],
    pub(super) offset: usize,
    pub(super) stride: usize,
}

impl<T: Convert> Images<'_, T> {
    /// `[rows, columns]` of `window`, in `room`: row by row where channels lie side by side, else column by column, so that
    /// what is contiguous there is so here.
    pub(super) fn panel<'s>(
        &self,
        window: &Window,
        rows: Range<usize>,
        columns: Range<usize>,
        room: &'s mut [f32],
    ) -> Panel<'s> {
        let (height, width) = (rows.len(), columns.len());
        let room = &mut room[..height * width];
        match window.order {
            Channels::Last => {
                self.by_pixels(window, rows, columns, room);
                Panel::new(room, height, width, width)
            }
            Channels::First => {
                self.by_columns(window, rows, columns, room);
                Panel::new(room, width, height, height).transposed()
            }
        }
    }

    fn by_pixels(
        &self,
        window: &Window,
        rows: Range<usize>,
        columns: Range<usize>,
        room: &mut [f32],
    ) {
        debug_assert!(window.taps_first, "channels of a tap side by side");
        let ([_, width], [of_rows, of_columns]) = (window.kernel, window.image);
        for (row, room) in rows.zip(room.chunks_exact_mut(columns.len().max(1))) {
            let (image, [p, q]) = pixel(window, row);
            let mut column = columns.start;
            while column < columns.end {
                let (channel, tap) = window.column(column);
                let end = columns.end.min(column + window.channels - channel);
                let to = &mut room[column - columns.start..end - columns.start];
                let place = window.axis(0, p, tap / width).zip(window.axis(1, q, tap % width));
                match place {
                    Some((p, q)) => {
                        let row = (image * of_rows + p) * of_columns + q;
                        self.copy(self.offset + row * self.stride + channel, to);
                    }
                    None => to.fill(0.0),
                }
                column = end;
            }
        }
    }

    fn by_columns(
        &self,
        window: &Window,
        rows: Range<usize>,
        columns: Range<usize>,
        room: &mut [f32],
    ) {
        debug_assert!(!window.transposed || window.step == window.stride, "pixels of a phase");
        let ([kernel_rows, kernel_columns], taps) = (window.kernel, window.taps());
        let (height, mut row) = (rows.len(), rows.start);
        while row < rows.end {
            // As far as a row of pixels goes.
            let (image, [p, q]) = pixel(window, row);
            let run = (window.pixels[1] - q).min(rows.end - row);
            let first = row - rows.start;
            // What a tap sees is one for all channels.
            for v in 0..kernel_columns {
                let stretch = Stretch::new(window, q, v, run);
                for u in 0..kernel_rows {
                    let line = window.axis(0, p, u).map(|p| p * window.image[1]);
                    let tap = u * kernel_columns + v;
                    let channels = match window.taps_first {
                        true => {
                            let of_tap = tap * window.channels;
                            columns.start.max(of_tap) - of_tap
                                ..columns.end.min(of_tap + window.channels).saturating_sub(of_tap)
                        }
                        false => {
                            columns.start.saturating_sub(tap).div_ceil(taps)
                                ..columns.end.saturating_sub(tap).div_ceil(taps)
                        }
                    };
                    for channel in channels {
                        let column = match window.taps_first {
                            true => tap * window.channels + channel,
                            false => channel * taps + tap,
                        };
                        let to = &mut room[(column - columns.start) * height + first..][..run];
                        let plane = (image * window.channels + channel) * self.stride;
                        match line {
                            Some(line) => self.along(&stretch, self.offset + plane + line, to),
                            None => to.fill(0.0),
                        }
                    }
                }
            }
            row += run;
        }
    }

    /// Of the row of an image that begins at `start`.
    fn along(&self, stretch: &Stretch, start: usize, to: &mut [f32]) {
        let Stretch { inside: Range { start: first, end }, place, step } = *stretch;
        if to.len() <= SHORT {
            let seen = &self.elements[start..];
            for (at, to) in to.iter_mut().enumerate() {
                let is_inside = first <= at && at < end;
                *to = if is_inside { seen[place + (at - first) * step].to_f32() } else { 0.0 };
            }
            return;
        }
        to[..first].fill(0.0);
        to[end..].fill(0.0);
        match step {
            _ if first == end => {}
            1 => self.copy(start + place, &mut to[first..end]),
            _ => {
                let seen = self.elements[start + place..].iter().step_by(step);
                for (to, of) in to[first..end].iter_mut().zip(seen) {
                    *to = of.to_f32();
                }
            }
        }
    }

    fn copy(&self, start: usize, to: &mut [f32]) {
        T::widen(&self.elements[start..][..to.len()], to.len(), to.len(), to);
    }
}

/// What the pixels of a row see through the taps of one column: a stretch of the image's row, or every `step`-th element of it,
/// with zeros on either side.
struct Stretch {
    /// The pixels that see anything.
    inside: Range<usize>,
    /// What the first of them sees.
    place: usize,
    step: usize,
}

impl Stretch {
    /// Of `run` pixels from column `q` on, through the taps of column `v`.
    fn new(window: &Window, q: usize, v: usize, run: usize) -> Stretch {
        let (step, shift) = match window.transposed {
            // Of a phase one step along the pixels is one along the image.
            true => (1, window.shift(1, v)),
            false => {
                let shift = (v * window.dilation[1]) as isize - window.padding[1] as isize;
                (window.stride[1], Some(shift))
            }
        };
        let Some(shift) = shift else { return Stretch { inside: 0..0, place: 0, step } };
        let begin = (q * step) as isize + shift;
        let upto = |place: isize| ((place - begin).max(0) as usize).div_ceil(step);
        let first = upto(0).min(run);
        let end = upto(window.image[1] as isize).clamp(first, run);
        let place = (begin + (first * step) as isize).max(0) as usize;
        Stretch { inside: first..end, place, step }
    }
}

/// Image, row and column of a pixel.
fn pixel(window: &Window, row: usize) -> (usize, [usize; 2]) {
    let [of_rows, of_columns] = window.pixels;
    let (line, q) = (row / of_columns, row % of_columns);
    (line / of_rows, [line % of_rows, q])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Convolution;

    /// Every part of every window, against its own map, in NaN wherever no element of an image is.
    #[test]
    fn parts_are_what_the_window_says() {
        let all = [Channels::First, Channels::Last].into_iter().flat_map(|channels| {
            let of = Convolution::new(2, [4, 5], [3, 2]).channels(channels);
            let of =
                [of, of.padding([1, 2]), of.stride([2, 3]).padding([2, 0]), of.dilation([1, 3])];
            of.into_iter().flat_map(move |of| {
                let back = Window::of_output(&of, 3, channels);
                let whole = [(Window::of_input(&of, 3), of.output())];
                let phases = (0..of.stride[0] * of.stride[1]).map(move |at| {
                    let window = back.of_phase([at / of.stride[1], at % of.stride[1]]);
                    (window, window.pixels)
                });
                whole.into_iter().chain(phases)
            })
        });
        for (window, pixels) in all {
            let [height, width] = window.image;
            let (rows, cols) = match window.order {
                Channels::First => (2 * 3, height * width),
                Channels::Last => (2 * height * width, 3),
            };
            let (offset, stride) = (2, cols + 1);
            let mut elements = vec![f32::NAN; offset + rows * stride];
            for at in 0..rows * cols {
                elements[offset + at / cols * stride + at % cols] = at as f32;
            }
            let images = Images { elements: &elements, offset, stride };
            let (rows, columns) = (2 * pixels[0] * pixels[1], 3 * window.taps());
            let expected = |row: usize, column: usize| {
                let (image, [p, q]) = pixel(&window, row);
                let (channel, tap) = window.column(column);
                let p = window.axis(0, p, tap / window.kernel[1]);
                let place = p.zip(window.axis(1, q, tap % window.kernel[1]));
                place.map_or(0, |(p, q)| match window.order {
                    Channels::First => ((image * 3 + channel) * height + p) * width + q,
                    Channels::Last => ((image * height + p) * width + q) * 3 + channel,
                })
            };
            for (rows, columns) in
                [(0..rows, 0..columns), (1..rows - 1, 2..columns - 1), (3..4, 4..5)]
            {
                let mut room = vec![f32::NAN; rows.len() * columns.len()];
                let panel = images.panel(&window, rows.clone(), columns.clone(), &mut room);
                for (at, row) in rows.clone().enumerate() {
                    for (to, column) in columns.clone().enumerate() {
                        let got = panel.elements[at * panel.row_step + to * panel.col_step];
                        assert_eq!(got, expected(row, column) as f32, "{window:?} {row} {column}");
                    }
                }
            }
        }
    }
}
