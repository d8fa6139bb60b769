//! Adapter files of every common layout, to the plain factors that the executors take, and back. Called by
//! applications; frameworks that have a loader of their own do not need it.
//!
//! | layout | type |
//! |---|---|
//! | one safetensors file of kohya (sd-scripts), LyCORIS, ComfyUI or diffusers | [`StateDict`] |
//! | a folder of [PEFT](https://github.com/huggingface/peft): tensors and `adapter_config.json` | [`peft::AdapterFile`] |
//!
//! Both give a [`Module`] for each adapted layer: LoRA, LoCon (with a Tucker core too), LoHa or LoKr, each with DoRA's
//! magnitude where the file has one. What changes the mathematics and is none of these (OFT, GLoRA, T-LoRA, a
//! retrained bias or norm, …) is refused with [`Error::Adapter`], which names the file, the tensor or field, and what
//! to do. The time to read is linear in the file, and so is the memory.
//!
//! The way through: `header` finds the tensors, `suffix` says what each is by the end of its name (`refuse` what
//! it must not be), `parts` puts those of one module together and checks their shapes; `state_dict` and
//! `peft` add names, alpha and rank. `module` has the result, `tensors` the way back; `lora` and `concat` make one
//! LoRA of other methods and of several adapters.

mod adapter;
mod concat;
mod factor;
mod factors;
mod header;
mod lora;
mod module;
mod parts;
pub mod peft;
mod refuse;
mod state_dict;
mod suffix;
mod tensors;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use concat::concat;
pub use factor::{Factor, Weight};
pub use factors::{Factors, Side};
pub use module::{Method, Module};
pub use state_dict::StateDict;

use crate::{Error, Result};

fn at(path: &Path, reason: String) -> Error {
    Error::Adapter { path: path.display().to_string(), reason }
}

/// What is no file yet, or no longer.
fn of_module(reason: String) -> Error {
    Error::Adapter { path: "(in memory)".into(), reason }
}

/// A name in a message: strangers' names may be as long as their files.
fn shown(name: &str) -> Cow<'_, str> {
    let (most, kept) = (240, 100);
    if name.chars().nth(most).is_none() {
        return Cow::Borrowed(name);
    }
    let begin: String = name.chars().take(kept).collect();
    let mut end: Vec<char> = name.chars().rev().take(kept).collect();
    end.reverse();
    Cow::Owned(format!("{begin}…{}", end.into_iter().collect::<String>()))
}

/// A file that is whole, but not yet under its name. Dropped unpublished, it goes away.
struct Pending {
    temporary: PathBuf,
    path: PathBuf,
}

impl Pending {
    fn write(path: PathBuf, bytes: &[u8]) -> Result<Pending> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{count}.tmp", std::process::id()));
        let pending = Pending { temporary, path };
        std::fs::write(&pending.temporary, bytes)
            .map_err(|error| at(&pending.temporary, error.to_string()))?;
        Ok(pending)
    }

    fn publish(self) -> Result<()> {
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|error| at(&self.path, error.to_string()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
