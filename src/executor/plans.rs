//! The plans of the problems that an executor has met: at most a thousand, and then the one that was used
//! longest ago goes. Kept by every executor.

use core::fmt;
use core::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::{Capabilities, Plan, Problem, Result};

/// A model has a few shapes of layers, and each token count that it meets is a problem more.
const MOST: NonZero<usize> = NonZero::new(1024).unwrap();

/// Plans by what they are made from. Nothing is planned under the lock.
pub(crate) struct Plans(Mutex<LruCache<(Problem, Capabilities), Arc<Plan>>>);

impl Default for Plans {
    fn default() -> Plans {
        Plans(Mutex::new(LruCache::new(MOST)))
    }
}

impl fmt::Debug for Plans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plans").field("kept", &self.lock().len()).finish()
    }
}

impl Plans {
    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<(Problem, Capabilities), Arc<Plan>>> {
        // A panic elsewhere leaves a cache that holds what it held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan of `problem`, whose scale and whose β's value are not looked at.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub(crate) fn get(&self, problem: &Problem, capabilities: &Capabilities) -> Result<Arc<Plan>> {
        let key = (problem.identity(), *capabilities);
        if let Some(plan) = self.lock().get(&key) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(Plan::new(&key.0, capabilities)?);
        // Another thread may have been faster: one plan a problem, so that its texts are one, too.
        Ok(self.lock().get_or_insert(key, || plan).clone())
    }
}
