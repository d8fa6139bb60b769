//! cuBLAS and cuBLASLt: whether they can be loaded, their handles, and one product as a call.
//! cudarc panics where a library or a function is missing, so nothing of it is called before
//! [`probe`] has looked.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};
use core::ptr;
use std::rc::Rc;
use std::sync::Arc;

use fused_lora::DType;
use fused_lora::cuda::cudarc;
use fused_lora::cuda::cudarc::cublas::sys as ex;
use fused_lora::cuda::cudarc::cublaslt::sys as lt;
use fused_lora::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use super::super::column::Gemm;
use super::super::common::Result;
use super::super::common::shapes::Cell;
use super::super::products::{Product, dtype};

/// Bytes that a product may use: twice what NVIDIA proposes for Hopper.
const WORKSPACE: usize = 64 << 20;

/// What is called of each library.
const FUNCTIONS: [(&str, &[&str]); 2] = [
    (
        "cublas",
        &[
            "cublasCreate_v2",
            "cublasDestroy_v2",
            "cublasSetStream_v2",
            "cublasSetWorkspace_v2",
            "cublasGetVersion_v2",
            "cublasGemmEx",
        ],
    ),
    (
        "cublasLt",
        &[
            "cublasLtCreate",
            "cublasLtDestroy",
            "cublasLtMatmul",
            "cublasLtMatmulAlgoGetHeuristic",
            "cublasLtMatmulDescCreate",
            "cublasLtMatmulDescDestroy",
            "cublasLtMatmulDescSetAttribute",
            "cublasLtMatmulPreferenceCreate",
            "cublasLtMatmulPreferenceDestroy",
            "cublasLtMatmulPreferenceSetAttribute",
            "cublasLtMatrixLayoutCreate",
            "cublasLtMatrixLayoutDestroy",
        ],
    ),
];

/// Whether the libraries are there, under the names that cudarc looks for and in its order, with
/// all that is called here; else what is missing.
fn probe() -> Result<(), String> {
    for (library, functions) in FUNCTIONS {
        let names = cudarc::get_lib_name_candidates(library);
        // SAFETY: what a library does when it is loaded is its own business; cudarc would load
        // the same file under the same name.
        let open = |name: &String| unsafe { libloading::Library::new(name) }.ok();
        let Some(loaded) = names.iter().find_map(open) else {
            let (Some(first), Some(last)) = (names.first(), names.last()) else { continue };
            return Err(format!("none of {} names, {first} to {last}, can be loaded", names.len()));
        };
        for function in functions {
            // SAFETY: only whether the symbol is there is looked at; it is not called.
            let found = unsafe { loaded.get::<unsafe extern "C" fn()>(function.as_bytes()) };
            found.map_err(|error| format!("{library} has no {function}: {error}"))?;
        }
        // Loading it twice would cost a second.
        core::mem::forget(loaded);
    }
    Ok(())
}

/// The handles, on one stream.
pub struct Library {
    lt: lt::cublasLtHandle_t,
    ex: ex::cublasHandle_t,
    stream: Arc<CudaStream>,
    /// Kept for its bytes.
    _workspace: CudaSlice<u8>,
    workspace: u64,
    /// Whether f32 may be rounded to tf32.
    tf32: bool,
}

/// The error of a failed call.
fn failed(call: &str, status: impl core::fmt::Debug) -> super::super::common::Error {
    format!("{call}: {status:?}").into()
}

fn check_lt(call: &str, status: lt::cublasStatus_t) -> Result<()> {
    if status == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        Ok(())
    } else {
        Err(failed(call, status))
    }
}

fn check_ex(call: &str, status: ex::cublasStatus_t) -> Result<()> {
    if status == ex::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        Ok(())
    } else {
        Err(failed(call, status))
    }
}

