//! `cuModule*` and `cuFunc*`.

use std::path::Path;

use super::entries;
use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::ffi::{HostMemory, In, Out, Text};
use crate::objects::{Handle, Site};

entries! {
    cuModuleLoadData: (module: Out<Handle>, image: Text) needs Init => |d, at| {
        let handle = d.load(at, &image.bytes()?)?;
        module.put(handle)
    }
    cuModuleLoadDataEx: (
        module: Out<Handle>,
        image: Text,
        count: u32,
        options: In<u32>,
        values: Out<usize>,
    ) needs Init => |d, at| {
        let options = options.get(count as usize)?;
        load_with_log(d, at, &image, &options, &values, &module)
    }
    cuModuleLoad: (module: Out<Handle>, path: Text) needs Init => |d, at| {
        let path = path.get()?;
        let mut image = std::fs::read(Path::new(&path)).map_err(|error| {
            Error::new(Code::FILE_NOT_FOUND, format!("{path}: {error}"))
        })?;
        if image.last() == Some(&0) {
            image.pop();
        }
        let handle = d.load(at, &image)?;
        module.put(handle)
    }
    cuModuleUnload: (module: Handle) needs Init => |d, at| {
        d.unload(at, module)
    }
    cuModuleGetFunction: (function: Out<Handle>, module: Handle, name: Text) needs Init
        => |d, _at| {
        let handle = d.entry(module, &name.get()?)?;
        function.put(handle)
    }
    cuModuleGetFunctionCount: (count: Out<u32>, module: Handle) needs Init => |d, _at| {
        let entries = d.entries(module)?;
        count.put(entries as u32)
    }
    cuModuleGetGlobal_v2: (
        _address: Out<u64>,
        _bytes: Out<usize>,
        _module: Handle,
        name: Text,
    ) needs Init => |_d, _at| {
        fail(Code::NOT_FOUND, format!("no variable `{}`: modules have none here", name.get()?))
    }
    cuModuleGetLoadingMode: (mode: Out<u32>) needs Init => |_d, _at| {
        // Eager: a text that does not compile is refused when it is loaded.
        mode.put(1)
    }
    cuFuncGetAttribute: (value: Out<i32>, attribute: i32, function: Handle) needs Init
        => |d, _at| {
        let now = d.function_attribute(function, attribute)?;
        value.put(now)
    }
    cuFuncSetAttribute: (function: Handle, attribute: i32, value: i32) needs Init => |d, _at| {
        d.set_function_attribute(function, attribute, value)
    }
    cuFuncSetCacheConfig: (function: Handle, _config: i32) needs Init => |d, _at| {
        d.function(function).map(drop)
    }
    cuFuncSetSharedMemConfig: (function: Handle, _config: i32) needs Init => |d, _at| {
        d.function(function).map(drop)
    }
    cuFuncGetModule: (module: Out<Handle>, function: Handle) needs Init => |d, _at| {
        let owner = d.function(function)?.module;
        module.put(owner)
    }
    cuFuncGetParamInfo: (function: Handle, index: usize, offset: Out<usize>, size: Out<usize>)
        needs Init => |d, _at| {
        let (at, bytes) = d.param_info(function, index)?;
        offset.put(at)?;
        size.put_if_any(bytes);
        Ok(())
    }
    cuFuncIsLoaded: (state: Out<u32>, function: Handle) needs Init => |d, _at| {
        d.function(function)?;
        state.put(1)
    }
    cuFuncLoad: (function: Handle) needs Init => |d, _at| {
        d.function(function).map(drop)
    }
}

const INFO_LOG: u32 = 3;
const INFO_LOG_BYTES: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;
const OPTIONS: u32 = 35;

/// Loads with options of the compiler: its messages go into the caller's buffers.
fn load_with_log(
    d: &mut Driver,
    at: Site,
    image: &Text,
    options: &[u32],
    values: &Out<usize>,
    module: &Out<Handle>,
) -> Res<()> {
    if let Some(option) = options.iter().find(|&&o| o >= OPTIONS) {
        return fail(Code::INVALID_VALUE, format!("compiler option {option}"));
    }
    let loaded = d.load(at, &image.bytes()?);
    let (error, info) = match &loaded {
        Ok(_) => ("", ""),
        Err(error) => (error.message.as_str(), ""),
    };
    for (buffer, size, text) in
        [(ERROR_LOG, ERROR_LOG_BYTES, error), (INFO_LOG, INFO_LOG_BYTES, info)]
    {
        let place = |option| options.iter().position(|&o| o == option);
        let (Some(buffer), Some(size)) = (place(buffer), place(size)) else { continue };
        // The value of a size is the number itself; the driver puts the filled bytes there.
        let room = values.get_at(size)?;
        let filled = text.len().min((room & 0xFFFF_FFFF).saturating_sub(1));
        if room > 0 {
            let mut bytes = text.as_bytes()[..filled].to_vec();
            bytes.push(0);
            HostMemory::at(values.get_at(buffer)?).write(&bytes)?;
        }
        values.put_at(size, filled);
    }
    module.put(loaded?)
}
