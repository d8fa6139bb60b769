//! The first ten minutes on a card: ten stages from "which card is it" to the design's figures, each in a
//! process of its own, until one fails. Started by `run --bring-up` of the bundle, which sets the
//! caches and library paths; runs wherever there is a driver, the simulated one included.
//!
//! ```text
//! main       the options, the stages in their order
//! supervise  the parent: budgets, limits, logs, what comes back
//! device     a card for stages that launch texts of their own
//! card       1  card, driver, clocks, tools
//! texts      2  every text through the driver's compiler, eight at a time
//! probing    3  instructions alone, dumped as vectors
//! litmus     4  flags between multiprocessors; launches of one graph and what they leave
//! exact      5, 6  small integers bit for bit: kernels without flags, then those with
//! large      7  strategies against each other on a full card, half of it busy
//! others     8, 9, 10  tests of the bundle, compute-sanitizer, the benches and their rivals
//! ```

#[path = "../../kernels/counters/problems.rs"]
mod problems;

mod card;
mod device;
mod exact;
mod large;
mod litmus;
mod others;
mod probing;
mod supervise;
mod texts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
// What kernels/numbers.rs is written with.
use fused_lora::DType;

/// What a stage says when it fails.
pub(crate) type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// How much of each stage is done: none is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scale {
    /// What a card does in its budget.
    Full,
    /// What the simulated driver does in a minute.
    Small,
}

impl Scale {
    /// `full` or `small`.
    pub(crate) fn of<T>(self, full: T, small: T) -> T {
        match self {
            Scale::Full => full,
            Scale::Small => small,
        }
    }
}

/// Brings a card up, stage by stage
#[derive(Debug, Clone, Parser)]
pub(crate) struct Options {
    /// Where results go: at most eight files
    #[arg(long, default_value = "results")]
    pub(crate) out: PathBuf,
    /// How much of each stage is done
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) scale: Scale,
    /// Minutes of all stages together [default: 10, of a small scale 60]
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// This stage alone, in this process
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Of `--stage texts`: one part of so many, as 3/8
    #[arg(long, hide = true)]
    pub(crate) part: Option<String>,
}

/// One stage.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Seconds that it is expected to take on a card; twice as many end it. A simulated card is ended
    /// later: how busy its host is says nothing.
    pub(crate) budget: u32,
    pub(crate) run: fn(&Options) -> Result,
}

/// In the order in which a fault is easiest to find.
pub(crate) const STAGES: &[Stage] = &[
    Stage { name: "card", about: "card, driver, clocks, tools", budget: 15, run: card::run },
    Stage {
        name: "texts",
        about: "every text compiled by the driver, eight at a time",
        budget: 60,
        run: texts::run,
    },
    Stage {
        name: "probes",
        about: "instructions alone, against the simulator and its models",
        budget: 45,
        run: probing::run,
    },
    Stage {
        name: "litmus",
        about: "flags between multiprocessors; a graph of leaders and its header",
        budget: 30,
        run: litmus::run,
    },
    Stage {
        name: "exact-plain",
        about: "small integers bit for bit: kernels without flags",
        budget: 60,
        run: exact::without_flags,
    },
    Stage {
        name: "exact-flags",
        about: "small integers bit for bit: kernels with flags",
        budget: 60,
        run: exact::with_flags,
    },
    Stage {
        name: "large",
        about: "strategies bit for bit, with half of the multiprocessors busy",
        budget: 60,
        run: large::run,
    },
    Stage {
        name: "order",
        about: "graphs cold and warm, four streams, a second context",
        budget: 60,
        run: others::order,
    },
    Stage {
        name: "sanitizer",
        about: "compute-sanitizer's tools on ten cases, where it works",
        budget: 60,
        run: others::sanitizer,
    },
    Stage {
        name: "goals",
        about: "the design's figures, and what a PyTorch user would run",
        budget: 150,
        run: others::goals,
    },
];

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.stage {
        None => supervise::run(&options),
        // What stages start below compute-sanitizer.
        Some(name) if name == "cases" => exact::cases(&options),
        Some(name) => match STAGES.iter().find(|stage| stage.name == name) {
            Some(stage) => (stage.run)(&options),
            None => Err(format!("no stage is called {name}").into()),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bring-up: {error}");
            ExitCode::FAILURE
        }
    }
}
