//! What a layer asks of candle's storages: to be read and written as operands, and which executor runs on
//! them. `cpu` and `cuda` implement it; `op` is written once against it.

use candle_core::backend::BackendStorage;
use candle_core::{Layout, Result, Storage, StorageRef, Tensor, bail};
use fused_lora::{DType, Executor, Major, Matrix};

/// A storage of candle whose device an executor of the core runs on.
pub(crate) trait Store: Sized + 'static {
    type Executor: Executor;

    /// Which storage this is; an error where it lies on another device.
    fn of(storage: &Storage) -> Result<&Self>;
    fn into_storage(self) -> Storage;
    fn read(&self) -> Result<<Self::Executor as Executor>::Slice<'_>>;
    fn write(&mut self) -> Result<<Self::Executor as Executor>::SliceMut<'_>>;
    /// Memory on the same device, for an operand that is overwritten.
    fn memory(&self, dtype: DType, len: usize) -> Result<Self>;
    /// Calls `run` with the device's executor and where its work goes.
    fn run(
        &self,
        run: impl FnOnce(
            &Self::Executor,
            <Self::Executor as Executor>::Queue<'_>,
        ) -> fused_lora::Result<()>,
    ) -> Result<()>;
}

/// A storage and how a tensor lies in it.
pub(crate) type Placed<'a, S> = (&'a S, &'a Layout);

/// `layout` as a matrix over `buffer`, in either major; `None` where only a copy could be one.
pub(crate) fn matrix<B>(buffer: B, layout: &Layout) -> Option<Matrix<B>> {
    let matrix = Matrix::from_strides(buffer, layout.dims(), layout.stride());
    matrix.map(|of| of.at(layout.start_offset()))
}

/// An operand that a layer has made sure of beforehand.
pub(crate) fn operand<'a, S: Store>(
    name: &str,
    (storage, layout): Placed<'a, S>,
) -> Result<Matrix<<S::Executor as Executor>::Slice<'a>>> {
    match matrix(storage.read()?, layout) {
        Some(matrix) => Ok(matrix),
        None => bail!("lora: {name} has no one stride from row to row: {layout:?}"),
    }
}

/// The same of a tensor whose storage is held.
pub(crate) fn held<'a, S: Store>(
    name: &str,
    (storage, layout): &'a (StorageRef<'_>, &Layout),
) -> Result<Matrix<<S::Executor as Executor>::Slice<'a>>> {
    operand::<S>(name, (S::of(storage)?, layout))
}

/// `of` itself where the kernels can read it as it lies, else a copy without gaps. `row_major`: whether it has
/// to be, as activations have.
pub(crate) fn served(of: &Tensor, row_major: bool) -> Result<Tensor> {
    let lies_well = match matrix((), of.layout()) {
        Some(matrix) => !row_major || matrix.major == Major::Row,
        None => false,
    };
    if lies_well { Ok(of.clone()) } else { of.force_contiguous() }
}

pub(crate) fn core_dtype(of: candle_core::DType) -> Result<DType> {
    Ok(match of {
        candle_core::DType::F32 => DType::F32,
        candle_core::DType::F16 => DType::F16,
        candle_core::DType::BF16 => DType::Bf16,
        other => bail!("lora: expected f32, f16 or bf16, got {other:?}"),
    })
}

/// The error for elements of a type that has no kernels.
pub(crate) fn not_served<T>(storage: &impl BackendStorage) -> Result<T> {
    bail!("lora: expected f32, f16 or bf16, got {:?}", storage.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::{Major, Tensor, matrix, served};

    fn tensor(shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
    }

    /// Rows, columns, offset, stride, major; what is `None` is copied.
    type Lies = Option<(usize, usize, usize, usize, Major)>;

    #[test]
    fn views_are_read_where_they_lie() {
        let row = |rows, cols, offset, stride| Some((rows, cols, offset, stride, Major::Row));
        let col = |rows, cols, offset, stride| Some((rows, cols, offset, stride, Major::Col));
        let whole = tensor(&[4, 5, 6]);
        let matrix_of = tensor(&[4, 6]);
        let cases: [(&str, Tensor, Lies); 17] = [
            ("whole", whole.clone(), row(20, 6, 0, 6)),
            ("a vector", tensor(&[6]), row(1, 6, 0, 6)),
            ("one front dimension narrowed", whole.narrow(0, 1, 2).unwrap(), row(10, 6, 30, 6)),
            ("columns narrowed", whole.narrow(2, 2, 3).unwrap(), row(20, 3, 2, 6)),
            ("one of the middle", whole.narrow(1, 3, 1).unwrap(), row(4, 6, 18, 30)),
            ("the middle narrowed", whole.narrow(1, 1, 3).unwrap(), None),
            ("front dimensions exchanged", whole.transpose(0, 1).unwrap(), None),
            ("the last exchanged", whole.transpose(1, 2).unwrap(), None),
            ("transposed", matrix_of.t().unwrap(), col(6, 4, 0, 6)),
            (
                "part of it transposed",
                { matrix_of.narrow(1, 1, 3).unwrap().narrow(0, 2, 2).unwrap().t().unwrap() },
                col(3, 2, 13, 6),
            ),
            ("a row for many", tensor(&[1, 6]).broadcast_as((4, 6)).unwrap(), None),
            ("a column for many", tensor(&[4, 1]).broadcast_as((4, 6)).unwrap(), None),
            ("a row", tensor(&[1, 6]), row(1, 6, 0, 6)),
            ("a column", matrix_of.narrow(1, 2, 1).unwrap(), row(4, 1, 2, 6)),
            ("a column as a row", matrix_of.narrow(1, 2, 1).unwrap().t().unwrap(), col(1, 4, 2, 6)),
            ("no tokens", tensor(&[3, 0, 6]), row(0, 6, 0, 6)),
            ("no rank", tensor(&[6, 0]), row(6, 0, 0, 0)),
        ];
        for (name, view, expected) in cases {
            let got = matrix((), view.layout());
            let got = got.map(|of| (of.rows, of.cols, of.offset, of.stride, of.major));
            assert_eq!(got, expected, "{name}");
            for row_major in [false, true] {
                let copied = served(&view, row_major).unwrap().id() != view.id();
                let expected = expected.is_none_or(|of| row_major && of.4 == Major::Col);
                assert_eq!(copied, expected, "{name}, {row_major}");
            }
        }
        assert!(matrix((), tensor(&[]).layout()).is_none());
    }
}
