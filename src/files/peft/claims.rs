//! Which modules of an adapter file have found their layer. Called by frameworks, whose models make their layers one
//! by one and must not pass over an adapter in silence.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::super::{at, shown};
use super::{AdapterFile, MODEL_FILE, Module, in_base};
use crate::Result;

/// An adapter file whose modules are handed out to the layers of a model, by their paths.
///
/// ```
/// use fused_lora::DType;
/// use fused_lora::peft::{AdapterConfig, AdapterFile, Claims, Factor};
///
/// let a = Factor::new(2, 3, DType::F32, &[0.5; 6])?;
/// let b = Factor::new(4, 2, DType::F32, &[0.0; 8])?;
/// let file = AdapterFile::new(AdapterConfig::new(2, 4.0), [("layers.0.fc".into(), a, b)])?;
///
/// let claims = Claims::new(file);
/// assert!(claims.claim("layers.1.fc").is_none()); // a layer without an adapter
/// assert!(claims.finish().is_err()); // an adapter without a layer
/// assert_eq!(claims.claim("layers.0.fc").unwrap().rank(), 2);
/// claims.finish()?;
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug)]
pub struct Claims {
    file: AdapterFile,
    claimed: Mutex<BTreeSet<String>>,
}

impl Claims {
    /// With nothing claimed yet.
    pub fn new(file: AdapterFile) -> Claims {
        Claims { file, claimed: Mutex::default() }
    }

    /// The file.
    pub fn file(&self) -> &AdapterFile {
        &self.file
    }

    /// The module of the layer at `path` ([`AdapterFile::module`]), which now counts as claimed; `None` where the file has
    /// none there.
    pub fn claim(&self, path: &str) -> Option<&Module> {
        let (path, module) = self.file.modules.get_key_value(in_base(path))?;
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        Some(module)
    }

    /// Whether each module was claimed.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for those that were not: the model is another one, or calls its layers otherwise.
    pub fn finish(&self) -> Result<()> {
        let claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        let modules = &self.file.modules;
        let mut left = modules.keys().filter(|path| !claimed.contains(*path));
        let Some(first) = left.next() else { return Ok(()) };
        let (left, all) = (left.count() + 1, modules.len());
        let reason = format!(
            "{left} of the file's {all} modules have no layer in this model, the first `{}`",
            shown(first)
        );
        Err(at(Path::new(MODEL_FILE), reason))
    }
}
