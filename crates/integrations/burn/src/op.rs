//! The layer as operations of burn's backends: what a backend gives (`Store`), forward and backward written once
//! against it, and the step of burn's autodiff, whose state carries `shrunk`. Called by `linear`.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::{Backward as BackwardStep, Ops, OpsKind};
use burn::backend::autodiff::{self, NodeId};
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
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub(crate) enum Maybe<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

impl<B: Backend> Maybe<B> {
    fn option(self) -> Option<FloatTensor<B>> {
        match self {
            Maybe::Some(of) => Some(of),
            Maybe::None => None,
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Maybe<B> {
    fn from(of: Option<FloatTensor<B>>) -> Maybe<B> {
        of.map_or(Maybe::None, Maybe::Some)
    }
}

/// What every call reads: x `[.., in]`, w `[in, out]`, a `[in, rank]`, b `[rank, out]`.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub(crate) struct Operands<B: Backend> {
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f32,
}

/// y, and shrunk where it was to be kept for the backward pass.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub(crate) struct Forwarded<B: Backend> {
    y: FloatTensor<B>,
    #[extension_type]
    shrunk: Maybe<B>,
}

/// Those that were wanted; da and db come together.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub(crate) struct Gradients<B: Backend> {
    #[extension_type]
    dx: Maybe<B>,
    #[extension_type]
    da: Maybe<B>,
    #[extension_type]
    db: Maybe<B>,
}

/// The layer as its users call it: `y = x·w + s·(x·a)·b + bias` in burn's storage order.
#[backend_extension(
    Cube: cfg(feature = "wgpu"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Fusion: cfg(feature = "fusion"),
    Autodiff
)]
pub(crate) trait LoraOps: Backend {
    /// y `[.., out]`. Gradients are formed for x, a and b.
    #[fusion(meta = |of, _bias| lazy::y(of))]
    fn lora_linear(
        #[extension_type] of: Operands<Self>,
        #[extension_type] bias: Maybe<Self>,
    ) -> FloatTensor<Self>;
}

/// What the layer is made of, on backends that compute. (`Dispatch` never gets here: it goes through `LoraOps`.)
#[backend_extension(Fusion: cfg(feature = "fusion"))]
pub(crate) trait LoraKernels: LoraOps {
    #[allow(unused_variables)] // In what burn makes of it for `Dispatch`.
    #[fusion(meta = |of, _bias, keep| lazy::forwarded(of, *keep))]
    fn lora_forward(
        #[extension_type] of: Operands<Self>,
        #[extension_type] bias: Maybe<Self>,
        keep: bool,
    ) -> Forwarded<Self>;

    #[allow(unused_variables)] // As above.
    #[fusion(meta = |of, _dy, _shrunk, want_dx, want_adapter| lazy::gradients(of, *want_dx, *want_adapter))]
    fn lora_backward(
        #[extension_type] of: Operands<Self>,
        dy: FloatTensor<Self>,
        #[extension_type] shrunk: Maybe<Self>,
        want_dx: bool,
        want_adapter: bool,
    ) -> Gradients<Self>;
}

/// Shapes and types of results, which burn's fusion asks for before anything runs.
#[cfg(feature = "fusion")]
mod lazy {
    use burn::backend::fusion::custom::TensorSpec;
    use fused_lora::shrunk_stride;

    use super::{ForwardedMetadata, GradientsMetadata, MaybeMetadata, OperandsMetadata};

    fn maybe(wanted: bool, of: impl FnOnce() -> TensorSpec) -> MaybeMetadata {
        if wanted { MaybeMetadata::Some(of()) } else { MaybeMetadata::None }
    }

    pub(super) fn y(of: &OperandsMetadata) -> TensorSpec {
        let mut y = of.x.clone();
        let last = y.shape.num_dims() - 1;
        y.shape[last] = of.w.shape[1];
        y
    }

    pub(super) fn forwarded(of: &OperandsMetadata, keep: bool) -> ForwardedMetadata {
        let [in_features, rank] = [0, 1].map(|at| of.a.shape[at]);
        let tokens = of.x.shape.num_elements() / in_features.max(1);
        let shape = [tokens, shrunk_stride(rank)].into();
        let shrunk = maybe(keep, || TensorSpec::new(shape, of.x.dtype));
        ForwardedMetadata { y: y(of), shrunk }
    }

    pub(super) fn gradients(of: &OperandsMetadata, dx: bool, adapter: bool) -> GradientsMetadata {
        GradientsMetadata {
            dx: maybe(dx, || of.x.clone()),
            da: maybe(adapter, || of.a.clone()),
            db: maybe(adapter, || of.b.clone()),
        }
    }
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

