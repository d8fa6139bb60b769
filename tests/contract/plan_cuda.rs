//! Plans for CUDA: what is chosen, what is refused and why, and what a launch is made of. No
//! kernel runs here; `ptx_linear` runs them.

use fused_lora::{
    Capabilities, Channels, Choice, Convolution, CudaCapabilities, DType, Error, Gradients,
    Kronecker, Language, Layout, Method, Operand, Operation, Outcome, Plan, Problem, Strategy,
};
use test_support::feasible;

fn a100() -> Capabilities {
    Capabilities::Cuda(CudaCapabilities::default())
}

fn layer(tokens: usize, rank: usize) -> Problem {
    Problem::forward(tokens, 4096, 4096, rank).with_dtype(DType::Bf16)
}

fn plan(problem: &Problem) -> Plan {
    Plan::new(problem, &a100()).unwrap_or_else(|error| panic!("{error}\n{problem:?}"))
}

/// Why a candidate does not serve.
fn refusal(plan: &Plan, name: &str) -> String {
    let named = |of: &&fused_lora::Candidate| format!("{}/{}", of.strategy, of.preset) == name;
    match &plan.candidates().iter().find(named).expect("a candidate of this name").outcome {
        Outcome::Refused(reason) => reason.clone(),
        other => panic!("{name} is not refused: {other:?}"),
    }
}

#[test]
fn every_problem_has_a_strategy() {
    for &operation in Operation::ALL {
        for rank in 0..=512 {
            for &dtype in DType::ALL {
                let problem = Problem::new(operation, 17, 40, 24, rank)
                    .with_activation(dtype)
                    .with_adapter(DType::ALL[rank % 3])
                    .with_precise(rank % 2 == 0);
                plan(&problem);
                // Odd rows at odd addresses.
                let odd = Operand::ALL.iter().copied().fold(problem, |problem, operand| {
                    let Some(spec) = problem.spec(operand) else { return problem };
                    let stride = Some(spec.stored().1 + 1);
                    problem.with_layout(operand, Layout { stride, align: 2, ..Layout::default() })
                });
                plan(&odd);
            }
        }
    }
}

/// f32 holds every adapter in one part: it is packed, and the layer remains one launch.
#[test]
fn f32_takes_any_adapter_in_one_part() {
    for (adapter, kernels) in [
        (DType::F32, &["linear"][..]),
        (DType::Bf16, &["pack", "linear"]),
        (DType::F16, &["pack", "linear"]),
    ] {
        let problem = Problem::forward(8192, 4096, 4096, 16).with_adapter(adapter);
        let plan = plan(&problem);
        assert_eq!((plan.strategy(), plan.preset()), (Strategy::Leader, "large"), "{adapter}");
        let of: Vec<_> = plan.launches().iter().map(|launch| launch.kernel).collect();
        assert_eq!(of, kernels);
        assert_eq!(plan.flops(), problem.flops());
    }
    // Of shrunk and of slabs, four bytes an element.
    let problem = Problem::forward(8192, 4096, 4096, 100).with_keep_shrunk(false);
    assert_eq!(plan(&problem).workspace_len(), (64 << 10) + 8192 * 104 * 4);
    let few = plan(&Problem::forward(64, 4096, 4096, 16));
    assert_eq!((few.strategy(), few.launches().len()), (Strategy::Recompute, 1));
    let reason = refusal(&few, "recompute/large");
    assert_eq!(reason, "no text of `recompute` for large tiles and rank 16");
}

