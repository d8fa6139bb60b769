//! What the environment says the machine is: read once, when the driver is initialised. A variable
//! that is not known or not legal is an error there, so that a typing mistake cannot pass as a
//! default. `README.md` has the list.

use std::path::PathBuf;

use ptx_sim::{Chip, CopyTiming, MmaModel, Options, Schedule};

use crate::code::Code;

/// Every variable begins so.
pub(crate) const PREFIX: &str = "PTX_SIM_";

/// When work on streams is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// When the API leaves no choice.
    Late,
    /// Now and then, by seed.
    Random,
    /// When it is asked for.
    Early,
}

/// The machine of this process.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// For launches; each gets a seed of its own.
    pub(crate) options: Options,
    /// A seed that every launch takes instead of its own, to replay a report.
    pub(crate) launch_seed: Option<u64>,
    pub(crate) timing: Timing,
    /// Report what the host reads although nobody wrote it.
    pub(crate) check_host: bool,
    /// Bytes of device memory.
    pub(crate) memory: u64,
    /// Allocation in stream order.
    pub(crate) pools: bool,
    /// As `cuDriverGetVersion` tells it: 1000·major + 10·minor.
    pub(crate) version: i32,
    /// What `cuInit` returns.
    pub(crate) init: Option<Code>,
    /// The launch, from 1, at which the device is lost.
    pub(crate) lose_at: Option<u64>,
    /// The entry whose module is refused, as by a compiler that does not take it.
    pub(crate) refuse: Option<String>,
    /// In every text that is loaded, each first string becomes the second: faults, planted in kernels that a
    /// caller's code launches.
    pub(crate) edits: Vec<(String, String)>,
    pub(crate) counters: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            options: Options { blocks_per_sm: u32::MAX, ..Options::default() },
            launch_seed: None,
            timing: Timing::Late,
            check_host: true,
            memory: 8 << 30,
            pools: true,
            version: 12_080,
            init: None,
            lose_at: None,
            refuse: None,
            edits: Vec::new(),
            counters: None,
        }
    }
}

