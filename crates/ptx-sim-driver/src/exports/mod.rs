//! The C functions. Each unpacks its arguments, takes the lock and calls the driver; a panic ends at
//! the boundary as an error code. The names with `_ptsz` and `_ptds` differ in what stream 0 means.

mod context;
mod device;
mod graph;
mod launch;
mod memory;
mod module;
mod pointer;
mod refused;
mod stream;
mod symbols;
mod tensor;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::code::{Code, Error, Res};
use crate::config::Config;
use crate::driver::Driver;
use crate::ffi::HostCall;
use crate::objects::Site;
use crate::report;

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

thread_local! {
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// A number for the calling host thread.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        thread.get()
    })
}

/// What a call needs before it may do anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Init,
}

/// Runs a C function's body under the lock and makes its result a code.
fn shell(name: &'static str, needs: Needs, body: impl FnOnce(&mut Driver, Site) -> Res<()>) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(|| {
        if HostCall::is_inside() {
            return crate::code::fail(
                Code::NOT_PERMITTED,
                "a host function in stream order must not call the driver",
            );
        }
        let per_thread = name.ends_with("_ptsz") || name.ends_with("_ptds");
        let site = Site { name, per_thread, thread: thread() };
        let mut lock = DRIVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let driver = lock.get_or_insert_with(|| Driver::new(environment()));
        if needs == Needs::Init {
            if !driver.ready {
                return Err(Error::new(Code::NOT_INITIALIZED, "cuInit was not called"));
            }
            if let Some(code) = driver.lost {
                return Err(Error::silent(code));
            }
        }
        body(driver, site)
    }));
    let error = match result {
        Ok(Ok(())) => return Code::SUCCESS.0,
        Ok(Err(error)) => error,
        Err(_) => Error::new(Code::UNKNOWN, "the stand-in itself failed, see above"),
    };
    if !error.message.is_empty() {
        report::line(&format!("{name}: {}: {}", error.code, error.message));
    }
    error.code.0
}

fn environment() -> Result<Config, String> {
    let variables = std::env::vars_os();
    let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    Config::read(variables.map(|(name, value)| (text(name), text(value))))
}

/// Defines C functions: names, arguments, what the call needs, and the body, which is given the
/// driver and the call's site.
///
/// Every function is unsafe to call: the caller promises what `cuda.h` demands of its pointers.
macro_rules! entries {
    ($($($name:ident)|+ : $args:tt needs $needs:ident => |$driver:ident, $site:ident| $body:block)*) => {
        $($(
            $crate::exports::entries!(@one $name $args $needs $driver $site $body);
        )+)*

        /// The address of one of these functions.
        pub(super) fn find(name: &str) -> Option<*const std::ffi::c_void> {
            match name {
                $($(stringify!($name) => Some($name as *const std::ffi::c_void),)+)*
                _ => None,
            }
        }
    };
    (@one $name:ident ($($arg:ident: $type:ty),* $(,)?) $needs:ident $driver:ident $site:ident
        $body:block) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> i32 {
            $crate::exports::shell(
                stringify!($name),
                $crate::exports::Needs::$needs,
                |$driver, $site| $body,
            )
        }
    };
}
use entries;
