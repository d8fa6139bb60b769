//! The layer as operations of burn's backends: what a backend gives (`Store`), forward and backward written once
//! against it, and the step of burn's autodiff, whose state carries `shrunk`. Called by `linear`.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward as BackwardStep, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, Dispatch, ExtensionType, TensorMetadata, backend_extension,
};
use burn::tensor::{Shape, Tensor};
use fused_lora::{Backward, Executor, Forward, Major, Matrix, Result};

type Slice<'a, B> = <<B as Store>::Executor as Executor>::Slice<'a>;
type SliceMut<'a, B> = <<B as Store>::Executor as Executor>::SliceMut<'a>;

/// A backend of burn whose tensors an executor of the core reads.
pub(crate) trait Store: Backend {
    type Executor: Executor;
    /// What results are written to.
    type Memory;

    /// Dimensions, strides and first element of a tensor in its slice.
    fn lies(of: &FloatTensor<Self>) -> (Vec<usize>, Vec<usize>, usize);
    fn slice(of: &FloatTensor<Self>) -> Slice<'_, Self>;
    /// The same tensor without gaps, in memory that a kernel can bind.
    fn contiguous(of: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Whether a kernel can bind the memory it lies in.
    fn bindable(of: &FloatTensor<Self>) -> bool;
    fn memory(like: &FloatTensor<Self>, dtype: burn::tensor::DType, len: usize) -> Self::Memory;
    fn write(memory: &mut Self::Memory) -> SliceMut<'_, Self>;
    fn tensor(memory: Self::Memory, like: &FloatTensor<Self>, shape: Shape) -> FloatTensor<Self>;
    /// Calls `run` with the executor of the tensor's device and where its work goes.
    fn run(
        of: &FloatTensor<Self>,
        run: impl FnOnce(&Self::Executor, <Self::Executor as Executor>::Queue<'_>) -> Result<()>,
    ) -> Result<()>;
}

/// `Option`, which burn's extensions take as a type of one's own alone.
#[derive(ExtensionType)]
pub(crate) enum Bias<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

impl<B: Backend> Bias<B> {
    pub(crate) fn option(self) -> Option<FloatTensor<B>> {
        match self {
            Bias::Some(of) => Some(of),
            Bias::None => None,
        }
    }
}

/// The layer as its users call it: `y = x·w + s·(x·a)·b + bias` in burn's storage order.
#[backend_extension(
    Cube: cfg(feature = "wgpu"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff
)]
pub(crate) trait LoraOps: Backend {
    /// x `[.., in]`, w `[in, out]`, a `[in, rank]`, b `[rank, out]`, bias `[out]`; y `[.., out]`. Gradients are
    /// formed for x, a and b.
    fn lora_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        #[extension_type] bias: Bias<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
}

/// What the layer is made of, on backends that compute.
pub(crate) trait LoraKernels: Backend {
    /// y, without anything kept.
    fn lora_infer(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        scale: f32,
    ) -> FloatTensor<Self>;

    /// y, and shrunk for the backward pass.
    fn lora_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// dx, da, db.
    fn lora_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shrunk: FloatTensor<Self>,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// dx alone: the adapter is frozen.
    fn lora_backward_input(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    /// da, db: nothing in front of the layer is trained.
    fn lora_backward_adapter(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shrunk: FloatTensor<Self>,
        scale: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// What an error becomes where burn's operations have none: the layer has checked beforehand all that its caller
/// decides, so it is a defect of the device or of this crate.
fn done<T>(of: Result<T>) -> T {
    of.unwrap_or_else(|error| panic!("fused-lora: {error}"))
}

fn place<B: Store>(of: &FloatTensor<B>) -> Option<Matrix<()>> {
    let (dims, strides, offset) = B::lies(of);
    Matrix::from_strides((), &dims, &strides).map(|matrix| matrix.at(offset))
}

/// `of` itself where the kernels read it as it lies, else a copy without gaps.
fn served<B: Store>(of: FloatTensor<B>, row_major: bool) -> FloatTensor<B> {
    let lies_well = |of: Matrix<()>| !row_major || of.major == Major::Row;
    let as_it_lies = B::bindable(&of) && place::<B>(&of).is_some_and(lies_well);
    if as_it_lies { of } else { B::contiguous(of) }
}

/// What `served` has made sure of.
fn matrix<B: Store>(of: &FloatTensor<B>) -> Matrix<Slice<'_, B>> {
    match place::<B>(of) {
        Some(matrix) => matrix.map(|()| B::slice(of)),
        None => panic!("fused-lora: a copy without gaps has no strides"),
    }
}

/// A result to be written.
struct Target<B: Store> {
    memory: B::Memory,
    rows: usize,
    cols: usize,
}

impl<B: Store> Target<B> {
    fn new(like: &FloatTensor<B>, dtype: burn::tensor::DType, rows: usize, cols: usize) -> Self {
        Target { memory: B::memory(like, dtype, rows * cols), rows, cols }
    }

    fn matrix(&mut self) -> Matrix<SliceMut<'_, B>> {
        Matrix::new(B::write(&mut self.memory), self.rows, self.cols)
    }
}

/// Frozen weight, adapter and scale in a call.
pub(crate) struct Layer<B: Store> {
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f32,
}

impl<B: Store> Layer<B> {
    pub(crate) fn new(
        w: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        scale: f32,
    ) -> Layer<B> {
        let [w, a, b] = [w, a, b].map(|of| served::<B>(of, false));
        Layer { w, a, b, scale }
    }

