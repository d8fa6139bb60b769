//! Contexts: the primary one, created ones, and each thread's stack of current ones.

use std::cell::RefCell;

use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::objects::{Context, Handle, Site};
use crate::queue::OpId;

thread_local! {
    static STACK: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

impl Driver {
    pub(crate) fn device(&self, device: i32) -> Res<()> {
        if device != 0 {
            return fail(Code::INVALID_DEVICE, format!("device {device}, there is only 0"));
        }
        Ok(())
    }

    /// The thread's current context, or null.
    pub(crate) fn current(&self) -> Handle {
        STACK.with_borrow(|s| s.last().copied().unwrap_or(0))
    }

    /// The thread's current context, alive and without a failed check.
    pub(crate) fn ctx(&mut self) -> Res<(Handle, &mut Context)> {
        let handle = self.current();
        if handle == 0 {
            return fail(Code::INVALID_CONTEXT, "no context is current on this thread");
        }
        match self.contexts.get_mut(&handle) {
            None => fail(Code::CONTEXT_IS_DESTROYED, "the current context is destroyed"),
            Some(Context { fault: Some(code), .. }) => Err(Error::silent(*code)),
            Some(context) => Ok((handle, context)),
        }
    }

    fn live(&self, ctx: Handle) -> Res<()> {
        if !self.contexts.contains_key(&ctx) {
            return fail(Code::INVALID_CONTEXT, format!("{ctx:#x} is no context"));
        }
        Ok(())
    }

    pub(crate) fn set_current(&self, ctx: Handle) -> Res<()> {
        if ctx != 0 {
            self.live(ctx)?;
        }
        STACK.with_borrow_mut(|s| {
            s.pop();
            if ctx != 0 {
                s.push(ctx);
            }
        });
        Ok(())
    }

    pub(crate) fn push_current(&self, ctx: Handle) -> Res<()> {
        self.live(ctx)?;
        STACK.with_borrow_mut(|s| s.push(ctx));
        Ok(())
    }

    pub(crate) fn pop_current(&self) -> Res<Handle> {
        match STACK.with_borrow_mut(Vec::pop) {
            Some(ctx) => Ok(ctx),
            None => fail(Code::INVALID_CONTEXT, "no context is current on this thread"),
        }
    }

    /// A new context, current on this thread.
    pub(crate) fn create_ctx(&mut self, flags: u32, device: i32) -> Res<Handle> {
        self.device(device)?;
        let handle = self.handle();
        self.contexts.insert(handle, Context { flags, ..Context::default() });
        self.push_current(handle)?;
        Ok(handle)
    }

    pub(crate) fn destroy_ctx(&mut self, at: Site, ctx: Handle) -> Res<()> {
        self.live(ctx)?;
        if self.primary.ctx == Some(ctx) {
            return fail(Code::INVALID_CONTEXT, "the primary context is released, not destroyed");
        }
        self.end_ctx(at, ctx);
        STACK.with_borrow_mut(|s| {
            if s.last() == Some(&ctx) {
                s.pop();
            }
        });
        Ok(())
    }

    pub(crate) fn retain_primary(&mut self, device: i32) -> Res<Handle> {
        self.device(device)?;
        self.primary.refs += 1;
        if let Some(ctx) = self.primary.ctx {
            return Ok(ctx);
        }
        let handle = self.handle();
        let context = Context { flags: self.primary.flags, ..Context::default() };
        self.contexts.insert(handle, context);
        self.primary.ctx = Some(handle);
        Ok(handle)
    }

    pub(crate) fn release_primary(&mut self, at: Site, device: i32) -> Res<()> {
        self.device(device)?;
        let Some(ctx) = self.primary.ctx.filter(|_| self.primary.refs > 0) else {
            return fail(Code::INVALID_CONTEXT, "the primary context is not retained");
        };
        self.primary.refs -= 1;
        if self.primary.refs == 0 {
            self.primary.ctx = None;
            self.end_ctx(at, ctx);
        }
        Ok(())
    }

    pub(crate) fn reset_primary(&mut self, at: Site, device: i32) -> Res<()> {
        self.device(device)?;
        if let Some(ctx) = self.primary.ctx.take() {
            self.end_ctx(at, ctx);
            if self.primary.refs > 0 {
                // Those who retained it keep their handle; it starts anew.
                let context = Context { flags: self.primary.flags, ..Context::default() };
                self.contexts.insert(ctx, context);
                self.primary.ctx = Some(ctx);
            }
        }
        Ok(())
    }

    /// Finishes a context's work, then drops all that belongs to it.
    fn end_ctx(&mut self, at: Site, ctx: Handle) {
        let healthy = self.contexts.get(&ctx).is_some_and(|c| c.fault.is_none());
        if healthy && self.lost.is_none() {
            let _ = at;
            let targets = self.work_of(ctx);
            let waited = self.queue.wait(&targets);
            // The report is out; the context ends all the same.
            let _ = self.checked(waited);
        }
        self.captures.retain(|_, c| c.ctx != ctx);
        self.streams.retain(|_, s| s.ctx != ctx);
        self.events.retain(|_, e| e.ctx != ctx);
        self.graphs.retain(|_, g| g.ctx != ctx);
        self.execs.retain(|_, e| e.graph.ctx != ctx);
        self.modules.retain(|_, m| m.ctx != ctx);
        let modules = &self.modules;
        self.functions.retain(|_, f| modules.contains_key(&f.module));
        for address in self.memory.end(ctx) {
            self.queue.discard(address);
        }
        for host in self.memory.end_pinned(ctx) {
            self.queue.pinned.free(host);
        }
        self.contexts.remove(&ctx);
    }

    /// All work of a context that may not be over.
    pub(crate) fn work_of(&self, ctx: Handle) -> Vec<OpId> {
        let tails = self.streams.values().filter(|s| s.ctx == ctx).filter_map(|s| s.tail);
        let orphans = self.contexts.get(&ctx).into_iter().flat_map(|c| &c.orphans).map(|o| o.0);
        tails.chain(orphans).collect()
    }

    /// `cuCtxSynchronize`.
    pub(crate) fn synchronize(&mut self, at: Site) -> Res<()> {
        let (ctx, _) = self.ctx()?;
        self.no_capture_in(at, ctx)?;
        let targets = self.work_of(ctx);
        let waited = self.queue.wait(&targets);
        self.checked(waited)?;
        if let Some(context) = self.contexts.get_mut(&ctx) {
            context.orphans.clear();
        }
        Ok(())
    }
}
