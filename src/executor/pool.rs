//! Memory that runs take one after another: whoever finds none makes some, and whoever is done leaves
//! it. Nothing is locked while it is out, so a run may wait, or begin another run, on the same thread.

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// What is not out.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool(Mutex::default())
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl<T> Pool<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        // A panic elsewhere leaves whole elements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the one that was left last among those that suit.
    pub(crate) fn find(&self, suits: impl FnMut(&T) -> bool) -> Option<Taken<'_, T>> {
        let mut left = self.lock();
        let at = left.iter().rposition(suits)?;
        let taken = Some(left.remove(at));
        Some(Taken { pool: self, taken })
    }

    /// Takes the one that was left last among those that suit, or what `make` makes.
    pub(crate) fn take<E>(
        &self,
        suits: impl FnMut(&T) -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Taken<'_, T>, E> {
        match self.find(suits) {
            Some(taken) => Ok(taken),
            None => Ok(Taken { pool: self, taken: Some(make()?) }),
        }
    }
}

/// Something that goes back to its pool when it is dropped.
pub(crate) struct Taken<'p, T> {
    pool: &'p Pool<T>,
    /// Always there until it is dropped.
    taken: Option<T>,
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.taken.as_ref().expect("there until it is dropped")
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.taken.as_mut().expect("there until it is dropped")
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.pool.lock().push(taken);
        }
    }
}
