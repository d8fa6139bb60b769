//! Parameter blocks by what they hold: one small buffer for all launches with the same
//! parameters, never written again. So a recorded pass needs no upload.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Inner, wgpu};
use crate::Result;

/// Beyond so many all are forgotten; those in use live on in their bind groups.
const MOST: usize = 1 << 12;

/// Whether the block is a storage buffer, and its bytes.
type Key = (bool, Box<[u8]>);

#[derive(Debug, Default)]
pub(super) struct Blocks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_contents: HashMap<Key, wgpu::Buffer>,
    created: usize,
}

impl Blocks {
    pub(super) fn created(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).created
    }
}

impl Inner {
    /// The block with these contents.
    pub(super) fn block(&self, params: Vec<u8>, storage: bool) -> Result<wgpu::Buffer> {
        let key = (storage, params.into_boxed_slice());
        let lock = || self.blocks.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = lock().by_contents.get(&key) {
            return Ok(block.clone());
        }
        let usage = match storage {
            true => wgpu::BufferUsages::STORAGE,
            false => wgpu::BufferUsages::UNIFORM,
        };
        let block = self.filled("parameters", usage, &key.1)?;
        let mut state = lock();
        if state.by_contents.len() >= MOST {
            state.by_contents.clear();
        }
        state.created += 1;
        state.by_contents.insert(key, block.clone());
        Ok(block)
    }
}