/// tf32 is considered where it is allowed, and nowhere else.
#[test]
fn tf32_is_an_explicit_option() {
    let named = |plan: &Plan| plan.candidates().iter().any(|of| of.preset == "tf32");
    let exact = Problem::forward(8192, 4096, 4096, 16);
    let allowed = exact.with_tf32(true);
    assert!(!named(&plan(&exact)));
    let forced = Plan::choose(&exact, &a100(), &"leader/tf32".parse().unwrap());
    assert!(matches!(forced, Err(Error::Forced { .. })), "{forced:?}");
    for (rank, strategy) in [(16, Strategy::Leader), (17, Strategy::TwoPass), (0, Strategy::Direct)]
    {
        let problem = Problem::forward(8192, 4096, 4096, rank).with_tf32(true);
        let plan = plan(&problem);
        assert_eq!((plan.strategy(), plan.preset()), (strategy, "tf32"), "{}", plan.explain());
        assert!(plan.explain().contains("may round to tf32"));
    }
    // Everything else remains exact, and so do other devices.
    for &operation in Operation::ALL {
        let problem = allowed.with_operation(operation);
        let linear = matches!(operation, Operation::Forward | Operation::BackwardInput);
        assert_eq!((named(&plan(&problem)), problem.is_tf32()), (linear, linear), "{operation}");
        assert!(!named(&plan(&problem.with_activation(DType::Bf16))));
        let on_cpu = |of| Plan::new(of, &Capabilities::cpu()).unwrap();
        let exact = exact.with_operation(operation);
        assert_eq!(on_cpu(&problem).candidates(), on_cpu(&exact).candidates());
    }
}

#[test]
fn older_devices_are_refused_by_name() {
    let mut turing = CudaCapabilities::default();
    turing.compute_capability = (7, 5);
    let error = Plan::new(&layer(64, 8), &Capabilities::Cuda(turing)).unwrap_err();
    assert!(error.to_string().contains("compute capability 7.5 is below 8.0"), "{error}");
}

/// Forward and backward of a training step: one launch and two.
#[test]
fn launches_are_as_few_as_promised() {
    for tokens in [1, 64, 512, 8192] {
        let forward = layer(tokens, 16);
        for operation in [Operation::Forward, Operation::BackwardInput, Operation::BackwardAdapter]
        {
            let plan = plan(&forward.with_operation(operation));
            assert_eq!(plan.launches().len(), 1, "{operation} of {tokens}\n{}", plan.explain());
        }
    }
    // An adapter in f32 is brought into two parts first; beyond 64 ranks it takes two passes then.
    let kernels = |rank: usize, operation: Operation| -> Vec<_> {
        let problem = layer(8192, rank).with_adapter(DType::F32).with_operation(operation);
        plan(&problem).launches().iter().map(|launch| launch.kernel).collect()
    };
    for operation in [Operation::Forward, Operation::BackwardInput] {
        for rank in [1, 8, 16, 33, 64] {
            assert_eq!(kernels(rank, operation), ["pack", "linear"], "{operation} r{rank}");
        }
        assert_eq!(kernels(65, operation), ["pack", "shrink", "linear"], "{operation}");
    }
}

#[test]
fn many_tiles_have_leaders_and_few_recompute() {
    assert_eq!(plan(&layer(8192, 16)).strategy(), Strategy::Leader);
    assert_eq!(plan(&layer(8192, 16)).preset(), "large");
    assert_eq!(plan(&layer(64, 16)).strategy(), Strategy::Recompute);
    assert_eq!(plan(&layer(8192, 128)).strategy(), Strategy::TwoPass);
    assert_eq!(plan(&layer(8192, 0)).strategy(), Strategy::Direct);
}

/// 160 large tiles are a wave and a half on 108 multiprocessors, and 132 are no better off: tiles of half the size.
#[test]
fn what_large_tiles_fill_badly_has_medium_ones() {
    let mut h100 = CudaCapabilities::default();
    h100.compute_capability = (9, 0);
    h100.multiprocessors = 132;
    h100.shared_bytes = 227 << 10;
    h100.shared_bytes_per_multiprocessor = 228 << 10;
    for card in [a100(), Capabilities::Cuda(h100)] {
        for (rank, strategy) in [(0, Strategy::Direct), (16, Strategy::Leader)] {
            for adapter in [DType::Bf16, DType::F32] {
                for operation in [Operation::Forward, Operation::BackwardInput] {
                    let problem = Problem::new(operation, 4096, 1280, 1280, rank)
                        .with_dtype(DType::Bf16)
                        .with_adapter(adapter);
                    let plan = Plan::new(&problem, &card).unwrap();
                    let explained = plan.explain();
                    assert_eq!(
                        (plan.strategy(), plan.preset()),
                        (strategy, "medium"),
                        "{explained}"
                    );
                }
            }
        }
    }
}

