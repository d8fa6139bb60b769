//! Stream capture: work becomes nodes of a graph instead of being done, and what CUDA forbids
//! meanwhile. An illegal call spoils the capture; its end says so.

use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::objects::{Capture, Graph, Handle, Mode, Node, Recorded, Site, StreamKey};
use crate::queue::{Source, Work};

thread_local! {
    static THREAD_MODE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Gives the thread another mode and returns the one that it had.
pub(crate) fn exchange_mode(mode: u32) -> Res<u32> {
    Mode::parse(mode)?;
    Ok(THREAD_MODE.replace(mode))
}

/// What a stream says of its capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    None = 0,
    Active = 1,
    Invalidated = 2,
}

impl Driver {
    pub(crate) fn begin_capture(&mut self, at: Site, stream: Handle, mode: u32) -> Res<()> {
        let mode = Mode::parse(mode)?;
        let key = self.stream(at, stream)?;
        if matches!(key, StreamKey::Legacy(_)) {
            return fail(Code::STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
        }
        let stream = self.known(key)?;
        if stream.capture.is_some() {
            return fail(Code::ILLEGAL_STATE, "the stream is captured already");
        }
        let ctx = stream.ctx;
        let id = self.handle() as u64;
        let capture =
            Capture { ctx, origin: key, mode, thread: at.thread, valid: true, nodes: Vec::new() };
        self.captures.insert(id, capture);
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.capture = Some((id, Vec::new()));
        }
        Ok(())
    }

