//! `cuCtx*`, `cuDevicePrimaryCtx*`.

use std::ffi::c_void;

use super::entries;
use crate::code::{Code, fail};
use crate::ffi::{In, Out};
use crate::objects::Handle;
use crate::stream::PRIORITIES;

entries! {
    cuDevicePrimaryCtxRetain: (ctx: Out<Handle>, device: i32) needs Init => |d, _at| {
        let handle = d.retain_primary(device)?;
        ctx.put(handle)
    }
    cuDevicePrimaryCtxRelease | cuDevicePrimaryCtxRelease_v2: (device: i32) needs Init => |d, at| {
        d.release_primary(at, device)
    }
    cuDevicePrimaryCtxReset | cuDevicePrimaryCtxReset_v2: (device: i32) needs Init => |d, at| {
        d.reset_primary(at, device)
    }
    cuDevicePrimaryCtxSetFlags | cuDevicePrimaryCtxSetFlags_v2: (device: i32, flags: u32) needs Init
        => |d, _at| {
        d.device(device)?;
        d.primary.flags = flags;
        Ok(())
    }
    cuDevicePrimaryCtxGetState: (device: i32, flags: Out<u32>, active: Out<i32>) needs Init
        => |d, _at| {
        d.device(device)?;
        flags.put(d.primary.flags)?;
        active.put(i32::from(d.primary.ctx.is_some()))
    }
    cuCtxCreate_v2: (ctx: Out<Handle>, flags: u32, device: i32) needs Init => |d, _at| {
        let handle = d.create_ctx(flags, device)?;
        ctx.put(handle)
    }
    cuCtxCreate_v3: (
        ctx: Out<Handle>,
        affinity: In<c_void>,
        count: i32,
        flags: u32,
        device: i32,
    ) needs Init => |d, _at| {
        if count != 0 || !affinity.is_null() {
            return fail(Code::NOT_SUPPORTED, "execution affinity is not simulated");
        }
        let handle = d.create_ctx(flags, device)?;
        ctx.put(handle)
    }
    cuCtxCreate_v4: (ctx: Out<Handle>, params: In<c_void>, flags: u32, device: i32) needs Init
        => |d, _at| {
        if !params.is_null() {
            return fail(Code::NOT_SUPPORTED, "parameters of a context are not simulated");
        }
        let handle = d.create_ctx(flags, device)?;
        ctx.put(handle)
    }
    cuCtxDestroy_v2: (ctx: Handle) needs Init => |d, at| {
        d.destroy_ctx(at, ctx)
    }
    cuCtxGetCurrent: (ctx: Out<Handle>) needs Init => |d, _at| {
        ctx.put(d.current())
    }
    cuCtxSetCurrent: (ctx: Handle) needs Init => |d, _at| {
        d.set_current(ctx)
    }
    cuCtxPushCurrent_v2: (ctx: Handle) needs Init => |d, _at| {
        d.push_current(ctx)
    }
    cuCtxPopCurrent_v2: (ctx: Out<Handle>) needs Init => |d, _at| {
        let handle = d.pop_current()?;
        ctx.put_if_any(handle);
        Ok(())
    }
    cuCtxGetDevice: (device: Out<i32>) needs Init => |d, _at| {
        d.ctx()?;
        device.put(0)
    }
    cuCtxGetApiVersion: (ctx: Handle, version: Out<u32>) needs Init => |d, _at| {
        if ctx != 0 && !d.contexts.contains_key(&ctx) {
            return fail(Code::INVALID_CONTEXT, format!("{ctx:#x} is no context"));
        }
        version.put(3020)
    }
    cuCtxGetId: (ctx: Handle, id: Out<u64>) needs Init => |d, _at| {
        let ctx = if ctx == 0 { d.ctx()?.0 } else { ctx };
        if !d.contexts.contains_key(&ctx) {
            return fail(Code::INVALID_CONTEXT, format!("{ctx:#x} is no context"));
        }
        id.put(ctx as u64)
    }
    cuCtxGetFlags: (flags: Out<u32>) needs Init => |d, _at| {
        let now = d.ctx()?.1.flags;
        flags.put(now)
    }
    cuCtxSetFlags: (flags: u32) needs Init => |d, _at| {
        d.ctx()?.1.flags = flags;
        Ok(())
    }
    cuCtxSynchronize: () needs Init => |d, at| {
        d.synchronize(at)
    }
    cuCtxGetLimit: (value: Out<usize>, limit: i32) needs Init => |d, _at| {
        if !(0..=6).contains(&limit) {
            return fail(Code::UNSUPPORTED_LIMIT, format!("limit {limit}"));
        }
        let now = d.ctx()?.1.limits.get(&limit).copied().unwrap_or(0);
        value.put(now)
    }
    cuCtxSetLimit: (limit: i32, value: usize) needs Init => |d, _at| {
        if !(0..=6).contains(&limit) {
            return fail(Code::UNSUPPORTED_LIMIT, format!("limit {limit}"));
        }
        d.ctx()?.1.limits.insert(limit, value);
        Ok(())
    }
    cuCtxGetCacheConfig: (config: Out<i32>) needs Init => |d, _at| {
        let now = d.ctx()?.1.cache;
        config.put(now)
    }
    cuCtxSetCacheConfig: (config: i32) needs Init => |d, _at| {
        if !(0..=3).contains(&config) {
            return fail(Code::INVALID_VALUE, format!("cache configuration {config}"));
        }
        d.ctx()?.1.cache = config;
        Ok(())
    }
    cuCtxGetStreamPriorityRange: (least: Out<i32>, greatest: Out<i32>) needs Init => |d, _at| {
        d.ctx()?;
        least.put_if_any(PRIORITIES.0);
        greatest.put_if_any(PRIORITIES.1);
        Ok(())
    }
}