/// Up to 16 tokens w is read once, in one launch, whatever the types; and next to nothing else.
#[test]
fn few_tokens_are_decoded() {
    let mut h200 = CudaCapabilities::default();
    h200.compute_capability = (9, 0);
    h200.multiprocessors = 132;
    h200.shared_bytes = 227 << 10;
    h200.gigabytes_per_second = 4800;
    for (k, n) in [(4096, 4096), (4096, 14336), (14336, 4096), (1280, 1280)] {
        for &dtype in DType::ALL {
            for adapter in [dtype, DType::F32] {
                for operation in [Operation::Forward, Operation::BackwardInput] {
                    for tokens in [1, 8, 16, 17] {
                        let problem = Problem::new(operation, tokens, k, n, 16)
                            .with_activation(dtype)
                            .with_adapter(adapter);
                        let plan = Plan::new(&problem, &Capabilities::Cuda(h200)).unwrap();
                        let explained = plan.explain();
                        assert_eq!(plan.preset() == "decode", tokens <= 16, "{explained}");
                        if tokens > 16 {
                            continue;
                        }
                        assert_eq!(plan.launches().len(), 1, "{explained}");
                        assert_eq!(plan.launches()[0].kernel, "decode");
                        // Parts of shrunk, and sums of strips that several CTAs share.
                        let more = plan.bytes() - problem.bytes();
                        assert!(more * 8 < problem.bytes(), "{more} bytes\n{explained}");
                    }
                }
            }
        }
    }
    let wide = plan(&layer(8, 65));
    assert_eq!(refusal(&wide, "leader/decode"), "rank 65 is outside 1..=64");
    assert_eq!(refusal(&plan(&layer(17, 16)), "leader/decode"), "tokens 17 is outside 1..=16");
    let odd = Layout { align: 2, ..Layout::default() };
    let odd = plan(&layer(8, 16).with_layout(Operand::W, odd));
    assert_eq!(
        refusal(&odd, "leader/decode"),
        "w: not rows of 16-byte multiples at 16-byte addresses"
    );
    let other = layer(8, 16).with_adapter(DType::F16);
    assert_eq!(refusal(&plan(&other), "leader/decode"), "no text of `decode` for f16 beside bf16");
    let mut small = CudaCapabilities::default();
    small.shared_bytes = 32 << 10;
    let small = Plan::new(&layer(8, 0), &Capabilities::Cuda(small));
    let said = small.map_or_else(|error| error.to_string(), |plan| plan.explain());
    assert!(said.contains("bytes of shared memory of a block: expected at most 32768"), "{said}");
}

#[test]
fn refusals_say_what_is_missing() {
    let wide = plan(&layer(256, 65));
    assert_eq!(refusal(&wide, "leader/large"), "rank 65 is outside 1..=64");
    let odd = Layout { align: 2, ..Layout::default() };
    let odd = plan(&layer(256, 16).with_layout(Operand::X, odd));
    assert!(
        refusal(&odd, "recompute/small").starts_with("x: not rows of 16-byte"),
        "{}",
        odd.explain()
    );
    assert_eq!(odd.preset(), "unaligned");
    let precise = plan(&layer(256, 64).with_precise(true));
    assert!(refusal(&precise, "leader/large").contains("4 steps of border in a ring of 3"));
    let stride = Layout { stride: Some(1 << 32), ..Layout::default() };
    let far = layer(2, 0).with_layout(Operand::X, stride);
    let error = Plan::new(&far, &a100()).unwrap_err();
    assert!(matches!(error, Error::Limit { operand: Operand::X, .. }), "{error}");
}

