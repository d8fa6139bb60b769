//! Whether there is a CUDA driver. cudarc panics where there is none, so nothing of it is called
//! before this has looked. cudarc's own probe is gone in builds that link the driver, as candle
//! does; hence this one, with its names in its order.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::sync::OnceLock;

use libloading::Library;

use crate::{Error, Result};

/// The file that NVIDIA's driver brings.
const DRIVER_FILE: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// Whether a CUDA driver can be loaded. A driver may still find no device.
///
/// # Errors
/// [`Error::NoDriver`].
pub fn probe() -> Result<()> {
    static DRIVER: OnceLock<Option<Library>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| names().iter().find_map(open));
    match driver {
        Some(_) => Ok(()),
        None => {
            let reason = format!("{DRIVER_FILE} and its like cannot be loaded");
            Err(Error::NoDriver { reason })
        }
    }
}

/// [`probe`] for who does not ask why not.
pub fn is_available() -> bool {
    probe().is_ok()
}

/// A library that cudarc will find as well and that has the functions of a driver. It stays
/// open as long as the process: loading it twice costs nothing then.
fn open(name: &String) -> Option<Library> {
    // SAFETY: what a driver does when it is loaded is the driver's business; cudarc would load
    // the same file under the same name.
    let library = unsafe { Library::new(name) }.ok()?;
    // SAFETY: only whether the symbol is there is looked at; it is not called.
    let init = unsafe { library.get::<unsafe extern "C" fn()>(b"cuInit\0") }.is_ok();
    init.then_some(library)
}

/// cudarc's candidates that do not depend on the version it was built for.
fn names() -> Vec<String> {
    let of = |name: &str| {
        let file = format!("{DLL_PREFIX}{name}");
        let inner = ["", "64", "64_10", "64_11", "64_12", "64_9"];
        let outer = [".12", ".11", ".10", ".9", ".1"];
        let inner = inner.map(|version| format!("{file}{version}{DLL_SUFFIX}"));
        let outer = outer.map(|version| format!("{file}{DLL_SUFFIX}{version}"));
        inner.into_iter().chain(outer)
    };
    of("cuda").chain(of("nvcuda")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_a_driver() {
        let names = names();
        if cfg!(any(windows, target_os = "linux")) {
            assert!(names.iter().any(|name| name == DRIVER_FILE), "{names:?}");
        }
        assert_eq!(names[0], format!("{DLL_PREFIX}cuda{DLL_SUFFIX}"), "cudarc begins with it");
    }
}
