//! Layers by this crate's calls, on the CPU: **the file to start with**. `forward` and `backward` are one call for each
//! method, linear or convolution; DoRA has two more. Called by `network`.

use fused_lora::cpu::{Cpu, Slice, SliceMut};
use fused_lora::{Adapter, Backward, BackwardGain, Forward, Matrix, Norm, Result, shrunk_stride};

use crate::layer::{Layer, Magnitude};
use crate::method::Method;
use crate::network::Run;

/// What the calls keep from forward to backward, layer by layer.
pub struct Fused {
    cpu: Cpu,
    shrunk: Vec<Vec<f32>>,
}

impl Fused {
    pub fn new(layers: usize) -> Fused {
        Fused { cpu: Cpu::new(), shrunk: vec![Vec::new(); layers] }
    }
}

/// The inner rank of an adapter: that of the LoRA which it is.
fn inner_rank(of: &Layer) -> usize {
    let (cols, rows) = (|at: usize| of.trained[at].cols, |at: usize| of.trained[at].rows());
    match of.method {
        Method::Full | Method::LokrWhole { .. } => 0,
        Method::Lora | Method::Dora => cols(1),
        Method::Loha => cols(0) * cols(0),
        Method::Lokr { .. } => rows(0) * cols(1),
    }
}

/// A layer's activations as matrices: by token, or by channel of an image.
fn shape(layer: &Layer, digits: usize, features: usize, pixels: usize) -> [usize; 2] {
    match layer.frozen.convolution {
        None => [digits, features],
        Some(_) => [digits * features, pixels],
    }
}

fn input(layer: &Layer, digits: usize) -> [usize; 2] {
    let pixels = layer.frozen.convolution.map_or(1, |of| of.size[0] * of.size[1]);
    shape(layer, digits, layer.frozen.channels, pixels)
}

fn output(layer: &Layer, digits: usize) -> [usize; 2] {
    let [rows, cols] = layer.frozen.convolution.map_or([1, 1], |of| of.output());
    shape(layer, digits, layer.frozen.n(), rows * cols)
}

fn matrix<'a>(of: &'a [f32], [rows, cols]: [usize; 2]) -> Matrix<Slice<'a>> {
    Matrix::new(of.into(), rows, cols)
}

fn matrix_mut<'a>(of: &'a mut [f32], [rows, cols]: [usize; 2]) -> Matrix<SliceMut<'a>> {
    Matrix::new(of.into(), rows, cols)
}

fn weight(layer: &Layer) -> Matrix<Slice<'_>> {
    matrix(&layer.frozen.weight, [layer.frozen.n(), layer.frozen.k()])
}

fn adapter(layer: &Layer) -> Option<Adapter<Slice<'_>>> {
    layer.method.adapter(&layer.trained)
}

impl Run for Fused {
    fn refresh(&mut self, layer: &mut Layer) -> Result<()> {
        let Some(mut magnitude) = layer.magnitude.take() else { return Ok(()) };
        let n = layer.frozen.n();
        let Magnitude { values, gain, .. } = &mut magnitude;
        let norm =
            Norm::new(weight(layer), matrix(values.values(), [1, n]), matrix_mut(gain, [1, n]));
        let norm = norm.with_adapter(adapter(layer)).scale(layer.method.scale());
        let done = self.cpu.norm(norm.convolution(layer.frozen.convolution));
        layer.magnitude = Some(magnitude);
        done
    }

    fn forward(&mut self, at: usize, layer: &Layer, digits: usize, x: &[f32]) -> Result<Vec<f32>> {
        let frozen = &layer.frozen;
        let kept = [frozen.tokens(digits), shrunk_stride(inner_rank(layer))];
        let shrunk = &mut self.shrunk[at];
        shrunk.resize(kept[0] * kept[1], 0.0);
        let [rows, cols] = output(layer, digits);
        let mut y = vec![0.0; rows * cols];
        let gain = layer.magnitude.as_ref().map(|of| matrix(&of.gain, [1, frozen.n()]));
        let forward = Forward::new(
            matrix(x, input(layer, digits)),
            weight(layer),
            matrix_mut(&mut y, [rows, cols]),
        )
        .bias(matrix(&frozen.bias, [1, frozen.n()]))
        .with_gain(gain)
        .with_adapter(adapter(layer))
        .with_shrunk((kept[1] > 0).then(|| matrix_mut(shrunk, kept)))
        .scale(layer.method.scale())
        .convolution(frozen.over(digits));
        self.cpu.forward(forward)?;
        Ok(y)
    }

    fn backward(
        &mut self,
        at: usize,
        layer: &mut Layer,
        [x, y, dy]: [&[f32]; 3],
        digits: usize,
        wanted: bool,
    ) -> Result<Vec<f32>> {
        let (of_x, of_y) = (input(layer, digits), output(layer, digits));
        let n = layer.frozen.n();
        // Through DoRA's gain first.
        let mut scaled = Vec::new();
        if let Some(Magnitude { values, gradient, gain }) = &mut layer.magnitude {
            scaled.resize(dy.len(), 0.0);
            let through = BackwardGain::new(
                [matrix(dy, of_y), matrix(y, of_y)],
                [matrix(gain, [1, n]), matrix(values.values(), [1, n])],
                matrix_mut(&mut scaled, of_y),
                matrix_mut(gradient, [1, n]),
            );
            let through = through.bias(matrix(&layer.frozen.bias, [1, n]));
            self.cpu.backward_gain(through.convolution(layer.frozen.over(digits)))?;
        }
        let dy = if scaled.is_empty() { dy } else { &scaled };

        let kept = [layer.frozen.tokens(digits), shrunk_stride(inner_rank(layer))];
        let mut gradients = std::mem::take(&mut layer.gradients);
        let mut dx = vec![0.0; if wanted { x.len() } else { 0 }];
        let mut backward = Backward::new(matrix(x, of_x), weight(layer), matrix(dy, of_y))
            .with_adapter(adapter(layer))
            .with_shrunk((kept[1] > 0).then(|| matrix(&self.shrunk[at], kept)))
            .with_dx(wanted.then(|| matrix_mut(&mut dx, of_x)))
            .scale(layer.method.scale())
            .convolution(layer.frozen.over(digits));
        let shaped = layer.trained.iter().zip(&mut gradients);
        let shaped = shaped.map(|(of, gradient)| matrix_mut(gradient, [of.rows(), of.cols]));
        let mut next = shaped.collect::<Vec<_>>().into_iter();
        let mut next = || next.next().expect("one for each factor");
        backward = match layer.method {
            Method::Full => backward,
            Method::Lora | Method::Dora => backward.da(next()).db(next()),
            Method::Loha => backward.dw1a(next()).dw1b(next()).dw2a(next()).dw2b(next()),
            Method::Lokr { .. } => backward.dw1(next()).dw2a(next()).dw2b(next()),
            Method::LokrWhole { .. } => backward.dw1(next()).dw2(next()),
        };
        let done = self.cpu.backward(backward);
        layer.gradients = gradients;
        done.map(|()| dx)
    }
}
