//! What the tests here share: machines to run a body on (`process`), kernels, and small calls
//! around cudarc.
#![allow(dead_code, unused_imports)] // every test file uses another part

mod process;

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, sys};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) const GEMM_F32: &str = include_str!("../../../ptx-sim/tests/fixtures/gemm_f32.ptx");
pub(crate) const GEMV: &str = include_str!("../../../ptx-sim/tests/fixtures/gemv.ptx");
pub(crate) const GEMM_BF16: &str = include_str!("../../../ptx-sim/tests/fixtures/gemm_bf16.ptx");
pub(crate) const FLAGS: &str = include_str!("../../../ptx-sim/tests/fixtures/flags.ptx");
pub(crate) const SMALL: &str = include_str!("../fixtures/small.ptx");

pub(crate) use process::{Said, driver, is_child};

impl Said {
    /// The body must have run to its end.
    pub(crate) fn well(self) -> Self {
        assert!(self.ok, "{}:\n{}", self.case, self.stderr);
        self
    }

    /// Some line of stderr must hold all of `words`.
    pub(crate) fn reports(self, words: &[&str]) -> Self {
        let found = self.stderr.lines().any(|line| words.iter().all(|w| line.contains(w)));
        assert!(found, "{}: no line with {words:?} in:\n{}", self.case, self.stderr);
        self
    }

    /// No failed check was reported.
    pub(crate) fn clean(self) -> Self {
        let spoken = self.stderr.lines().find(|l| l.starts_with("ptx-sim-driver:"));
        assert!(spoken.is_none(), "{}: {spoken:?}", self.case);
        self
    }
}

/// Runs `body` in a process of its own, on a machine that `variables` describe (names without the
/// prefix). `test` is the calling test's path, `case` tells its bodies apart.
pub(crate) fn simulated(
    test: &str,
    case: &str,
    variables: &[(&str, &str)],
    body: impl FnOnce(),
) -> Said {
    process::run(test, case, Some(variables), &process::driver(), body)
}

/// The same, with the driver in `folder`.
pub(crate) fn in_folder(
    folder: &std::path::Path,
    test: &str,
    case: &str,
    variables: &[(&str, &str)],
    body: impl FnOnce(),
) -> Said {
    process::run(test, case, Some(variables), folder, body)
}

pub(crate) fn device() -> Arc<CudaContext> {
    CudaContext::new(0).expect("the stand-in opens")
}

/// A context that records no events of its own: order is what the test says it is.
pub(crate) fn untracked() -> Arc<CudaContext> {
    let ctx = device();
    // SAFETY: the tests order their streams themselves, or mean to see that they did not.
    unsafe { ctx.disable_event_tracking() };
    ctx
}

pub(crate) fn function(ctx: &Arc<CudaContext>, ptx: &str, name: &str) -> CudaFunction {
    let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(ptx)).expect("the module loads");
    module.load_function(name).expect("the entry is there")
}

/// The code of a call that must fail.
pub(crate) fn code<T>(result: Result<T, DriverError>) -> sys::CUresult {
    match result {
        Ok(_) => panic!("the call should have failed"),
        Err(error) => error.0,
    }
}

pub(crate) fn raw(result: sys::CUresult) -> Result<(), DriverError> {
    result.result()
}

/// Small multiples of 1/8: every product and sum below is exact in f32, in any order.
pub(crate) fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n).map(|_| f32::from(rng.random_range(-16i8..=16)) / 8.0).collect()
}

pub(crate) fn bf16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&v| half::bf16::from_f32(v).to_bits()).collect()
}

/// `c[m,n] = a[m,k] · b`, `b` as [k,n] or, transposed, as [n,k].
pub(crate) fn product(
    a: &[f32],
    b: &[f32],
    (m, n, k): (usize, usize, usize),
    transposed: bool,
) -> Vec<f32> {
    let at = |l: usize, j: usize| b[if transposed { j * k + l } else { l * n + j }];
    (0..m * n)
        .map(|c| {
            let (i, j) = (c / n, c % n);
            (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(at(l, j))).sum::<f64>() as f32
        })
        .collect()
}

pub(crate) type Stream = Arc<CudaStream>;

/// The small kernels, loaded.
pub(crate) struct Small {
    pub(crate) fill: CudaFunction,
    pub(crate) next: CudaFunction,
    pub(crate) next_nc: CudaFunction,
    pub(crate) wait: CudaFunction,
    pub(crate) raise: CudaFunction,
}

impl Small {
    pub(crate) fn new(ctx: &Arc<CudaContext>) -> Self {
        let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(SMALL)).expect("it loads");
        let f = |name| module.load_function(name).expect("the entry is there");
        Small {
            fill: f("fill"),
            next: f("next"),
            next_nc: f("next_nc"),
            wait: f("wait"),
            raise: f("raise"),
        }
    }
}

/// Launches one block of `threads` with parameters of 8 bytes each; the kernel takes the low half
/// where it wants 4.
pub(crate) fn launch(
    f: &CudaFunction,
    threads: u32,
    stream: sys::CUstream,
    params: &[u64],
) -> Result<(), DriverError> {
    let mut pointers: Vec<*mut std::ffi::c_void> =
        params.iter().map(|p| std::ptr::from_ref(p).cast_mut().cast()).collect();
    // SAFETY: each parameter has at least the bytes that the entry takes.
    unsafe {
        cudarc::driver::result::launch_kernel(
            f.cu_function(),
            (1, 1, 1),
            (threads, 1, 1),
            0,
            stream,
            &mut pointers,
        )
    }
}

pub(crate) const LEGACY: sys::CUstream = std::ptr::null_mut();

/// 64 words of device memory that all streams may use.
pub(crate) fn words() -> u64 {
    // SAFETY: a context is current.
    unsafe { cudarc::driver::result::malloc_sync(256) }.expect("there is memory")
}

/// 64 words of zero that all streams may use.
pub(crate) fn zeros() -> u64 {
    let at = words();
    // SAFETY: the range is allocated.
    unsafe { cudarc::driver::result::memset_d8_sync(at, 0, 256) }.expect("it is filled");
    cudarc::driver::result::ctx::synchronize().expect("the device works");
    at
}

/// Reads words by the synchronous copy.
pub(crate) fn read(at: u64, n: usize) -> Result<Vec<u32>, DriverError> {
    let mut out = vec![0; n];
    // SAFETY: the destination is as long as the copy.
    unsafe { cudarc::driver::result::memcpy_dtoh_sync(&mut out, at) }?;
    Ok(out)
}

/// `from`, `from` + 1, …
pub(crate) fn count(from: u32, n: u32) -> Vec<u32> {
    (from..from + n).collect()
}