    fn tensor(self, like: &FloatTensor<B>) -> FloatTensor<B> {
        B::tensor(self.memory, like, Shape::new([self.rows, self.cols]))
    }
}

impl<B: Store> Operands<B> {
    /// With factors and weight as the kernels read them.
    fn served(self) -> Operands<B> {
        let Operands { x, w, a, b, scale } = self;
        let [w, a, b] = [w, a, b].map(|of| served::<B>(of, false));
        Operands { x: served::<B>(x, true), w, a, b, scale }
    }

    /// w `[out, in]`, a `[rank, in]`, b `[out, rank]`: burn stores the transposes.
    fn layer(&self) -> [Matrix<Slice<'_, B>>; 3] {
        [&self.w, &self.a, &self.b].map(|of| matrix::<B>(of).transpose())
    }
}

impl<B: Store> LoraKernels for B {
    fn lora_forward(of: Operands<B>, bias: Maybe<B>, keep: bool) -> Forwarded<B> {
        let (mut shape, dtype, of) = (of.x.shape(), of.x.dtype(), of.served());
        let bias = bias.option().map(|of| served::<B>(of, true));
        let (tokens, out_features) = (matrix::<B>(&of.x).rows, of.w.shape()[1]);
        let mut y = Target::<B>::new(&of.x, dtype, tokens, out_features);
        let mut shrunk = None;
        let [w, a, b] = of.layer();
        let mut forward = Forward::new(matrix::<B>(&of.x), w, y.matrix())
            .with_bias(bias.as_ref().map(matrix::<B>))
            .adapter(a, b)
            .scale(of.scale);
        if keep {
            let [rows, cols] = forward.shrunk_shape();
            let kept = shrunk.insert(Target::<B>::new(&of.x, dtype, rows, cols));
            forward = forward.shrunk(kept.matrix());
        }
        done(B::run(&of.x, |executor, queue| executor.forward(queue, forward)));
        let last = shape.num_dims() - 1;
        shape[last] = out_features;
        let shrunk = shrunk.map(|kept| kept.tensor(&of.x)).into();
        Forwarded { y: B::tensor(y.memory, &of.x, shape), shrunk }
    }

    fn lora_backward(
        of: Operands<B>,
        dy: FloatTensor<B>,
        shrunk: Maybe<B>,
        want_dx: bool,
        want_adapter: bool,
    ) -> Gradients<B> {
        let (shape, dtype, of_adapter) = (of.x.shape(), of.x.dtype(), of.a.dtype());
        let (of, dy, shrunk) = (of.served(), served::<B>(dy, true), shrunk.option());
        let (m, [k, n]) = (matrix::<B>(&of.x).rows, [0, 1].map(|at| of.w.shape()[at]));
        let rank = of.a.shape()[1];
        // In burn's order: the transposes of the core's.
        let mut dx = want_dx.then(|| Target::<B>::new(&of.x, dtype, m, k));
        let mut da = want_adapter.then(|| Target::<B>::new(&of.x, of_adapter, k, rank));
        let mut db = want_adapter.then(|| Target::<B>::new(&of.x, of_adapter, rank, n));
        let [w, a, b] = of.layer();
        let backward = Backward::new(matrix::<B>(&of.x), w, matrix::<B>(&dy))
            .adapter(a, b)
            .scale(of.scale)
            .with_shrunk(shrunk.as_ref().map(matrix::<B>))
            .with_dx(dx.as_mut().map(Target::matrix))
            .with_da(da.as_mut().map(|of| of.matrix().transpose()))
            .with_db(db.as_mut().map(|of| of.matrix().transpose()));
        done(B::run(&of.x, |executor, queue| executor.backward(queue, backward)));
        let [da, db] =
            [da, db].map(|of_target| of_target.map(|target| target.tensor(&of.x)).into());
        Gradients { dx: dx.map(|dx| B::tensor(dx.memory, &of.x, shape)).into(), da, db }
    }
}

impl<B: Store> LoraOps for B {
    fn lora_linear(of: Operands<B>, bias: Maybe<B>) -> FloatTensor<B> {
        B::lora_forward(of, bias, false).y
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
    shrunk: Maybe<B>,
    scale: f32,
}

impl<B: LoraKernels> BackwardStep<B, 3> for Step {
    type State = Kept<B>;

