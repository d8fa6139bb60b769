//! Finds the assemblers: by environment variable, then the pinned ones that `tests/fetch-ptxas` puts
//! into `target/ptxas/`, then PATH.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Without the tools a run counts as a failure when this is set; `tests/run` sets it.
const REQUIRE_VARIABLE: &str = "FUSED_LORA_REQUIRE_PTXAS";

/// Name the newest ptxas, CUDA 12.8's and 12.0's, and nvdisasm.
const NAMED: [&str; 4] =
    ["FUSED_LORA_PTXAS", "FUSED_LORA_PTXAS_12_8", "FUSED_LORA_PTXAS_12_0", "FUSED_LORA_NVDISASM"];

/// The release whose numbers the snapshot holds.
pub(crate) const PINNED: &str = "13.5";

/// An assembler and its release, as `13.5`.
pub(crate) struct Ptxas {
    pub(crate) path: PathBuf,
    pub(crate) release: String,
}

/// What the gate runs.
pub(crate) struct Tools {
    /// The one whose numbers count.
    pub(crate) newest: Ptxas,
    /// CUDA 12.8's: stands for the drivers of the years between, whose assembler is another one than
    /// either of its neighbours.
    pub(crate) middle: Ptxas,
    /// CUDA 12.0's: stands for the oldest driver.
    pub(crate) oldest: Ptxas,
    pub(crate) nvdisasm: PathBuf,
}

fn search(variable: &str, pinned: &str, name: Option<&str>) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().map(Path::to_owned);
    let pinned = [target, beside].into_iter().flatten().map(|dir| dir.join("ptxas").join(pinned));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter_map(|dir| name.map(|name| dir.join(name)));
    pinned.chain(on_path).find(|file| file.is_file())
}

fn ptxas(variable: &str, pinned: &str, name: Option<&str>) -> Result<Ptxas, String> {
    let path = search(variable, pinned, name).ok_or(format!("no {pinned} (or set {variable})"))?;
    let said = Command::new(&path).arg("--version").output();
    let said = said.map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let release = text.split_once("release ").and_then(|(_, rest)| rest.split_once(','));
    let (release, _) = release.ok_or(format!("{} is no ptxas: {text}", path.display()))?;
    Ok(Ptxas { path, release: release.into() })
}

impl Tools {
    fn all() -> Result<Tools, String> {
        let newest = ptxas(NAMED[0], "13.5.37/ptxas", Some("ptxas"))?;
        let exactly = |variable: &str, pinned: &str, release: &str| {
            let found = ptxas(variable, pinned, None)?;
            match found.release == release {
                true => Ok(found),
                false => Err(format!("{variable} is release {}", found.release)),
            }
        };
        let middle = exactly(NAMED[1], "12.8.93/ptxas", "12.8")?;
        let oldest = exactly(NAMED[2], "12.0.140/ptxas", "12.0")?;
        let nvdisasm = search(NAMED[3], "13.5.37/nvdisasm", Some("nvdisasm"));
        let nvdisasm = nvdisasm.ok_or("no 13.5.37/nvdisasm (or set FUSED_LORA_NVDISASM)")?;
        Ok(Tools { newest, middle, oldest, nvdisasm })
    }

    /// The tools, or `None` where there are none and none are required: then it says so, since a
    /// green run without the gate must not look like one with.
    pub(crate) fn find() -> Option<Tools> {
        match Tools::all() {
            Ok(tools) => Some(tools),
            // One that was named and is no good is a mistake, not an absence.
            Err(why)
                if NAMED
                    .into_iter()
                    .chain([REQUIRE_VARIABLE])
                    .any(|v| env::var_os(v).is_some()) =>
            {
                panic!("{why}; tests/fetch-ptxas fetches them")
            }
            Err(why) => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    say(&format!("gate NOT run: {why}; tests/fetch-ptxas fetches them"))
                });
                None
            }
        }
    }
}

/// A line on stderr, past the test harness's capture.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
