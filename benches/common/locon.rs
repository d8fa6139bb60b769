//! A convolution with LoCon on the CPU, in the frameworks' layout (NCHW, OIHW) and f32: what the bench `convolution` puts beside
//! separate products, and those of `crates/integrations` beside their framework's own.

use fused_lora::cpu::Cpu;
use fused_lora::{Backward, Convolution, Forward, Matrix, Result, shrunk_stride};

pub(crate) const SCALE: f32 = 0.5;

/// Images, their rows and columns, channels in and out, kernel, stride, rank.
pub(crate) type Cell = [usize; 7];

/// Layers of Stable Diffusion's UNets, at latent images of 64 × 64 and of 32 × 32.
pub(crate) const CELLS: [Cell; 13] = [
    [1, 64, 320, 320, 3, 1, 16],
    [1, 64, 320, 320, 3, 2, 16],
    [1, 32, 320, 320, 3, 1, 16],
    [1, 32, 320, 320, 3, 2, 16],
    [1, 32, 320, 320, 1, 1, 16],
    [1, 16, 640, 640, 3, 1, 16],
    [1, 16, 640, 640, 3, 2, 16],
    [2, 16, 640, 1280, 3, 1, 16],
    [1, 16, 1280, 1280, 3, 1, 16],
    [2, 16, 1280, 1280, 1, 1, 16],
    [1, 8, 1280, 1280, 3, 1, 16],
    [4, 8, 1280, 1280, 3, 1, 16],
    [4, 32, 64, 64, 3, 1, 8],
];

/// The same in seconds.
pub(crate) const SMALL: Cell = [2, 5, 3, 4, 3, 2, 2];

/// A layer, its adapter, and all that a step writes.
pub(crate) struct Locon {
    cpu: Cpu,
    pub(crate) of: Convolution,
    /// Channels in and out, rank.
    pub(crate) sizes: [usize; 3],
    pub(crate) x: Vec<f32>,
    pub(crate) w: Vec<f32>,
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    pub(crate) dy: Vec<f32>,
    pub(crate) y: Vec<f32>,
    pub(crate) shrunk: Vec<f32>,
    pub(crate) dx: Vec<f32>,
    pub(crate) da: Vec<f32>,
    pub(crate) db: Vec<f32>,
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|at| (((at + seed) * 7919 % 1009) as f32 - 504.0) / 504.0).collect()
}

impl Locon {
    pub(crate) fn new([images, size, channels, n, kernel, stride, rank]: Cell) -> Locon {
        let of = Convolution::new(images, [size, size], [kernel, kernel])
            .stride([stride, stride])
            .padding([kernel / 2, kernel / 2]);
        let (m, k) = (of.tokens(), channels * of.taps());
        let inputs = images * channels * size * size;
        Locon {
            cpu: Cpu::new(),
            of,
            sizes: [channels, n, rank],
            x: numbers(inputs, 1),
            w: numbers(n * k, 2),
            a: numbers(rank * k, 3),
            b: numbers(n * rank, 4),
            dy: numbers(m * n, 5),
            y: vec![0.0; m * n],
            shrunk: vec![0.0; m * shrunk_stride(rank)],
            dx: vec![0.0; inputs],
            da: vec![0.0; rank * k],
            db: vec![0.0; n * rank],
        }
    }

    /// `y`, with what backward reads.
    pub(crate) fn forward(&mut self) -> Result<()> {
        let (of, [channels, n, rank]) = (self.of, self.sizes);
        let (k, [height, width]) = (channels * of.taps(), of.output());
        let x = Matrix::new(&*self.x, of.images * channels, of.size[0] * of.size[1]);
        let w = Matrix::new(&*self.w, n, k);
        let (a, b) = (Matrix::new(&*self.a, rank, k), Matrix::new(&*self.b, n, rank));
        let y = Matrix::new(&mut self.y, of.images * n, height * width);
        let shrunk = Matrix::new(&mut self.shrunk, of.tokens(), shrunk_stride(rank));
        let call = Forward::new(x, w, y).adapter(a, b).scale(SCALE).convolution(of);
        self.cpu.forward(call.shrunk(shrunk))
    }

    /// `dx`, `da` and `db`.
    pub(crate) fn backward(&mut self) -> Result<()> {
        let (of, [channels, n, rank]) = (self.of, self.sizes);
        let (k, [height, width]) = (channels * of.taps(), of.output());
        let pixels = of.size[0] * of.size[1];
        let x = Matrix::new(&*self.x, of.images * channels, pixels);
        let w = Matrix::new(&*self.w, n, k);
        let (a, b) = (Matrix::new(&*self.a, rank, k), Matrix::new(&*self.b, n, rank));
        let dy = Matrix::new(&*self.dy, of.images * n, height * width);
        let backward = Backward::new(x, w, dy)
            .adapter(a, b)
            .scale(SCALE)
            .convolution(of)
            .shrunk(Matrix::new(&*self.shrunk, of.tokens(), shrunk_stride(rank)))
            .dx(Matrix::new(&mut self.dx, of.images * channels, pixels))
            .da(Matrix::new(&mut self.da, rank, k))
            .db(Matrix::new(&mut self.db, n, rank));
        self.cpu.backward(backward)
    }

    /// y, dx, da and db.
    pub(crate) fn results(&self) -> [&[f32]; 4] {
        [&self.y, &self.dx, &self.da, &self.db]
    }
}

/// How far apart two results are: Frobenius, relative.
pub(crate) fn distance(ours: &[f32], theirs: &[f32]) -> f64 {
    let apart: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let size: f64 = theirs.iter().map(|of| f64::from(*of).powi(2)).sum();
    if ours.len() == theirs.len() { (apart / size).sqrt() } else { f64::NAN }
}
