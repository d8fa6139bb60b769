//! Images as products have them: parts of what a window sees, copied together into f32, with zeros where there is no image. Of
//! an image only what lies in it is read. Called by `source`.

use core::ops::Range;

use super::convert::Convert;
use super::panel::Panel;
use super::taps::{LIST, Lead, Taps};
use crate::Channels;
use crate::product::Window;

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
        let channels = window.channels;
        // Pixels side by side are one stretch, where nothing lies between them.
        let is_gapless = self.stride == channels && window.dilation[1] == 1;
        let at_once = if is_gapless { width } else { 1 };
        let stretch = at_once * channels;
        for (row, room) in rows.zip(room.chunks_exact_mut(columns.len().max(1))) {
            let (image, [p, q]) = pixel(window, row);
            let mut column = columns.start;
            while column < columns.end {
                let tap = column / stretch * at_once;
                let first = tap * channels;
                let end = columns.end.min(first + stretch);
                let to = &mut room[column - columns.start..end - columns.start];
                let line = window.axis(0, p, tap / width);
                // Those of the stretch's pixels that lie in the image, by their elements.
                let ahead = (q * window.stride[1] + tap % width * window.dilation[1]) as isize
                    - window.padding[1] as isize;
                let inside = |at: usize| (at as isize - ahead).clamp(0, at_once as isize) as usize;
                let elements = [inside(0), inside(of_columns)].map(|at| first + at * channels);
                let [from, upto] = elements.map(|at| at.clamp(column, end) - column);
                match line {
                    Some(line) if from < upto => {
                        let pixel = (image * of_rows + line) * of_columns;
                        let pixel = (pixel + inside(0)).wrapping_add_signed(ahead);
                        let skipped = column + from - elements[0];
                        to[..from].fill(0.0);
                        to[upto..].fill(0.0);
                        let start = self.offset + pixel * self.stride + skipped;
                        self.copy(start, &mut to[from..upto]);
                    }
                    _ => to.fill(0.0),
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
        debug_assert!(!window.transposed, "of the way back nothing is gathered");
        let (height, taps) = (rows.len(), window.taps());
        let all = Taps::new(window, 0..window.image[0], window.channels * self.stride);
        let mut list = LIST;
        let mut start = rows.start;
        while start < rows.end {
            let some = all.first_of(&(start..rows.end));
            let first = some.start - rows.start;
            for tap in 0..taps {
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
                if channels.is_empty() {
                    continue;
                }
                let lead = all.lead(&some, tap, &mut list);
                for channel in channels {
                    let column = match window.taps_first {
                        true => tap * window.channels + channel,
                        false => channel * taps + tap,
                    };
                    let to = &mut room[(column - columns.start) * height + first..][..some.len()];
                    self.read(&lead, self.offset + channel * self.stride, to);
                }
            }
            start = some.end;
        }
    }

    /// What lies where `to` is led, from the plane on that begins at `start`.
    fn read(&self, lead: &Lead<'_>, start: usize, to: &mut [f32]) {
        match lead {
            Lead::Shifted(of) => {
                // What is led nowhere lies before, behind, and in gaps.
                let Range { start: before, end } = of.inside;
                if before > 0 {
                    to[..before].fill(0.0);
                }
                if end < to.len() {
                    to[end..].fill(0.0);
                }
                if before < end {
                    self.copy(start + of.place, &mut to[before..end]);
                    of.gaps(|at| to[at] = 0.0);
                }
            }
            Lead::Listed(list) => {
                if list.len() < to.len() {
                    to.fill(0.0);
                }
                let seen = &self.elements[start..];
                list.iter().for_each(|(at, place)| to[*at] = seen[*place].to_f32());
            }
        }
    }

    fn copy(&self, start: usize, to: &mut [f32]) {
        T::widen(&self.elements[start..][..to.len()], to.len(), to.len(), to);
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
            let same = Convolution::new(2, [4, 5], [3, 5]).channels(channels);
            [
                of,
                of.padding([1, 2]),
                of.stride([2, 3]).padding([2, 0]),
                of.dilation([1, 3]),
                same.padding([1, 2]),
                same.padding([0, 2]),
                same.padding([7, 4]).dilation([2, 2]),
            ]
        });
        for of in all {
            let window = Window::of_input(&of, 3);
            let [height, width] = window.image;
            let (rows, cols) = match window.order {
                Channels::First => (2 * 3, height * width),
                Channels::Last => (2 * height * width, 3),
            };
            for gap in [0, 1] {
                let (offset, stride) = (2, cols + gap);
                let mut elements = vec![f32::NAN; offset + rows * stride];
                for at in 0..rows * cols {
                    elements[offset + at / cols * stride + at % cols] = at as f32;
                }
                let images = Images { elements: &elements, offset, stride };
                let (rows, columns) = (of.tokens(), 3 * window.taps());
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
                            let got = panel.at(at, to);
                            let expected = expected(row, column) as f32;
                            assert_eq!(got, expected, "{window:?} {row} {column}");
                        }
                    }
                }
            }
        }
    }
}
