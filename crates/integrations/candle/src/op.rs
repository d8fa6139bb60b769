//! The layer as one of candle's custom ops over x, a and b. The frozen weight is captured, so candle forms no
//! gradient of it; `shrunk` goes from forward to backward inside the op, of which there is one for each
//! forward pass. Made by `linear`.

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail};
use fused_lora::{Adapter, Backward, Executor, Forward, Matrix};

use crate::store::{Placed, Store, core_dtype, held, operand, served};

/// A layer in one forward pass.
pub(crate) struct Layer {
    /// `[out_features, in_features]`, in an order that `served` has made sure of.
    pub(crate) w: Tensor,
    /// `[out_features]`, contiguous.
    pub(crate) bias: Option<Tensor>,
    pub(crate) scale: f32,
    /// Without one, x stands in the places of a and b, and nobody looks at them.
    pub(crate) has_adapter: bool,
    /// Whether b is trained, which needs `shrunk`.
    pub(crate) keep: bool,
    /// What backward needs of forward, and its shape.
    pub(crate) shrunk: OnceLock<(Storage, [usize; 2])>,
}

impl Layer {
    fn forward<S: Store>(&self, x: Placed<S>, a: Placed<S>, b: Placed<S>) -> Result<(S, Shape)> {
        let (device, layout) = x;
        let (dtype, out_features) = (core_dtype(self.w.dtype())?, self.w.dims()[0]);
        let front = layout.dims().split_last().map_or(&[][..], |(_, front)| front);
        let tokens = front.iter().product();
        let mut y = device.memory(dtype, tokens * out_features)?;
        let mut shrunk = None;
        let w = self.w.storage_and_layout();
        let bias = self.bias.as_ref().map(Tensor::storage_and_layout);
        let bias = bias.as_ref().map(|bias| held::<S>("bias", bias));
        let (x, w) = (operand("x", x)?, held::<S>("w", &w)?);
        let mut forward = Forward::new(x, w, Matrix::new(y.write()?, tokens, out_features))
            .with_bias(bias.transpose()?)
            .scale(self.scale);
        if self.has_adapter {
            forward = forward.adapter(operand("a", a)?, operand("b", b)?);
        }
        if self.keep {
            let [rows, cols] = forward.shrunk_shape();
            let (kept, _) = shrunk.insert((device.memory(dtype, rows * cols)?, [rows, cols]));
            forward = forward.shrunk(Matrix::new(kept.write()?, rows, cols));
        }
        device.run(|executor, queue| executor.forward(queue, forward))?;
        if let Some((shrunk, shape)) = shrunk {
            // There is one forward pass an op.
            let _ = self.shrunk.set((shrunk.into_storage(), shape));
        }
        Ok((y, [front, &[out_features]].concat().into()))
    }

    /// dx, da and db, those that somebody wants.
    fn backward<S: Store>(&self, [x, a, b]: [&Tensor; 3], dy: &Tensor) -> Result<Gradients> {
        let dy = served(dy, true)?;
        let [of_x, of_a, of_b, of_w, of_dy] =
            [x, a, b, &self.w, &dy].map(Tensor::storage_and_layout);
        let device = S::of(&of_x.0)?;
        let wanted = |of: &Tensor, there: bool| -> Result<Option<S>> {
            let memory = || device.memory(core_dtype(of.dtype())?, of.elem_count());
            (there && of.track_op()).then(memory).transpose()
        };
        let mut dx = wanted(x, true)?;
        let [mut da, mut db] = [wanted(a, self.has_adapter)?, wanted(b, self.has_adapter)?];
        let kept = self.shrunk.get().filter(|_| db.is_some());
        let (x_read, w) = (held::<S>("x", &of_x)?, held::<S>("w", &of_w)?);
        let [m, k, n] = [x_read.rows, x_read.cols, w.rows];
        let mut backward = Backward::new(x_read, w, held::<S>("dy", &of_dy)?).scale(self.scale);
        if self.has_adapter {
            let (a, b) = (held::<S>("a", &of_a)?, held::<S>("b", &of_b)?);
            let rank = a.rows;
            backward = backward
                .with_adapter(Some(Adapter::new(a, b)))
                .with_da(target(&mut da, rank, k)?)
                .with_db(target(&mut db, n, rank)?);
        }
        if let Some((kept, [rows, cols])) = kept {
            backward = backward.shrunk(Matrix::new(S::of(kept)?.read()?, *rows, *cols));
        }
        let backward = backward.with_dx(target(&mut dx, m, k)?);
        device.run(|executor, queue| executor.backward(queue, backward))?;
        let tensor = |of: S, like: &Tensor| {
            Tensor::from_storage(of.into_storage(), like.shape(), BackpropOp::none(), false)
        };
        Ok((dx.map(|of| tensor(of, x)), da.map(|of| tensor(of, a)), db.map(|of| tensor(of, b))))
    }
}

type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

/// What a gradient is written to, where it is wanted.
fn target<S: Store>(
    of: &mut Option<S>,
    rows: usize,
    cols: usize,
) -> Result<Option<Matrix<<S::Executor as Executor>::SliceMut<'_>>>> {
    of.as_mut().map(|of| Ok(Matrix::new(of.write()?, rows, cols))).transpose()
}

#[rustfmt::skip]
impl CustomOp3 for Layer {
    fn name(&self) -> &'static str { "fused-lora" }

    fn cpu_fwd(
        &self,
        x: &CpuStorage, of_x: &Layout, a: &CpuStorage, of_a: &Layout, b: &CpuStorage, of_b: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((x, of_x), (a, of_a), (b, of_b))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage, of_x: &Layout, a: &CudaStorage, of_a: &Layout, b: &CudaStorage, of_b: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward((x, of_x), (a, of_a), (b, of_b))
    }

    fn bwd(&self, x: &Tensor, a: &Tensor, b: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Gradients> {
        match x.device() {
            Device::Cpu => self.backward::<CpuStorage>([x, a, b], dy),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => self.backward::<CudaStorage>([x, a, b], dy),
            other => bail!("lora: no layer on {other:?}"),
        }
    }
}
