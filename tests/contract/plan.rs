//! Plans without a device: candidates and their reasons, forced choices, the text of
//! `explain`, what a plan says that it costs, and that it is a function of its input.

use std::collections::HashMap;

use fused_lora::{
    Access, Capabilities, Choice, CpuCapabilities, DType, Gradients, Layout, Operand, Operation,
    Outcome, Plan, Problem, Strategy,
};
use test_support::feasible;

fn cpu(workers: usize) -> Capabilities {
    Capabilities::Cpu(CpuCapabilities::new(workers))
}

/// 512 tokens through a layer of 64 × 48, rank 8, in bf16 with an f32 adapter.
fn layer(operation: Operation) -> Problem {
    Problem::new(operation, 512, 64, 48, 8)
        .with_activation(DType::Bf16)
        .with_adapter(DType::F32)
        .with_gradient(DType::F32)
}

fn outcome(plan: &Plan, name: &str) -> Outcome {
    let choice: Choice = name.parse().unwrap();
    let mut all = plan.candidates().iter();
    let found = all.find(|of| {
        Some(of.strategy) == choice.strategy && Some(of.preset) == choice.preset.as_deref()
    });
    found.unwrap_or_else(|| panic!("no candidate {name}")).outcome.clone()
}

#[test]
fn candidates_are_discarded_with_a_reason() {
    let plan = Plan::new(&layer(Operation::Forward), &cpu(2)).unwrap();
    let refused = |name: &str, reason: &str| {
        assert_eq!(outcome(&plan, name), Outcome::Refused(reason.to_owned()), "{name}");
    };
    refused("leader/decode", "tokens 512 is outside 1..=16");
    refused("direct/panel", "rank 8 is outside 0..=0");
    // Other operations' presets are none of its candidates.
    let names = plan.candidates().iter().map(|of| of.preset);
    assert!(names.collect::<Vec<_>>().iter().all(|of| ["panel", "decode", "band"].contains(of)));
}

#[test]
fn the_cheapest_candidate_is_chosen() {
    for &operation in Operation::ALL {
        for tokens in [1, 16, 17, 512, 4096] {
            let problem = Problem::new(operation, tokens, 300, 200, 16);
            let plan = Plan::new(&problem, &cpu(2)).unwrap();
            let (mut chosen, mut others) = (Vec::new(), Vec::new());
            for of in plan.candidates() {
                match of.outcome {
                    Outcome::Chosen(micros) => chosen.push((of.strategy, of.preset, micros)),
                    Outcome::Slower(micros) => others.push(micros),
                    Outcome::Refused(_) => {}
                    // Nothing was forced.
                    ref other => panic!("{other:?}"),
                }
            }
            let [(strategy, preset, micros)] = chosen[..] else { panic!("{chosen:?}") };
            assert_eq!((plan.strategy(), plan.preset()), (strategy, preset));
            assert!(others.iter().all(|other| *other >= micros), "{}", plan.explain());
            assert!(micros.is_finite() && micros > 0.0, "{}", plan.explain());
        }
    }
}

