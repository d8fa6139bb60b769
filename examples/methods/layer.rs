//! A layer on the host: its frozen weight, and what a method trains of it. Called by all that runs layers.

use fused_lora::Convolution;
use fused_lora::files::Module;
use rand::rngs::StdRng;

use crate::Failure;
use crate::method::{Method, Values, factors};

/// A frozen layer: `[n, k]`, and of which images where it is a convolution.
#[derive(Clone)]
pub struct Frozen {
    pub name: String,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    /// Of its input: features, or channels of an image.
    pub channels: usize,
    /// Of one image; `None`: linear.
    pub convolution: Option<Convolution>,
}

impl Frozen {
    pub fn n(&self) -> usize {
        self.bias.len()
    }

    pub fn k(&self) -> usize {
        self.channels * self.taps()
    }

    pub fn taps(&self) -> usize {
        self.convolution.map_or(1, |of| of.taps())
    }

    /// The convolution over so many images.
    pub fn over(&self, images: usize) -> Option<Convolution> {
        self.convolution.map(|mut of| {
            of.images = images;
            of
        })
    }

    /// Rows of the product for so many digits: digits, or pixels of outputs.
    pub fn tokens(&self, digits: usize) -> usize {
        self.over(digits).map_or(digits, |of| of.tokens())
    }
}

/// What is trained of a layer, and its gradients.
pub struct Layer {
    pub frozen: Frozen,
    pub method: Method,
    /// The factors; of full fine-tuning w.
    pub trained: Vec<Values>,
    pub gradients: Vec<Vec<f32>>,
    /// DoRA's.
    pub magnitude: Option<Magnitude>,
}

/// DoRA's norm of each row of w + ΔW.
pub struct Magnitude {
    pub values: Values,
    pub gradient: Vec<f32>,
    /// `magnitude / ‖w + ΔW‖`: worked out anew by whoever runs the layer, when factors have changed.
    pub gain: Vec<f32>,
}

impl Layer {
    pub fn new(frozen: &Frozen, method: Method, rank: usize, rng: &mut StdRng) -> Layer {
        let trained = match method {
            Method::Full => vec![Values::new(frozen.k(), frozen.weight.clone())],
            _ => method.fresh([frozen.n(), frozen.channels, frozen.taps()], rank, rng),
        };
        let norms = frozen.weight.chunks_exact(frozen.k()).map(norm).collect();
        Layer::of(frozen, method, trained, norms)
    }

    fn of(frozen: &Frozen, method: Method, trained: Vec<Values>, norms: Vec<f32>) -> Layer {
        let gradients = trained.iter().map(|of| vec![0.0; of.values().len()]).collect();
        let n = frozen.n();
        let magnitude = (method == Method::Dora).then(|| Magnitude {
            values: Values::new(n, norms),
            gradient: vec![0.0; n],
            gain: vec![1.0; n],
        });
        Layer { frozen: frozen.clone(), method, trained, gradients, magnitude }
    }

    /// The layer with the adapter of a file.
    pub fn with(frozen: &Frozen, method: Method, module: &Module) -> Layer {
        let norms = module.magnitude.as_ref().map_or(Vec::new(), |of| of.values());
        Layer::of(frozen, method, factors(module), norms)
    }

    /// One step of Adam.
    pub fn update(&mut self, lr: f32) {
        for (values, gradient) in self.trained.iter_mut().zip(&self.gradients) {
            values.adam.step(gradient, lr);
        }
        if let Some(of) = &mut self.magnitude {
            of.values.adam.step(&of.gradient, lr);
        }
    }

    /// The numbers that are trained.
    pub fn parameters(&self) -> usize {
        let magnitude = self.magnitude.as_ref().map(|of| &of.values);
        self.trained.iter().chain(magnitude).map(|of| of.values().len()).sum()
    }

    /// All gradients, one after the other.
    pub fn all_gradients(&self) -> Vec<f32> {
        let magnitude = self.magnitude.as_ref().map(|of| &of.gradient);
        self.gradients.iter().chain(magnitude).flatten().copied().collect()
    }

    /// As a file has it.
    pub fn module(&self) -> Result<Module, Failure> {
        let kernel = self.frozen.convolution.map_or(Vec::new(), |of| of.kernel.to_vec());
        let module = self.method.module(&self.trained, &kernel)?;
        let Some(magnitude) = &self.magnitude else { return Ok(module) };
        let values = magnitude.values.values();
        let of = fused_lora::files::Factor::new(1, values.len(), fused_lora::DType::F32, values)?;
        Ok(module.with_magnitude(of)?)
    }
}

/// Of a row.
pub fn norm(row: &[f32]) -> f32 {
    row.iter().map(|of| f64::from(*of).powi(2)).sum::<f64>().sqrt() as f32
}
