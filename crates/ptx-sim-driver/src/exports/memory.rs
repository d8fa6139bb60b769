//! `cuMem*`: allocation, copies, fills.

use super::device::known_pool;
use super::entries;
use crate::code::{Code, Res, fail};
use crate::driver::Driver;
use crate::ffi::{HostMemory, In, Out};
use crate::objects::{Handle, Site};

entries! {
    cuMemGetInfo_v2: (free: Out<usize>, total: Out<usize>) needs Init => |d, _at| {
        let (now, all) = d.mem_info()?;
        free.put(now)?;
        total.put(all)
    }
    cuMemAlloc_v2: (address: Out<u64>, bytes: usize) needs Init => |d, at| {
        let fresh = d.alloc(at, bytes)?;
        address.put(fresh)
    }
    cuMemFree_v2: (address: u64) needs Init => |d, at| {
        d.free(at, address)
    }
    cuMemAllocAsync | cuMemAllocAsync_ptsz: (address: Out<u64>, bytes: usize, stream: Handle)
        needs Init => |d, at| {
        let fresh = d.alloc_async(at, bytes, stream)?;
        address.put(fresh)
    }
    cuMemAllocFromPoolAsync | cuMemAllocFromPoolAsync_ptsz: (
        address: Out<u64>,
        bytes: usize,
        pool: Handle,
        stream: Handle,
    ) needs Init => |d, at| {
        known_pool(pool)?;
        let fresh = d.alloc_async(at, bytes, stream)?;
        address.put(fresh)
    }
    cuMemFreeAsync | cuMemFreeAsync_ptsz: (address: u64, stream: Handle) needs Init => |d, at| {
        d.free_async(at, address, stream)
    }
    cuMemGetAddressRange_v2: (base: Out<u64>, size: Out<usize>, address: u64) needs Init
        => |d, _at| {
        let (start, bytes) = d.address_range(address)?;
        base.put_if_any(start);
        size.put_if_any(bytes);
        Ok(())
    }
    cuMemHostAlloc: (host: Out<usize>, bytes: usize, flags: u32) needs Init => |d, at| {
        let address = d.alloc_pinned(at, bytes, flags)?;
        host.put(address)
    }
    cuMemAllocHost_v2: (host: Out<usize>, bytes: usize) needs Init => |d, at| {
        let address = d.alloc_pinned(at, bytes, 0)?;
        host.put(address)
    }
    cuMemFreeHost: (host: HostMemory) needs Init => |d, at| {
        d.free_pinned(at, host)
    }
    cuMemHostGetFlags: (flags: Out<u32>, host: HostMemory) needs Init => |d, _at| {
        let now = d.pinned_flags(host)?;
        flags.put(now)
    }
    cuMemcpyHtoD_v2 | cuMemcpyHtoD_v2_ptds: (to: u64, from: HostMemory, bytes: usize) needs Init
        => |d, at| {
        d.upload(at, to, from, bytes, None)
    }
    cuMemcpyHtoDAsync_v2 | cuMemcpyHtoDAsync_v2_ptsz: (
        to: u64,
        from: HostMemory,
        bytes: usize,
        stream: Handle,
    ) needs Init => |d, at| {
        d.upload(at, to, from, bytes, Some(stream))
    }
    cuMemcpyDtoH_v2 | cuMemcpyDtoH_v2_ptds: (to: HostMemory, from: u64, bytes: usize) needs Init
        => |d, at| {
        d.download(at, to, from, bytes, None)
    }
    cuMemcpyDtoHAsync_v2 | cuMemcpyDtoHAsync_v2_ptsz: (
        to: HostMemory,
        from: u64,
        bytes: usize,
        stream: Handle,
    ) needs Init => |d, at| {
        d.download(at, to, from, bytes, Some(stream))
    }
    cuMemcpyDtoD_v2 | cuMemcpyDtoD_v2_ptds: (to: u64, from: u64, bytes: usize) needs Init
        => |d, at| {
        d.copy(at, to, from, bytes, None)
    }
    cuMemcpyDtoDAsync_v2 | cuMemcpyDtoDAsync_v2_ptsz: (
        to: u64,
        from: u64,
        bytes: usize,
        stream: Handle,
    ) needs Init => |d, at| {
        d.copy(at, to, from, bytes, Some(stream))
    }
    cuMemcpyPeerAsync | cuMemcpyPeerAsync_ptsz: (
        to: u64,
        to_ctx: Handle,
        from: u64,
        from_ctx: Handle,
        bytes: usize,
        stream: Handle,
    ) needs Init => |d, at| {
        for ctx in [to_ctx, from_ctx] {
            if !d.contexts.contains_key(&ctx) {
                return fail(Code::INVALID_CONTEXT, format!("{ctx:#x} is no context"));
            }
        }
        d.copy(at, to, from, bytes, Some(stream))
    }
    cuMemcpy2D_v2 | cuMemcpy2D_v2_ptds | cuMemcpy2DUnaligned_v2 | cuMemcpy2DUnaligned_v2_ptds: (
        copy: In<Copy2d>,
    ) needs Init => |d, at| {
        rows(d, at, &copy, None)
    }
    cuMemcpy2DAsync_v2 | cuMemcpy2DAsync_v2_ptsz: (copy: In<Copy2d>, stream: Handle) needs Init
        => |d, at| {
        rows(d, at, &copy, Some(stream))
    }
    cuMemsetD8_v2 | cuMemsetD8_v2_ptds: (to: u64, value: u8, count: usize) needs Init => |d, at| {
        d.fill(at, to, &[value], count, None)
    }
    cuMemsetD8Async | cuMemsetD8Async_ptsz: (to: u64, value: u8, count: usize, stream: Handle)
        needs Init => |d, at| {
        d.fill(at, to, &[value], count, Some(stream))
    }
    cuMemsetD16_v2 | cuMemsetD16_v2_ptds: (to: u64, value: u16, count: usize) needs Init
        => |d, at| {
        d.fill(at, to, &value.to_le_bytes(), count, None)
    }
    cuMemsetD16Async | cuMemsetD16Async_ptsz: (to: u64, value: u16, count: usize, stream: Handle)
        needs Init => |d, at| {
        d.fill(at, to, &value.to_le_bytes(), count, Some(stream))
    }
    cuMemsetD32_v2 | cuMemsetD32_v2_ptds: (to: u64, value: u32, count: usize) needs Init
        => |d, at| {
        d.fill(at, to, &value.to_le_bytes(), count, None)
    }
    cuMemsetD32Async | cuMemsetD32Async_ptsz: (to: u64, value: u32, count: usize, stream: Handle)
        needs Init => |d, at| {
        d.fill(at, to, &value.to_le_bytes(), count, Some(stream))
    }
}

