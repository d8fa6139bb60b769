//! A flag that is never raised: whoever waits for it gives up in the end, so that a launch that somebody else's
//! spoils ends with an error, and not with the process.

use fused_lora::{Choice, DType, Operation, Plan, Problem};
use ptx_sim::Options;
use test_support::sim::{Gpu, gpu};
use test_support::{Case, Fill};

use super::gate::texts;

/// Turns after which a poll gives up, as `kernels/parts/flag.ptx` has them, and as many as a test waits for.
const MOST: &str = ",67108864;";
const FEW: &str = ",4096;";
const RAISE: &str = "st.relaxed.gpu.global.u32";

fn impatient(text: &str) -> String {
    assert_eq!(text.matches(MOST).count(), 1, "one poll, which counts");
    text.replace(MOST, FEW)
}

fn never_raised(text: &str) -> String {
    let is_raise = |line: &&str| line.starts_with(RAISE);
    assert_eq!(text.lines().filter(is_raise).count(), 1, "one place that raises flags");
    let lines = text.lines().map(|line| if is_raise(&line) { "" } else { line });
    impatient(&lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_flag_that_is_never_raised_ends_the_launch() {
    let layer = |dtype| Problem::forward(150, 128, 600, 16).with_dtype(dtype);
    let few = |dtype| Problem::forward(9, 520, 200, 16).with_dtype(dtype);
    let gradients = |dtype| layer(dtype).with_operation(Operation::BackwardAdapter);
    for (choice, problem) in [
        ("leader/large", layer(DType::Bf16)),
        ("leader/medium", layer(DType::Bf16)),
        ("leader/small", layer(DType::F16)),
        ("leader/large", layer(DType::F32)),
        ("leader/small", layer(DType::F32)),
        ("leader/tf32", layer(DType::F32).with_tf32(true)),
        ("leader/decode", few(DType::Bf16)),
        ("leader/decode", few(DType::F32)),
        ("direct/gradient", gradients(DType::Bf16)),
        ("direct/gradient", gradients(DType::F32)),
    ] {
        let choice: Choice = choice.parse().unwrap();
        let plan = Plan::choose(&problem, &gpu(2), &choice).unwrap();
        let buffers = Case::new(problem, Fill::Integers, 1).aligned_buffers();
        let options = Options { sms: 2, budget: 1 << 26, ..Options::default() };
        let run = |edit: fn(&str) -> String| {
            let mut gpu = Gpu::new(plan.workspace_len());
            gpu.edit(edit);
            gpu.run(&plan, &mut buffers.clone(), &options).map(drop)
        };
        assert_eq!(run(impatient), Ok(()), "{choice}: all flags come up");
        let said = run(never_raised).expect_err("a launch that cannot end");
        assert!(said.contains("Trap"), "{choice}: {said}");
    }
}

/// Who waits counts: no text sleeps in a loop that has no end.
#[test]
fn every_poll_gives_up() {
    let polling = texts::rendered().into_iter().filter(|of| of.text.contains("nanosleep"));
    let mut polls = 0;
    for kernel in polling {
        let count = |word: &str| kernel.text.matches(word).count();
        assert_eq!(["nanosleep", MOST, "@p1 trap;"].map(count), [1; 3], "{}", kernel.name);
        polls += 1;
    }
    assert!(polls > 50, "{polls} texts that wait for flags");
}
