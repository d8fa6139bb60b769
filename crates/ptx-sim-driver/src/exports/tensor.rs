//! `cuTensorMap*`: every documented limit is checked; the bytes are the simulator's own.

use ptx_sim::{Swizzle, TENSOR_MAP_BYTES, TensorMap, TensorType};

use super::entries;
use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::ffi::{HostMemory, In};

entries! {
    cuTensorMapEncodeTiled: (
        map: HostMemory,
        ty: u32,
        rank: u32,
        address: u64,
        dims: In<u64>,
        strides: In<u64>,
        box_dims: In<u32>,
        element_strides: In<u32>,
        interleave: u32,
        swizzle: u32,
        promotion: u32,
        fill: u32,
    ) needs Init => |d, _at| {
        place(d, &map)?;
        let known = |fine: bool, what: &str, n: u32| {
            if fine { Ok(()) } else { fail(Code::INVALID_VALUE, format!("{what} {n}")) }
        };
        known((1..=5).contains(&rank), "tensorRank", rank)?;
        known(interleave < 3, "interleave", interleave)?;
        known(promotion < 4, "l2Promotion", promotion)?;
        known(fill < 2, "oobFill", fill)?;
        let Some(ty) = TensorType::from_number(ty) else {
            return later(ty, 16, "tensorDataType");
        };
        let Some(swizzle) = Swizzle::from_number(swizzle) else {
            return later(swizzle, 7, "swizzle");
        };
        let n = rank as usize;
        let tensor = TensorMap {
            ty,
            address,
            dims: dims.get(n)?,
            strides: strides.get(n - 1)?,
            box_dims: box_dims.get(n)?,
            element_strides: element_strides.get(n)?,
            interleave: interleave * 16,
            swizzle,
            nan_fill: fill == 1,
        };
        map.write(&encode(&tensor)?)
    }
    cuTensorMapReplaceAddress: (map: HostMemory, address: u64) needs Init => |d, _at| {
        place(d, &map)?;
        let bytes = map.read(TENSOR_MAP_BYTES)?;
        let Some(tensor) = TensorMap::decode(&bytes) else {
            return fail(Code::INVALID_VALUE, "these bytes are no tensor map of this driver");
        };
        map.write(&encode(&TensorMap { address, ..tensor })?)
    }
}

/// Types and swizzles of later chips are numbers that this one does not take.
fn later(n: u32, known: u32, what: &str) -> Res<()> {
    if n < known {
        return fail(Code::NOT_SUPPORTED, format!("{what} {n} is not of sm_90"));
    }
    fail(Code::INVALID_VALUE, format!("{what} {n}"))
}

/// Where the map goes, on a chip that has them.
fn place(d: &Driver, map: &HostMemory) -> Res<()> {
    let chip = d.config.options.chip;
    if chip.capability < 90 {
        return fail(Code::NOT_SUPPORTED, format!("{} has no tensor maps", chip.name));
    }
    if map.address() == 0 || !map.address().is_multiple_of(64) {
        let message = format!("tensorMap at {:#x} is not aligned to 64 bytes", map.address());
        return fail(Code::INVALID_VALUE, message);
    }
    Ok(())
}

fn encode(tensor: &TensorMap) -> Res<[u8; TENSOR_MAP_BYTES]> {
    tensor.encode().map_err(|error| Error::new(Code::INVALID_VALUE, error.to_string()))
}
