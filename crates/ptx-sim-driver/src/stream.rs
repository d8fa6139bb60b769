//! Streams: who comes after whom. A stream is its last operation; the legacy default stream comes
//! after all blocking streams of its context and they after it.

use crate::code::{Code, Res, fail};
use crate::driver::Driver;
use crate::objects::{Handle, Site, Stream, StreamKey};
use crate::queue::{OpId, Work};

/// The least and the greatest priority.
pub(crate) const PRIORITIES: (i32, i32) = (0, -5);

const NON_BLOCKING: u32 = 1;

impl Driver {
    pub(crate) fn create_stream(&mut self, flags: u32, priority: i32) -> Res<Handle> {
        let (ctx, _) = self.ctx()?;
        if flags & !NON_BLOCKING != 0 {
            return fail(Code::INVALID_VALUE, format!("stream flags {flags:#x}, expected 0 or 1"));
        }
        let handle = self.handle();
        let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
        let stream = Stream::new(ctx, flags & NON_BLOCKING == 0, priority);
        self.streams.insert(StreamKey::Made(handle), stream);
        Ok(handle)
    }

    /// The stream of a handle; the default ones come into being when first asked for.
    pub(crate) fn stream(&mut self, at: Site, handle: Handle) -> Res<StreamKey> {
        const LEGACY: Handle = 1;
        const PER_THREAD: Handle = 2;
        let (ctx, _) = self.ctx()?;
        let key = match handle {
            0 if at.per_thread => StreamKey::PerThread(ctx, at.thread),
            0 | LEGACY => StreamKey::Legacy(ctx),
            PER_THREAD => StreamKey::PerThread(ctx, at.thread),
            _ => StreamKey::Made(handle),
        };
        if !matches!(key, StreamKey::Made(_)) {
            self.streams.entry(key).or_insert_with(|| Stream::new(ctx, true, 0));
        }
        match self.streams.get(&key) {
            None => fail(Code::INVALID_HANDLE, format!("{handle:#x} is no stream")),
            Some(_) => Ok(key),
        }
    }

    pub(crate) fn known(&self, key: StreamKey) -> Res<&Stream> {
        match self.streams.get(&key) {
            Some(stream) => Ok(stream),
            None => fail(Code::INVALID_HANDLE, format!("{key:?} is no stream")),
        }
    }

    /// What the next operation on a stream comes after.
    pub(crate) fn before(&self, key: StreamKey) -> Vec<OpId> {
        let Some(stream) = self.streams.get(&key) else { return Vec::new() };
        let mut deps: Vec<OpId> = stream.tail.into_iter().collect();
        if let StreamKey::Legacy(ctx) = key {
            let blocking = self.streams.values().filter(|s| s.ctx == ctx && s.blocking);
            deps.extend(blocking.filter_map(|s| s.tail));
            let orphans = self.contexts.get(&ctx).into_iter().flat_map(|c| &c.orphans);
            deps.extend(orphans.filter(|o| o.1).map(|o| o.0));
        } else if stream.blocking {
            let legacy = self.streams.get(&StreamKey::Legacy(stream.ctx));
            deps.extend(legacy.and_then(|s| s.tail));
        }
        deps
    }

    /// Work on a stream, after what is there and after `more`; nothing when it was captured.
    pub(crate) fn enqueue(
        &mut self,
        at: Site,
        key: StreamKey,
        work: Work,
        more: &[OpId],
    ) -> Res<Option<OpId>> {
        self.legacy_is_free(key)?;
        if self.captured(at, key, &work)? {
            return Ok(None);
        }
        let mut deps = self.before(key);
        deps.extend(more);
        let submitted = self.queue.submit(at.name.into(), &deps, work);
        let id = self.checked(submitted)?;
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.tail = Some(id);
        }
        Ok(Some(id))
    }

    /// Work that the host waits for.
    pub(crate) fn at_once(&mut self, at: Site, key: StreamKey, work: Work) -> Res<OpId> {
        let Some(id) = self.enqueue(at, key, work, &[])? else {
            return Err(self.invalidate(key, "a call that waits"));
        };
        let waited = self.queue.wait(&[id]);
        self.checked(waited)?;
        Ok(id)
    }

    pub(crate) fn sync_stream(&mut self, at: Site, handle: Handle) -> Res<()> {
        let key = self.stream(at, handle)?;
        self.waitable(key)?;
        let targets = self.before(key);
        let waited = self.queue.wait(&targets);
        self.checked(waited)
    }

    /// Whether all work on a stream is over.
    pub(crate) fn query_stream(&mut self, at: Site, handle: Handle) -> Res<bool> {
        let key = self.stream(at, handle)?;
        self.waitable(key)?;
        let targets = self.before(key);
        let over = self.queue.query(&targets);
        self.checked(over)
    }

    /// A stream that the host waits for must not be captured, nor be the legacy one beside a
    /// captured blocking one.
    fn waitable(&mut self, key: StreamKey) -> Res<()> {
        self.legacy_is_free(key)?;
        if self.known(key)?.capture.is_some() {
            return Err(self.invalidate(key, "waiting for a stream that is captured"));
        }
        Ok(())
    }

    /// The stream ends; its work goes on.
    pub(crate) fn destroy_stream(&mut self, at: Site, handle: Handle) -> Res<()> {
        let key = self.stream(at, handle)?;
        if !matches!(key, StreamKey::Made(_)) {
            return fail(Code::INVALID_HANDLE, "a default stream cannot be destroyed");
        }
        if self.known(key)?.capture.is_some() {
            return Err(self.invalidate(key, "destroying a stream that is captured"));
        }
        if let Some(stream) = self.streams.remove(&key)
            && let (Some(tail), Some(ctx)) = (stream.tail, self.contexts.get_mut(&stream.ctx))
        {
            ctx.orphans.push((tail, stream.blocking));
        }
        Ok(())
    }
}
