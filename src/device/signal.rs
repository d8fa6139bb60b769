//! A callback of wgpu's that a future waits for. Called by `wgpu`.

use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ready when a sender has been called, or was dropped without: nobody would call it any more.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State(Mutex<(bool, Option<Waker>)>);

impl State {
    fn lock(&self) -> MutexGuard<'_, (bool, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal {
    /// What to call, once.
    pub(super) fn sender(&self) -> impl FnOnce() + Send + use<> {
        let sender = Sender(self.state.clone());
        move || drop(sender)
    }
}

impl Future for Signal {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (called, waker) = &mut *self.state.lock();
        if *called {
            return Poll::Ready(());
        }
        *waker = Some(context.waker().clone());
        Poll::Pending
    }
}

struct Sender(Arc<State>);

impl Drop for Sender {
    fn drop(&mut self) {
        let waker = {
            let (called, waker) = &mut *self.0.lock();
            *called = true;
            waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(signal: &mut Signal) -> Poll<()> {
        Pin::new(signal).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn is_ready_when_the_sender_is_called_or_gone() {
        let mut signal = Signal::default();
        let sender = signal.sender();
        assert!(poll(&mut signal).is_pending());
        sender();
        assert!(poll(&mut signal).is_ready());
        let mut signal = Signal::default();
        drop(signal.sender());
        assert!(poll(&mut signal).is_ready());
    }

    #[test]
    fn wakes_whoever_waits_on_another_thread() {
        let signal = Signal::default();
        let sender = signal.sender();
        let waits = std::thread::spawn(|| pollster::block_on(signal));
        std::thread::sleep(core::time::Duration::from_millis(1));
        sender();
        waits.join().unwrap();
    }
}