    /// w `[out, in]`, a `[rank, in]`, b `[out, rank]`: burn stores the transposes.
    fn operands(&self) -> [Matrix<Slice<'_, B>>; 3] {
        [&self.w, &self.a, &self.b].map(|of| matrix::<B>(of).transpose())
    }

    /// y, and shrunk where `keep` says so.
    pub(crate) fn forward(
        &self,
        x: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        keep: bool,
    ) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
        let (mut shape, dtype) = (x.shape(), x.dtype());
        let x = served::<B>(x, true);
        let bias = bias.map(|of| served::<B>(of, true));
        let (tokens, out_features) = (matrix::<B>(&x).rows, self.w.shape()[1]);
        let mut y = Target::<B>::new(&x, dtype, tokens, out_features);
        let mut shrunk = None;
        let [w, a, b] = self.operands();
        let mut forward = Forward::new(matrix::<B>(&x), w, y.matrix())
            .with_bias(bias.as_ref().map(matrix::<B>))
            .adapter(a, b)
            .scale(self.scale);
        if keep {
            let [rows, cols] = forward.shrunk_shape();
            let kept = shrunk.insert(Target::<B>::new(&x, dtype, rows, cols));
            forward = forward.shrunk(kept.matrix());
        }
        done(B::run(&x, |executor, queue| executor.forward(queue, forward)));
        let last = shape.num_dims() - 1;
        shape[last] = out_features;
        let shrunk = shrunk.map(|of| B::tensor(of.memory, &x, Shape::new([of.rows, of.cols])));
        (B::tensor(y.memory, &x, shape), shrunk)
    }

    /// dx, and da with db, each where it is wanted.
    pub(crate) fn backward(
        &self,
        x: FloatTensor<B>,
        dy: FloatTensor<B>,
        shrunk: Option<FloatTensor<B>>,
        [want_dx, want_adapter]: [bool; 2],
    ) -> (Option<FloatTensor<B>>, Option<[FloatTensor<B>; 2]>) {
        let (shape, dtype, of_adapter) = (x.shape(), x.dtype(), self.a.dtype());
        let [x, dy] = [x, dy].map(|of| served::<B>(of, true));
        let (m, [k, n]) = (matrix::<B>(&x).rows, [0, 1].map(|at| self.w.shape()[at]));
        let rank = self.a.shape()[1];
        // In burn's order: the transposes of the core's.
        let mut dx = want_dx.then(|| Target::<B>::new(&x, dtype, m, k));
        let mut da = want_adapter.then(|| Target::<B>::new(&x, of_adapter, k, rank));
        let mut db = want_adapter.then(|| Target::<B>::new(&x, of_adapter, rank, n));
        let [w, a, b] = self.operands();
        let backward = Backward::new(matrix::<B>(&x), w, matrix::<B>(&dy))
            .adapter(a, b)
            .scale(self.scale)
            .with_shrunk(shrunk.as_ref().map(matrix::<B>))
            .with_dx(dx.as_mut().map(Target::matrix))
            .with_da(da.as_mut().map(|of| of.matrix().transpose()))
            .with_db(db.as_mut().map(|of| of.matrix().transpose()));
        done(B::run(&x, |executor, queue| executor.backward(queue, backward)));
        let tensor = |of: Target<B>| B::tensor(of.memory, &x, Shape::new([of.rows, of.cols]));
        let adapter = da.zip(db).map(|(da, db)| [tensor(da), tensor(db)]);
        (dx.map(|of| B::tensor(of.memory, &x, shape)), adapter)
    }
}

impl<B: Store> LoraKernels for B {
    fn lora_infer(
        x: FloatTensor<B>,
        w: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        scale: f32,
    ) -> FloatTensor<B> {
        Layer::<B>::new(w, a, b, scale).forward(x, bias, false).0
    }