/// Parameters begin where bindings say, inside the block, each on its own eight bytes.
#[test]
fn bindings_lie_in_the_parameter_block() {
    for &operation in Operation::ALL {
        let problem = Problem::new(operation, 300, 200, 300, 20)
            .with_dtype(DType::F16)
            .with_bias(true)
            .with_beta(1.0)
            .with_precise(true);
        for choice in feasible(&problem, &a100(), &Choice::default()) {
            let plan = Plan::choose(&problem, &a100(), &choice).unwrap();
            for launch in plan.launches() {
                let source = launch.source.as_ref().expect("a text");
                assert_eq!(source.language, Language::Ptx);
                let declared = format!("params[{}]", launch.params.len());
                assert!(source.text.contains(&declared), "{declared} in {}", launch.kernel);
                let mut places: Vec<_> =
                    launch.bindings.iter().map(|of| of.at.expect("an address")).collect();
                places.sort_unstable();
                for pair in places.windows(2) {
                    assert!(pair[0] + 8 <= pair[1], "{operation} {choice}: {places:?}");
                }
                let last = places.last().copied().unwrap_or(0) as usize;
                assert!(last + 8 <= launch.params.len() && places.iter().all(|at| at % 8 == 0));
                let workspace = launch.bindings.iter().any(|of| of.operand.is_none());
                assert!(!workspace || plan.workspace_len() >= 64 << 10, "{operation} {choice}");
            }
        }
    }
}

/// What costs nothing is not planned: no tokens, no rank.
#[test]
fn nothing_to_do_is_no_launch() {
    for &operation in Operation::ALL {
        for (tokens, rank) in [(0, 5), (0, 0), (4, 0)] {
            let problem = Problem::new(operation, tokens, 40, 30, rank).with_dtype(DType::Bf16);
            let plan = plan(&problem);
            let idle = match operation {
                Operation::Forward | Operation::BackwardInput => tokens == 0,
                Operation::BackwardShrink => tokens == 0 || rank == 0,
                _ => rank == 0,
            };
            assert_eq!(plan.launches().is_empty(), idle, "{operation} {tokens} {rank}");
            assert!(!idle || plan.workspace_len() == 0);
        }
    }
}

#[test]
fn flops_are_those_of_the_problem_and_what_is_done_twice() {
    let problem = layer(8192, 16);
    let forced =
        |choice: &str| Plan::choose(&problem, &a100(), &choice.parse().unwrap()).unwrap().flops();
    assert_eq!(forced("leader/large"), problem.flops());
    assert_eq!(forced("two_pass/large"), problem.flops());
    // Sixteen tiles in a row instead of one.
    let shrink = 2 * 8192 * 4096 * 16;
    assert_eq!(forced("recompute/large"), problem.flops() + 15 * shrink);
}

/// Both gradients or one alone: slabs of the split that fills the machine, and no more.
#[test]
fn gradients_split_until_the_machine_is_full() {
    let both = layer(8192, 16).with_operation(Operation::BackwardAdapter);
    let whole = plan(&both);
    let slabs = whole.workspace_len() - (64 << 10);
    // 64 tiles of 16 × 128 in f32; 108 multiprocessors hold three CTAs each.
    assert_eq!(slabs, 64 * 5 * 16 * 128 * 4);
    assert_eq!(whole.bytes(), both.bytes() + slabs as u64);
    assert!(slabs as u64 * 10 <= both.bytes());
    let alone = plan(&both.with_gradients(Gradients::A));
    assert_eq!(alone.launches().len(), 1);
    assert!(alone.workspace_len() <= whole.workspace_len());
}

/// Compute capability, multiprocessors, KiB of shared memory of a block and of a multiprocessor,
/// MiB of L2, MHz, GB/s: one card of each kind, by the vendor's tables.
const CARDS: [((u32, u32), [u32; 6]); 7] = [
    ((8, 0), [108, 163, 164, 40, 1410, 1555]),
    ((8, 6), [82, 99, 100, 6, 1695, 936]),
    ((8, 9), [128, 99, 100, 72, 2520, 1008]),
    ((9, 0), [132, 227, 228, 50, 1830, 4800]),
    ((10, 0), [148, 227, 228, 126, 1965, 8000]),
    ((10, 3), [148, 227, 228, 126, 1965, 8000]),
    ((12, 0), [170, 99, 100, 96, 2407, 1792]),
];