    fn backward(
        self,
        ops: Ops<Kept<B>, 3>,
        grads: &mut autodiff::grads::Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let Kept { nodes, w, shrunk, scale } = ops.state;
        let [x, a, b] = nodes.map(|of| checkpointer.retrieve_node_output(of));
        let [to_x, to_a, to_b] = ops.parents;
        let (want_dx, want_adapter) = (to_x.is_some(), to_a.is_some() || to_b.is_some());
        let of = Operands { x, w, a, b, scale };
        let Gradients { dx, da, db } = B::lora_backward(of, dy, shrunk, want_dx, want_adapter);
        for (to, gradient) in [(to_x, dx), (to_a, da), (to_b, db)] {
            if let (Some(node), Maybe::Some(gradient)) = (to, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LoraKernels, C: CheckpointStrategy> LoraOps for Autodiff<B, C> {
    fn lora_linear(of: Operands<Self>, bias: Maybe<Self>) -> FloatTensor<Self> {
        let bias = bias.option().map(|of| of.into_primitive()).into();
        let Operands { x, w, a, b, scale } = of;
        let prep = Step.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful();
        let trained = a.is_tracked() || b.is_tracked();
        let nodes = [&x, &a, &b];
        match prep {
            OpsKind::Tracked(mut prep) => {
                let nodes = nodes.map(|of| prep.checkpoint(of));
                let [x, w, a, b] = [x, w, a, b].map(|of| of.into_primitive());
                let of = Operands { x, w: w.clone(), a, b, scale };
                let Forwarded { y, shrunk } = B::lora_forward(of, bias, trained);
                prep.finish(Kept { nodes, w, shrunk, scale }, y)
            }
            OpsKind::UnTracked(prep) => {
                let [x, w, a, b] = [x, w, a, b].map(|of| of.into_primitive());
                prep.finish(B::lora_linear(Operands { x, w, a, b, scale }, bias))
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
    let (x, [w, a, b]) = (x.into_dispatch(), [w, a, b].map(Tensor::into_dispatch));
    let bias = bias.map(Tensor::into_dispatch).into();
    Tensor::from_dispatch(Dispatch::lora_linear(Operands { x, w, a, b, scale }, bias))
}

#[cfg(all(test, feature = "fusion", feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::backend::fusion::custom::TensorSpec;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::DType;

    use super::*;

    fn spec(of: &FlexTensor) -> TensorSpec {
        TensorSpec::new(of.shape(), of.dtype())
    }

    fn agree(what: &str, said: MaybeMetadata, got: Maybe<Flex>) {
        match (said, got) {
            (MaybeMetadata::None, Maybe::None) => {}
            (MaybeMetadata::Some(said), Maybe::Some(got)) => {
                assert_eq!((said.shape, said.dtype), (got.shape(), got.dtype()), "{what}");
            }
            (said, got) => panic!("{what}: {said:?} was said, and {got:?} came"),
        }
    }

    /// burn does not compare shapes that were said of results with those of the results.
    #[test]
    fn results_are_what_is_said_of_them() {
        for (dtype, adapter, rank) in [(DType::F16, DType::F32, 5), (DType::F32, DType::F32, 16)] {
            let zeros = |shape: &[usize], dtype: DType| {
                Flex::float_zeros(shape.into(), &Default::default(), dtype.into())
            };
            let of: Operands<Flex> = Operands {
                x: zeros(&[2, 3, 10], dtype),
                w: zeros(&[10, 7], dtype),
                a: zeros(&[10, rank], adapter),
                b: zeros(&[rank, 7], adapter),
                scale: 1.0,
            };
            let [x, w, a, b] = [&of.x, &of.w, &of.a, &of.b].map(spec);
            let metadata = OperandsMetadata { x, w, a, b, scale: 1.0 };
            let kept = [false, true].map(|keep| {
                let said = lazy::forwarded(&metadata, keep);
                let got = Flex::lora_forward(of.clone(), Maybe::None, keep);
                agree("y", MaybeMetadata::Some(said.y), Maybe::Some(got.y));
                agree("shrunk", said.shrunk, got.shrunk.clone());
                got.shrunk
            });
            let [_, shrunk] = kept;
            for (dx, adapter) in [(true, true), (true, false), (false, true)] {
                let dy = zeros(&[2, 3, 7], dtype);
                let said = lazy::gradients(&metadata, dx, adapter);
                let got = Flex::lora_backward(of.clone(), dy, shrunk.clone(), dx, adapter);
                agree("dx", said.dx, got.dx);
                agree("da", said.da, got.da);
                agree("db", said.db, got.db);
            }
        }
    }
}
