//! Where the pixels lie that a tap of a convolution's kernel leads to: worked out once for all channels, which have a plane of
//! pixels each. Called by `gather`, which reads them, and by `transposed`, which adds to them.

use core::ops::Range;

use crate::product::Window;

/// Tokens whose places are listed at a time.
const AT_ONCE: usize = 256;
/// Pixels of an image up to which a list is shorter work than what the images of a run take apart.
const SMALL: usize = 32;

/// Room for a list: tokens, by how many come before them, and their places.
pub(super) type List = [(usize, usize); AT_ONCE];
/// A list of nothing yet.
pub(super) const LIST: List = [(0, 0); AT_ONCE];

/// Planes of the pixels that some tokens see.
pub(super) struct Taps<'w> {
    window: &'w Window,
    /// Rows of pixels that a plane has, of those of each image.
    lines: Range<usize>,
    /// From an image's plane to the next one's.
    of_image: usize,
    /// Whether a token's number and the place that it is led to are apart by one number, as far as it is led anywhere.
    is_shifted: bool,
}

/// Where some tokens are led.
pub(super) enum Lead<'p> {
    Shifted(Shifted),
    /// Those that are led anywhere, and where. No list of all with a mark for the others: a branch for each of these was
    /// most of the time that short rows took.
    Listed(&'p [(usize, usize)]),
}

/// Tokens of one image that are led to places side by side.
pub(super) struct Shifted {
    /// Those of them that are led anywhere, but for `gaps`.
    pub(super) inside: Range<usize>,
    /// Where the first of these is led.
    pub(super) place: usize,
    gaps: Gaps,
}

/// Tokens at the ends of rows of pixels, which are led past these rows.
struct Gaps {
    /// In each row.
    columns: Range<usize>,
    width: usize,
    /// The column of the first token, and how many tokens there are.
    first: usize,
    len: usize,
}

impl Shifted {
    /// Calls `each` with every token in `inside` that is led nowhere.
    pub(super) fn gaps(&self, mut each: impl FnMut(usize)) {
        let Gaps { ref columns, width, first, len } = self.gaps;
        if columns.is_empty() {
            return;
        }
        for row in (0..first + len).step_by(width) {
            let [start, end] =
                [columns.start, columns.end].map(|col| (row + col).max(first) - first);
            (start..end.min(len)).for_each(&mut each);
        }
    }
}

impl<'w> Taps<'w> {
    /// Of planes that have the rows `lines` of each image, `of_image` elements apart from image to image.
    pub(super) fn new(window: &'w Window, lines: Range<usize>, of_image: usize) -> Taps<'w> {
        let [height, width] = window.pixels;
        let is_small = height * width <= SMALL;
        let is_shifted = window.stride == [1, 1] && width == window.image[1] && !is_small;
        Taps { window, lines, of_image, is_shifted }
    }

    /// The same with lists alone.
    pub(super) fn listed(self) -> Taps<'w> {
        Taps { is_shifted: false, ..self }
    }

    /// The first of `rows`, as many as [`Taps::lead`] takes.
    pub(super) fn first_of(&self, rows: &Range<usize>) -> Range<usize> {
        let pixels = self.window.pixels[0] * self.window.pixels[1];
        let end = match self.is_shifted {
            true => (rows.start / pixels + 1) * pixels,
            false => rows.start + AT_ONCE,
        };
        rows.start..rows.end.min(end)
    }