fn cards() -> impl Iterator<Item = CudaCapabilities> {
    CARDS.into_iter().map(|(capability, [multiprocessors, block, whole, l2, mhz, gigabytes])| {
        let mut cuda = CudaCapabilities::default();
        cuda.compute_capability = capability;
        cuda.multiprocessors = multiprocessors;
        cuda.shared_bytes = block << 10;
        cuda.shared_bytes_per_multiprocessor = whole << 10;
        cuda.l2_bytes = l2 << 20;
        cuda.clock_mhz = mhz;
        cuda.gigabytes_per_second = gigabytes;
        cuda
    })
}

/// Every card of every kind is served by the same strategies, cards with 99 KiB a block included;
/// nothing that is planned for a card takes more than it grants, what texts declare with it.
#[test]
fn every_card_has_all_strategies() {
    const DECLARED: u32 = 128;
    for cuda in cards() {
        let card = Capabilities::Cuda(cuda);
        for &dtype in DType::ALL {
            for adapter in [dtype, DType::F32] {
                for (operation, tokens, rank) in Operation::ALL.iter().copied().flat_map(|of| {
                    let sizes = [(8192, 16), (8192, 64), (8192, 65), (200, 0), (16, 64), (1, 16)];
                    sizes.map(|(tokens, rank)| (of, tokens, rank))
                }) {
                    let problem = Problem::new(operation, tokens, 4096, 4096, rank)
                        .with_activation(dtype)
                        .with_adapter(adapter)
                        .with_tf32(true);
                    let choices = feasible(&problem, &card, &Choice::default());
                    let names: Vec<String> = choices.iter().map(Choice::to_string).collect();
                    let layer = matches!(operation, Operation::Forward | Operation::BackwardInput);
                    for (name, serves) in [
                        ("leader/large", layer && (1..=64).contains(&rank)),
                        ("leader/small", layer && (1..=64).contains(&rank)),
                        ("two_pass/large", layer && rank > 0),
                        ("direct/large", layer && rank == 0),
                        ("leader/decode", layer && tokens <= 16),
                    ] {
                        let there = names.iter().any(|of| of == name);
                        assert_eq!(there, serves, "{name} of {problem:?} on {cuda:?}");
                    }
                    for choice in choices {
                        let plan = Plan::choose(&problem, &card, &choice).unwrap();
                        for launch in plan.launches() {
                            let takes = launch.shared_bytes + DECLARED;
                            assert!(takes <= cuda.shared_bytes, "{choice}: {takes} on {cuda:?}");
                        }
                        if plan.preset() == "decode" {
                            // Two warps stream at least, 32 KiB on their way.
                            assert!(plan.launches()[0].block[0] >= 96, "{}", plan.explain());
                        }
                    }
                }
            }
        }
        // Whichever tile its model takes, the layer is one launch.
        for (tokens, presets) in
            [(8192, &["large", "small"][..]), (1, &["decode"]), (16, &["decode"])]
        {
            let plan = Plan::new(&layer(tokens, 16), &card).unwrap();
            let explained = plan.explain();
            assert_eq!(plan.strategy(), Strategy::Leader, "{explained}");
            assert!(presets.contains(&plan.preset()), "{explained}");
            assert_eq!(plan.launches().len(), 1, "{explained}");
        }
    }
    // What a text declares beside the launch's own counts as well.
    let needs = plan(&layer(8192, 64)).launches()[0].shared_bytes;
    for (grants, serves) in [(needs + DECLARED, true), (needs + DECLARED - 1, false)] {
        let mut cuda = CudaCapabilities::default();
        cuda.shared_bytes = grants;
        let plan = Plan::choose(
            &layer(8192, 64),
            &Capabilities::Cuda(cuda),
            &"leader/large".parse().unwrap(),
        );
        assert_eq!(plan.is_ok(), serves, "{grants} bytes for {needs}");
    }
}

