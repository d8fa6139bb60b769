//! Where the pixels lie that a tap of a convolution's kernel leads to: worked out once for all channels, which have a plane of
//! pixels each. Called by `gather`, which reads them, and by `transposed`, which adds to them.

use core::ops::Range;

use crate::product::Window;

/// Rows of tokens whose places are listed at a time.
const AT_ONCE: usize = 64;
/// Taps that [`Taps::leads`] works out at a time.
pub(super) const KERNEL: usize = 9;
/// Pixels of an image up to which a list is shorter work than what the images of a run take apart.
const SMALL: usize = 32;

/// Room for a list: the first tokens of runs, by how many come before them, and their places.
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
    rows: Rows,
    /// Whether a token's number and the place that it is led to are apart by one number, as far as it is led anywhere.
    is_shifted: bool,
}

/// Rows of tokens, and of the pixels of a plane, as they are listed: those of the window, or whole images where each token sees
/// its own pixel.
struct Rows {
    /// Of each image.
    count: usize,
    tokens: usize,
    pixels: usize,
    /// Those of the planes.
    lines: Range<usize>,
}

/// Where some tokens are led.
pub(super) enum Lead<'p> {
    Shifted(Shifted),
    Listed(Runs<'p>),
}

/// Tokens that are led anywhere, by their rows. All runs have one length and one step, which are constants of the loop where they
/// are usual: element by element, from a list of all places, the rows of small images took two to four times as long.
#[derive(Clone, Copy)]
pub(super) struct Runs<'p> {
    pub(super) starts: &'p [(usize, usize)],
    /// Tokens of each.
    pub(super) len: usize,
    /// From the place of one to that of the next.
    pub(super) step: usize,
}

/// What is done with each run.
pub(super) trait EachRun {
    /// `LEN` tokens from `at` on are led to places `STEP` apart from `place` on.
    fn short<const LEN: usize, const STEP: usize>(&mut self, at: usize, place: usize);
    /// The same of a length and a step that no loop was made for.
    fn long(&mut self, at: usize, place: usize, len: usize, step: usize);
}

