//! One product in cuBLASLt's words, and what its heuristics propose for it. Used by `kernel`.

use core::mem::{MaybeUninit, size_of};
use core::ptr;

use fused_lora::DType;
use fused_lora::cuda::cudarc::cublaslt::sys as lt;

use super::super::column::Gemm;
use super::super::common::Result;
use super::library::{WORKSPACE, check_lt};

/// The descriptors of one product, freed when dropped.
pub struct Described {
    pub product: lt::cublasLtMatmulDesc_t,
    /// Of A, B and C.
    pub layouts: [lt::cublasLtMatrixLayout_t; 3],
}

fn type_lt(dtype: DType) -> lt::cudaDataType_t {
    match dtype {
        DType::F32 => lt::cudaDataType_t::CUDA_R_32F,
        DType::F16 => lt::cudaDataType_t::CUDA_R_16F,
        DType::Bf16 => lt::cudaDataType_t::CUDA_R_16BF,
    }
}

/// As the library numbers it: 0 as it is stored, 1 transposed.
fn operation(transposed: bool) -> i32 {
    i32::from(transposed)
}

impl Described {
    /// Sums are as `compute` says, the scalars f32.
    pub fn new(
        gemm: &Gemm,
        types: [DType; 3],
        compute: lt::cublasComputeType_t,
    ) -> Result<Described> {
        use lt::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
        };
        let mut of = Described { product: ptr::null_mut(), layouts: [ptr::null_mut(); 3] };
        let scalars = lt::cudaDataType_t::CUDA_R_32F;
        // SAFETY: the places for the new handles are ours; what is made before a failure is
        // freed with `of`. Attributes are read from an operation of their type and size.
        unsafe {
            let made = lt::cublasLtMatmulDescCreate(&mut of.product, compute, scalars);
            check_lt("cublasLtMatmulDescCreate", made)?;
            let places = [CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB];
            for (place, transposed) in places.into_iter().zip(gemm.transposed) {
                let operation = operation(transposed);
                let (value, bytes) = ((&raw const operation).cast(), size_of_val(&operation));
                let set = lt::cublasLtMatmulDescSetAttribute(of.product, place, value, bytes);
                check_lt("cublasLtMatmulDescSetAttribute", set)?;
            }
            let all = gemm.stored().into_iter().zip(gemm.leading).zip(types);
            for (layout, (([rows, cols], leading), dtype)) in of.layouts.iter_mut().zip(all) {
                let made = lt::cublasLtMatrixLayoutCreate(
                    layout,
                    type_lt(dtype),
                    rows as u64,
                    cols as u64,
                    leading as i64,
                );
                check_lt("cublasLtMatrixLayoutCreate", made)?;
            }
        }
        Ok(of)
    }

    /// At most `most` kernels, best first by the library's own estimate. `align` are bytes that
    /// divide the addresses of A, B and C.
    pub fn heuristics(
        &self,
        handle: lt::cublasLtHandle_t,
        align: [u32; 3],
        most: usize,
    ) -> Result<Vec<lt::cublasLtMatmulHeuristicResult_t>> {
        use lt::cublasLtMatmulPreferenceAttributes_t::*;
        let [a, b, c] = self.layouts;
        let mut preference = Preference(ptr::null_mut());
        let mut results = vec![MaybeUninit::zeroed(); most];
        let mut found = 0;
        // SAFETY: handles are alive, values of the types and sizes that the attributes have, and
        // there is room for as many results as are asked for.
        unsafe {
            let made = lt::cublasLtMatmulPreferenceCreate(&mut preference.0);
            check_lt("cublasLtMatmulPreferenceCreate", made)?;
            preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
            preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[0])?;
            preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[1])?;
            preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2])?;
            preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2])?;
            let status = lt::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.product,
                a,
                b,
                c,
                c,
                preference.0,
                most as i32,
                results.as_mut_ptr().cast(),
                &mut found,
            );
            // What it does not serve is `cublasGemmEx`'s.
            if status == lt::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
                return Ok(Vec::new());
            }
            check_lt("cublasLtMatmulAlgoGetHeuristic", status)?;
        }
        results.truncate(usize::try_from(found).unwrap_or(0));
        // SAFETY: the library has written as many as it says.
        let results = results.into_iter().map(|result| unsafe { result.assume_init() });
        let usable = |of: &lt::cublasLtMatmulHeuristicResult_t| {
            of.state == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS && of.workspaceSize <= WORKSPACE
        };
        Ok(results.filter(usable).collect())
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        // SAFETY: what is not null was made by `new` and belongs to this alone.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = lt::cublasLtMatrixLayoutDestroy(layout);
            }
            if !self.product.is_null() {
                let _ = lt::cublasLtMatmulDescDestroy(self.product);
            }
        }
    }
}

/// What the heuristics are told.
struct Preference(lt::cublasLtMatmulPreference_t);

impl Preference {
    /// # Safety
    /// `T` is the type of the attribute.
    unsafe fn set<T>(&self, of: lt::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Result<()> {
        // SAFETY: the preference is alive, and as many bytes are read as a `T` has.
        let status = unsafe {
            let value = ptr::from_ref(value).cast();
            lt::cublasLtMatmulPreferenceSetAttribute(self.0, of, value, size_of::<T>())
        };
        check_lt("cublasLtMatmulPreferenceSetAttribute", status)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was made by `heuristics` and is used by nobody else.
            let _ = unsafe { lt::cublasLtMatmulPreferenceDestroy(self.0) };
        }
    }
}