/// w + ΔW is rounded to 16 bits by name alone; in f32 a LoKr with a whole w2 may get it, LoRA by name.
#[test]
fn merged_is_for_those_who_name_it() {
    let named: Choice = "merged".parse().unwrap();
    let lokr = Method::Lokr(Kronecker::new(8, 8).whole());
    let lokr = |dtype| layer(512, 0).with_method(lokr).with_dtype(dtype);
    for dtype in [DType::Bf16, DType::F16] {
        let free = plan(&lokr(dtype));
        assert_eq!(free.strategy(), Strategy::Direct, "{}", free.explain());
        assert!(refusal(&free, "merged/large").contains("rounds w + ΔW"), "{}", free.explain());
        // A preset of its name is not its name.
        let unnamed = Plan::choose(&lokr(dtype), &a100(), &"auto/large".parse().unwrap());
        assert!(matches!(unnamed, Err(Error::Forced { .. })), "{unnamed:?}");
        let forced = Plan::choose(&lokr(dtype), &a100(), &named).unwrap();
        assert_eq!(forced.strategy(), Strategy::Merged);
        let kernels: Vec<_> = forced.launches().iter().map(|of| of.kernel).collect();
        assert_eq!(kernels, ["contract", "linear"]);
        assert!(forced.workspace_len() >= 2 * 4096 * 4096);
    }
    let wide = plan(&lokr(DType::F32));
    let can = |of: &fused_lora::Candidate| !matches!(of.outcome, Outcome::Refused(_));
    let mut all = wide.candidates().iter().filter(|of| can(of)).map(|of| of.strategy);
    assert!(all.any(|of| of == Strategy::Merged), "{}", wide.explain());

    let lora = layer(512, 16).with_keep_shrunk(false);
    let strategies = |of: &Plan| of.candidates().iter().map(|of| of.strategy).collect::<Vec<_>>();
    assert!(!strategies(&plan(&lora)).contains(&Strategy::Merged));
    let forced = Plan::choose(&lora, &a100(), &named).unwrap();
    let kernels: Vec<_> = forced.launches().iter().map(|of| of.kernel).collect();
    assert_eq!(kernels, ["contract", "merge", "linear"]);
    let kept = Plan::choose(&lora.with_keep_shrunk(true), &a100(), &named).unwrap_err();
    assert!(kept.to_string().contains("shrunk"), "{kept}");
    let plain = Plan::choose(&layer(512, 0), &a100(), &named);
    assert!(matches!(plain, Err(Error::Forced { .. })), "{plain:?}");
}

/// A LoKr with a whole w2 of any size is planned, or refused by name.
#[test]
fn a_whole_w2_of_any_size() {
    let sizes = [1usize, 4096, 1 << 20, 1 << 29, 1 << 31, 1 << 40, 1 << 62];
    let operations = [
        Operation::Forward,
        Operation::BackwardInput,
        Operation::BackwardAdapter,
        Operation::Merge,
        Operation::Norm,
    ];
    for (tokens, features) in sizes.into_iter().flat_map(|m| sizes.map(|of| (m, of))) {
        for parts in [1, features] {
            let method = Method::Lokr(Kronecker::new(parts, parts).whole());
            for &operation in &operations {
                for &dtype in DType::ALL {
                    let problem = Problem::new(operation, tokens, features, features, 0)
                        .with_method(method)
                        .with_dtype(dtype);
                    for choice in ["auto", "merged"] {
                        drop(Plan::choose(&problem, &a100(), &choice.parse().unwrap()));
                    }
                    if features <= 4096 && tokens <= 4096 {
                        plan(&problem);
                    }
                }
            }
        }
    }
}

/// A LoKr with a whole w2 on images of `channels`, 3 × 3, w1 of `blocks` by `blocks`.
fn on_images(
    operation: Operation,
    channels: usize,
    blocks: usize,
    of: impl Fn(Convolution) -> Convolution,
) -> Problem {
    let of = of(Convolution::new(2, [32, 32], [3, 3]).padding([1, 1]).channels(Channels::Last));
    let method = Kronecker::new(blocks, blocks).taps_first(of.taps()).whole();
    Problem::new(operation, of.tokens(), channels * of.taps(), channels, 0)
        .with_method(Method::Lokr(method))
        .with_dtype(DType::Bf16)
        .with_convolution(of)
}

