//! `cuInit`, `cuDriverGetVersion`, `cuGetError*`, `cuDevice*`.

use std::ffi::c_char;

use super::entries;
use crate::code::{Code, fail};
use crate::ffi::Out;
use crate::objects::Handle;

entries! {
    cuInit: (flags: u32) needs Nothing => |d, _at| {
        d.init(flags)
    }
    cuDriverGetVersion: (version: Out<i32>) needs Nothing => |d, _at| {
        version.put(d.config.version)
    }
    cuGetErrorName: (error: i32, text: Out<*const c_char>) needs Nothing => |_d, _at| {
        match Code(error).texts() {
            Some((name, _)) => text.put(name.as_ptr().cast()),
            None => {
                text.put_if_any(std::ptr::null());
                fail(Code::INVALID_VALUE, format!("{error} is no error of this driver"))
            }
        }
    }
    cuGetErrorString: (error: i32, text: Out<*const c_char>) needs Nothing => |_d, _at| {
        match Code(error).texts() {
            Some((_, words)) => text.put(words.as_ptr().cast()),
            None => {
                text.put_if_any(std::ptr::null());
                fail(Code::INVALID_VALUE, format!("{error} is no error of this driver"))
            }
        }
    }
    cuDeviceGetCount: (count: Out<i32>) needs Init => |_d, _at| {
        count.put(1)
    }
    cuDeviceGet: (device: Out<i32>, ordinal: i32) needs Init => |d, _at| {
        d.device(ordinal)?;
        device.put(ordinal)
    }
    cuDeviceGetName: (name: Out<u8>, len: i32, device: i32) needs Init => |d, _at| {
        d.device(device)?;
        let text = d.device_name();
        let room = usize::try_from(len).unwrap_or(0);
        if room == 0 {
            return fail(Code::INVALID_VALUE, format!("a name of {len} bytes"));
        }
        put_text(&name, &text, room);
        Ok(())
    }
    cuDeviceGetUuid | cuDeviceGetUuid_v2: (uuid: Out<[u8; 16]>, device: i32) needs Init
        => |d, _at| {
        d.device(device)?;
        uuid.put(d.device_uuid())
    }
    cuDeviceGetPCIBusId: (id: Out<u8>, len: i32, device: i32) needs Init => |d, _at| {
        d.device(device)?;
        let text = "0000:00:00.0";
        let room = usize::try_from(len).unwrap_or(0);
        if room <= text.len() {
            return fail(Code::INVALID_VALUE, format!("a bus id of {len} bytes"));
        }
        put_text(&id, text, room);
        Ok(())
    }
    cuDeviceTotalMem_v2: (bytes: Out<usize>, device: i32) needs Init => |d, _at| {
        d.device(device)?;
        bytes.put(d.config.memory as usize)
    }
    cuDeviceGetAttribute: (value: Out<i32>, attribute: i32, device: i32) needs Init => |d, _at| {
        d.device(device)?;
        let now = d.device_attribute(attribute)?;
        value.put(now)
    }
    cuDeviceComputeCapability: (major: Out<i32>, minor: Out<i32>, device: i32) needs Init
        => |d, _at| {
        d.device(device)?;
        major.put(d.device_attribute(75)?)?;
        minor.put(d.device_attribute(76)?)
    }
    cuDeviceGetDefaultMemPool | cuDeviceGetMemPool: (pool: Out<Handle>, device: i32) needs Init
        => |d, _at| {
        d.device(device)?;
        if !d.config.pools {
            return fail(Code::NOT_SUPPORTED, "the device has no memory pools");
        }
        pool.put(POOL)
    }
    cuMemPoolTrimTo: (pool: Handle, _keep: usize) needs Init => |_d, _at| {
        known_pool(pool)
    }
    cuMemPoolSetAttribute: (pool: Handle, attribute: i32, _value: Out<u64>) needs Init
        => |_d, _at| {
        known_pool(pool)?;
        if !(1..=8).contains(&attribute) {
            return fail(Code::INVALID_VALUE, format!("memory pool attribute {attribute}"));
        }
        // How a pool keeps what is freed is nothing that a program could see here.
        Ok(())
    }
}

/// The device's one memory pool.
pub(super) const POOL: Handle = 0x100;

pub(super) fn known_pool(pool: Handle) -> crate::code::Res<()> {
    if pool != POOL {
        return fail(Code::INVALID_HANDLE, format!("{pool:#x} is no memory pool"));
    }
    Ok(())
}

fn put_text(to: &Out<u8>, text: &str, room: usize) {
    for (i, byte) in text.bytes().take(room - 1).chain([0]).enumerate() {
        to.put_at(i, byte);
    }
}
