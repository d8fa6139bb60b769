//! Tensors of burn's backends for the CPU as operands. Called by `op`.

use std::sync::LazyLock;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Shape, TensorData};
use fused_lora::Result;
use fused_lora::cpu::{Cpu, Slice, SliceMut};
use fused_lora::half::{bf16, f16};

use crate::op::Store;

/// One for the process: it keeps plans and scratch memory, and works on rayon's threads.
static CPU: LazyLock<Cpu> = LazyLock::new(Cpu::new);

/// What a result is written to.
pub(crate) enum Memory {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Memory {
    fn new(dtype: DType, len: usize) -> Memory {
        match dtype {
            DType::F16 => Memory::F16(vec![f16::ZERO; len]),
            DType::BF16 => Memory::Bf16(vec![bf16::ZERO; len]),
            // The layer has refused all others.
            _ => Memory::F32(vec![0.0; len]),
        }
    }

    fn write(&mut self) -> SliceMut<'_> {
        match self {
            Memory::F32(of) => of.into(),
            Memory::F16(of) => of.into(),
            Memory::Bf16(of) => of.into(),
        }
    }

    fn data(self, shape: Shape) -> TensorData {
        match self {
            Memory::F32(of) => TensorData::new(of, shape),
            Memory::F16(of) => TensorData::new(of, shape),
            Memory::Bf16(of) => TensorData::new(of, shape),
        }
    }
}

/// Where a backend's tensor lies.
trait Lies: Backend {
    /// Dimensions, strides, first element; `None` where a stride is negative.
    fn lies(of: &FloatTensor<Self>) -> Option<(Vec<usize>, Vec<usize>, usize)>;
    fn slice(of: &FloatTensor<Self>) -> Slice<'_>;
    fn contiguous(of: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Dimensions and strides, if none of these is negative.
fn forward_strides(dims: &[usize], strides: &[isize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let strides = strides.iter().map(|&of| usize::try_from(of).ok());
    Some((dims.to_vec(), strides.collect::<Option<Vec<_>>>()?))
}

macro_rules! store {
    ($backend:ty) => {
        impl Store for $backend {
            type Executor = Cpu;
            type Memory = Memory;

            fn lies(of: &FloatTensor<Self>) -> (Vec<usize>, Vec<usize>, usize) {
                <Self as Lies>::lies(of).unwrap_or_default()
            }

            fn slice(of: &FloatTensor<Self>) -> Slice<'_> {
                <Self as Lies>::slice(of)
            }

            fn contiguous(of: FloatTensor<Self>) -> FloatTensor<Self> {
                <Self as Lies>::contiguous(of)
            }

            fn bindable(of: &FloatTensor<Self>) -> bool {
                <Self as Lies>::lies(of).is_some()
            }

            fn memory(_: &FloatTensor<Self>, dtype: DType, len: usize) -> Memory {
                Memory::new(dtype, len)
            }

            fn write(memory: &mut Memory) -> SliceMut<'_> {
                memory.write()
            }

            fn tensor(memory: Memory, like: &FloatTensor<Self>, shape: Shape) -> FloatTensor<Self> {
                Self::float_from_data(memory.data(shape), &like.device())
            }

            fn run(_: &FloatTensor<Self>, run: impl FnOnce(&Cpu, ()) -> Result<()>) -> Result<()> {
                run(&CPU, ())
            }
        }
    };
}

#[cfg(feature = "flex")]
mod flex {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;

    use super::*;

    impl Lies for Flex {
        fn lies(of: &FlexTensor) -> Option<(Vec<usize>, Vec<usize>, usize)> {
            let layout = of.layout();
            let (dims, strides) = forward_strides(layout.shape(), layout.strides())?;
            Some((dims, strides, layout.start_offset()))
        }

        fn slice(of: &FlexTensor) -> Slice<'_> {
            match of.dtype() {
                DType::F16 => of.storage::<f16>().into(),
                DType::BF16 => of.storage::<bf16>().into(),
                _ => of.storage::<f32>().into(),
            }
        }

        fn contiguous(of: FlexTensor) -> FlexTensor {
            of.to_contiguous()
        }
    }

    store!(Flex);
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // By burn, in favour of flex.
mod ndarray {
    use burn::backend::NdArray;
    use burn::backend::ndarray::NdArrayTensor;

    use super::*;

    impl Lies for NdArray {
        fn lies(of: &NdArrayTensor) -> Option<(Vec<usize>, Vec<usize>, usize)> {
            let NdArrayTensor::F32(of) = of else { return None };
            let view = of.view();
            // All of its memory, or it is a part of some, and copied.
            view.as_slice_memory_order()?;
            let (dims, strides) = forward_strides(view.shape(), view.strides())?;
            Some((dims, strides, 0))
        }

        fn slice(of: &NdArrayTensor) -> Slice<'_> {
            let NdArrayTensor::F32(of) = of else { return (&[] as &[f32]).into() };
            of.view().to_slice_memory_order().unwrap_or_default().into()
        }

        fn contiguous(of: NdArrayTensor) -> NdArrayTensor {
            let NdArrayTensor::F32(of) = of else { return of };
            let shape = Shape::from(of.shape().to_vec());
            let values: Vec<f32> = of.view().iter().copied().collect();
            Self::float_from_data(TensorData::new(values, shape), &Default::default())
        }
    }

    store!(NdArray);
}