/// Blocks of images are gathered where they lie; a copy of x comes first where a line's pixels are skipped, or where blocks do
/// not begin where 16 bytes can be loaded, and there w2's taps are set apart too.
#[test]
fn blocks_of_images_are_gathered_where_they_lie() {
    let launches = |operation, channels, blocks, stride| {
        let problem = on_images(operation, channels, blocks, |of| of.stride(stride));
        let plan = plan(&problem);
        let kernels: Vec<_> = plan.launches().iter().map(|of| of.kernel).collect();
        (kernels, plan.choice().to_string())
    };
    use Operation::{BackwardAdapter, BackwardInput, Forward};
    for (operation, name) in [(Forward, "mixed_medium"), (BackwardInput, "mixed_transposed_medium")]
    {
        let all = ["linear", "linear", "contract"];
        for (channels, stride, copies) in [
            (320, [1, 1], &[][..]),
            (320, [2, 1], &[]),
            (320, [1, 2], &["contract"]),
            (160, [1, 1], &["contract", "contract"]),
        ] {
            let (kernels, choice) = launches(operation, channels, 8, stride);
            assert_eq!(kernels, [copies, &all].concat(), "{operation} {channels} {stride:?}");
            assert!(choice.contains(name), "{choice}");
        }
        // Pixels that do not begin where 16 bytes can be loaded: w is met by plain loads, blocks are copied all the same.
        let (kernels, choice) = launches(operation, 12, 4, [1, 1]);
        assert_eq!(kernels, ["contract", "contract", "linear", "linear", "contract"]);
        assert!(choice.contains("unaligned"), "{choice}");
    }
    // h; dw1 in parts, of which there is one more that is ragged or not, and their sum; v and dw2.
    let (kernels, _) = launches(BackwardAdapter, 320, 8, [1, 1]);
    let count = |name: &str| kernels.iter().filter(|of| **of == name).count();
    assert_eq!((count("linear"), count("gradient")), (1, 1), "{kernels:?}");
    assert!((3..=4).contains(&count("contract")), "{kernels:?}");
}

/// Images whose channels lie first, and sizes that kernels do not count, are refused by name.
#[test]
fn blocks_of_images_that_are_not_gathered_are_refused_by_name() {
    for operation in [Operation::Forward, Operation::BackwardInput, Operation::BackwardAdapter] {
        let of = Convolution::new(2, [6, 7], [3, 3]).padding([1, 1]);
        let first = Problem::new(operation, of.tokens(), 8 * of.taps(), 8, 0)
            .with_method(Method::Lokr(Kronecker::new(4, 4).whole()))
            .with_convolution(of);
        match Plan::new(&first, &a100()) {
            Err(Error::NoStrategy { reasons, .. }) => {
                assert!(reasons.contains("images stored channels first"), "{reasons}");
            }
            other => panic!("{operation}: {other:?}"),
        }
        // 2³² rows, of a block each.
        let many = on_images(operation, 1 << 12, 1 << 12, |of| {
            Convolution::new(1 << 10, [32, 32], of.kernel).padding([1, 1]).channels(of.channels)
        });
        let refused = Plan::new(&many, &a100());
        assert!(refused.is_err(), "{operation}: {refused:?}");
        for size in [1usize, 1 << 20, 1 << 31, 1 << 40] {
            for blocks in [1, size] {
                drop(Plan::new(&on_images(operation, size, blocks, |of| of), &a100()));
                let wide = |_| {
                    Convolution::new(1, [1, size], [1, 3]).padding([0, 1]).channels(Channels::Last)
                };
                drop(Plan::new(&on_images(operation, 1 << 10, 1 << 5, wide), &a100()));
            }
        }
    }
}