    /// Where the tap leads `rows`, those of [`Taps::first_of`].
    pub(super) fn lead<'p>(&self, rows: &Range<usize>, tap: usize, room: &'p mut List) -> Lead<'p> {
        let tap = [tap / self.window.kernel[1], tap % self.window.kernel[1]];
        match self.is_shifted {
            true => Lead::Shifted(self.shifted(rows, tap)),
            false => {
                let len = self.list(rows, tap, room);
                Lead::Listed(&room[..len])
            }
        }
    }

    /// By how much the tap is ahead of a token along each axis.
    fn ahead(&self, tap: [usize; 2]) -> [isize; 2] {
        [0, 1].map(|axis| {
            let Window { dilation, padding, .. } = self.window;
            (tap[axis] * dilation[axis]) as isize - padding[axis] as isize
        })
    }

    fn shifted(&self, rows: &Range<usize>, tap: [usize; 2]) -> Shifted {
        let [height, width] = self.window.pixels;
        let pixels = height * width;
        let (image, first) = (rows.start / pixels, rows.start % pixels);
        let [down, right] = self.ahead(tap);
        // Rows of tokens that are led to rows of the plane, and columns that are led past the ends of these.
        let clip = |at: isize, most: usize| at.clamp(0, most as isize) as usize;
        let top = clip(self.lines.start as isize - down, height);
        let bottom = clip(self.lines.end as isize - down, height).max(top);
        let columns = match right {
            ..0 => 0..clip(-right, width),
            _ => clip(width as isize - right, width)..width,
        };
        // The place of the image's first token, wherever that is led.
        let shift = (down - self.lines.start as isize) * width as isize + right;
        let plane = self.lines.len() * width;
        let [from, upto] = [0, plane as isize].map(|place| clip(place - shift, pixels));
        let last = first + rows.len();
        let start = first.max(top * width).max(from).min(last);
        let end = last.min(bottom * width).min(upto).max(start);
        let place = match start == end {
            true => 0,
            false => image * self.of_image + (start as isize + shift) as usize,
        };
        let inside = start - first..end - first;
        let gaps = Gaps { columns, width, first: first % width, len: rows.len() };
        Shifted { inside, place, gaps }
    }

    /// Writes the list, and says how long it is.
    fn list(&self, rows: &Range<usize>, tap: [usize; 2], list: &mut List) -> usize {
        let Window { pixels: [height, width], image: [_, plane_width], stride, .. } = *self.window;
        let [down, right] = self.ahead(tap);
        let (line, mut q) = (rows.start / width, rows.start % width);
        let (mut image, mut p) = (line / height, line % height);
        let (mut at, mut len) = (0, 0);
        while at < rows.len() {
            let run = (width - q).min(rows.len() - at);
            let line = (p * stride[0]) as isize + down;
            if line >= self.lines.start as isize && line < self.lines.end as isize {
                let line = (line as usize - self.lines.start) * plane_width;
                let start = image * self.of_image + line;
                let mut column = (q * stride[1]) as isize + right;
                for token in at..at + run {
                    if (column as usize) < plane_width {
                        list[len] = (token, start + column as usize);
                        len += 1;
                    }
                    column += stride[1] as isize;
                }
            }
            (at, q, p) = (at + run, 0, p + 1);
            if p == height {
                (image, p) = (image + 1, 0);
            }
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Channels, Convolution};

    const NOWHERE: usize = usize::MAX;

    /// Where every tap leads every token, in planes of all rows and of some, one by one and shifted, by the window's own map.
    #[test]
    fn taps_lead_where_the_window_says() {
        let same = Convolution::new(3, [7, 5], [3, 3]).padding([1, 1]);
        let wide = Convolution::new(3, [7, 5], [3, 5]);
        let mut shifted = 0;
        for of in [
            same,
            same.stride([2, 2]),
            same.padding([0, 2]).dilation([1, 2]),
            wide.padding([0, 2]),
            wide.padding([9, 8]).dilation([2, 4]),
            wide.padding([2, 2]).stride([3, 1]),
            Convolution::new(3, [7, 5], [1, 1]),
            Convolution::new(9, [2, 2], [3, 3]).padding([1, 1]),
        ] {
            let window = Window::of_input(&of.channels(Channels::First), 1);
            let [height, width] = window.image;
            let of_image = height * width + 7;
            for lines in [0..height, 0..1, 1..2, 1..height] {
                for is_listed in [false, true] {
                    let taps = Taps::new(&window, lines.clone(), of_image);
                    let taps = if is_listed { taps.listed() } else { taps };
                    for rows in [0..of.tokens(), 3..of.tokens() - 2, 7..8] {
                        let mut room = LIST;
                        let mut start = rows.start;
                        while start < rows.end {
                            let some = taps.first_of(&(start..rows.end));
                            assert!(
                                some.start == start && some.end > start && some.end <= rows.end
                            );
                            for tap in 0..window.taps() {
                                let mut places = vec![NOWHERE; some.len()];
                                match taps.lead(&some, tap, &mut room) {
                                    Lead::Listed(of) => {
                                        of.iter().for_each(|(at, to)| places[*at] = *to)
                                    }
                                    Lead::Shifted(of) => {
                                        shifted += 1;
                                        let inside = of.inside.clone();
                                        inside.for_each(|at| {
                                            places[at] = of.place + at - of.inside.start;
                                        });
                                        of.gaps(|at| places[at] = NOWHERE);
                                    }
                                }
                                let [rows_of, cols_of] = window.pixels;
                                for (token, place) in some.clone().zip(places) {
                                    let (line, q) = (token / cols_of, token % cols_of);
                                    let (image, p) = (line / rows_of, line % rows_of);
                                    let row = window.axis(0, p, tap / window.kernel[1]);
                                    let row = row.filter(|row| lines.contains(row));
                                    let sees = row.zip(window.axis(1, q, tap % window.kernel[1]));
                                    let expected = sees.map_or(NOWHERE, |(row, col)| {
                                        image * of_image + (row - lines.start) * width + col
                                    });
                                    assert_eq!(place, expected, "{of:?} {lines:?} {token} {tap}");
                                }
                            }
                            start = some.end;
                        }
                    }
                }
            }
        }
        assert!(shifted > 0);
    }
}
