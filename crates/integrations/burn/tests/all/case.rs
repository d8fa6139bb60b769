//! A layer and its inputs drawn at random, on any device and in any type; the layer as burn's users write it, and
//! what burn's autodiff says of it. Used by all tests.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use fused_lora_burn::{LoraAdapter, LoraLinear};

/// All backends that the layer runs on, with the types that each has.
#[allow(deprecated)] // By burn, of ndarray.
pub fn devices() -> Vec<(&'static str, Device, &'static [DType])> {
    vec![
        #[cfg(feature = "wgpu")]
        ("wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice), &[DType::F32, DType::F16]),
        #[cfg(feature = "flex")]
        ("flex", Device::flex(), &[DType::F32, DType::F16, DType::BF16]),
        #[cfg(feature = "ndarray")]
        ("ndarray", Device::ndarray(), &[DType::F32]),
    ]
}

/// Numbers that look random: splitmix64. No crate for it: its features would have burn's dependencies built anew.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let one = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let two = (one ^ (one >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        two ^ (two >> 31)
    }

    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 1 to `most`.
    pub fn size(&mut self, most: usize) -> usize {
        1 + (self.next() % most as u64) as usize
    }
}

#[derive(Debug, Clone)]
pub struct Case {
    /// Dimensions of x in front of the last: two, of which the first may be 1.
    pub front: [usize; 2],
    pub in_features: usize,
    pub out_features: usize,
    pub rank: usize,
    /// Of x, w, bias and y.
    pub dtype: DType,
    /// Of a and b.
    pub adapter: DType,
    pub bias: bool,
    pub scale: f64,
}

impl Case {
    pub fn f32(front: [usize; 2], in_features: usize, out_features: usize, rank: usize) -> Case {
        let (dtype, adapter) = (DType::F32, DType::F32);
        Case { front, in_features, out_features, rank, dtype, adapter, bias: true, scale: 0.75 }
    }

    pub fn of(self, dtype: DType, adapter: DType) -> Case {
        Case { dtype, adapter, ..self }
    }