impl Library {
    /// On `stream`, after [`probe`] has found the libraries.
    pub fn new(stream: &Arc<CudaStream>, tf32: bool) -> Result<Library> {
        probe()?;
        stream.context().bind_to_thread()?;
        let memory = stream.alloc_zeros::<u8>(WORKSPACE)?;
        let (workspace, guard) = memory.device_ptr(stream);
        // One stream does everything, so there is nothing to be recorded.
        core::mem::forget(guard);
        let mut library = Library {
            lt: ptr::null_mut(),
            ex: ptr::null_mut(),
            stream: stream.clone(),
            _workspace: memory,
            workspace,
            tf32,
        };
        // SAFETY: each call is given handles that the calls before it made, in the primary
        // context, which is current; the workspace lives as long as the handle. What is left of
        // a failure is dropped with `library`.
        unsafe {
            check_lt("cublasLtCreate", lt::cublasLtCreate(&mut library.lt))?;
            check_ex("cublasCreate", ex::cublasCreate_v2(&mut library.ex))?;
            let stream = stream.cu_stream().cast();
            check_ex("cublasSetStream", ex::cublasSetStream_v2(library.ex, stream))?;
            let memory = library.workspace as *mut c_void;
            check_ex(
                "cublasSetWorkspace",
                ex::cublasSetWorkspace_v2(library.ex, memory, WORKSPACE),
            )?;
        }
        Ok(library)
    }

    /// As `12.4.5`.
    pub fn version(&self) -> String {
        let mut version = 0;
        // SAFETY: the handle is alive, and the pointer to a number.
        let status = unsafe { ex::cublasGetVersion_v2(self.ex, &mut version) };
        match check_ex("cublasGetVersion", status) {
            // Since 11 as 10000·major + 100·minor + patch.
            Ok(()) => format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100),
            Err(error) => error.to_string(),
        }
    }

    pub fn wait(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    /// Kernels for a product: `most` of cuBLASLt's, best first by its own estimate, and whatever
    /// `cublasGemmEx` takes. `align` are bytes that divide the addresses.
    pub fn kernels<'a>(
        &'a self,
        product: &Product,
        cell: Cell,
        gemm: &Gemm,
        align: [u32; 3],
        most: usize,
    ) -> Result<Vec<Kernel<'a>>> {
        let types = [product.rhs, product.lhs, product.out].map(|view| dtype(cell, view.name));
        let beta = if product.add { 1.0 } else { 0.0 };
        let kernel = |how| Kernel { library: self, gemm: *gemm, types, beta, how };
        let described = Rc::new(Described::new(gemm, types, self.compute_lt(types))?);
        let mut kernels = vec![kernel(How::Ex)];
        for (rank, of) in described.heuristics(self.lt, align, most)?.into_iter().enumerate() {
            let described = described.clone();
            kernels.push(kernel(How::Lt { rank, described, algorithm: of.algo }));
        }
        Ok(kernels)
    }

    fn is_tf32(&self, types: [DType; 3]) -> bool {
        self.tf32 && types[0] == DType::F32
    }

    fn compute_lt(&self, types: [DType; 3]) -> lt::cublasComputeType_t {
        match self.is_tf32(types) {
            true => lt::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => lt::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        }
    }

    fn compute_ex(&self, types: [DType; 3]) -> ex::cublasComputeType_t {
        match self.is_tf32(types) {
            true => ex::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => ex::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // What still runs uses the workspace. An error leaves nothing to be done.
        let _ = self.stream.synchronize();
        // SAFETY: the handles are ours and used by nobody from here on: kernels borrow this.
        unsafe {
            if !self.ex.is_null() {
                let _ = ex::cublasDestroy_v2(self.ex);
            }
            if !self.lt.is_null() {
                let _ = lt::cublasLtDestroy(self.lt);
            }
        }
    }
}

/// cuBLASLt's words for one product, freed when dropped.
struct Described {
    product: lt::cublasLtMatmulDesc_t,
    layouts: [lt::cublasLtMatrixLayout_t; 3],
}

fn type_lt(dtype: DType) -> lt::cudaDataType_t {
    match dtype {
        DType::F32 => lt::cudaDataType_t::CUDA_R_32F,
        DType::F16 => lt::cudaDataType_t::CUDA_R_16F,
        DType::Bf16 => lt::cudaDataType_t::CUDA_R_16BF,
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

impl Described {
    fn new(gemm: &Gemm, types: [DType; 3], compute: lt::cublasComputeType_t) -> Result<Described> {
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
                let operation = operation_ex(transposed);
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

    fn heuristics(
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
                        self.library.compute_ex(self.types),
                        ex::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
                    )
                };
                check_ex("cublasGemmEx", status)
            }
        }
    }
}
