//! Images as products have them: parts of what a window sees, copied together into f32, with zeros where there is no image. Of
//! an image only what lies in it is read. Called by `source`, and by `transposed` for the rows of its own `dshrunk`.

use core::ops::Range;

use super::convert::Convert;
use super::panel::Panel;
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
        let ([_, width], [_, of_columns]) = (window.kernel, window.image);
        for (column, room) in columns.zip(room.chunks_exact_mut(rows.len().max(1))) {
            let (channel, tap) = window.column(column);
            let (u, v) = (tap / width, tap % width);
            let mut row = rows.start;
            while row < rows.end {
                // As far as a row of pixels goes.
                let (image, [p, q]) = pixel(window, row);
                let run = (window.pixels[1] - q).min(rows.end - row);
                let to = &mut room[row - rows.start..][..run];
                match window.axis(0, p, u) {
                    Some(p) => {
                        let plane = (image * window.channels + channel) * self.stride;
                        self.along(window, self.offset + plane + p * of_columns, q, v, to);
                    }
                    None => to.fill(0.0),
                }
                row += run;
            }
        }
    }

    /// What pixels of one row from `q` on see through the taps of column `v`; of an image's row that begins at `start`.
    fn along(&self, window: &Window, start: usize, q: usize, v: usize, to: &mut [f32]) {
        if window.stride[1] != 1 {
            for (at, to) in to.iter_mut().enumerate() {
                let place = window.axis(1, q + at, v);
                *to = place.map_or(0.0, |place| self.elements[start + place].to_f32());
            }
            return;
        }
        // One step along the pixels is one along the image: a stretch of it, with zeros on either side.
        let (padding, reach) = (window.padding[1], v * window.dilation[1]);
        let (ahead, behind) = if window.transposed { (padding, reach) } else { (reach, padding) };
        let first = behind.saturating_sub(q + ahead).min(to.len());
        let end = (window.image[1] + behind).saturating_sub(q + ahead).clamp(first, to.len());
        to[..first].fill(0.0);
        to[end..].fill(0.0);
        if first < end {
            self.copy(start + q + first + ahead - behind, &mut to[first..end]);
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
            let of =
                [of, of.padding([1, 2]), of.stride([2, 3]).padding([2, 0]), of.dilation([1, 3])];
            of.into_iter().flat_map(move |of| {
                let back = Window::of_output(&of, 3, channels);
                [(Window::of_input(&of, 3), of.output()), (back, of.size)]
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
