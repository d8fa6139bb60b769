//! Images as products have them: parts of what a window sees, copied together into f32, with zeros where there is no image. Of
//! an image only what lies in it is read. Called by `source`.

use core::ops::Range;

use super::convert::Convert;
use super::panel::Panel;
use super::taps::{EachRun, LIST, Lead, Taps};
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
            Lead::Listed(runs) => {
                if runs.tokens() < to.len() {
                    to.fill(0.0);
                }
                runs.each(&mut Copied { seen: &self.elements[start..], to });
            }
        }
    }

    fn copy(&self, start: usize, to: &mut [f32]) {
        T::widen(&self.elements[start..][..to.len()], to.len(), to.len(), to);
    }
}

/// What is seen, copied to where its tokens are.
struct Copied<'a, 't, T> {
    seen: &'a [T],
    to: &'t mut [f32],
}

impl<T: Convert> EachRun for Copied<'_, '_, T> {
    #[inline(always)]
    fn short<const LEN: usize, const STEP: usize>(&mut self, at: usize, place: usize) {
        let seen = &self.seen[place..][..(LEN - 1) * STEP + 1];
        // All are read before one is written, so that they are moved as vectors; every other one out of two of them.
        let mut values = [0.0; LEN];
        let fours = if STEP == 2 { LEN / 4 } else { 0 };
        for at in 0..fours {
            let (near, far) = (&seen[8 * at..][..4], &seen[8 * at + 3..][..4]);
            for (of, value) in [near[0], near[2], far[1], far[3]].into_iter().enumerate() {
                values[4 * at + of] = value.to_f32();
            }
        }
        for at in 4 * fours..LEN {
            values[at] = seen[at * STEP].to_f32();
        }
        self.to[at..][..LEN].copy_from_slice(&values);
    }

    #[inline(always)]
    fn long(&mut self, at: usize, place: usize, len: usize, step: usize) {
        let (seen, to) = (&self.seen[place..], &mut self.to[at..][..len]);
        match step {
            1 => T::widen(&seen[..len], len, len, to),
            2 => to.iter_mut().zip(seen.iter().step_by(2)).for_each(|(to, of)| *to = of.to_f32()),
            _ => {
                to.iter_mut().zip(seen.iter().step_by(step)).for_each(|(to, of)| *to = of.to_f32())
            }
        }
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