    /// Values that the case's types hold.
    pub fn values(&self, seed: u64) -> Values {
        let mut random = Random(seed);
        let mut draw = |shape: &[usize], dtype: DType| {
            let len = shape.iter().product();
            let values: Vec<f32> = (0..len).map(|_| random.within(-1.0, 1.0) as f32).collect();
            TensorData::new(values, shape.to_vec()).convert_dtype(dtype)
        };
        let ([one, two], k, n, r) = (self.front, self.in_features, self.out_features, self.rank);
        Values {
            x: draw(&[one, two, k], self.dtype),
            w: draw(&[k, n], self.dtype),
            bias: self.bias.then(|| draw(&[n], self.dtype)),
            a: draw(&[k, r], self.adapter),
            b: draw(&[r, n], self.adapter),
            dy: draw(&[one, two, n], self.dtype),
            scale: self.scale,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Values {
    pub x: TensorData,
    pub w: TensorData,
    pub bias: Option<TensorData>,
    pub a: TensorData,
    pub b: TensorData,
    pub dy: TensorData,
    pub scale: f64,
}

/// y, dx, da and db.
pub type Results = [Vec<f64>; 4];
pub const RESULTS: [&str; 4] = ["y", "dx", "da", "db"];

/// `data` on `device`, in its own type.
pub fn tensor<const D: usize>(data: &TensorData, device: &Device) -> Tensor<D> {
    Tensor::from_data(data.clone(), (device, data.dtype()))
}

pub fn values<const D: usize>(of: &Tensor<D>) -> Vec<f64> {
    of.to_data().iter::<f64>().collect()
}

pub fn bits<const D: usize>(of: &Tensor<D>) -> Vec<u64> {
    values(of).into_iter().map(f64::to_bits).collect()
}

/// |one − other| / |other|, Frobenius.
pub fn apart(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    let square = |of: f64| of * of;
    let error: f64 = one.iter().zip(other).map(|(one, other)| square(one - other)).sum();
    let size = other.iter().map(|&of| square(of)).sum::<f64>();
    if size == 0.0 { error.sqrt() } else { (error / size).sqrt() }
}

impl Values {
    pub fn linear(&self, device: &Device) -> Linear {
        Linear {
            weight: Param::from_tensor(tensor(&self.w, device)),
            bias: self.bias.as_ref().map(|of| Param::from_tensor(tensor(of, device))),
        }
    }

    pub fn adapter(&self, device: &Device) -> LoraAdapter {
        LoraAdapter {
            a: Param::from_tensor(tensor(&self.a, device)),
            b: Param::from_tensor(tensor(&self.b, device)),
            scale: self.scale,
        }
    }

    pub fn layer(&self, device: &Device) -> LoraLinear {
        let frozen = LoraLinear::frozen(self.linear(device)).unwrap();
        frozen.with_adapter("trained", self.adapter(device)).unwrap()
    }

    /// Of the layer, on `device` with autodiff.
    pub fn fused(&self, device: &Device) -> Results {
        let device = device.clone().autodiff();
        let layer = self.layer(&device);
        let x = tensor::<3>(&self.x, &device).require_grad();
        self.fused_of(&layer, x.clone(), x)
    }

    /// The same for an x that `leaf` was made into.
    pub fn fused_of(&self, layer: &LoraLinear, x: Tensor<3>, leaf: Tensor<3>) -> Results {
        let y = layer.forward(x);
        let gradients = weighted(&y, &tensor(&self.dy, &y.device())).backward();
        let (_, adapter) = layer.active().unwrap();
        let (a, b) = (adapter.a.val(), adapter.b.val());
        assert!(layer.weight().grad(&gradients).is_none(), "the frozen weight has a gradient");
        [
            values(&y),
            values(&leaf.grad(&gradients).unwrap()),
            values(&a.grad(&gradients).unwrap()),
            values(&b.grad(&gradients).unwrap()),
        ]
    }

    /// By burn's own ops and autodiff, in `dtype`.
    pub fn by_ops(&self, device: &Device, dtype: DType) -> Results {
        let device = device.clone().autodiff();
        let of = |of: &TensorData| of.clone().convert_dtype(dtype);
        let x = tensor::<3>(&of(&self.x), &device).require_grad();
        let a = tensor::<2>(&of(&self.a), &device).require_grad();
        let b = tensor::<2>(&of(&self.b), &device).require_grad();
        let w = tensor::<2>(&of(&self.w), &device);
        let bias = self.bias.as_ref().map(|bias| tensor::<1>(&of(bias), &device));
        let y = by_ops(x.clone(), w, bias, a.clone(), b.clone(), self.scale);
        let gradients = weighted(&y, &tensor(&of(&self.dy), &device)).backward();
        [
            values(&y),
            values(&x.grad(&gradients).unwrap()),
            values(&a.grad(&gradients).unwrap()),
            values(&b.grad(&gradients).unwrap()),
        ]
    }

    /// In plain loops of f64 over the values as they are stored.
    pub fn exact(&self) -> Results {
        let of = |data: &TensorData| data.iter::<f64>().collect::<Vec<_>>();
        let [x, w, a, b, dy] = [&self.x, &self.w, &self.a, &self.b, &self.dy].map(of);
        let (k, r) = (self.a.shape()[0], self.a.shape()[1]);
        let n = self.b.shape()[1];
        let m = x.len() / k;
        let scaled = |of: Vec<f64>| of.into_iter().map(|of| of * self.scale).collect::<Vec<_>>();
        let shrunk = scaled(product(&x, &a, [m, k, r]));
        let dshrunk = scaled(product(&dy, &turned(&b, n), [m, n, r]));
        let sum = |one: Vec<f64>, other: Vec<f64>| -> Vec<f64> {
            one.into_iter().zip(other).map(|(one, other)| one + other).collect()
        };
        let mut y = sum(product(&x, &w, [m, k, n]), product(&shrunk, &b, [m, r, n]));
        for (at, y) in y.iter_mut().enumerate() {
            *y += self.bias.as_ref().map_or(0.0, |bias| of(bias)[at % n]);
        }
        let dx = sum(
            product(&dy, &turned(&w, n), [m, n, k]),
            product(&dshrunk, &turned(&a, r), [m, r, k]),
        );
        let da = product(&turned(&x, k), &dshrunk, [k, m, r]);
        let db = product(&turned(&shrunk, r), &dy, [r, m, n]);
        [y, dx, da, db]
    }
}

/// Of row-major `[m, k]` and `[k, n]`.
fn product(one: &[f64], other: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let at = |row: usize, col: usize| (0..k).map(|i| one[row * k + i] * other[i * n + col]).sum();
    (0..m * n).map(|of| at(of / n, of % n)).collect()
}

/// The transpose of rows of `cols`.
fn turned(of: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|at| of.iter().skip(at).step_by(cols)).copied().collect()
}

/// How far from the exact values a layer of this type may be: sums in f32, one rounding of what is stored, one of
/// `shrunk`, and as much again for results of few terms that cancel.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-7),
        DType::F16 => 2f64.powi(-10),
        _ => 2e-6,
    }
}

/// `Σ y·dy`, whose gradient with respect to y is dy.
pub fn weighted<const D: usize>(y: &Tensor<D>, dy: &Tensor<D>) -> Tensor<1> {
    (y.clone() * dy.clone()).sum()
}

/// The layer as burn's users write it.
pub fn by_ops(
    x: Tensor<3>,
    w: Tensor<2>,
    bias: Option<Tensor<1>>,
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
) -> Tensor<3> {
    let [one, two, k] = x.dims();
    let n = w.dims()[1];
    let x = x.reshape([one * two, k]);
    let y = x.clone().matmul(w) + x.matmul(a).matmul(b).mul_scalar(scale);
    let y = match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    };
    y.reshape([one, two, n])
}
