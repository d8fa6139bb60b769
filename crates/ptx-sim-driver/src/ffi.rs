//! Pointers that a caller passes. Only the C functions of [`exports`](crate::exports) receive these
//! types, from callers who promise, as the driver's API demands, that each pointer is null or good
//! for its use until the call returns. So the methods need no contract of their own; null is an
//! error, never a crash.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};

use crate::code::{Code, Res, fail};

/// A place for a result.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn put(&self, value: T) -> Res<()> {
        if self.0.is_null() {
            return fail(Code::INVALID_VALUE, "a null pointer where a result goes");
        }
        self.put_if_any(value);
        Ok(())
    }

    pub(crate) fn put_if_any(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, so by the caller's promise good for a write of a T.
            unsafe { self.0.write(value) }
        }
    }

    /// The element `i` of an array of results.
    pub(crate) fn put_at(&self, i: usize, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, and the caller of the C function gave the length that bounds `i`.
            unsafe { self.0.add(i).write(value) }
        }
    }
}

impl<T: Copy> Out<T> {
    /// The element `i` of an array of values that are read and replaced.
    pub(crate) fn get_at(&self, i: usize) -> Res<T> {
        if self.0.is_null() {
            return fail(Code::INVALID_VALUE, "a null pointer where an array is");
        }
        // SAFETY: not null, and the caller of the C function gave the length that bounds `i`.
        Ok(unsafe { self.0.add(i).read() })
    }

    pub(crate) fn get(&self) -> Res<T> {
        if self.0.is_null() {
            return fail(Code::INVALID_VALUE, "a null pointer where a value is");
        }
        // SAFETY: not null, so by the caller's promise a T lies there.
        Ok(unsafe { self.0.read() })
    }
}

/// An array that is read.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T> In<T> {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// An array inside of a structure that the caller passed.
    pub(crate) fn from(array: *const T) -> Self {
        In(array)
    }
}

impl<T: Copy> In<T> {
    pub(crate) fn get(&self, n: usize) -> Res<Vec<T>> {
        if n > 0 && self.0.is_null() {
            return fail(Code::INVALID_VALUE, "a null pointer where an array is");
        }
        // SAFETY: not null unless empty, and the caller promises n elements.
        Ok((0..n).map(|i| unsafe { self.0.add(i).read() }).collect())
    }
}

/// A C string, or the text of a module.
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(crate) fn bytes(&self) -> Res<Vec<u8>> {
        if self.0.is_null() {
            return fail(Code::INVALID_VALUE, "a null pointer where a text is");
        }
        // SAFETY: not null, so by the caller's promise a text that ends with NUL.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_bytes().to_vec())
    }

    pub(crate) fn get(&self) -> Res<String> {
        String::from_utf8(self.bytes()?)
            .map_err(|_| crate::code::Error::new(Code::INVALID_VALUE, "a name is not UTF-8"))
    }
}

/// Host memory at one side of a copy.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct HostMemory(*mut c_void);

impl HostMemory {
    /// A buffer whose address the caller passed as a number.
    pub(crate) fn at(address: usize) -> Self {
        HostMemory(address as *mut c_void)
    }

    pub(crate) fn address(&self) -> usize {
        self.0 as usize
    }

    pub(crate) fn read(&self, len: usize) -> Res<Vec<u8>> {
        if self.0.is_null() {
            return fail(Code::INVALID_VALUE, "the host's address is null");
        }
        let mut bytes = vec![0u8; len];
        // SAFETY: not null, so by the caller's promise good for a read of len bytes.
        unsafe { std::ptr::copy_nonoverlapping(self.0.cast::<u8>(), bytes.as_mut_ptr(), len) };
        Ok(bytes)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Res<()> {
        if self.0.is_null() {
            return fail(Code::INVALID_VALUE, "the host's address is null");
        }
        // SAFETY: not null, so by the caller's promise good for a write of that many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast(), bytes.len()) };
        Ok(())
    }
}

/// `kernelParams`: one pointer to each parameter.
#[repr(transparent)]
pub(crate) struct Params(*const *const c_void);

impl Params {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn read(&self, sizes: &[usize]) -> Res<Vec<Vec<u8>>> {
        if !sizes.is_empty() && self.0.is_null() {
            let n = sizes.len();
            return fail(Code::INVALID_VALUE, format!("kernelParams is null, the entry takes {n}"));
        }
        let one = |(i, &size): (usize, &usize)| {
            // SAFETY: not null, and the caller promises a pointer for each of the entry's parameters.
            let at = unsafe { self.0.add(i).read() };
            if at.is_null() {
                return fail(Code::INVALID_VALUE, format!("kernelParams[{i}] is null"));
            }
            HostMemory(at.cast_mut()).read(size)
        };
        sizes.iter().enumerate().map(one).collect()
    }
}

/// `extra`: all parameters in one buffer.
#[repr(transparent)]
pub(crate) struct Extra(*const *const c_void);

impl Extra {
    pub(crate) fn null() -> Self {
        Extra(std::ptr::null())
    }

    /// The buffer; nothing when the pointer is null.
    pub(crate) fn read(&self) -> Res<Option<Vec<u8>>> {
        const END: usize = 0;
        const BUFFER: usize = 1;
        const SIZE: usize = 2;
        if self.0.is_null() {
            return Ok(None);
        }
        let (mut buffer, mut size) = (None, None);
        let mut at = 0;
        loop {
            // SAFETY: not null, and the caller promises pairs that end with END.
            let name = unsafe { self.0.add(at).read() } as usize;
            if name == END {
                break;
            }
            // SAFETY: a name other than END has a value.
            let value = unsafe { self.0.add(at + 1).read() };
            match name {
                BUFFER => buffer = Some(HostMemory(value.cast_mut())),
                SIZE if !value.is_null() => {
                    // SAFETY: not null, so by the caller's promise a size lies there.
                    size = Some(unsafe { value.cast::<usize>().read() });
                }
                _ => return fail(Code::INVALID_VALUE, format!("extra: {name} is no known name")),
            }
            at += 2;
        }
        match (buffer, size) {
            (Some(buffer), Some(size)) => buffer.read(size).map(Some),
            _ => fail(Code::INVALID_VALUE, "extra lacks the buffer or its size"),
        }
    }
}

/// A function that the host wants called in stream order.
#[derive(Clone, Copy)]
pub(crate) struct HostCall {
    pub(crate) function: extern "C" fn(*mut c_void),
    pub(crate) data: usize,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl HostCall {
    /// Calls it; the driver's own functions refuse to be called from within.
    pub(crate) fn call(&self) {
        INSIDE.set(true);
        (self.function)(self.data as *mut c_void);
        INSIDE.set(false);
    }

    pub(crate) fn is_inside() -> bool {
        INSIDE.get()
    }
}
