//! Modules from PTX text, their functions and what these say of themselves.

use std::borrow::Cow;
use std::sync::Arc;

use ptx_sim::Module;

use crate::code::{Code, Error, Res, fail};
use crate::driver::Driver;
use crate::objects::{Function, Handle, Loaded, Site};

/// Shared memory of a block without opting in to more.
pub(crate) const SHARED_BY_DEFAULT: u64 = 48 << 10;

/// The newest `.version`, times ten, that a driver reads: drivers of CUDA 11 and 12 follow their
/// toolkit's PTX.
fn newest(driver: i32) -> i32 {
    match (driver / 1000, driver % 1000 / 10) {
        (..=10, _) => 65,
        (11, minor) => 70 + minor.min(8),
        (12, minor @ 0..=5) => 80 + minor,
        (12, 6) => 85,
        (12, minor) => 79 + minor,
        (_, minor) => 90 + minor,
    }
}

/// The word after a directive at the head of the text.
fn directive<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        let word = rest.trim_start();
        (word.len() < rest.len()).then(|| word.split([' ', '\t', ',', '/']).next())?
    })
}

impl Driver {
    /// The second part of an error is what the compiler's log says.
    pub(crate) fn load(&mut self, at: Site, image: &[u8]) -> Res<Handle> {
        let (ctx, _) = self.ctx()?;
        self.loading(at)?;
        let binary = image.starts_with(b"\x7fELF") || image.starts_with(b"\x50\xed\x55\xba");
        let text = match std::str::from_utf8(image) {
            Ok(text) if !binary => text,
            _ => {
                return fail(
                    Code::INVALID_IMAGE,
                    "the image is no PTX text: only that is simulated",
                );
            }
        };
        let edited = self.config.edits.iter();
        let text =
            &*edited.fold(Cow::Borrowed(text), |text, (from, to)| match text.contains(from) {
                true => text.replace(from, to).into(),
                false => text,
            });
        let version = directive(text, ".version").and_then(|v| {
            let (major, minor) = v.split_once('.')?;
            Some(10 * major.parse::<i32>().ok()? + minor.parse::<i32>().ok()?)
        });
        let driver = self.config.version;
        if let Some(version) = version.filter(|&v| v > newest(driver)) {
            let (new, old) = (f64::from(version) / 10.0, f64::from(newest(driver)) / 10.0);
            return fail(
                Code::UNSUPPORTED_PTX_VERSION,
                format!("PTX {new:.1}; this driver ({driver}) reads up to {old:.1}"),
            );
        }
        let refused = |entry: &String| text.contains(&format!(".entry {entry}("));
        if let Some(entry) = self.config.refuse.as_ref().filter(|entry| refused(entry)) {
            return fail(Code::INVALID_PTX, format!("{entry} is refused: PTX_SIM_REFUSE says so"));
        }
        let chip = self.config.options.chip;
        if let Some(target) = directive(text, ".target")
            && !chip.takes(target.trim_end_matches(','))
        {
            let message = format!("PTX for {target} does not run on {}", chip.name);
            return fail(Code::NO_BINARY_FOR_GPU, message);
        }
        let name = text
            .split(".entry")
            .nth(1)
            .map(|rest| rest.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next());
        let file = format!("{}.ptx", name.flatten().unwrap_or("module"));
        let module = Module::parse(&file, text)
            .map_err(|error| Error::new(Code::INVALID_PTX, error.to_string()))?;
        let handle = self.handle();
        let version = version.unwrap_or(0);
        self.modules.insert(handle, Loaded { ctx, module: Arc::new(module), version });
        Ok(handle)
    }

    fn module(&mut self, handle: Handle) -> Res<&Loaded> {
        self.ctx()?;
        let unknown = || Error::new(Code::INVALID_HANDLE, format!("{handle:#x} is no module"));
        self.modules.get(&handle).ok_or_else(unknown)
    }

    pub(crate) fn unload(&mut self, at: Site, handle: Handle) -> Res<()> {
        self.module(handle)?;
        self.potentially_unsafe(at)?;
        self.modules.remove(&handle);
        self.functions.retain(|_, f| f.module != handle);
        Ok(())
    }

    pub(crate) fn entries(&mut self, module: Handle) -> Res<usize> {
        Ok(self.module(module)?.module.entries().count())
    }

