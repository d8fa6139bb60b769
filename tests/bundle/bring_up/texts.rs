//! Stage 2: every text that the library embeds, compiled by the driver's own compiler: how long it takes, what
//! it needs, and whether as many CTAs fit as the plan counts on. Called by `main`; texts are found by
//! the list that the build has written, so that a new one is in it by being there.

use std::ffi::{CStr, CString, c_void};
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use fused_lora::cuda::cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute};

use crate::device::Card;
use crate::{Options, Result};

/// Compiled at once, each in a process of its own: a context compiles one text at a time.
const AT_ONCE: usize = 8;
/// Bytes that the system keeps of every CTA.
const KEPT: u32 = 1024;
const HEAD: &str = "text,milliseconds,registers,local_bytes,shared_bytes,ctas,planned_ctas";

#[path = "../../../kernels/embedded.rs"]
mod embedded;
#[path = "../../../kernels/numbers.rs"]
#[expect(dead_code, reason = "the plan reads more of them")]
mod numbers;

/// The list as the build wrote it: names of enums as they are.
mod table {
    use super::Variant;
    use super::embedded::Embedded;
    use super::numbers::Kind::*;
    use super::numbers::Numbers;
    use super::numbers::Tile::*;
    use fused_lora::DType::{Bf16, F16, F32};

    include!(concat!(env!("OUT_DIR"), "/cuda_texts.rs"));
}

/// A row of it.
struct Variant {
    name: &'static str,
    numbers: numbers::Numbers,
    embedded: embedded::Embedded,
}

impl Variant {
    const fn new(
        name: &'static str,
        numbers: numbers::Numbers,
        _key: u64,
        embedded: embedded::Embedded,
    ) -> Variant {
        Variant { name, numbers, embedded }
    }
}

/// All texts.
fn all() -> impl Iterator<Item = &'static Variant> {
    table::ALL.iter().flat_map(|of| of.iter())
}

/// Names of all texts.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|of| of.name)
}

pub(crate) fn run(options: &Options) -> Result {
    if let Some(part) = &options.part {
        return compile(part);
    }
    let start = Instant::now();
    let at_once = AT_ONCE.min(std::thread::available_parallelism()?.get());
    let children: Vec<Child> = (0..at_once)
        .map(|at| {
            let mut child = Command::new(std::env::current_exe()?);
            child.args(["--stage", "texts", "--part", &format!("{at}/{at_once}")]);
            child.stdout(Stdio::piped()).spawn()
        })
        .collect::<Result<_, _>>()?;
    let (mut rows, mut failed) = (Vec::new(), 0);
    for child in children {
        let ended = child.wait_with_output()?;
        failed += usize::from(!ended.status.success());
        rows.extend(String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned));
    }
    rows.sort();
    std::fs::write(options.out.join("texts.csv"), format!("{HEAD}\n{}\n", rows.join("\n")))?;
    let seconds = start.elapsed().as_secs_f64();
    let of = |row: &String| row.split(',').nth(1).and_then(|of| of.parse::<f64>().ok());
    let times: Vec<f64> = rows.iter().filter_map(of).collect();
    let (sum, most) = (times.iter().sum::<f64>(), times.iter().fold(0f64, |a, &b| a.max(b)));
    let texts = all().count();
    println!(
        "* {} texts in {seconds:.1} s, {at_once} at once; {:.0} ms each, at most {most:.0}",
        rows.len(),
        sum / rows.len().max(1) as f64,
    );
    if failed > 0 || rows.len() != texts {
        return Err(format!("{} of {texts} texts compiled as planned", rows.len()).into());
    }
    Ok(())
}

/// One part of all, a row each; those that do not do as planned on stderr.
fn compile(part: &str) -> Result {
    let (at, of) = part.split_once('/').ok_or("a part is written as 3/8")?;
    let (at, of): (usize, usize) = (at.parse()?, of.parse()?);
    let card = Card::open()?;
    let per_sm = card
        .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?;
    let mut refused = 0;
    for variant in all().skip(at).step_by(of) {
        match compiled(variant, per_sm) {
            Ok(row) => println!("{row}"),
            Err(why) => {
                eprintln!("{}: {why}", variant.name);
                refused += 1;
            }
        }
    }
    match refused {
        0 => Ok(()),
        _ => Err(format!("{refused} texts of part {part} refused").into()),
    }
}

/// A row of the table. The card's context is current.
fn compiled(variant: &Variant, per_sm: u32) -> Result<String> {
    let numbers = &variant.numbers;
    let (text, entry) =
        (CString::new(&*variant.embedded.text())?, CString::new(numbers.kind.entry())?);
    let mut log = vec![0u8; 8 << 10];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // The driver takes numbers in place of pointers.
    let size = std::ptr::without_provenance_mut::<c_void>(log.len());
    let mut values = [log.as_mut_ptr().cast::<c_void>(), size];
    let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
    let start = Instant::now();
    // SAFETY: the text ends with a zero, and there are as many values as options, of the kinds that these
    // take: a buffer that outlives the call, its size.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let said = CStr::from_bytes_until_nul(&log)?.to_string_lossy().into_owned();
    code.result().map_err(|error| format!("{error}: {said}"))?;
    // SAFETY: the module was loaded just now, and the name ends with a zero.
    unsafe { sys::cuModuleGetFunction(&mut function, module, entry.as_ptr()) }.result()?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let attribute = |of| -> Result<u32> {
        let mut value = 0;
        // SAFETY: the function is of a module that is loaded; the driver writes one number.
        unsafe { sys::cuFuncGetAttribute(&mut value, of, function) }.result()?;
        Ok(u32::try_from(value)?)
    };
    let registers = attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?;
    let local = attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?;
    let shared = attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
    let bytes = i32::try_from(numbers.smem_bytes + numbers.aside_bytes)?;
    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: as above.
    unsafe { sys::cuFuncSetAttribute(function, most, bytes) }.result()?;
    let (mut fit, threads) = (0, i32::try_from(numbers.threads)?);
    // SAFETY: as above.
    unsafe {
        sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &mut fit,
            function,
            threads,
            bytes as usize,
        )
    }
    .result()?;
    // As the plan has it.
    let planned = (per_sm / (bytes as u32 + KEPT)).clamp(1, numbers.resident.max(1) as u32);
    // SAFETY: nothing runs in it.
    unsafe { sys::cuModuleUnload(module) }.result()?;
    let mut wrong = String::new();
    if local > 0 {
        write!(wrong, "{local} bytes of local memory a thread; ")?;
    }
    if (fit as u32) < planned {
        write!(wrong, "{fit} CTAs fit a multiprocessor, the plan counts on {planned}; ")?;
    }
    match wrong.is_empty() {
        true => Ok(format!(
            "{},{milliseconds:.1},{registers},{local},{shared},{fit},{planned}",
            variant.name
        )),
        false => Err(wrong.into()),
    }
}
