//! Device memory, page-locked host memory, and copies between them and the host's own.

use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::ffi::HostMemory;
use crate::objects::{Handle, Site, StreamKey};
use crate::queue::{Source, Work};

impl Driver {
    fn room(&self, bytes: usize) -> Res<()> {
        if bytes == 0 {
            return fail(Code::INVALID_VALUE, "an allocation of 0 bytes");
        }
        let free = self.config.memory.saturating_sub(self.memory.used);
        if bytes as u64 > free {
            return fail(Code::OUT_OF_MEMORY, format!("{bytes} bytes, {free} are free"));
        }
        Ok(())
    }

    pub(crate) fn alloc(&mut self, at: Site, bytes: usize) -> Res<u64> {
        let (ctx, _) = self.ctx()?;
        self.potentially_unsafe(at)?;
        self.room(bytes)?;
        let address = self.queue.alloc(bytes);
        let address = address.ok_or_else(|| too_much(bytes))?;
        self.memory.add(ctx, address, bytes);
        Ok(address)
    }

    pub(crate) fn alloc_async(&mut self, at: Site, bytes: usize, stream: Handle) -> Res<u64> {
        let (ctx, _) = self.ctx()?;
        if !self.config.pools {
            return fail(Code::NOT_SUPPORTED, "the device has no memory pools");
        }
        let key = self.stream(at, stream)?;
        self.room(bytes)?;
        let address = self.queue.reserve(bytes).ok_or_else(|| too_much(bytes))?;
        self.enqueue(at, key, Work::Born { at: address, bytes }, &[])?;
        self.memory.add(ctx, address, bytes);
        Ok(address)
    }

    pub(crate) fn free(&mut self, at: Site, address: u64) -> Res<()> {
        let (ctx, _) = self.ctx()?;
        self.potentially_unsafe(at)?;
        self.memory.take(address)?;
        // The driver lets all work end first. Whether the caller could know that it had is what
        // the queue checks: the free comes after what the host has waited for, and no more.
        self.drain(ctx)?;
        let freed = self.queue.submit(at.name.into(), &[], Work::Free { at: address });
        let id = self.checked(freed)?;
        let waited = self.queue.wait(&[id]);
        self.checked(waited)
    }

    pub(crate) fn free_async(&mut self, at: Site, address: u64, stream: Handle) -> Res<()> {
        let key = self.stream(at, stream)?;
        self.memory.find(address)?;
        self.enqueue(at, key, Work::Free { at: address }, &[])?;
        self.memory.take(address)
    }

    /// Does all work of a context without the host knowing of it.
    fn drain(&mut self, ctx: Handle) -> Res<()> {
        let targets = self.work_of(ctx);
        let done = self.queue.finish(&targets);
        self.checked(done)
    }

    /// Free and all bytes of device memory.
    pub(crate) fn mem_info(&mut self) -> Res<(usize, usize)> {
        self.ctx()?;
        let total = self.config.memory;
        Ok((total.saturating_sub(self.memory.used) as usize, total as usize))
    }

    /// Start and size of the allocation that an address lies in.
    pub(crate) fn address_range(&mut self, address: u64) -> Res<(u64, usize)> {
        self.ctx()?;
        self.memory.find(address)
    }

    pub(crate) fn alloc_pinned(&mut self, at: Site, bytes: usize, flags: u32) -> Res<usize> {
        const DEVICEMAP: u32 = 2;
        const KNOWN: u32 = 7;
        let (ctx, _) = self.ctx()?;
        self.potentially_unsafe(at)?;
        if bytes == 0 {
            return fail(Code::INVALID_VALUE, "an allocation of 0 bytes");
        }
        if flags & !KNOWN != 0 {
            return fail(Code::INVALID_VALUE, format!("flags {flags:#x}"));
        }
        if flags & DEVICEMAP != 0 {
            return fail(Code::NOT_SUPPORTED, "kernels that reach host memory are not simulated");
        }
        let seed = self.queue.draw();
        let address = self.queue.pinned.alloc(bytes, seed).ok_or_else(|| too_much(bytes))?;
        self.memory.pinned.insert(address, (ctx, flags, bytes));
        Ok(address)
    }

    pub(crate) fn free_pinned(&mut self, at: Site, host: HostMemory) -> Res<()> {
        let (ctx, _) = self.ctx()?;
        self.potentially_unsafe(at)?;
        if self.memory.pinned.remove(&host.address()).is_none() {
            let address = host.address();
            return fail(Code::INVALID_VALUE, format!("{address:#x} is no page-locked memory"));
        }
        self.drain(ctx)?;
        self.queue.pinned.free(host.address());
        Ok(())
    }

