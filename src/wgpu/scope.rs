//! wgpu reports through error scopes, and panics where there is none: everything that this
//! crate creates on a device is created in here, and comes back with a typed error. What a browser says
//! to it comes later, and goes to `reports`.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::{Inner, wgpu};
use crate::{Error, Result};

impl Inner {
    /// Calls `make`, which makes something of `bytes` bytes on the device (0: not known), and
    /// returns it, or what the device had to say. `what` names it in the error.
    pub(super) fn scoped<T>(
        &self,
        what: &str,
        bytes: u64,
        make: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T> {
        if let Some(reports) = &self.reports {
            return Ok(reports.scoped(&self.device, what, bytes, make));
        }
        let filters = [
            wgpu::ErrorFilter::Internal,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Validation,
        ];
        let [internal, memory, validation] = filters.map(|of| self.device.push_error_scope(of));
        let created = make(&self.device);
        // Popped in reverse order, each of them, whatever the first one says.
        let errors = [validation, memory, internal].map(|scope| now(scope.pop()));
        match errors.into_iter().flatten().next() {
            None => Ok(created),
            Some(error) => Err(typed(error, what, bytes)),
        }
    }

    /// A buffer that holds `contents`, whose length is a multiple of 4.
    pub(super) fn filled(
        &self,
        what: &str,
        usage: wgpu::BufferUsages,
        contents: &[u8],
    ) -> Result<wgpu::Buffer> {
        let size = contents.len() as u64;
        let buffer = self.scoped(what, size, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage,
                mapped_at_creation: true,
            })
        })?;
        // Of a lost device no scope hears; its buffers just have no bytes.
        match buffer.get_mapped_range_mut(..) {
            Ok(mut range) => range.copy_from_slice(contents),
            Err(error) => {
                let _ = self.lost.set(error.to_string());
            }
        }
        self.check_alive()?;
        self.scoped(what, size, |_| buffer.unmap())?;
        Ok(buffer)
    }

    /// Asks the device itself whether it is lost, which costs a buffer: after something else
    /// was made that might be invalid for that reason.
    pub(super) fn probe(&self) -> Result<()> {
        self.filled("a probe for a lost device", wgpu::BufferUsages::COPY_SRC, &[0; 4]).map(drop)
    }
}

/// The error of what was to be made of `bytes` bytes, and is named `what`.
pub(super) fn typed(error: wgpu::Error, what: &str, bytes: u64) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            Error::OutOfMemory { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) }
        }
        error => Error::Rejected { what: what.to_owned(), reason: error.to_string() },
    }
}

/// What a future that is ready at once returns; natively wgpu's scopes are.
fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => None,
    }
}