#[test]
fn a_forced_choice_is_taken_or_refused_by_name() {
    let problem = layer(Operation::Forward);
    for name in ["leader/panel", "recompute/band", "leader", "recompute", "auto/band", "auto"] {
        let choice: Choice = name.parse().unwrap();
        let plan = Plan::choose(&problem, &cpu(3), &choice).unwrap();
        assert!(choice.strategy.is_none_or(|strategy| strategy == plan.strategy()), "{name}");
        let preset = choice.preset.as_deref();
        assert!(preset.is_none_or(|preset| preset == plan.preset()), "{name}");
    }
    let plan = Plan::choose(&problem, &cpu(3), &"recompute".parse().unwrap()).unwrap();
    assert_eq!(outcome(&plan, "leader/panel"), Outcome::NotForced);
    for name in ["two_pass", "direct", "leader/decode", "leader/band", "auto/merge"] {
        let error = Plan::choose(&problem, &cpu(3), &name.parse().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{name}: cannot be forced on forward: ")), "{text}");
    }
}

/// The words themselves: who prints a plan reads this.
#[test]
fn explain_says_it_all() {
    let problem = Problem::forward(24, 64, 48, 8).with_dtype(DType::Bf16);
    let plan = Plan::choose(&problem, &cpu(4), &"recompute".parse().unwrap()).unwrap();
    let golden = "\
forward: tokens 24, in_features 64, out_features 48, rank 8, bf16 (adapter bf16, gradient bf16)
device: the CPU with 4 workers
  leader/panel       not the forced choice
  leader/decode      refused: tokens 24 is outside 1..=16
  recompute/band     chosen   MICROS µs (model)
  direct/panel       refused: rank 8 is outside 0..=0
  direct/decode      refused: tokens 24 is outside 1..=16
  direct/band        refused: rank 8 is outside 0..=0
launch linear: grid [1, 1, 1], block [1, 1, 1]
cost: 0.000 GFLOP (floor 1.292 of the plain layer), 0.0000 GB, workspace BYTES bytes";
    let Outcome::Chosen(micros) = outcome(&plan, "recompute/band") else { panic!() };
    // The model's figures may be tuned; where they stand may not move.
    let golden = golden
        .replace("MICROS", &format!("{micros:.0}"))
        .replace("BYTES", &plan.workspace_len().to_string());
    assert_eq!(plan.explain(), golden);
}

#[test]
fn explain_names_every_candidate() {
    for &operation in Operation::ALL {
        for tokens in [0, 5, 500] {
            let plan = Plan::new(&Problem::new(operation, tokens, 9, 9, 3), &cpu(2)).unwrap();
            let text = plan.explain();
            assert!(!plan.candidates().is_empty());
            for of in plan.candidates() {
                let name = format!("  {}/{} ", of.strategy, of.preset);
                assert!(text.contains(&name), "{name} in\n{text}");
            }
        }
    }
}

/// m, k, n, r = 512, 64, 48, 8; multiply-adds counted by hand, two operations each.
#[test]
fn flops_are_those_of_the_formulas() {
    let plan = |problem: Problem| Plan::new(&problem, &cpu(1)).unwrap().flops();
    let (wide, shrink, expand) = (512 * 64 * 48, 512 * 64 * 8, 512 * 8 * 48);
    assert_eq!(plan(layer(Operation::Forward)), 2 * (wide + shrink + expand));
    assert_eq!(plan(layer(Operation::Forward)), 4_063_232);
    assert_eq!(plan(layer(Operation::BackwardInput)), 4_063_232);
    assert_eq!(plan(layer(Operation::Forward).plain()), 3_145_728);
    assert_eq!(plan(layer(Operation::BackwardShrink)), 2 * 512 * 48 * 8);
    assert_eq!(plan(layer(Operation::BackwardAdapter)), 2 * (shrink + expand));
    let gradients = |of| plan(layer(Operation::BackwardAdapter).with_gradients(of));
    assert_eq!((gradients(Gradients::A), gradients(Gradients::B)), (524_288, 393_216));
    assert_eq!(plan(layer(Operation::Merge)), 2 * 48 * 64 * 8);
    assert_eq!(plan(layer(Operation::Unmerge)), 49_152);
    let floor = Plan::new(&layer(Operation::Forward), &cpu(1)).unwrap().floor();
    assert_eq!(floor, 4_063_232.0 / 3_145_728.0);
    assert_eq!(Plan::new(&layer(Operation::Merge), &cpu(1)).unwrap().floor(), 1.0);
}

/// Sums that are stored as they are need no room of their own beside y.
#[test]
fn an_f32_output_is_summed_in_place() {
    let bf16 = Problem::forward(256, 512, 1000, 16).with_dtype(DType::Bf16);
    let len = |problem: Problem| Plan::new(&problem, &cpu(1)).unwrap().workspace_len();
    let f32 = bf16.with_output(DType::F32);
    assert!(len(f32) < len(bf16), "{} {}", len(f32), len(bf16));
    // Old values are added once, behind the sum.
    assert_eq!(len(f32.with_beta(1.0)), len(bf16));
    let text = Plan::new(&f32, &cpu(1)).unwrap().explain();
    assert!(text.contains("bf16, output f32 (adapter bf16"), "{text}");
}

/// The same layer: each operand once, twice where it is read and written.
#[test]
fn bytes_are_those_of_the_operands() {
    let (x, w, y, shrunk) = (2 * 512 * 64, 2 * 48 * 64, 2 * 512 * 48, 2 * 512 * 8);
    let (a, b, bias) = (4 * 8 * 64, 4 * 48 * 8, 2 * 48);
    let forward = layer(Operation::Forward);
    let all = x + w + y + shrunk + a + b;
    assert_eq!(forward.bytes(), all);
    assert_eq!(forward.bytes(), 132_608);
    assert_eq!(forward.with_bias(true).bytes(), all + bias);
    assert_eq!(forward.with_beta(1.0).bytes(), all + y);
    assert_eq!(forward.with_output(DType::F32).bytes(), all + y);
    assert_eq!(forward.with_output(DType::F32).with_beta(1.0).bytes(), all + 3 * y);
    assert_eq!(forward.with_keep_shrunk(false).bytes(), all - shrunk);
    assert_eq!(forward.with_precise(true).bytes(), all + shrunk);
    assert_eq!(forward.plain().bytes(), x + w + y);
    assert_eq!(layer(Operation::BackwardInput).bytes(), all);
    assert_eq!(layer(Operation::BackwardShrink).bytes(), y + b + shrunk);
    let both = layer(Operation::BackwardAdapter);
    assert_eq!(both.bytes(), x + y + 2 * shrunk + a + b);
    assert_eq!(both.with_gradients(Gradients::A).bytes(), x + shrunk + a);
    assert_eq!(both.with_gradients(Gradients::B).with_beta(1.0).bytes(), y + shrunk + 2 * b);
    assert_eq!(layer(Operation::Merge).bytes(), 2 * w + a + b);
    // One band of tokens: the plan reads nothing twice. Two bands read w twice.
    let plan = |problem| Plan::new(&problem, &cpu(1)).unwrap().bytes();
    assert_eq!(plan(forward), all);
    let twice = Problem::forward(1024, 64, 48, 8);
    let choice = "leader/panel".parse().unwrap();
    let twice = Plan::choose(&twice, &cpu(1), &choice).unwrap();
    assert_eq!(twice.bytes(), twice.problem().bytes() + 4 * 48 * 64);
}

#[test]
fn one_launch_for_all_that_there_is_to_do() {
    for &operation in Operation::ALL {
        for (tokens, rank) in [(0, 0), (0, 5), (1, 0), (1, 5), (700, 5), (700, 0)] {
            let problem = Problem::new(operation, tokens, 40, 30, rank);
            let nothing = match operation {
                Operation::Forward | Operation::BackwardInput => tokens == 0,
                Operation::BackwardShrink => tokens == 0 || rank == 0,
                // Gradients without tokens are β·old, and have to be written.
                _ => rank == 0,
            };
            let choices = feasible(&problem, &cpu(2), &Choice::default());
            assert!(!choices.is_empty());
            for choice in choices {
                assert_eq!(choice.preset.as_deref() == Some("nothing"), nothing, "{choice}");
                let plan = Plan::choose(&problem, &cpu(2), &choice).unwrap();
                let name = format!("{operation} {choice}, {tokens} tokens, rank {rank}");
                assert_eq!(plan.launches().len(), usize::from(!nothing), "{name}");
                assert!(!nothing || plan.workspace_len() == 0, "{name}");
                assert!(!nothing || (plan.flops(), plan.bytes()) == (0, 0), "{name}");
            }
        }
    }
}

/// Nothing is what every strategy makes of it, so a forced one is honoured.
#[test]
fn nothing_to_do_is_planned_whatever_is_forced() {
    let problem = Problem::forward(0, 8, 8, 2);
    for name in ["auto", "leader/panel", "two_pass", "direct/nothing"] {
        let plan = Plan::choose(&problem, &cpu(2), &name.parse().unwrap()).unwrap();
        assert_eq!(plan.choice().to_string(), "direct/nothing", "{name}");
        assert!(plan.launches().is_empty() && plan.explain().contains("direct/nothing"));
    }
    let forced = "direct/nothing".parse().unwrap();
    let error = Plan::choose(&Problem::forward(1, 8, 8, 2), &cpu(2), &forced).unwrap_err();
    assert!(error.to_string().starts_with("direct/nothing: cannot be forced"), "{error}");
}

#[test]
fn a_launch_binds_the_operands_of_the_problem() {
    for &operation in Operation::ALL {
        let problem = layer(operation).with_bias(true).with_beta(0.5);
        let plan = Plan::new(&problem, &cpu(2)).unwrap();
        let bound: Vec<(Operand, Access)> = plan.launches()[0]
            .bindings
            .iter()
            .map(|binding| (binding.operand.unwrap(), binding.access))
            .collect();
        let wanted: Vec<_> =
            problem.specs().map(|(operand, spec)| (operand, spec.access)).collect();
        assert_eq!(bound, wanted, "{operation}");
    }
}

#[test]
fn a_plan_is_a_function_of_its_input() {
    let turned = layer(Operation::Forward).with_layout(Operand::W, Layout::TRANSPOSED);
    for problem in Operation::ALL.iter().copied().map(layer).chain([turned]) {
        for workers in [1, 2, 7] {
            let plan = Plan::new(&problem, &cpu(workers)).unwrap();
            assert_eq!(plan, Plan::new(&problem, &cpu(workers)).unwrap());
            assert_eq!((plan.problem(), plan.capabilities()), (&problem, &cpu(workers)));
        }
    }
}

/// A choice saved as text and read back plans the same launches and workspace.
#[test]
fn a_pinned_choice_gives_the_same_plan() {
    for &operation in Operation::ALL {
        for (tokens, rank) in [(0, 4), (3, 0), (3, 4), (90, 16), (1500, 64)] {
            let problem = Problem::new(operation, tokens, 200, 300, rank);
            let first = Plan::new(&problem, &cpu(2)).unwrap();
            let saved = first.choice().to_string();
            let again = Plan::choose(&problem, &cpu(2), &saved.parse().unwrap()).unwrap();
            assert_eq!(again.choice(), first.choice());
            assert_eq!(again.launches(), first.launches());
            assert_eq!(again.workspace_len(), first.workspace_len());
            assert_eq!((again.flops(), again.bytes()), (first.flops(), first.bytes()));
        }
    }
}

/// The words of the design, as they are saved in files.
#[test]
fn names_are_kept() {
    let strategies: Vec<_> = Strategy::ALL.iter().map(|of| of.to_string()).collect();
    assert_eq!(strategies, ["leader", "recompute", "two_pass", "direct", "merged"]);
    let operations: Vec<_> = Operation::ALL.iter().map(|of| of.to_string()).collect();
    let words =
        ["forward", "backward_input", "backward_shrink", "backward_adapter", "merge", "unmerge"];
    assert_eq!(operations, words);
    let types: Vec<_> = DType::ALL.iter().map(|of| of.to_string()).collect();
    assert_eq!(types, ["f32", "f16", "bf16"]);
}

/// Hosts keep plans in a map, by what they were made from.
#[test]
fn what_a_plan_is_made_from_is_a_key() {
    let key = |problem: Problem| (problem, cpu(2), Choice::default());
    let mut plans = HashMap::new();
    let problem = Problem::forward(3, 4, 5, 2).with_scale(0.1).with_beta(0.25);
    plans.insert(key(problem), Plan::new(&problem, &cpu(2)).unwrap());
    assert!(plans.contains_key(&key(problem)));
    for other in [
        problem.with_scale(0.2),
        problem.with_beta(0.5),
        problem.with_bias(true),
        problem.with_layout(Operand::W, Layout::TRANSPOSED),
    ] {
        assert!(!plans.contains_key(&key(other)), "{other:?}");
    }
    assert!(!plans.contains_key(&(problem, cpu(3), Choice::default())));
    // A number that is equal to none is a key all the same.
    let nan = problem.with_scale(f32::NAN);
    assert_eq!(nan, nan);
}

/// Measured where weights come from memory: `decode` takes 0.47 to 0.88 of the panel's time in these.
#[test]
fn few_tokens_are_decoded_on_the_cpu() {
    for (size, rank, dtype) in [
        (640, 64, DType::F32),
        (1280, 16, DType::F32),
        (1280, 64, DType::F32),
        (1280, 64, DType::Bf16),
    ] {
        let problem = Problem::new(Operation::BackwardInput, 8, size, size, rank).with_dtype(dtype);
        let plan = Plan::new(&problem, &cpu(2)).unwrap();
        assert_eq!(plan.preset(), "decode", "{size}², rank {rank}, {dtype}\n{}", plan.explain());
    }
}