    pub(crate) fn pinned_flags(&mut self, host: HostMemory) -> Res<u32> {
        self.ctx()?;
        let unknown = || Error::new(Code::INVALID_VALUE, "no page-locked memory");
        self.memory.pinned.get(&host.address()).map(|p| p.1).ok_or_else(unknown)
    }

    fn default_stream(&mut self, at: Site) -> Res<StreamKey> {
        self.stream(at, 0)
    }

    /// From the host; without a stream, on the default one. Pageable memory is taken at once, and
    /// the rest of the copy is as asynchronous as the API says.
    pub(crate) fn upload(
        &mut self,
        at: Site,
        to: u64,
        from: HostMemory,
        len: usize,
        stream: Option<Handle>,
    ) -> Res<()> {
        self.ctx()?;
        if len == 0 {
            return Ok(());
        }
        self.memory.range(to, len)?;
        let pinned = self.queue.pinned.holds(from.address(), len);
        if let Some(stream) = stream {
            let key = self.stream(at, stream)?;
            let from = if pinned {
                Source::Pinned { at: from.address(), len }
            } else {
                Source::Staged(from.read(len)?.into())
            };
            return self.enqueue(at, key, Work::Upload { to, from }, &[]).map(drop);
        }
        self.potentially_unsafe(at)?;
        let key = self.default_stream(at)?;
        self.legacy_is_free(key)?;
        let before = self.before(key);
        let waited = self.queue.wait(&before);
        self.checked(waited)?;
        let work = Work::Upload { to, from: Source::Staged(from.read(len)?.into()) };
        if pinned {
            return self.at_once(at, key, work).map(drop);
        }
        self.enqueue(at, key, work, &[]).map(drop)
    }

    /// To the host; only a copy to page-locked memory on a stream returns before it is over.
    pub(crate) fn download(
        &mut self,
        at: Site,
        to: HostMemory,
        from: u64,
        len: usize,
        stream: Option<Handle>,
    ) -> Res<()> {
        self.ctx()?;
        if len == 0 {
            return Ok(());
        }
        self.memory.range(from, len)?;
        let key = match stream {
            Some(stream) => self.stream(at, stream)?,
            None => {
                self.potentially_unsafe(at)?;
                self.default_stream(at)?
            }
        };
        if stream.is_some() && self.queue.pinned.holds(to.address(), len) {
            let work = Work::Download { from, len, to: Some(to.address()) };
            return self.enqueue(at, key, work, &[]).map(drop);
        }
        let id = self.at_once(at, key, Work::Download { from, len, to: None })?;
        let bytes = self.queue.take(id);
        to.write(&bytes)
    }

    /// Within device memory; the host does not wait, with or without a stream.
    pub(crate) fn copy(
        &mut self,
        at: Site,
        to: u64,
        from: u64,
        len: usize,
        stream: Option<Handle>,
    ) -> Res<()> {
        self.ctx()?;
        if len == 0 {
            return Ok(());
        }
        self.memory.range(from, len)?;
        self.memory.range(to, len)?;
        self.submit_async(at, Work::Copy { to, from, len }, stream)
    }

    /// Fills with a pattern of 1, 2 or 4 bytes; the host does not wait, with or without a stream.
    pub(crate) fn fill(
        &mut self,
        at: Site,
        to: u64,
        pattern: &[u8],
        count: usize,
        stream: Option<Handle>,
    ) -> Res<()> {
        self.ctx()?;
        if count == 0 {
            return Ok(());
        }
        let Some(len) = count.checked_mul(pattern.len()) else {
            return fail(Code::INVALID_VALUE, format!("{count} elements"));
        };
        self.memory.range(to, len)?;
        if !to.is_multiple_of(pattern.len() as u64) {
            let size = pattern.len();
            return fail(Code::INVALID_VALUE, format!("{to:#x} is not aligned to {size} bytes"));
        }
        self.submit_async(at, Work::Fill { to, pattern: pattern.to_vec(), count }, stream)
    }

    fn submit_async(&mut self, at: Site, work: Work, stream: Option<Handle>) -> Res<()> {
        let key = match stream {
            Some(stream) => self.stream(at, stream)?,
            None => {
                self.potentially_unsafe(at)?;
                self.default_stream(at)?
            }
        };
        self.enqueue(at, key, work, &[]).map(drop)
    }
}

fn too_much(bytes: usize) -> Error {
    Error::new(Code::OUT_OF_MEMORY, format!("{bytes} bytes are more than the simulator holds"))
}
