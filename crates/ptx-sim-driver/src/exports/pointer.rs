//! `cuPointer*`: what is known of an address.

use std::ffi::{c_int, c_void};

use super::entries;
use crate::code::{Code, Res, fail};
use crate::driver::Driver;
use crate::ffi::{HostMemory, In};

entries! {
    cuPointerGetAttribute: (data: HostMemory, attribute: c_int, pointer: u64) needs Init
        => |d, _at| {
        match d.pointer_attribute(attribute, pointer)? {
            Some(bytes) => data.write(&bytes),
            None => fail(Code::INVALID_VALUE, format!("{pointer:#x} is no pointer of this driver")),
        }
    }
    cuPointerGetAttributes: (
        count: u32,
        attributes: In<c_int>,
        data: In<*mut c_void>,
        pointer: u64,
    ) needs Init => |d, _at| {
        let (attributes, data) = (attributes.get(count as usize)?, data.get(count as usize)?);
        for (&attribute, &to) in attributes.iter().zip(&data) {
            let to = HostMemory::at(to as usize);
            // An unknown pointer has attributes too, all of them nothing.
            let bytes = match d.pointer_attribute(attribute, pointer)? {
                Some(bytes) => bytes,
                None => vec![0; size(attribute)?],
            };
            to.write(&bytes)?;
        }
        Ok(())
    }
}

/// Bytes of an attribute's value.
fn size(attribute: c_int) -> Res<usize> {
    Ok(match attribute {
        2 | 9 => 4,
        6 | 8 | 13 => 1,
        1 | 3 | 4 | 7 | 10 | 11 | 12 | 14 => 8,
        _ => return fail(Code::INVALID_VALUE, format!("pointer attribute {attribute}")),
    })
}

impl Driver {
    /// An attribute's bytes; none when the pointer is not of this driver.
    fn pointer_attribute(&mut self, attribute: c_int, pointer: u64) -> Res<Option<Vec<u8>>> {
        self.ctx()?;
        let bytes = size(attribute)?;
        let Some(known) = self.memory.known(pointer) else { return Ok(None) };
        let value = match attribute {
            1 => known.ctx as u64,
            // CU_MEMORYTYPE_HOST and _DEVICE.
            2 => 1 + u64::from(known.device),
            3 if known.device => pointer,
            4 if !known.device => pointer,
            3 | 4 => return Ok(None),
            // Every allocation is numbered by its address.
            7 => known.base,
            11 => known.base,
            12 => known.bytes as u64,
            13 => 1,
            // Not managed, not exported, device 0.
            _ => 0,
        };
        Ok(Some(value.to_le_bytes()[..bytes].to_vec()))
    }
}