    pub(crate) fn end_capture(&mut self, at: Site, stream: Handle) -> Res<Handle> {
        let key = self.stream(at, stream)?;
        let Some((id, tails)) = self.known(key)?.capture.clone() else {
            return fail(Code::ILLEGAL_STATE, "the stream is not captured");
        };
        let Some(capture) = self.captures.get(&id) else {
            return fail(Code::ILLEGAL_STATE, "the stream is not captured");
        };
        if capture.mode != Mode::Relaxed && capture.thread != at.thread {
            return fail(
                Code::STREAM_CAPTURE_WRONG_THREAD,
                "another thread began this capture, and its mode is not relaxed",
            );
        }
        if capture.origin != key {
            self.invalidate_capture(id);
            return fail(Code::STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
        }
        // From here on the capture is over, well or not.
        let capture = self.captures.remove(&id);
        let mut loose = false;
        for (other, stream) in &mut self.streams {
            if let Some((_, ends)) = stream.capture.take_if(|c| c.0 == id) {
                loose |= *other != key && !joined(&ends, &tails, capture.as_ref());
            }
        }
        for event in self.events.values_mut() {
            if matches!(event.recorded, Recorded::Capture(c, _) if c == id) {
                event.recorded = Recorded::Never;
            }
        }
        match capture {
            Some(capture) if !capture.valid => {
                fail(Code::STREAM_CAPTURE_INVALIDATED, "an illegal call spoilt the capture")
            }
            _ if loose => fail(
                Code::STREAM_CAPTURE_UNJOINED,
                "a stream that joined the capture has work that the first one does not wait for",
            ),
            Some(capture) => {
                let handle = self.handle();
                self.graphs.insert(handle, Graph { ctx: capture.ctx, nodes: capture.nodes.into() });
                Ok(handle)
            }
            None => fail(Code::ILLEGAL_STATE, "the stream is not captured"),
        }
    }

    pub(crate) fn capture_status(&mut self, at: Site, stream: Handle) -> Res<(Status, u64)> {
        let key = self.stream(at, stream)?;
        self.legacy_is_free(key)?;
        Ok(match &self.known(key)?.capture {
            None => (Status::None, 0),
            Some((id, _)) if self.captures.get(id).is_some_and(|c| c.valid) => {
                (Status::Active, *id)
            }
            Some((id, _)) => (Status::Invalidated, *id),
        })
    }

    /// Makes work on a captured stream a node; false when the stream is not captured.
    pub(crate) fn captured(&mut self, at: Site, key: StreamKey, work: &Work) -> Res<bool> {
        let Some((id, deps)) = self.known(key)?.capture.clone() else { return Ok(false) };
        if !self.captures.get(&id).is_some_and(|c| c.valid) {
            return fail(Code::STREAM_CAPTURE_INVALIDATED, "an illegal call spoilt the capture");
        }
        let what = match work {
            // The event remembers the nodes; a stamp in a graph would be another event each time.
            Work::Marker | Work::Stamp(_) => return Ok(true),
            Work::Born { .. } | Work::Free { .. } => "allocating or freeing in a graph",
            Work::Upload { from: Source::Staged(_), .. } | Work::Download { to: None, .. } => {
                "a copy of pageable host memory"
            }
            _ => {
                let Some(capture) = self.captures.get_mut(&id) else { return Ok(false) };
                capture.nodes.push(Node { name: at.name.into(), after: deps, work: work.clone() });
                let node = capture.nodes.len() - 1;
                if let Some(stream) = self.streams.get_mut(&key) {
                    stream.capture = Some((id, vec![node]));
                }
                return Ok(true);
            }
        };
        Err(self.invalidate(key, what))
    }

    /// Spoils the capture of a stream for a call that must not be made meanwhile.
    pub(crate) fn invalidate(&mut self, key: StreamKey, what: &str) -> Error {
        if let Some((id, _)) = self.streams.get(&key).and_then(|s| s.capture.clone()) {
            self.invalidate_capture(id);
        }
        Error::new(
            Code::STREAM_CAPTURE_UNSUPPORTED,
            format!("{what} is not permitted while a stream is captured"),
        )
    }

    pub(crate) fn invalidate_capture(&mut self, id: u64) {
        if let Some(capture) = self.captures.get_mut(&id) {
            capture.valid = false;
        }
    }

    /// Work on the legacy stream would depend on every blocking stream, captured ones included.
    pub(crate) fn legacy_is_free(&mut self, key: StreamKey) -> Res<()> {
        let StreamKey::Legacy(ctx) = key else { return Ok(()) };
        let mut captured = self.streams.values().filter(|s| s.ctx == ctx && s.blocking);
        let Some(id) = captured.find_map(|s| s.capture.as_ref().map(|c| c.0)) else {
            return Ok(());
        };
        self.invalidate_capture(id);
        fail(
            Code::STREAM_CAPTURE_IMPLICIT,
            "the legacy stream cannot be used while a blocking stream is captured",
        )
    }

    /// Calls that may have hidden side effects are forbidden by the mode of a capture, to all
    /// threads or to the one that captures.
    pub(crate) fn potentially_unsafe(&mut self, at: Site) -> Res<()> {
        if THREAD_MODE.get() == 2 {
            return Ok(());
        }
        let forbids = |c: &Capture| match c.mode {
            Mode::Global => true,
            Mode::ThreadLocal => c.thread == at.thread,
            Mode::Relaxed => false,
        };
        let Some((&id, capture)) = self.captures.iter().find(|(_, c)| c.valid && forbids(c)) else {
            return Ok(());
        };
        let mode = capture.mode;
        self.invalidate_capture(id);
        fail(
            Code::STREAM_CAPTURE_UNSUPPORTED,
            format!("not permitted while a stream is captured in mode {mode:?}"),
        )
    }

    /// From CUDA 12.3 on a module is loaded as any call that may have side effects; before, a load spoils
    /// whatever capture there is, in every mode.
    pub(crate) fn loading(&mut self, at: Site) -> Res<()> {
        if self.config.version >= 12_030 {
            return self.potentially_unsafe(at);
        }
        let Some(&id) = self.captures.keys().next() else { return Ok(()) };
        self.invalidate_capture(id);
        let message = "drivers before CUDA 12.3 load nothing while a stream is captured";
        fail(Code::STREAM_CAPTURE_UNSUPPORTED, message)
    }

    /// Waiting for a whole context is never permitted while one of its streams is captured.
    pub(crate) fn no_capture_in(&mut self, at: Site, ctx: Handle) -> Res<()> {
        self.potentially_unsafe(at)?;
        let Some((&id, _)) = self.captures.iter().find(|(_, c)| c.ctx == ctx) else {
            return Ok(());
        };
        self.invalidate_capture(id);
        fail(Code::STREAM_CAPTURE_UNSUPPORTED, "waiting for a context with a captured stream")
    }

    /// A captured stream must not wait for what happens outside of its capture.
    pub(crate) fn outside_work(&mut self, key: StreamKey) -> Res<()> {
        let _ = self.invalidate(key, "");
        fail(
            Code::STREAM_CAPTURE_ISOLATION,
            "a captured stream waits for an event that was recorded outside of the capture",
        )
    }

    /// A stream waits for an event of a capture: it takes part from now on.
    pub(crate) fn join_capture(&mut self, key: StreamKey, id: u64, nodes: &[usize]) -> Res<()> {
        if matches!(key, StreamKey::Legacy(_)) {
            self.invalidate_capture(id);
            return fail(
                Code::STREAM_CAPTURE_IMPLICIT,
                "the legacy stream cannot take part in a capture",
            );
        }
        let Some(stream) = self.streams.get_mut(&key) else { return Ok(()) };
        match &mut stream.capture {
            Some((own, tails)) if *own == id => {
                tails.extend(nodes);
                tails.sort_unstable();
                tails.dedup();
            }
            Some((own, _)) => {
                let own = *own;
                self.invalidate_capture(own);
                self.invalidate_capture(id);
                return fail(Code::STREAM_CAPTURE_MERGE, "two captures cannot be merged");
            }
            None => stream.capture = Some((id, nodes.to_vec())),
        }
        Ok(())
    }
}

/// Whether the nodes at the ends of a stream are among what `tails` come after.
fn joined(ends: &[usize], tails: &[usize], capture: Option<&Capture>) -> bool {
    let Some(capture) = capture else { return true };
    let mut reached = vec![false; capture.nodes.len()];
    let mut left = tails.to_vec();
    while let Some(node) = left.pop() {
        if !std::mem::replace(&mut reached[node], true) {
            left.extend(&capture.nodes[node].after);
        }
    }
    ends.iter().all(|&node| reached[node])
}
