//! The same layers as frameworks run them: a product each, by the `gemm` crate on all threads. LoRA and DoRA beside
//! the weight, as PEFT does; LoHa and LoKr by ΔW, formed and added to the weight first, as LyCORIS does, and its
//! gradient taken back to the factors; a convolution by its columns (im2col), of which the product is as long as the
//! fused call's. Full fine-tuning, which this crate has no calls for. Called by `network`.

use fused_lora::{Convolution, Result};

use crate::layer::{Frozen, Layer, norm};
use crate::method::Method;
use crate::network::Run;

/// What is kept from forward to backward, layer by layer.
pub struct Separate {
    kept: Vec<Kept>,
}

#[derive(Default, Clone)]
struct Kept {
    /// Where each element of `columns` lies in x; in the padding behind its end.
    places: Vec<usize>,
    /// Images by columns: `[tokens, k]`.
    columns: Vec<f32>,
    /// `s·x·aᵀ`.
    shrunk: Vec<f32>,
    /// w + ΔW.
    weight: Vec<f32>,
    /// Both sides of LoHa's ΔW.
    sides: [Vec<f32>; 2],
}

impl Separate {
    pub fn new(layers: usize) -> Separate {
        Separate { kept: vec![Kept::default(); layers] }
    }
}

/// A matrix, and the steps from row to row and from column to column.
#[derive(Clone, Copy)]
struct View<'a> {
    of: &'a [f32],
    steps: [usize; 2],
}

/// `of` row by row.
fn rows(of: &[f32], cols: usize) -> View<'_> {
    View { of, steps: [cols, 1] }
}

impl View<'_> {
    fn turned(self) -> Self {
        View { steps: [self.steps[1], self.steps[0]], ..self }
    }
}

