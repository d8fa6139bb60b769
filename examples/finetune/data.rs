//! The digits and the frozen base network, from `examples/data` (see its README.md). Plain host
//! memory; `layer` takes it to the device. Called by `main`, and by the page in `examples/browser`, which has its
//! bytes from elsewhere.

use safetensors::{SafeTensorError, SafeTensors};

/// Pixels of an image, 8 × 8.
pub const PIXELS: usize = 64;

/// Images, row by row in 0 to 1, and what they show.
#[derive(Default)]
pub struct Digits {
    pub images: Vec<f32>,
    pub labels: Vec<usize>,
}

impl Digits {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The images at `indices`, one after the other.
    pub fn gather(&self, indices: &[usize]) -> Digits {
        let image = |&at: &usize| self.images[at * PIXELS..][..PIXELS].iter().copied();
        Digits {
            images: indices.iter().flat_map(image).collect(),
            labels: indices.iter().map(|&at| self.labels[at]).collect(),
        }
    }

    /// The task that the adapters learn: the page was fed in sideways and negative, a quarter
    /// turn counter-clockwise and then 1 - pixel.
    pub fn shifted(&self) -> Digits {
        let turned = |image: &[f32]| -> Vec<f32> {
            (0..PIXELS).map(|at| 1.0 - image[8 * (at % 8) + 7 - at / 8]).collect()
        };
        Digits {
            images: self.images.chunks_exact(PIXELS).flat_map(turned).collect(),
            labels: self.labels.clone(),
        }
    }

    /// Those to train on and those held out: every fifth.
    pub fn split(&self) -> (Digits, Digits) {
        let (held, train): (Vec<_>, Vec<_>) = (0..self.len()).partition(|at| at % 5 == 4);
        (self.gather(&train), self.gather(&held))
    }
}

/// A frozen layer.
pub struct Frozen {
    /// Its name in the file, and in the adapter's.
    pub name: &'static str,
    /// w `[out_features, in_features]`.
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub in_features: usize,
    pub out_features: usize,
}

/// All images, upright, of `digits.safetensors`.
pub fn digits(bytes: &[u8]) -> Result<Digits, SafeTensorError> {
    let file = SafeTensors::deserialize(bytes)?;
    let pixels = file.tensor("images")?;
    Ok(Digits {
        images: pixels.data().iter().map(|&pixel| f32::from(pixel) / 16.0).collect(),
        labels: file.tensor("labels")?.data().iter().map(|&of| usize::from(of)).collect(),
    })
}

/// The base network of `base.safetensors`: 64-256-256-10, trained on upright digits.
pub fn base(bytes: &[u8]) -> Result<Vec<Frozen>, SafeTensorError> {
    let file = SafeTensors::deserialize(bytes)?;
    let floats = |name: String| -> Result<(Vec<f32>, Vec<usize>), SafeTensorError> {
        let view = file.tensor(&name)?;
        let floats = view.data().as_chunks::<4>().0.iter().map(|&of| f32::from_le_bytes(of));
        Ok((floats.collect(), view.shape().to_vec()))
    };
    let layer = |name| {
        let (weight, shape) = floats(format!("{name}.weight"))?;
        let (bias, _) = floats(format!("{name}.bias"))?;
        Ok(Frozen { name, weight, bias, in_features: shape[1], out_features: shape[0] })
    };
    ["fc1", "fc2", "fc3"].into_iter().map(layer).collect()
}
