//! Runs a test's body in a process of its own, with the stand-in on the library path and the
//! environment of one machine: one process is one machine. Shared by all tests here.
#![allow(dead_code)] // every test file uses another part

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, sys};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) const GEMM_F32: &str = include_str!("../../../ptx-sim/tests/fixtures/gemm_f32.ptx");
pub(crate) const GEMV: &str = include_str!("../../../ptx-sim/tests/fixtures/gemv.ptx");
pub(crate) const GEMM_BF16: &str = include_str!("../../../ptx-sim/tests/fixtures/gemm_bf16.ptx");
pub(crate) const FLAGS: &str = include_str!("../../../ptx-sim/tests/fixtures/flags.ptx");
pub(crate) const SMALL: &str = include_str!("../fixtures/small.ptx");

/// Names the body that a child process is to run.
const CASE: &str = "DRIVER_TEST_CASE";
const RAN: &str = "driver test case ran to its end";

/// What a child process said.
pub(crate) struct Said {
    case: String,
    pub(crate) ok: bool,
    pub(crate) stderr: String,
}

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

/// The folder that holds the stand-in under a driver's names, as users place it.
fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("the test knows where it is");
        let deps = test.parent().expect("the test lies in a folder");
        // Cargo builds the library of a package before its tests, into the same folder.
        let built = deps.join("libptx_sim_driver.so");
        assert!(built.exists(), "{} is missing: was the stand-in built?", built.display());
        let folder = deps.join("ptx-sim-driver");
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        for name in ["libcuda.so", "libcuda.so.1"] {
            let link = folder.join(name);
            match std::os::unix::fs::symlink(&built, &link) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => panic!("{e}"),
                _ => {}
            }
        }
        folder
    })
}

/// Runs `body` in a process of its own, on a machine that `variables` describe (names without the
/// prefix). `test` is the calling test's path, `case` tells its bodies apart.
pub(crate) fn simulated(
    test: &str,
    case: &str,
    variables: &[(&str, &str)],
    body: impl FnOnce(),
) -> Said {
    let name = format!("{test}/{case}");
    if let Ok(wanted) = std::env::var(CASE) {
        if wanted == name {
            body();
            eprintln!("{RAN}");
            std::process::exit(0);
        }
        return Said { case: name, ok: true, stderr: String::new() };
    }
    let mut child = Command::new(std::env::current_exe().expect("the test knows where it is"));
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PTX_SIM_") {
            child.env_remove(variable);
        }
    }
    for (variable, value) in variables {
        child.env(format!("PTX_SIM_{variable}"), value);
    }
    let output = child
        .env(CASE, &name)
        .env("LD_LIBRARY_PATH", library())
        .output()
        .expect("the test can be started again");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let ok = output.status.success() && stderr.contains(RAN);
    Said { case: format!("{name} {variables:?}"), ok, stderr }
}

/// In a child process, whether this is its body: checks after [`simulated`] are the parent's.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CASE).is_some()
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
