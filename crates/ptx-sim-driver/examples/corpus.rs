//! Runs the conformance corpus on the GPU whose driver the library path leads to, and writes what it gave:
//!
//! ```text
//! cargo run --release -p ptx-sim-driver --example corpus -- crates/ptx-sim/tests/corpus/vectors.txt
//! ```
//!
//! The file is written anew; `cargo test -p ptx-sim --test corpus` holds the simulator to it. Probes for a newer
//! target than the GPU's are left out and named. On the simulated driver nothing is written: its results
//! are compared with nothing but themselves.

#[path = "../../ptx-sim/tests/corpus/probes.rs"]
mod probes;
#[path = "../../ptx-sim/tests/corpus/vectors.rs"]
#[allow(dead_code)] // the replay reads what is written here
mod vectors;

use std::ffi::c_void;
use std::process::ExitCode;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DevicePtr, sys};
use probes::{Probe, Tensor};

type Failure = Box<dyn std::error::Error>;

/// By value, as a kernel takes it.
#[repr(C, align(128))]
struct Map([u8; 128]);

fn map(tensor: &Tensor, address: u64) -> Result<Map, Failure> {
    use sys::CUtensorMapDataType as Type;
    use sys::CUtensorMapSwizzle as Swizzle;
    let mut map = Map([0; 128]);
    let steps = vec![1u32; tensor.dims.len()];
    let mut strides = Vec::new();
    let mut stride = u64::from(tensor.element);
    for dim in &tensor.dims[..tensor.dims.len() - 1] {
        stride *= dim;
        strides.push(stride);
    }
    let ty = match tensor.element {
        2 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        _ => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    };
    let swizzle = match tensor.swizzle {
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
    };
    // SAFETY: the arrays have as many elements as the rank says; the map is aligned and large enough.
    let code = unsafe {
        sys::cuTensorMapEncodeTiled(
            (&raw mut map).cast(),
            ty,
            tensor.dims.len() as u32,
            address as *mut c_void,
            tensor.dims.as_ptr(),
            strides.as_ptr(),
            tensor.boxes.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    code.result()?;
    Ok(map)
}

fn run(ctx: &Arc<CudaContext>, p: &Probe) -> Result<Vec<u32>, Failure> {
    let stream = ctx.default_stream();
    let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(&p.text))?;
    let f = module.load_function("f")?;
    let input = stream.clone_htod(&p.input)?;
    let out = stream.alloc_zeros::<u32>(p.words)?;
    let (at_in, at_out) = (input.device_ptr(&stream).0, out.device_ptr(&stream).0);
    let map = match &p.tensor {
        Some(tensor) => map(tensor, if tensor.out { at_out } else { at_in })?,
        None => Map([0; 128]),
    };
    let mut params: [*mut c_void; 3] = [
        std::ptr::from_ref(&at_out).cast_mut().cast(),
        std::ptr::from_ref(&at_in).cast_mut().cast(),
        std::ptr::from_ref(&map).cast_mut().cast(),
    ];
    // SAFETY: the parameters are the entry's, and live.
    unsafe {
        cudarc::driver::result::launch_kernel(
            f.cu_function(),
            (1, 1, 1),
            (p.threads, 1, 1),
            p.shared,
            stream.cu_stream(),
            &mut params,
        )?;
    }
    Ok(stream.clone_dtoh(&out)?)
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("takes the file to write");
        return ExitCode::FAILURE;
    };
    match record(&file) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn record(file: &str) -> Result<String, Failure> {
    let ctx = CudaContext::new(0)?;
    let gpu = ctx.name()?;
    let (major, minor) = ctx.compute_capability()?;
    let capability = 10 * major + minor;
    let mut lines: Vec<String> = match std::fs::read_to_string(file) {
        Ok(old) => old.lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    };
    lines.retain(|l| !l.contains("None has been recorded yet"));
    let (mut done, mut left) = (0, Vec::new());
    for p in probes::all() {
        let target = p.text.lines().find_map(|l| l.strip_prefix(".target sm_")).unwrap_or("80");
        let own = target.strip_suffix('a').map(|n| n.parse() == Ok(capability));
        if !own.unwrap_or_else(|| target.parse().is_ok_and(|n: i32| n <= capability)) {
            left.push(p.name);
            continue;
        }
        let words = run(&ctx, &p).map_err(|e| format!("{}: {e}", p.name))?;
        lines.push(vectors::line(&p, &gpu, &words));
        done += 1;
    }
    let left: String = left.iter().map(|name| format!("\n  left out: {name}")).collect();
    if gpu.starts_with("ptx-sim") {
        return Ok(format!(
            "{done} probes ran on the simulated driver ({gpu}); nothing is written{left}"
        ));
    }
    std::fs::write(file, lines.join("\n") + "\n")?;
    Ok(format!("{done} probes recorded on {gpu}{left}"))
}