impl Config {
    /// From pairs of name and value; those without the prefix are somebody else's.
    pub(crate) fn read(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, String> {
        let mut config = Config::default();
        let mut shared = None;
        let mut variables: Vec<_> = variables.collect();
        variables.sort();
        for (name, value) in &variables {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            config
                .set(key, value, &mut shared)
                .map_err(|want| format!("{name}={value}: {want}"))?;
        }
        let options = &mut config.options;
        if let Some(bytes) = shared {
            if bytes > options.chip.shared_per_block {
                return Err(format!(
                    "{PREFIX}SHARED={bytes}: {} has {} bytes a block",
                    options.chip.name, options.chip.shared_per_block
                ));
            }
            options.chip.shared_per_block = bytes;
        }
        if options.sms > options.chip.sms {
            return Err(format!(
                "{PREFIX}SMS={}: {} has {} multiprocessors",
                options.sms, options.chip.name, options.chip.sms
            ));
        }
        if options.gpcs > options.sms {
            return Err(format!(
                "{PREFIX}GPCS={}: there are {} multiprocessors",
                options.gpcs, options.sms
            ));
        }
        Ok(config)
    }

    /// Sets one variable, or says what would have been legal.
    fn set(&mut self, key: &str, value: &str, shared: &mut Option<u64>) -> Result<(), String> {
        let o = &mut self.options;
        match key {
            "CHIP" => {
                o.chip =
                    Chip::by_name(value).ok_or("expected sm_80, sm_86, sm_89, sm_90 or sm_120")?;
            }
            "SMS" => o.sms = positive(value)?,
            "GPCS" => o.gpcs = positive(value)?,
            "BLOCKS_PER_SM" => o.blocks_per_sm = positive(value)?,
            "SHARED" => *shared = Some(number(value)?),
            "SEED" => o.seed = number(value)?,
            "LAUNCH_SEED" => self.launch_seed = Some(number(value)?),
            "BUDGET" => o.budget = number(value)?,
            "PERTURB" => o.perturb = flag(value)?,
            "MEMORY" => self.memory = number(value)?,
            "POOLS" => self.pools = flag(value)?,
            "DRIVER_VERSION" => self.version = number(value)? as i32,
            "LOSE_AT" => self.lose_at = Some(number(value)?),
            "REFUSE" => self.refuse = Some(value.to_owned()),
            "EDIT" => {
                let edits = value.lines().map(|line| {
                    let (from, to) = line.split_once("=>").filter(|(from, _)| !from.is_empty())?;
                    Some((from.to_owned(), to.to_owned()))
                });
                let edits: Option<_> = edits.collect();
                self.edits = edits.ok_or("expected lines of FROM=>TO")?;
            }
            "COUNTERS" => self.counters = Some(value.into()),
            "INIT" => {
                self.init = Some(Code::parse(value).ok_or("expected an error's name or number")?);
            }
            "SCHEDULE" => {
                o.schedule = one_of(
                    value,
                    &[
                        ("round-robin", Schedule::RoundRobin),
                        ("random", Schedule::Random),
                        ("one-far", Schedule::OneFar),
                        ("reverse", Schedule::Reverse),
                    ],
                )?;
            }
            "COPIES" => {
                o.copies = one_of(
                    value,
                    &[
                        ("early", CopyTiming::Early),
                        ("late", CopyTiming::Late),
                        ("random", CopyTiming::Random),
                    ],
                )?;
            }
            "MMA" => {
                o.mma = one_of(
                    value,
                    &[
                        ("exact", MmaModel::Exact),
                        ("random-order", MmaModel::RandomOrder),
                        ("ampere", MmaModel::Ampere),
                        ("hopper", MmaModel::Hopper),
                    ],
                )?;
            }
            "QUEUES" => {
                self.timing = one_of(
                    value,
                    &[("late", Timing::Late), ("random", Timing::Random), ("early", Timing::Early)],
                )?;
            }
            "CHECKS" => {
                let all = value == "all";
                let mut on = [all; 3];
                if !all && value != "none" {
                    for name in value.split(',') {
                        let i = one_of(name, &[("init", 0), ("races", 1), ("host", 2)])?;
                        on[i] = true;
                    }
                }
                [o.check_init, o.check_races, self.check_host] = on;
            }
            _ => return Err("no such variable".into()),
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a number".into())
}

fn positive(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a number from 1".into())
}

fn flag(text: &str) -> Result<bool, String> {
    one_of(text, &[("0", false), ("1", true)])
}

fn one_of<T: Copy>(text: &str, values: &[(&str, T)]) -> Result<T, String> {
    values.iter().find(|v| v.0 == text).map(|v| v.1).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|v| v.0).collect();
        format!("expected {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        Config::read(pairs.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())))
    }

    #[test]
    fn sets_what_it_is_told() {
        let config = read(&[
            ("PTX_SIM_CHIP", "sm_86"),
            ("PTX_SIM_SMS", "7"),
            ("PTX_SIM_CHECKS", "init,host"),
            ("PTX_SIM_INIT", "NO_DEVICE"),
            ("HOME", "elsewhere"),
        ]);
        let config = config.unwrap();
        assert_eq!((config.options.chip.name, config.options.sms), ("sm_86", 7));
        assert!(config.options.check_init && !config.options.check_races && config.check_host);
        assert_eq!(config.init, Some(Code::NO_DEVICE));
    }

    #[test]
    fn a_typing_mistake_is_an_error() {
        for (name, value, want) in [
            ("PTX_SIM_SM", "4", "no such variable"),
            ("PTX_SIM_SMS", "0", "from 1"),
            ("PTX_SIM_SMS", "500", "108 multiprocessors"),
            ("PTX_SIM_CHIP", "sm_100", "sm_80"),
            ("PTX_SIM_GPCS", "5", "4 multiprocessors"),
            ("PTX_SIM_SCHEDULE", "Random", "one-far"),
            ("PTX_SIM_CHECKS", "race", "races"),
            ("PTX_SIM_SHARED", "999999", "a block"),
            ("PTX_SIM_INIT", "SAD", "name or number"),
            ("PTX_SIM_EDIT", "trap", "FROM=>TO"),
            ("PTX_SIM_EDIT", "=>trap", "FROM=>TO"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}={value}: ")), "{error}");
            assert!(error.contains(want), "{error}");
        }
    }
}
