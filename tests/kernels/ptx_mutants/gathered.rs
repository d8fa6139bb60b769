//! What gathers x under a convolution's taps, in `linear` and `gradient`: the turn to a tap, the pixels that it sees, and
//! the interior, whose copies leave out what lies outside the images. Small images in several tiles, with every stride,
//! padding and dilation, forward and as the gradient of the input; called by `layers`.

use fused_lora::{Channels, Convolution, DType, Layout, Major, Operand, Operation, Plan, Problem};
use test_support::sim::gpu;
use test_support::{Case, Fill};

use super::super::ptx_decode::tidy;
use super::factors::odd;
use super::layers::Data::{self, InfiniteDown, Integers, Uniform};
use super::layers::{Layer, Loop, Place, loops};
use DType::{Bf16, F32};
use Operation::{BackwardAdapter, BackwardInput, Forward};

/// The turn to a segment or a tap, and a step's copies. Between the two a leader's text waits for a flag.
const TURN: Place = ("READ:", "LOADED:");
const TURN_TO_FLAG: Place = ("READ:", "@!p1 bra.uni TURN;");
const TURN_BEHIND_FLAG: Place = ("TURN:", "LOADED:");
const INTERIOR: Place = ("INTERIOR:", "@p1 bra.uni INTERIOR;");
const INTERIOR_RANKED: Place = ("INTERIOR_RANKED:", "@p1 bra.uni INTERIOR_RANKED;");
/// How the outer loop goes on behind them.
const BEHIND: Place = ("ALL_LOADED:", "LAST:");
/// Of texts for pairs, which part of shrunk a step of the border meets.
const MEETS: Place = ("LAST:", "FOUND:");
const MEETS_UNALIGNED: Place = ("LOADED:", "FOUND:");
/// Of the gradients a tile's product and tap, a step's copies, and where a tap's sums go.
const GRADIENT: [Place; 3] =
    [("SEEN:", "mad.wide.u32 v0,r0,2,v0;"), ("STEP:", "LOADED:"), ("ADD:", "add.u32 row,row,r0;")];

/// A layer on images: strategy, operation, images, [channels, features, rank], adapter, data.
struct Images {
    choice: &'static str,
    operation: Operation,
    of: Convolution,
    sizes: [usize; 3],
    adapter: DType,
    data: Data,
    /// Rows so many elements further apart than they are long.
    apart: usize,
}

fn layer(of: &Images) -> Layer {
    let Images { choice, operation, sizes: [channels, features, rank], data, apart, .. } = *of;
    let images = of.of.channels(Channels::Last);
    let k = channels * images.taps();
    let problem = Problem::new(operation, images.tokens(), k, features, rank)
        .with_convolution(images)
        .with_dtype(Bf16)
        .with_adapter(of.adapter)
        .with_gradient(of.adapter)
        .with_output((data == Uniform).then_some(F32))
        .with_scale(0.5)
        .with_precise(data == Uniform)
        .with_keep_shrunk(apart > 0);
    let problem = match choice.ends_with("unaligned") {
        false => tidy(problem, Major::Row, 8 * apart),
        true => odd(problem, apart),
    };
    // Taps of w lie side by side, but in two passes over aligned rows across the sum; of what is uniform the adapter is packed.
    let row = |problem: Problem, operand, major| {
        let layout = Layout { major, ..Layout::default() };
        let spec = problem.with_layout(operand, layout).spec(operand).expect("a factor");
        let pitch = spec.stored().1 + if choice.ends_with("unaligned") { apart } else { 8 * apart };
        let align = if choice.ends_with("unaligned") { spec.dtype.size() } else { 0 };
        problem.with_layout(operand, Layout { major, stride: Some(pitch), align })
    };
    let of_w = if choice == "two_pass/medium" { Major::Col } else { Major::Row };
    let has_w = operation != BackwardAdapter;
    let problem = if has_w { row(problem, Operand::W, of_w) } else { problem };
    let packs = operation == Forward && data == Uniform;
    let factors = [Operand::A, Operand::B].into_iter().filter(|_| packs);
    let problem = factors.fold(problem, |problem, of| row(problem, of, Major::Col));
    // Both shrunk have rows of their own width.
    let problem = match problem.spec(Operand::Dshrunk) {
        Some(spec) if operation == BackwardAdapter => {
            let layout = Layout { stride: Some(spec.stride + 16), ..Layout::default() };
            problem.with_layout(Operand::Dshrunk, layout)
        }
        _ => problem,
    };
    let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
    let fill = if data == Integers { Fill::Integers } else { Fill::Uniform };
    Layer { plan, case: Case::new(problem, fill, 7), data }
}

