//! `cuGetProcAddress`: the same functions by their names without suffixes.

use std::ffi::c_void;

use super::entries;
use super::{context, device, graph, launch, memory, module, pointer, refused, stream, tensor};
use crate::code::{Code, fail};
use crate::ffi::{Out, Text};

entries! {
    cuGetProcAddress_v2: (
        symbol: Text,
        address: Out<*const c_void>,
        version: i32,
        flags: u64,
        status: Out<u32>,
    ) needs Nothing => |d, _at| {
        let name = symbol.get()?;
        let found = look_up(d.config.version, &name, version, flags)?;
        status.put_if_any(u32::from(found.is_none()));
        give(&name, found, &address)
    }
    cuGetProcAddress: (symbol: Text, address: Out<*const c_void>, version: i32, flags: u64)
        needs Nothing => |d, _at| {
        let name = symbol.get()?;
        give(&name, look_up(d.config.version, &name, version, flags)?, &address)
    }
}

const PER_THREAD: u64 = 2;

/// The list of what came later than CUDA 12.0; `older` strikes out exports by it.
const NEWER: &str = include_str!("../../newer.txt");

/// Whether a driver of this version has the function.
fn is_of(driver: i32, name: &str) -> bool {
    NEWER.lines().filter(|line| !line.starts_with('#')).all(|line| {
        let mut words = line.split(' ');
        let since = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        since <= driver || words.all(|word| word != name)
    })
}

/// The newest function of a name that a driver of this version has, and the one that means the
/// thread's own stream if that is asked.
fn look_up(
    driver: i32,
    name: &str,
    version: i32,
    flags: u64,
) -> crate::code::Res<Option<*const c_void>> {
    if name.is_empty() || version < 0 || flags > PER_THREAD {
        let message = format!("symbol `{name}`, version {version}, flags {flags:#x}");
        return fail(Code::INVALID_VALUE, message);
    }
    let stems = [format!("{name}_v2"), name.to_owned()];
    let ends: &[&str] = if flags == PER_THREAD { &["_ptsz", "_ptds", ""] } else { &[""] };
    let names = stems.iter().flat_map(|stem| ends.iter().map(move |end| format!("{stem}{end}")));
    // One that is simulated before one that is only there.
    let names: Vec<String> = names.filter(|name| is_of(driver, name)).collect();
    Ok(names
        .iter()
        .find_map(|n| simulated(n))
        .or_else(|| names.iter().find_map(|n| refused::find(n))))
}

fn simulated(name: &str) -> Option<*const c_void> {
    [
        context::find,
        device::find,
        graph::find,
        launch::find,
        memory::find,
        module::find,
        pointer::find,
        stream::find,
        tensor::find,
        find,
    ]
    .iter()
    .find_map(|find| find(name))
}

fn give(
    name: &str,
    found: Option<*const c_void>,
    address: &Out<*const c_void>,
) -> crate::code::Res<()> {
    address.put(found.unwrap_or(std::ptr::null()))?;
    match found {
        Some(_) => Ok(()),
        None => fail(Code::NOT_FOUND, format!("no function `{name}`")),
    }
}