    pub(crate) fn entry(&mut self, module: Handle, name: &str) -> Res<Handle> {
        let loaded = self.module(module)?;
        let Some(fixed) = loaded.module.static_shared(name) else {
            let names: Vec<&str> = loaded.module.entries().collect();
            let message = format!("no entry `{name}`; the module has {}", names.join(", "));
            return fail(Code::NOT_FOUND, message);
        };
        if let Some((&handle, _)) =
            self.functions.iter().find(|(_, f)| f.module == module && f.entry == name)
        {
            return Ok(handle);
        }
        let loaded = self.module(module)?;
        let function = Function {
            module,
            code: Arc::clone(&loaded.module),
            entry: name.into(),
            version: loaded.version,
            dynamic: SHARED_BY_DEFAULT.saturating_sub(fixed) as u32,
            carveout: -1,
        };
        let handle = self.handle();
        self.functions.insert(handle, function);
        Ok(handle)
    }

    pub(crate) fn function(&mut self, handle: Handle) -> Res<&mut Function> {
        self.ctx()?;
        let unknown = || Error::new(Code::INVALID_HANDLE, format!("{handle:#x} is no function"));
        self.functions.get_mut(&handle).ok_or_else(unknown)
    }

    pub(crate) fn function_attribute(&mut self, handle: Handle, attribute: i32) -> Res<i32> {
        let binary = self.config.options.chip.capability as i32;
        let f = self.function(handle)?;
        Ok(match attribute {
            0 => f.code.max_threads(&f.entry).unwrap_or(0) as i32,
            1 => f.code.static_shared(&f.entry).unwrap_or(0) as i32,
            // Constant memory, local memory, and the cache mode asked for at compile time: none.
            2 | 3 | 7 => 0,
            // What the bounds of the entry leave a thread: only an assembler knows what it takes.
            4 => f.code.register_bound(&f.entry).unwrap_or(255) as i32,
            5 => f.version,
            6 => binary,
            8 => f.dynamic as i32,
            9 => f.carveout,
            // A cluster size that must be set, its width, height and depth, as the text fixes them.
            10..=13 => {
                let fixed = f.code.fixed_cluster(&f.entry);
                let [x, y, z] = fixed.unwrap_or([0; 3]).map(|n| n as i32);
                [i32::from(fixed.is_some()), x, y, z][attribute as usize - 10]
            }
            14 | 15 => 0,
            _ => return fail(Code::INVALID_VALUE, format!("function attribute {attribute}")),
        })
    }

    pub(crate) fn set_function_attribute(
        &mut self,
        handle: Handle,
        attribute: i32,
        value: i32,
    ) -> Res<()> {
        let chip = self.config.options.chip;
        let f = self.function(handle)?;
        match attribute {
            8 => {
                let fixed = f.code.static_shared(&f.entry).unwrap_or(0);
                let most = chip.shared_per_block.saturating_sub(fixed);
                match u32::try_from(value) {
                    Ok(bytes) if u64::from(bytes) <= most => f.dynamic = bytes,
                    _ => {
                        return fail(
                            Code::INVALID_VALUE,
                            format!(
                                "MAX_DYNAMIC_SHARED_SIZE_BYTES {value}: {} gives entry `{}` at most \
                                 {most}",
                                chip.name, f.entry
                            ),
                        );
                    }
                }
            }
            9 if (-1..=100).contains(&value) => f.carveout = value,
            9 => return fail(Code::INVALID_VALUE, format!("carve-out of {value} percent")),
            _ => {
                let message = format!("function attribute {attribute} cannot be set");
                return fail(Code::INVALID_VALUE, message);
            }
        }
        Ok(())
    }

    /// Offset and size of a parameter.
    pub(crate) fn param_info(&mut self, handle: Handle, index: usize) -> Res<(usize, usize)> {
        let f = self.function(handle)?;
        let layout = f.code.param_layout(&f.entry).unwrap_or_default();
        let none = || Error::new(Code::INVALID_VALUE, format!("entry has no parameter {index}"));
        layout.get(index).copied().ok_or_else(none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_read_the_ptx_of_their_toolkit() {
        assert_eq!(newest(11_080), 78);
        assert_eq!(newest(12_000), 80);
        assert_eq!(newest(12_060), 85);
        assert_eq!(newest(12_080), 87);
        assert_eq!(newest(13_000), 90);
    }

    #[test]
    fn directives_are_found_behind_comments() {
        let text = "// .version 9.9 in words\n  .version 7.8 // here\n.target sm_80, debug\n";
        assert_eq!(directive(text, ".version"), Some("7.8"));
        assert_eq!(directive(text, ".target"), Some("sm_80"));
        assert_eq!(directive(text, ".address_size"), None);
    }
}
