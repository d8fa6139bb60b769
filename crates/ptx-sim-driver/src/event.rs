//! Events: a name for the state of a stream at one moment.

use std::sync::Arc;

use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::objects::{Event, Handle, Recorded, Site};
use crate::queue::{OpId, Work};

const BLOCKING_SYNC: u32 = 1;
const DISABLE_TIMING: u32 = 2;

impl Driver {
    pub(crate) fn create_event(&mut self, flags: u32) -> Res<Handle> {
        let (ctx, _) = self.ctx()?;
        if flags & !(BLOCKING_SYNC | DISABLE_TIMING) != 0 {
            return fail(
                Code::INVALID_VALUE,
                format!("event flags {flags:#x}: events between processes are not simulated"),
            );
        }
        let time = (flags & DISABLE_TIMING == 0).then(Arc::default);
        let handle = self.handle();
        self.events.insert(handle, Event { ctx, time, recorded: Recorded::Never });
        Ok(handle)
    }

    pub(crate) fn destroy_event(&mut self, handle: Handle) -> Res<()> {
        self.ctx()?;
        match self.events.remove(&handle) {
            Some(_) => Ok(()),
            None => fail(Code::INVALID_HANDLE, format!("{handle:#x} is no event")),
        }
    }

    fn event(&mut self, handle: Handle) -> Res<&mut Event> {
        self.ctx()?;
        self.events
            .get_mut(&handle)
            .ok_or_else(|| Error::new(Code::INVALID_HANDLE, format!("{handle:#x} is no event")))
    }

    pub(crate) fn record_event(&mut self, at: Site, handle: Handle, stream: Handle) -> Res<()> {
        let event = self.event(handle)?;
        let (ctx, time) = (event.ctx, event.time.clone());
        let key = self.stream(at, stream)?;
        if self.known(key)?.ctx != ctx {
            return fail(Code::INVALID_HANDLE, "event and stream belong to different contexts");
        }
        let work = match time {
            Some(time) => {
                *time.lock().unwrap_or_else(|e| e.into_inner()) = None;
                Work::Stamp(time)
            }
            None => Work::Marker,
        };
        let recorded = match self.enqueue(at, key, work, &[])? {
            Some(id) => Recorded::Stream(id),
            None => match &self.known(key)?.capture {
                Some((capture, tails)) => Recorded::Capture(*capture, tails.clone()),
                None => Recorded::Never,
            },
        };
        self.event(handle)?.recorded = recorded;
        Ok(())
    }

    /// All further work on the stream comes after the event.
    pub(crate) fn wait_event(&mut self, at: Site, stream: Handle, handle: Handle) -> Res<()> {
        let key = self.stream(at, stream)?;
        match &self.event(handle)?.recorded {
            Recorded::Never => {
                if self.known(key)?.capture.is_some() {
                    return self.outside_work(key);
                }
                Ok(())
            }
            &Recorded::Stream(id) => {
                if self.known(key)?.capture.is_some() {
                    return self.outside_work(key);
                }
                self.enqueue(at, key, Work::Marker, &[id]).map(drop)
            }
            Recorded::Capture(capture, nodes) => {
                let (capture, nodes) = (*capture, nodes.clone());
                self.join_capture(key, capture, &nodes)
            }
        }
    }

    fn work_of_event(&mut self, at: Site, handle: Handle) -> Res<Option<OpId>> {
        self.potentially_unsafe(at)?;
        match self.event(handle)?.recorded {
            Recorded::Never => Ok(None),
            Recorded::Stream(id) => Ok(Some(id)),
            Recorded::Capture(capture, _) => {
                self.invalidate_capture(capture);
                fail(Code::CAPTURED_EVENT, "the event was last recorded in a capture")
            }
        }
    }

    pub(crate) fn sync_event(&mut self, at: Site, handle: Handle) -> Res<()> {
        if let Some(id) = self.work_of_event(at, handle)? {
            let waited = self.queue.wait(&[id]);
            self.checked(waited)?;
        }
        Ok(())
    }

    pub(crate) fn query_event(&mut self, at: Site, handle: Handle) -> Res<bool> {
        let Some(id) = self.work_of_event(at, handle)? else { return Ok(true) };
        let over = self.queue.query(&[id]);
        self.checked(over)
    }

    /// Milliseconds that the simulation took between two events: they say nothing of a GPU.
    pub(crate) fn elapsed(&mut self, from: Handle, to: Handle) -> Res<f32> {
        let mut times = [None; 2];
        for (time, handle) in times.iter_mut().zip([from, to]) {
            let event = self.event(handle)?;
            let Some(kept) = &event.time else {
                return fail(Code::INVALID_HANDLE, "the event keeps no time");
            };
            if !matches!(event.recorded, Recorded::Stream(_)) {
                return fail(Code::INVALID_HANDLE, "the event was not recorded");
            }
            *time = *kept.lock().unwrap_or_else(|e| e.into_inner());
        }
        match times {
            [Some(from), Some(to)] if to >= from => Ok((to - from).as_secs_f32() * 1e3),
            [Some(from), Some(to)] => Ok((from - to).as_secs_f32() * -1e3),
            _ => Err(Error::silent(Code::NOT_READY)),
        }
    }
}