/// One side of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Side {
    x: usize,
    y: usize,
    /// CU_MEMORYTYPE_HOST, _DEVICE, _ARRAY or _UNIFIED.
    kind: u32,
    host: usize,
    device: u64,
    array: usize,
    pitch: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Copy2d {
    from: Side,
    to: Side,
    width: usize,
    height: usize,
}

impl Side {
    /// The row's address, and whether it is the host's.
    fn row(&self, d: &Driver, width: usize, row: usize) -> Res<(u64, bool)> {
        let host = match self.kind {
            1 => true,
            2 => false,
            4 => d.memory.known(self.device).is_none_or(|k| !k.device),
            3 => return fail(Code::NOT_SUPPORTED, "arrays are not simulated"),
            kind => return fail(Code::INVALID_VALUE, format!("memory type {kind}")),
        };
        if self.pitch < self.x + width {
            let message =
                format!("a pitch of {}, {} bytes of a row are copied", self.pitch, self.x + width);
            return fail(Code::INVALID_VALUE, message);
        }
        let base = if self.kind == 1 { self.host as u64 } else { self.device };
        Ok((base + ((self.y + row) * self.pitch + self.x) as u64, host))
    }
}

/// Row by row, in order.
fn rows(d: &mut Driver, at: Site, copy: &In<Copy2d>, stream: Option<Handle>) -> Res<()> {
    let copy = copy.get(1)?[0];
    // All is looked at before anything is copied.
    let places: Vec<_> = (0..copy.height)
        .map(|row| Ok((copy.from.row(d, copy.width, row)?, copy.to.row(d, copy.width, row)?)))
        .collect::<Res<_>>()?;
    for ((from, from_host), (to, to_host)) in places {
        let host = |address: u64| HostMemory::at(address as usize);
        match (from_host, to_host) {
            (true, false) => d.upload(at, to, host(from), copy.width, stream)?,
            (false, true) => d.download(at, host(to), from, copy.width, stream)?,
            (false, false) => d.copy(at, to, from, copy.width, stream)?,
            (true, true) => {
                let bytes = host(from).read(copy.width)?;
                host(to).write(&bytes)?;
            }
        }
    }
    Ok(())
}
