//! `cuStream*` and `cuEvent*`.

use std::ffi::c_void;

use super::entries;
use crate::capture::exchange_mode;
use crate::code::{Code, Error, fail};
use crate::ffi::{HostCall, Out};
use crate::objects::{Handle, StreamKey};
use crate::queue::Work;

entries! {
    cuStreamCreate: (stream: Out<Handle>, flags: u32) needs Init => |d, _at| {
        let handle = d.create_stream(flags, 0)?;
        stream.put(handle)
    }
    cuStreamCreateWithPriority: (stream: Out<Handle>, flags: u32, priority: i32) needs Init
        => |d, _at| {
        let handle = d.create_stream(flags, priority)?;
        stream.put(handle)
    }
    cuStreamDestroy_v2: (stream: Handle) needs Init => |d, at| {
        d.destroy_stream(at, stream)
    }
    cuStreamSynchronize | cuStreamSynchronize_ptsz: (stream: Handle) needs Init => |d, at| {
        d.sync_stream(at, stream)
    }
    cuStreamQuery | cuStreamQuery_ptsz: (stream: Handle) needs Init => |d, at| {
        if d.query_stream(at, stream)? { Ok(()) } else { Err(Error::silent(Code::NOT_READY)) }
    }
    cuStreamWaitEvent | cuStreamWaitEvent_ptsz: (stream: Handle, event: Handle, flags: u32)
        needs Init => |d, at| {
        if flags > 1 {
            return fail(Code::INVALID_VALUE, format!("flags {flags:#x}"));
        }
        d.wait_event(at, stream, event)
    }
    cuStreamGetFlags | cuStreamGetFlags_ptsz: (stream: Handle, flags: Out<u32>) needs Init
        => |d, at| {
        let key = d.stream(at, stream)?;
        let blocking = d.known(key)?.blocking;
        flags.put(u32::from(!blocking))
    }
    cuStreamGetPriority | cuStreamGetPriority_ptsz: (stream: Handle, priority: Out<i32>)
        needs Init => |d, at| {
        let key = d.stream(at, stream)?;
        let now = d.known(key)?.priority;
        priority.put(now)
    }
    cuStreamGetCtx | cuStreamGetCtx_ptsz: (stream: Handle, ctx: Out<Handle>) needs Init
        => |d, at| {
        let key = d.stream(at, stream)?;
        let owner = d.known(key)?.ctx;
        ctx.put(owner)
    }
    cuStreamGetDevice | cuStreamGetDevice_ptsz: (stream: Handle, device: Out<i32>) needs Init
        => |d, at| {
        d.stream(at, stream)?;
        device.put(0)
    }
    cuStreamGetId | cuStreamGetId_ptsz: (stream: Handle, id: Out<u64>) needs Init => |d, at| {
        let number = match d.stream(at, stream)? {
            StreamKey::Legacy(ctx) => ctx as u64 | 1,
            // Threads are few: their numbers do not reach the next handle's.
            StreamKey::PerThread(ctx, thread) => (ctx as u64) << 32 | thread << 1,
            StreamKey::Made(handle) => handle as u64,
        };
        id.put(number)
    }
    cuLaunchHostFunc | cuLaunchHostFunc_ptsz: (
        stream: Handle,
        function: Option<extern "C" fn(*mut c_void)>,
        data: *mut c_void,
    ) needs Init => |d, at| {
        let key = d.stream(at, stream)?;
        let Some(function) = function else {
            return fail(Code::INVALID_VALUE, "the function is null");
        };
        let work = Work::Host(HostCall { function, data: data as usize });
        d.enqueue(at, key, work, &[]).map(drop)
    }
    cuStreamBeginCapture_v2 | cuStreamBeginCapture_v2_ptsz: (stream: Handle, mode: u32)
        needs Init => |d, at| {
        d.begin_capture(at, stream, mode)
    }
    cuStreamEndCapture | cuStreamEndCapture_ptsz: (stream: Handle, graph: Out<Handle>) needs Init
        => |d, at| {
        graph.put_if_any(0);
        let handle = d.end_capture(at, stream)?;
        graph.put(handle)
    }
    cuStreamIsCapturing | cuStreamIsCapturing_ptsz: (stream: Handle, status: Out<u32>) needs Init
        => |d, at| {
        let (now, _) = d.capture_status(at, stream)?;
        status.put(now as u32)
    }
    cuThreadExchangeStreamCaptureMode: (mode: Out<u32>) needs Init => |_d, _at| {
        let old = exchange_mode(mode.get()?)?;
        mode.put(old)
    }
    cuEventCreate: (event: Out<Handle>, flags: u32) needs Init => |d, _at| {
        let handle = d.create_event(flags)?;
        event.put(handle)
    }
    cuEventDestroy_v2: (event: Handle) needs Init => |d, _at| {
        d.destroy_event(event)
    }
    cuEventRecord | cuEventRecord_ptsz: (event: Handle, stream: Handle) needs Init => |d, at| {
        d.record_event(at, event, stream)
    }
    cuEventRecordWithFlags | cuEventRecordWithFlags_ptsz: (event: Handle, stream: Handle, flags: u32)
        needs Init => |d, at| {
        if flags != 0 {
            return fail(Code::NOT_SUPPORTED, format!("flags {flags:#x} are not simulated"));
        }
        d.record_event(at, event, stream)
    }
    cuEventSynchronize: (event: Handle) needs Init => |d, at| {
        d.sync_event(at, event)
    }
    cuEventQuery: (event: Handle) needs Init => |d, at| {
        if d.query_event(at, event)? { Ok(()) } else { Err(Error::silent(Code::NOT_READY)) }
    }
    cuEventElapsedTime | cuEventElapsedTime_v2: (time: Out<f32>, from: Handle, to: Handle)
        needs Init => |d, _at| {
        let milliseconds = d.elapsed(from, to)?;
        time.put(milliseconds)
    }
}