pub(super) fn all() -> Vec<Loop> {
    let images = |count, size, kernel| Convolution::new(count, size, kernel).padding([1, 1]);
    // 36 pixels an image, in two tiles, so that rows of every copy lie in several; taps reach over every edge, and are four
    // steps, the last of them ragged.
    let forward = images(5, [10, 15], [2, 2]).stride([2, 3]).padding([1, 2]).dilation([1, 2]);
    let tall = images(2, [9, 6], [3, 1]).stride([2, 1]).padding([1, 0]);
    // 30 of the input, half of whose lines nothing reaches under a tap.
    let back = images(5, [5, 6], [2, 2]).stride([2, 3]).padding([0, 1]).dilation([1, 2]);
    let wide = images(2, [4, 9], [1, 3]).stride([1, 2]).padding([0, 1]);
    let of = |choice, operation| {
        move |of, sizes, adapter, data, apart| {
            layer(&Images { choice, operation, of, sizes, adapter, data, apart })
        }
    };
    let linear =
        |layers: &[Layer], places: &[Place]| loops("linear gathered", "linear", layers, places);

    let leader = of("leader/medium", Forward);
    let leader = [
        leader(forward, [104, 256, 16], Bf16, Integers, 1),
        leader(tall, [64, 136, 9], Bf16, Uniform, 0),
    ];
    let mut all =
        linear(&leader, &[TURN_TO_FLAG, TURN_BEHIND_FLAG, INTERIOR, INTERIOR_RANKED, BEHIND]);

    // Back each segment is gathered, forward the first alone.
    let passes = of("two_pass/medium", Forward);
    let transposed = of("two_pass/transposed_medium", BackwardInput);
    let transposed = [
        transposed(back, [136, 104, 16], F32, Integers, 1),
        transposed(wide, [40, 64, 35], F32, Uniform, 0),
        passes(forward, [40, 136, 35], F32, Uniform, 0),
        transposed(back, [40, 72, 32], F32, InfiniteDown(0), 0),
        // Last steps of as many rows of w as two and three copies bring.
        transposed(wide, [40, 48, 3], F32, Integers, 1),
        transposed(wide, [40, 56, 3], F32, Integers, 1),
    ];
    all.extend(linear(&transposed, &[TURN, INTERIOR, BEHIND, MEETS]));

    let unaligned = of("two_pass/unaligned", Forward);
    let mut layers = vec![
        unaligned(forward, [37, 70, 35], F32, Uniform, 1),
        unaligned(tall, [5, 40, 3], F32, Integers, 2),
        unaligned(tall, [5, 9, 40], F32, Uniform, 0),
        unaligned(tall, [5, 9, 32], F32, InfiniteDown(0), 0),
    ];
    // Chunks of each length.
    layers.extend([33, 2, 3, 4, 6, 7, 8].map(|of| unaligned(tall, [of, 40, 3], F32, Integers, 1)));
    all.extend(linear(&layers, &[TURN, MEETS_UNALIGNED]));

    let gradient = of("direct/gradient", BackwardAdapter);
    // So many tokens that each eight of a step's rows are the last once.
    let gradient = [
        gradient(forward, [136, 40, 20], Bf16, Integers, 1),
        gradient(tall, [40, 136, 40], F32, Uniform, 0),
        gradient(images(1, [5, 5], [2, 2]), [8, 8, 9], Bf16, Integers, 1),
        gradient(images(1, [2, 3], [2, 2]), [128, 8, 3], Bf16, Integers, 0),
        // Whole steps, one token more, a single one, and none; and several spans of tokens.
        gradient(images(1, [3, 7], [2, 2]), [8, 8, 9], Bf16, Integers, 1),
        gradient(images(1, [2, 10], [2, 2]), [8, 8, 9], Bf16, Integers, 1),
        gradient(images(1, [2, 2], [2, 2]).padding([0, 0]), [8, 8, 9], Bf16, Integers, 1),
        gradient(images(0, [2, 2], [2, 2]), [8, 8, 9], Bf16, Integers, 1),
        gradient(images(3, [20, 21], [1, 2]).padding([0, 1]), [128, 128, 9], F32, Integers, 0),
    ];
    all.extend(loops("gradient gathered", "gradient", &gradient, &GRADIENT));
    all
}
