//! One product by one of cuBLAS's kernels, as a call. Made for `mod.rs`, which times them.

use core::ffi::c_void;
use std::rc::Rc;

use fused_lora::DType;
use fused_lora::cuda::cudarc::cublas::sys as ex;
use fused_lora::cuda::cudarc::cublaslt::sys as lt;

use super::super::column::Gemm;
use super::super::common::Result;
use super::super::common::shapes::Cell;
use super::super::products::{Product, dtype};
use super::described::Described;
use super::library::{Library, WORKSPACE, check_ex, check_lt};

/// One product by one kernel.
pub struct Kernel<'a> {
    library: &'a Library,
    gemm: Gemm,
    types: [DType; 3],
    beta: f32,
    how: How,
}

enum How {
    Ex,
    Lt { rank: usize, described: Rc<Described>, algorithm: lt::cublasLtMatmulAlgo_t },
}

/// Kernels for a product: `most` of cuBLASLt's, and whatever `cublasGemmEx` takes. `align` are bytes
/// that divide the addresses of A, B and C.
pub fn kernels<'a>(
    library: &'a Library,
    product: &Product,
    cell: Cell,
    gemm: &Gemm,
    align: [u32; 3],
    most: usize,
) -> Result<Vec<Kernel<'a>>> {
    let types = [product.rhs, product.lhs, product.out].map(|view| dtype(cell, view.name));
    let beta = if product.add { 1.0 } else { 0.0 };
    let kernel = |how| Kernel { library, gemm: *gemm, types, beta, how };
    let described = Rc::new(Described::new(gemm, types, compute_lt(library, types))?);
    let mut kernels = vec![kernel(How::Ex)];
    for (rank, of) in described.heuristics(library.lt, align, most)?.into_iter().enumerate() {
        let described = described.clone();
        kernels.push(kernel(How::Lt { rank, described, algorithm: of.algo }));
    }
    Ok(kernels)
}

impl Kernel<'_> {
    /// `GemmEx`, or which of the heuristics' proposals.
    pub fn name(&self) -> String {
        match &self.how {
            How::Ex => "GemmEx".to_owned(),
            How::Lt { rank, .. } => format!("Lt {}", rank + 1),
        }
    }

    /// Sends it to the stream, with A, B and C at `addresses`: matrices of the product's
    /// layouts, which live until the stream is done.
    pub fn call(&self, addresses: [u64; 3]) -> Result<()> {
        let Library { lt, ex, stream, workspace, .. } = self.library;
        let (alpha, beta) = (1f32, self.beta);
        let [alpha, beta]: [*const c_void; 2] =
            [(&raw const alpha).cast(), (&raw const beta).cast()];
        let [a, b, c] = addresses.map(|address| address as *mut c_void);
        match &self.how {
            // SAFETY: handles and layouts are alive, scalars f32 as they were described; the
            // addresses are those of matrices of these layouts (`mod.rs` takes both from one
            // product); the workspace has as many bytes as is said, and the stream uses it in
            // order.
            How::Lt { described, algorithm, .. } => unsafe {
                let [a_layout, b_layout, c_layout] = described.layouts;
                let status = lt::cublasLtMatmul(
                    *lt,
                    described.product,
                    alpha,
                    a,
                    a_layout,
                    b,
                    b_layout,
                    beta,
                    c,
                    c_layout,
                    c,
                    c_layout,
                    algorithm,
                    *workspace as *mut c_void,
                    WORKSPACE,
                    stream.cu_stream().cast(),
                );
                check_lt("cublasLtMatmul", status)
            },
            How::Ex => {
                let Gemm { transposed, size, leading } = self.gemm;
                let int = |value: usize| i32::try_from(value).map_err(|_| "a matrix beyond GemmEx");
                let ([m, n, k], [lda, ldb, ldc]) = (size, leading);
                let [a_type, b_type, c_type] = self.types.map(type_ex);
                // SAFETY: as above; the handle has its stream and workspace.
                let status = unsafe {
                    ex::cublasGemmEx(
                        *ex,
                        operation_ex(transposed[0]),
                        operation_ex(transposed[1]),
                        int(m)?,
                        int(n)?,
                        int(k)?,
                        alpha,
                        a,
                        a_type,
                        int(lda)?,
                        b,
                        b_type,
                        int(ldb)?,
                        beta,
                        c,
                        c_type,
                        int(ldc)?,
                        compute_ex(self.library, self.types),
                        ex::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
                    )
                };
                check_ex("cublasGemmEx", status)
            }
        }
    }
}

fn is_tf32(library: &Library, types: [DType; 3]) -> bool {
    library.tf32 && types[0] == DType::F32
}

fn compute_lt(library: &Library, types: [DType; 3]) -> lt::cublasComputeType_t {
    match is_tf32(library, types) {
        true => lt::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        false => lt::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    }
}

fn compute_ex(library: &Library, types: [DType; 3]) -> ex::cublasComputeType_t {
    match is_tf32(library, types) {
        true => ex::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        false => ex::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    }
}

fn type_ex(dtype: DType) -> ex::cudaDataType_t {
    match dtype {
        DType::F32 => ex::cudaDataType_t::CUDA_R_32F,
        DType::F16 => ex::cudaDataType_t::CUDA_R_16F,
        DType::Bf16 => ex::cudaDataType_t::CUDA_R_16BF,
    }
}

/// As the libraries number it: 0 as it is stored, 1 transposed.
fn operation_ex(transposed: bool) -> ex::cublasOperation_t {
    match transposed {
        true => ex::cublasOperation_t::CUBLAS_OP_T,
        false => ex::cublasOperation_t::CUBLAS_OP_N,
    }
}