/// `to[m, n] = keep·to + factor·left·right`.
fn product(
    to: &mut [f32],
    [m, n, k]: [usize; 3],
    left: View<'_>,
    right: View<'_>,
    [keep, factor]: [f32; 2],
) {
    let last =
        |[row, col]: [usize; 2], rows: usize, cols: usize| (rows - 1) * row + (cols - 1) * col;
    assert!(
        to.len() == m * n
            && last(left.steps, m, k) < left.of.len()
            && last(right.steps, k, n) < right.of.len(),
    );
    let step = |of: usize| of as isize;
    // SAFETY: the last element of each side and of `to` lies inside, as asserted, and `to` is borrowed apart.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            step(n),
            keep != 0.0,
            left.of.as_ptr(),
            step(left.steps[1]),
            step(left.steps[0]),
            right.of.as_ptr(),
            step(right.steps[1]),
            step(right.steps[0]),
            keep,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

fn multiplied(sizes: [usize; 3], left: View<'_>, right: View<'_>, factor: f32) -> Vec<f32> {
    let mut to = vec![0.0; sizes[0] * sizes[1]];
    product(&mut to, sizes, left, right, [0.0, factor]);
    to
}

/// Where an output's tap lies in its image; `None` in the padding.
fn pixel(of: &Convolution, at: [usize; 2], tap: [usize; 2]) -> Option<usize> {
    let [row, col] = [0, 1].map(|axis| {
        let at = at[axis] * of.stride[axis] + tap[axis] * of.dilation[axis];
        at.checked_sub(of.padding[axis]).filter(|at| *at < of.size[axis])
    });
    Some(row? * of.size[1] + col?)
}

/// For each token and column the place in x that is read; in the padding one behind every end.
fn places(frozen: &Frozen, of: &Convolution) -> Vec<usize> {
    let ([height, width], [kh, kw]) = (of.output(), of.kernel);
    let size = of.size[0] * of.size[1];
    let mut places = Vec::with_capacity(of.tokens() * frozen.k());
    for image in 0..of.images {
        for token in 0..height * width {
            for channel in 0..frozen.channels {
                let base = (image * frozen.channels + channel) * size;
                let taps = (0..kh * kw).map(|tap| [tap / kw, tap % kw]);
                let at = [token / width, token % width];
                places
                    .extend(taps.map(|tap| pixel(of, at, tap).map_or(usize::MAX, |at| base + at)));
            }
        }
    }
    places
}

/// Tokens' features to images' planes, and back.
fn planes(of: &[f32], frozen: &Frozen, digits: usize, to_planes: bool) -> Vec<f32> {
    let (n, pixels) = (frozen.n(), frozen.tokens(digits) / digits);
    let mut out = vec![0.0; of.len()];
    for (image, (from, to)) in
        of.chunks_exact(n * pixels).zip(out.chunks_exact_mut(n * pixels)).enumerate()
    {
        debug_assert!(image < digits);
        for pixel in 0..pixels {
            for feature in 0..n {
                let (token, plane) = (pixel * n + feature, feature * pixels + pixel);
                let (read, write) = if to_planes { (token, plane) } else { (plane, token) };
                to[write] = from[read];
            }
        }
    }
    out
}

/// ΔW of LoHa and LoKr by its definition, w added to it; of LoHa its two sides as well.
fn merged(layer: &Layer) -> (Vec<f32>, [Vec<f32>; 2]) {
    let (n, k) = (layer.frozen.n(), layer.frozen.k());
    let of = |at: usize| layer.trained[at].values();
    let cols = |at: usize| layer.trained[at].cols;
    let scale = layer.method.scale();
    let mut weight = layer.frozen.weight.clone();
    match layer.method {
        Method::Loha => {
            let r = cols(0);
            let side = |a, b| multiplied([n, k, r], rows(of(a), r), rows(of(b), k), 1.0);
            let sides = [side(0, 1), side(2, 3)];
            for (w, (one, other)) in weight.iter_mut().zip(sides[0].iter().zip(&sides[1])) {
                *w += scale * one * other;
            }
            (weight, sides)
        }
        Method::Lokr { .. } | Method::LokrWhole { .. } => {
            let (w2, [c, d]) = right(layer);
            let (w1, b) = (of(0), cols(0));
            for (row, w) in weight.chunks_exact_mut(k).enumerate() {
                for (j, w) in w.chunks_exact_mut(d).enumerate() {
                    let factor = scale * w1[row / c * b + j];
                    for (w, w2) in w.iter_mut().zip(&w2[row % c * d..]) {
                        *w += factor * w2;
                    }
                }
            }
            (weight, [w2, Vec::new()])
        }
        _ => (Vec::new(), [Vec::new(), Vec::new()]),
    }
}

/// LoKr's w2, and its shape.
fn right(layer: &Layer) -> (Vec<f32>, [usize; 2]) {
    let of = |at: usize| &layer.trained[at];
    let shape = [layer.frozen.n() / of(0).rows(), layer.frozen.k() / of(0).cols];
    let w2 = match layer.method {
        Method::LokrWhole { .. } => of(1).values().to_vec(),
        _ => {
            let (a, b) = (rows(of(1).values(), of(1).cols), rows(of(2).values(), shape[1]));
            multiplied([shape[0], shape[1], of(1).cols], a, b, 1.0)
        }
    };
    (w2, shape)
}

/// The factors' gradients from that of the weight, `g`, which has the scale.
fn chained(layer: &mut Layer, g: &[f32], sides: &[Vec<f32>; 2]) {
    let (n, k) = (layer.frozen.n(), layer.frozen.k());
    let Layer { method, trained, gradients, .. } = layer;
    let of = |at: usize| trained[at].values();
    let cols = |at: usize| trained[at].cols;
    match method {
        Method::Loha => {
            let r = cols(0);
            for (side, other) in [(0, 1), (1, 0)] {
                let d: Vec<f32> = g.iter().zip(&sides[other]).map(|(g, w)| g * w).collect();
                let (a, b) = (2 * side, 2 * side + 1);
                let (of_a, of_b) = (rows(of(a), r), rows(of(b), k));
                product(&mut gradients[a], [n, r, k], rows(&d, k), of_b.turned(), [0.0, 1.0]);
                product(&mut gradients[b], [r, k, n], of_a.turned(), rows(&d, k), [0.0, 1.0]);
            }
        }
        Method::Lokr { .. } | Method::LokrWhole { .. } => {
            let (a, b) = (trained[0].rows(), cols(0));
            let (c, d, w2) = (n / a, k / b, &sides[0]);
            let mut dw2 = vec![0.0; c * d];
            gradients[0].fill(0.0);
            for (row, g) in g.chunks_exact(k).enumerate() {
                for (j, g) in g.chunks_exact(d).enumerate() {
                    let w1 = of(0)[row / c * b + j];
                    let (mut sum, at) = (0.0, row % c * d);
                    for (e, g) in g.iter().enumerate() {
                        sum += g * w2[at + e];
                        dw2[at + e] += w1 * g;
                    }
                    gradients[0][row / c * b + j] += sum;
                }
            }
            if matches!(method, Method::LokrWhole { .. }) {
                gradients[1] = dw2;
                return;
            }
            let r = cols(1);
            let (of_a, of_b) = (rows(of(1), r), rows(of(2), d));
            product(&mut gradients[1], [c, r, d], rows(&dw2, d), of_b.turned(), [0.0, 1.0]);
            product(&mut gradients[2], [r, d, c], of_a.turned(), rows(&dw2, d), [0.0, 1.0]);
        }
        Method::Full => gradients[0].copy_from_slice(g),
        Method::Lora | Method::Dora => {}
    }
}

impl Run for Separate {
    /// DoRA's gains, by the norms of w + ΔW formed.
    fn refresh(&mut self, layer: &mut Layer) -> Result<()> {
        let (n, k, scale) = (layer.frozen.n(), layer.frozen.k(), layer.method.scale());
        let Some(magnitude) = &mut layer.magnitude else { return Ok(()) };
        let (a, b) = (&layer.trained[0], &layer.trained[1]);
        let mut weight = layer.frozen.weight.clone();
        let (left, right) = (rows(b.values(), b.cols), rows(a.values(), k));
        product(&mut weight, [n, k, b.cols], left, right, [1.0, scale]);
        let norms = weight.chunks_exact(k).map(norm);
        for ((gain, magnitude), norm) in
            magnitude.gain.iter_mut().zip(magnitude.values.values()).zip(norms)
        {
            *gain = magnitude / norm;
        }
        Ok(())
    }

    fn forward(&mut self, at: usize, layer: &Layer, digits: usize, x: &[f32]) -> Result<Vec<f32>> {
        let (frozen, kept) = (&layer.frozen, &mut self.kept[at]);
        let (n, k, m) = (frozen.n(), frozen.k(), frozen.tokens(digits));
        if let Some(of) = frozen.over(digits) {
            if kept.places.len() != m * k {
                kept.places = places(frozen, &of);
            }
            kept.columns.clear();
            kept.columns.extend(kept.places.iter().map(|at| x.get(*at).copied().unwrap_or(0.0)));
        }
        let x = rows(if frozen.convolution.is_some() { &kept.columns } else { x }, k);
        let weight = match layer.method {
            Method::Full => layer.trained[0].values(),
            Method::Lora | Method::Dora => &frozen.weight,
            _ => {
                (kept.weight, kept.sides) = merged(layer);
                &kept.weight
            }
        };
        let mut y = multiplied([m, n, k], x, rows(weight, k).turned(), 1.0);
        if matches!(layer.method, Method::Lora | Method::Dora) {
            let (a, b) = (&layer.trained[0], &layer.trained[1]);
            let r = b.cols;
            let down = rows(a.values(), k).turned();
            kept.shrunk = multiplied([m, r, k], x, down, layer.method.scale());
            let up = rows(b.values(), r).turned();
            product(&mut y, [m, n, r], rows(&kept.shrunk, r), up, [1.0, 1.0]);
        }
        let gain = layer.magnitude.as_ref().map(|of| &of.gain);
        for y in y.chunks_exact_mut(n) {
            for (column, y) in y.iter_mut().enumerate() {
                *y = *y * gain.map_or(1.0, |of| of[column]) + frozen.bias[column];
            }
        }
        Ok(if frozen.convolution.is_some() { planes(&y, frozen, digits, true) } else { y })
    }

    fn backward(
        &mut self,
        at: usize,
        layer: &mut Layer,
        [x, mut y, dy]: [&[f32]; 3],
        digits: usize,
        wanted: bool,
    ) -> Result<Vec<f32>> {
        let turned;
        let kept = &self.kept[at];
        let (n, k, m) = (layer.frozen.n(), layer.frozen.k(), layer.frozen.tokens(digits));
        let is_image = layer.frozen.convolution.is_some();
        let mut dy = match is_image {
            true => planes(dy, &layer.frozen, digits, false),
            false => dy.to_vec(),
        };
        if layer.magnitude.is_some() && is_image {
            turned = planes(y, &layer.frozen, digits, false);
            y = &turned;
        }
        if let Some(magnitude) = &mut layer.magnitude {
            magnitude.gradient.fill(0.0);
            for (dy, y) in dy.chunks_exact_mut(n).zip(y.chunks_exact(n)) {
                for (column, (dy, y)) in dy.iter_mut().zip(y).enumerate() {
                    let of = magnitude.values.values()[column];
                    magnitude.gradient[column] += *dy * (y - layer.frozen.bias[column]) / of;
                    *dy *= magnitude.gain[column];
                }
            }
        }
        let (dy, x) = (rows(&dy, n), rows(if is_image { &kept.columns } else { x }, k));
        let scale = layer.method.scale();
        let mut dx = vec![0.0; if wanted { m * k } else { 0 }];
        let weight = match layer.method {
            Method::Full => layer.trained[0].values(),
            Method::Lora | Method::Dora => &layer.frozen.weight,
            _ => &kept.weight,
        };
        if wanted {
            product(&mut dx, [m, k, n], dy, rows(weight, k), [0.0, 1.0]);
        }
        match layer.method {
            Method::Lora | Method::Dora => {
                let Layer { trained, gradients, .. } = layer;
                let (a, b) = (&trained[0], &trained[1]);
                let r = b.cols;
                let u = multiplied([m, r, n], dy, rows(b.values(), r), scale);
                if wanted {
                    product(&mut dx, [m, k, r], rows(&u, r), rows(a.values(), k), [1.0, 1.0]);
                }
                product(&mut gradients[0], [r, k, m], rows(&u, r).turned(), x, [0.0, 1.0]);
                let shrunk = rows(&kept.shrunk, r);
                product(&mut gradients[1], [n, r, m], dy.turned(), shrunk, [0.0, 1.0]);
            }
            _ => {
                let g = multiplied([n, k, m], dy.turned(), x, scale);
                chained(layer, &g, &kept.sides);
            }
        }
        let Some(of) = layer.frozen.over(digits).filter(|_| wanted) else { return Ok(dx) };
        // Each column's back to its pixel (col2im).
        let mut images = vec![0.0; digits * layer.frozen.channels * of.size[0] * of.size[1]];
        for (at, dx) in kept.places.iter().zip(&dx) {
            if let Some(pixel) = images.get_mut(*at) {
                *pixel += dx;
            }
        }
        Ok(images)
    }
}