    fn lora_forward(
        x: FloatTensor<B>,
        w: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        scale: f32,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let (y, shrunk) = Layer::<B>::new(w, a, b, scale).forward(x, bias, true);
        (y, shrunk.expect("kept"))
    }

    fn lora_backward(
        x: FloatTensor<B>,
        w: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        dy: FloatTensor<B>,
        shrunk: FloatTensor<B>,
        scale: f32,
    ) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
        let layer = Layer::<B>::new(w, a, b, scale);
        let (dx, adapter) = layer.backward(x, dy, Some(shrunk), [true, true]);
        let [da, db] = adapter.expect("wanted");
        (dx.expect("wanted"), da, db)
    }

    fn lora_backward_input(
        x: FloatTensor<B>,
        w: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        dy: FloatTensor<B>,
        scale: f32,
    ) -> FloatTensor<B> {
        let layer = Layer::<B>::new(w, a, b, scale);
        layer.backward(x, dy, None, [true, false]).0.expect("wanted")
    }

    fn lora_backward_adapter(
        x: FloatTensor<B>,
        w: FloatTensor<B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        dy: FloatTensor<B>,
        shrunk: FloatTensor<B>,
        scale: f32,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let layer = Layer::<B>::new(w, a, b, scale);
        let [da, db] = layer.backward(x, dy, Some(shrunk), [false, true]).1.expect("wanted");
        (da, db)
    }
}

/// The backward pass in burn's graph.
#[derive(Debug)]
struct Step;

/// What forward leaves for it. x, a and b are burn's checkpoints: their nodes.
#[derive(Debug, Clone)]
struct Kept<B: Backend> {
    nodes: [NodeId; 3],
    w: FloatTensor<B>,
    shrunk: FloatTensor<B>,
    scale: f32,
}

impl<B: LoraKernels> BackwardStep<B, 3> for Step {
    type State = Kept<B>;

    fn backward(
        self,
        ops: Ops<Kept<B>, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let Kept { nodes, w, shrunk, scale } = ops.state;
        let [x, a, b]: [FloatTensor<B>; 3] = nodes.map(|of| checkpointer.retrieve_node_output(of));
        let [to_x, to_a, to_b] = ops.parents;
        let (dx, da, db) = match (to_x.is_some(), to_a.is_some() || to_b.is_some()) {
            (true, true) => {
                let (dx, da, db) = B::lora_backward(x, w, a, b, dy, shrunk, scale);
                (Some(dx), Some(da), Some(db))
            }
            (true, false) => (Some(B::lora_backward_input(x, w, a, b, dy, scale)), None, None),
            (false, true) => {
                let (da, db) = B::lora_backward_adapter(x, w, a, b, dy, shrunk, scale);
                (None, Some(da), Some(db))
            }
            (false, false) => return,
        };
        for (to, gradient) in [(to_x, dx), (to_a, da), (to_b, db)] {
            if let (Some(node), Some(gradient)) = (to, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LoraKernels, C: CheckpointStrategy> LoraOps for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: Bias<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let w = w.into_primitive();
        let bias = bias.option().map(|of| of.into_primitive());
        match Step.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let nodes = [&x, &a, &b].map(|of| prep.checkpoint(of));
                let [x, a, b] = [x, a, b].map(|of| of.into_primitive());
                let (y, shrunk) = B::lora_forward(x, w.clone(), a, b, bias, scale);
                prep.finish(Kept { nodes, w, shrunk, scale }, y)
            }
            OpsKind::UnTracked(prep) => {
                let [x, a, b] = [x, a, b].map(|of| of.into_primitive());
                prep.finish(B::lora_infer(x, w, a, b, bias, scale))
            }
        }
    }
}

/// The layer on tensors of burn's, which fit each other.
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    w: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    bias: Option<Tensor<1>>,
    scale: f32,
) -> Tensor<D> {
    let x = x.into_dispatch();
    let bias = bias.map_or(Bias::None, |of| Bias::Some(of.into_dispatch()));
    let [w, a, b] = [w, a, b].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as LoraOps>::lora_linear(x, w, a, b, bias, scale))
}
