//! `cuLaunch*` and `cuOccupancy*`.

use std::ffi::c_int;

use super::entries;
use crate::code::{Code, Res, fail};
use crate::driver::Driver;
use crate::ffi::{Extra, In, Out, Params};
use crate::launch::{Arguments, Attribute, How, Shape, how};
use crate::objects::Handle;

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: Handle,
    attributes: *const Attribute,
    count: u32,
}

entries! {
    cuLaunchKernel | cuLaunchKernel_ptsz: (
        function: Handle,
        gx: u32,
        gy: u32,
        gz: u32,
        bx: u32,
        by: u32,
        bz: u32,
        shared: u32,
        stream: Handle,
        params: Params,
        extra: Extra,
    ) needs Init => |d, at| {
        let how = How::default();
        let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, how };
        let arguments = arguments(d, function, &params, &extra)?;
        d.launch(at, function, shape, stream, arguments)
    }
    cuLaunchCooperativeKernel | cuLaunchCooperativeKernel_ptsz: (
        function: Handle,
        gx: u32,
        gy: u32,
        gz: u32,
        bx: u32,
        by: u32,
        bz: u32,
        shared: u32,
        stream: Handle,
        params: Params,
    ) needs Init => |d, at| {
        let how = How { cooperative: true, ..How::default() };
        let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared, how };
        let arguments = arguments(d, function, &params, &Extra::null())?;
        d.launch(at, function, shape, stream, arguments)
    }
    cuLaunchKernelEx | cuLaunchKernelEx_ptsz: (
        config: In<LaunchConfig>,
        function: Handle,
        params: Params,
        extra: Extra,
    ) needs Init => |d, at| {
        let (shape, stream) = extended(&config)?;
        let arguments = arguments(d, function, &params, &extra)?;
        d.launch(at, function, shape, stream, arguments)
    }
    cuOccupancyMaxActiveClusters: (clusters: Out<c_int>, function: Handle, config: In<LaunchConfig>)
        needs Init => |d, _at| {
        let fit = d.active_clusters(function, extended(&config)?.0)?;
        clusters.put(fit as c_int)
    }
    cuOccupancyMaxPotentialClusterSize: (size: Out<c_int>, function: Handle, config: In<LaunchConfig>)
        needs Init => |d, _at| {
        let most = d.largest_cluster(function, extended(&config)?.0)?;
        size.put(most as c_int)
    }
    cuOccupancyMaxActiveBlocksPerMultiprocessor: (
        blocks: Out<c_int>,
        function: Handle,
        threads: c_int,
        dynamic: usize,
    ) needs Init => |d, _at| {
        let fit = d.occupancy(function, threads.max(0) as u32, dynamic as u64)?;
        blocks.put(fit as c_int)
    }
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags: (
        blocks: Out<c_int>,
        function: Handle,
        threads: c_int,
        dynamic: usize,
        _flags: u32,
    ) needs Init => |d, _at| {
        let fit = d.occupancy(function, threads.max(0) as u32, dynamic as u64)?;
        blocks.put(fit as c_int)
    }
    cuOccupancyAvailableDynamicSMemPerBlock: (
        bytes: Out<usize>,
        function: Handle,
        blocks: c_int,
        threads: c_int,
    ) needs Init => |d, _at| {
        let free = d.available_shared(function, blocks.max(0) as u32, threads.max(0) as u32)?;
        bytes.put(free)
    }
    cuOccupancyMaxPotentialBlockSize: (
        grid: Out<c_int>,
        block: Out<c_int>,
        function: Handle,
        shared_of: Option<extern "C" fn(c_int) -> usize>,
        dynamic: usize,
        limit: c_int,
    ) needs Init => |d, _at| {
        best_block(d, &grid, &block, function, shared_of, dynamic, limit)
    }
    cuOccupancyMaxPotentialBlockSizeWithFlags: (
        grid: Out<c_int>,
        block: Out<c_int>,
        function: Handle,
        shared_of: Option<extern "C" fn(c_int) -> usize>,
        dynamic: usize,
        limit: c_int,
        _flags: u32,
    ) needs Init => |d, _at| {
        best_block(d, &grid, &block, function, shared_of, dynamic, limit)
    }
}

/// What a launch's structure says, and its stream.
fn extended(config: &In<LaunchConfig>) -> Res<(Shape, Handle)> {
    let config = config.get(1)?[0];
    let attributes = In::from(config.attributes).get(config.count as usize)?;
    let (grid, block, shared) = (config.grid, config.block, config.shared);
    Ok((Shape { grid, block, shared, how: how(&attributes)? }, config.stream))
}

/// The parameters from wherever they are.
fn arguments(d: &mut Driver, function: Handle, params: &Params, extra: &Extra) -> Res<Arguments> {
    let f = d.function(function)?;
    let sizes = f.code.params(&f.entry).unwrap_or_default();
    match extra.read()? {
        Some(_) if !params.is_null() => {
            fail(Code::INVALID_VALUE, "both kernelParams and extra are given")
        }
        Some(buffer) => Ok(Arguments::Buffer(buffer)),
        None => Ok(Arguments::Each(params.read(&sizes)?)),
    }
}

fn best_block(
    d: &mut Driver,
    grid: &Out<c_int>,
    block: &Out<c_int>,
    function: Handle,
    shared_of: Option<extern "C" fn(c_int) -> usize>,
    dynamic: usize,
    limit: c_int,
) -> Res<()> {
    let shared = |threads: u32| match shared_of {
        Some(shared_of) => shared_of(threads as c_int) as u64,
        None => dynamic as u64,
    };
    let (blocks, threads) = d.best_block(function, limit.max(0) as u32, shared)?;
    grid.put(blocks as c_int)?;
    block.put(threads as c_int)
}
