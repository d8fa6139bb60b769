//! What a browser has yet to say: it answers an error scope when the page is idle, so whoever made something
//! cannot be told. The answers are kept until somebody awaits them. Called by `scope`, and by
//! [`Wgpu::settled`](super::Wgpu::settled); natively nothing comes here.

use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::scope::typed;
use super::wgpu;
use crate::{Error, Result};

#[cfg(not(target_family = "wasm"))]
type Answer = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_family = "wasm")]
type Answer = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

/// A popped scope.
struct Report {
    what: String,
    bytes: u64,
    answer: Answer,
}

impl Report {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Error>> {
        let typed = |error| typed(error, &self.what, self.bytes);
        self.answer.as_mut().poll(context).map(|error| error.map(typed))
    }
}

/// What was asked and is not told yet.
#[derive(Default)]
pub(super) struct Reports {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were asked, which is that of the answers.
    pending: VecDeque<Report>,
    /// The first error among those that were answered.
    error: Option<Error>,
}

impl core::fmt::Debug for Reports {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let State { pending, error } = &*self.lock();
        f.debug_struct("Reports").field("pending", &pending.len()).field("error", error).finish()
    }
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `make`, and asks what the device says to it.
    pub(super) fn scoped<T>(
        &self,
        device: &wgpu::Device,
        what: &str,
        bytes: u64,
        make: impl FnOnce(&wgpu::Device) -> T,
    ) -> T {
        // Not for internal errors: wgpu panics where a browser reports one.
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let [memory, validation] = filters.map(|of| device.push_error_scope(of));
        let made = make(device);
        self.ask(what, bytes, Box::pin(validation.pop()));
        self.ask(what, bytes, Box::pin(memory.pop()));
        made
    }

    fn ask(&self, what: &str, bytes: u64, answer: Answer) {
        let report = Report { what: what.to_owned(), bytes, answer };
        let state = &mut *self.lock();
        state.pending.push_back(report);
        // A host that never awaits keeps no more than what is under way.
        while let Some(first) = state.pending.front_mut()
            && let Poll::Ready(error) = first.poll(&mut Context::from_waker(Waker::noop()))
        {
            state.pending.pop_front();
            state.error = state.error.take().or(error);
        }
    }

    /// Waits for all that has been asked so far.
    ///
    /// # Errors
    /// The first that was reported, once.
    pub(super) async fn settled(&self) -> Result<()> {
        // Taken out, because a task that asks meanwhile would poll them with another waker.
        let pending = core::mem::take(&mut self.lock().pending);
        let mut taken = Taken { reports: self, pending };
        while let Some(report) = taken.pending.front_mut() {
            let error = core::future::poll_fn(|context| report.poll(context)).await;
            taken.pending.pop_front();
            let state = &mut *self.lock();
            state.error = state.error.take().or(error);
        }
        match self.lock().error.take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

/// Reports that somebody waits for; what is left when he gives up goes back.
struct Taken<'r> {
    reports: &'r Reports,
    pending: VecDeque<Report>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let state = &mut *self.reports.lock();
        self.pending.append(&mut state.pending);
        state.pending = core::mem::take(&mut self.pending);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A scope that answers when it is told to.
    #[derive(Clone, Default)]
    struct Browser(Arc<Mutex<Scope>>);

    #[derive(Default)]
    struct Scope {
        /// Of who answered: the error, if there was one.
        answer: Option<Option<String>>,
        waker: Option<Waker>,
    }

    impl Browser {
        fn answers(&self, error: Option<&str>) {
            let state = &mut *self.0.lock().unwrap();
            state.answer = Some(error.map(str::to_owned));
            state.waker.take().into_iter().for_each(Waker::wake);
        }

        fn asked(&self) -> Answer {
            let scope = self.clone();
            Box::pin(core::future::poll_fn(move |context| {
                let state = &mut *scope.0.lock().unwrap();
                let Some(answer) = state.answer.take() else {
                    state.waker = Some(context.waker().clone());
                    return Poll::Pending;
                };
                Poll::Ready(answer.map(|description| wgpu::Error::Validation {
                    source: "a browser".into(),
                    description,
                }))
            }))
        }
    }

    fn rejected(what: &str, reason: &str) -> Result<()> {
        Err(Error::Rejected { what: what.to_owned(), reason: reason.to_owned() })
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_error_is_told_once_and_when_all_have_answered() {
        let (reports, browser) = (Reports::default(), [(); 3].map(|()| Browser::default()));
        for (scope, what) in browser.iter().zip(["x", "y", "z"]) {
            reports.ask(what, 0, scope.asked());
        }
        let mut settled = Box::pin(reports.settled());
        browser[0].answers(None);
        assert!(poll(settled.as_mut()).is_pending());
        browser[1].answers(Some("no"));
        assert!(poll(settled.as_mut()).is_pending());
        browser[2].answers(Some("nor this"));
        assert_eq!(poll(settled.as_mut()), Poll::Ready(rejected("y", "no")));
        assert_eq!(pollster::block_on(reports.settled()), Ok(()));
    }

    #[test]
    fn whoever_never_awaits_keeps_what_is_under_way() {
        let reports = Reports::default();
        for round in 0..100 {
            let scope = Browser::default();
            reports.ask("x", 0, scope.asked());
            scope.answers((round == 7).then_some("no"));
            assert!(reports.lock().pending.len() <= 1);
        }
        assert_eq!(pollster::block_on(reports.settled()), rejected("x", "no"));
    }

    #[test]
    fn giving_up_leaves_them_to_the_next_and_in_order() {
        let (reports, browser) = (Reports::default(), [(); 2].map(|()| Browser::default()));
        reports.ask("x", 0, browser[0].asked());
        let mut gives_up = Box::pin(reports.settled());
        assert!(poll(gives_up.as_mut()).is_pending());
        // Meanwhile another task makes something.
        reports.ask("y", 0, browser[1].asked());
        drop(gives_up);
        browser.iter().for_each(|scope| scope.answers(Some("no")));
        assert_eq!(pollster::block_on(reports.settled()), rejected("x", "no"));
    }

    #[test]
    fn asking_meanwhile_does_not_take_the_waker() {
        let (reports, browser) = (Reports::default(), [(); 2].map(|()| Browser::default()));
        reports.ask("x", 0, browser[0].asked());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut settled = Box::pin(reports.settled());
        assert!(settled.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        reports.ask("y", 0, browser[1].asked());
        browser[0].answers(None);
        assert!(woken.0.load(core::sync::atomic::Ordering::Relaxed));
    }

    #[derive(Default)]
    struct Woken(core::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, core::sync::atomic::Ordering::Relaxed);
        }
    }
}
