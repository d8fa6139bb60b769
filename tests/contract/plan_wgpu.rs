//! What plans of wgpu choose: for each class of adapters, from one token to many, a kernel that does
//! little more than the layer needs and reads a large weight once where tokens are few. The whole table
//! is committed (`wgpu_table.txt`; BLESS=1 writes it anew), because no adapter was there to time it.

use std::fmt::Write as _;
use std::path::Path;

use fused_lora::{AdapterKind, Capabilities, Operand, Plan, Problem, WgpuCapabilities};

const TOKENS: [usize; 7] = [1, 2, 8, 16, 64, 512, 4096];
const FEATURES: [usize; 2] = [1280, 4096];
const RANKS: [usize; 3] = [0, 16, 64];

/// Executed over needed operations that a plan may have.
const MOST_EXECUTED: f64 = 1.3;
/// Up to so many tokens the weight is what is waited for, and is read once.
const ONE_READ: usize = 16;

fn plan(adapter: AdapterKind, tokens: usize, features: usize, rank: usize) -> Plan {
    let mut device = WgpuCapabilities::default();
    device.adapter = adapter;
    let problem = Problem::forward(tokens, features, features, rank);
    Plan::new(&problem, &Capabilities::Wgpu(device)).unwrap_or_else(|error| panic!("{error}"))
}

/// How often the launches read w: tokens are cut along the grid's first dimension, and each cut reads it.
fn reads_of_w(plan: &Plan) -> u32 {
    let reads =
        |of: &&fused_lora::Launch| of.bindings.iter().any(|of| of.operand == Some(Operand::W));
    plan.launches().iter().filter(reads).map(|of| of.grid[0]).sum()
}

#[test]
fn hardware_gets_kernels_of_its_size() {
    let mut table = String::from(
        "# adapter, features, rank: for 1, 2, 8, 16, 64, 512 and 4096 tokens the candidate, executed over\n\
         # needed operations, and how often w is read\n",
    );
    let mut failed = String::new();
    let classes = AdapterKind::ALL.into_iter().filter(|of| *of != AdapterKind::Software);
    for adapter in classes {
        for (features, rank) in FEATURES.into_iter().flat_map(|of| RANKS.map(|rank| (of, rank))) {
            let _ = write!(table, "{adapter:?} {features} {rank}:");
            for tokens in TOKENS {
                let plan = plan(adapter, tokens, features, rank);
                let executed = plan.flops() as f64 / plan.problem().flops() as f64;
                let (name, reads) = (plan.choice(), reads_of_w(&plan));
                let _ = write!(table, " | {name} {executed:.2} {reads}");
                if !(1.0..=MOST_EXECUTED).contains(&executed) || (tokens <= ONE_READ && reads != 1)
                {
                    let _ = writeln!(failed, "{adapter:?} {tokens} tokens: {}", plan.explain());
                }
            }
            table.push('\n');
        }
    }
    assert!(failed.is_empty(), "{failed}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/wgpu_table.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == table, "other choices: BLESS=1 cargo test --test contract plan_wgpu\n{table}");
}

/// A cost that counts the work of whole tiles knows that one token does not fill one.
#[test]
fn what_runs_is_counted_not_what_is_needed() {
    let mut device = WgpuCapabilities::default();
    device.adapter = AdapterKind::Discrete;
    let (one, tile) = (Problem::forward(1, 512, 512, 0), Problem::forward(64, 512, 512, 0));
    let flops = |problem: &Problem| {
        let choice = "direct/wide".parse().unwrap();
        Plan::choose(problem, &Capabilities::Wgpu(device), &choice).unwrap().flops()
    };
    assert_eq!(flops(&one), flops(&tile));
    assert_eq!(flops(&tile), tile.flops());
}

/// No dispatch on a GPU is so long that a watchdog, or the rest of the machine, waits for it in vain: tokens
/// are cut into bands. A software driver is left alone.
#[test]
fn long_layers_are_cut_into_bands() {
    let launches = |adapter, tokens| {
        let mut device = WgpuCapabilities::default();
        (device.adapter, device.binding_bytes) = (adapter, 2 << 30);
        let problem = Problem::forward(tokens, 8192, 8192, 0);
        let plan = Plan::new(&problem, &Capabilities::Wgpu(device)).unwrap();
        let most =
            plan.launches().iter().map(|of| of.bindings[0].rows.map_or(tokens, |rows| rows.1));
        (plan.launches().len(), most.max().unwrap())
    };
    assert_eq!(launches(AdapterKind::Discrete, 4096).0, 1);
    assert_eq!(launches(AdapterKind::Software, 1 << 15).0, 1);
    for adapter in [AdapterKind::Integrated, AdapterKind::Mobile, AdapterKind::Hardware] {
        let (count, tokens) = launches(adapter, 4096);
        assert!(count > 1 && tokens % 64 == 0, "{adapter:?}: {count} launches of {tokens} tokens");
        // A tile's tokens are not cut.
        assert_eq!(launches(adapter, 64).0, 1);
    }
}