impl Runs<'_> {
    /// Tokens that are led anywhere.
    pub(super) fn tokens(&self) -> usize {
        self.starts.len() * self.len
    }

    pub(super) fn each(&self, of: &mut impl EachRun) {
        match (self.len, self.step) {
            (2, 1) => self.short::<2, 1>(of),
            (3, 1) => self.short::<3, 1>(of),
            (4, 1) => self.short::<4, 1>(of),
            (8, 1) => self.short::<8, 1>(of),
            (16, 1) => self.short::<16, 1>(of),
            (2, 2) => self.short::<2, 2>(of),
            (3, 2) => self.short::<3, 2>(of),
            (4, 2) => self.short::<4, 2>(of),
            (7, 2) => self.short::<7, 2>(of),
            (8, 2) => self.short::<8, 2>(of),
            (15, 2) => self.short::<15, 2>(of),
            (16, 2) => self.short::<16, 2>(of),
            (len, step) => {
                for &(at, place) in self.starts {
                    of.long(at, place, len, step);
                }
            }
        }
    }

    fn short<const LEN: usize, const STEP: usize>(&self, of: &mut impl EachRun) {
        for &(at, place) in self.starts {
            of.short::<LEN, STEP>(at, place);
        }
    }
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
        let rows = match window.is_plain() && lines == (0..window.image[0]) {
            true => Rows { count: 1, tokens: height * width, pixels: height * width, lines: 0..1 },
            false => {
                Rows { count: height, tokens: width, pixels: window.image[1], lines: lines.clone() }
            }
        };
        Taps { window, lines, of_image, rows, is_shifted }
    }

    /// The same with lists alone.
    pub(super) fn listed(self) -> Taps<'w> {
        Taps { is_shifted: false, ..self }
    }

    /// The first of `rows`, as many as [`Taps::lead`] takes: of an image; or whole rows of pixels, or a part of one.
    pub(super) fn first_of(&self, rows: &Range<usize>) -> Range<usize> {
        let pixels = self.window.pixels[0] * self.window.pixels[1];
        let (width, len) = (self.rows.tokens, rows.len());
        let end = match self.is_shifted {
            true => (rows.start / pixels + 1) * pixels,
            false if rows.start.is_multiple_of(width) && len >= width => {
                rows.start + AT_ONCE.min(len / width) * width
            }
            false => (rows.start / width + 1) * width,
        };
        rows.start..rows.end.min(end)
    }

    /// Where the tap leads `rows`, those of [`Taps::first_of`].
    pub(super) fn lead<'p>(&self, rows: &Range<usize>, tap: usize, room: &'p mut List) -> Lead<'p> {
        let tap = [tap / self.window.kernel[1], tap % self.window.kernel[1]];
        match self.is_shifted {
            true => Lead::Shifted(self.shifted(rows, tap)),
            false => Lead::Listed(self.list(rows, tap, room)),
        }
    }

    /// Where taps lead `rows`: those from `first` on, up to `upto`.
    pub(super) fn leads<'p>(
        &self,
        rows: &Range<usize>,
        first: usize,
        upto: usize,
        room: &'p mut [List; KERNEL],
    ) -> [Option<Lead<'p>>; KERNEL] {
        let mut tap = first;
        room.each_mut().map(|room| {
            let lead = (tap < upto).then(|| self.lead(rows, tap, room));
            tap += 1;
            lead
        })
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

    /// Writes the list.
    fn list<'p>(&self, rows: &Range<usize>, tap: [usize; 2], list: &'p mut List) -> Runs<'p> {
        let Rows { count, tokens: width, pixels, ref lines } = self.rows;
        let [of_row, step] = self.window.stride;
        let [down, right] = self.ahead(tap);
        // Those that are led to columns of a plane, of all rows alike.
        let (line, first) = (rows.start / width, rows.start % width);
        let of_row_of_tokens = (width - first).min(rows.len());
        let upto = |place: isize| (place.max(0) as usize).div_ceil(step);
        let start = upto(-right).max(first);
        let end = upto(pixels as isize - right).min(first + of_row_of_tokens);
        let mut all = 0;
        if start < end {
            let column = (start * step).wrapping_add_signed(right);
            let (mut image, mut p) = (line / count, line % count);
            for at in (0..rows.len()).step_by(of_row_of_tokens) {
                let line = (p * of_row) as isize + down;
                if line >= lines.start as isize && line < lines.end as isize {
                    let line = line as usize - lines.start;
                    let place = image * self.of_image + line * pixels + column;
                    list[all] = (at + start - first, place);
                    all += 1;
                }
                p += 1;
                if p == count {
                    (image, p) = (image + 1, 0);
                }
            }
        }
        Runs { starts: &list[..all], len: end.saturating_sub(start), step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Channels, Convolution};

    const NOWHERE: usize = usize::MAX;

    struct Marked<'p>(&'p mut [usize]);

    impl EachRun for Marked<'_> {
        fn short<const LEN: usize, const STEP: usize>(&mut self, at: usize, place: usize) {
            self.long(at, place, LEN, STEP);
        }
        fn long(&mut self, at: usize, place: usize, len: usize, step: usize) {
            (0..len).for_each(|of| self.0[at + of] = place + of * step);
        }
    }

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
            Convolution::new(3, [4, 5], [1, 1]),
            Convolution::new(3, [8, 8], [3, 3]).padding([1, 1]).stride([2, 2]),
            Convolution::new(2, [3, 17], [3, 3]).padding([1, 1]).stride([1, 2]),
            Convolution::new(100, [3, 3], [2, 2]),
            wide.padding([1, 2]).stride([2, 2]),
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
                                    Lead::Listed(of) => of.each(&mut Marked(&mut places)),
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
