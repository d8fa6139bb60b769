//! The problems whose plans run every text: whole tiles, two to four along each axis, sums of
//! more than two rings, operands in rows of whole sectors. A kernel that serves another kind of
//! problem adds a line to `problems`.

use fused_lora::{
    Channels, Choice, Convolution, DType, Kronecker, Layout, Major, Method, Operand, Operation,
    Plan, Problem,
};

use test_support::sim::gpu;

/// A plan, and whether all of its accesses should touch no sector that they need not.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) aligned: bool,
}

/// Depth of every sum: more than twice the longest ring, whole steps.
const DEEP: usize = 320;

const LINEAR: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];

/// `operation` on so many tokens, with a sum of [`DEEP`] and so many columns.
fn layer(operation: Operation, tokens: usize, wide: usize, rank: usize) -> Problem {
    match operation {
        Operation::Forward => Problem::new(operation, tokens, DEEP, wide, rank),
        _ => Problem::new(operation, tokens, wide, DEEP, rank),
    }
}

/// All plans of `problem` whose preset `of` names; none where no preset serves it, which shows as
/// a text without a plan.
fn of_preset(problem: Problem, of: &str) -> Vec<Planned> {
    let device = gpu(1);
    let Ok(any) = Plan::new(&problem, &device) else { return Vec::new() };
    let named = any.candidates().iter().filter(|candidate| candidate.preset == of);
    let choices = named.map(|candidate| Choice {
        strategy: Some(candidate.strategy),
        preset: Some(of.to_owned()),
    });
    let plans = choices.filter_map(|choice| Plan::choose(&problem, &device, &choice).ok());
    plans.map(|plan| Planned { plan, aligned: of != "unaligned" }).collect()
}

/// Every plan that is counted, those of one text beside each other in no order.
pub(crate) fn plans() -> Vec<Planned> {
    let mut all = Vec::new();
    for &dtype in DType::ALL {
        // Two by two tiles of 128 × 256, of 128 × 128, and of 64 × 64; ranks that fill each text, and first
        // those that fill the tiles of shrink.
        for operation in LINEAR {
            for rank in [0, 64, 32, 16, 8] {
                for (preset, tokens, wide) in [
                    ("large", 256, 512),
                    ("medium", 256, 256),
                    ("tf32", 256, 512),
                    ("small", 128, 128),
                    ("unaligned", 128, 128),
                    ("decode", 16, 128),
                ] {
                    let problem = layer(operation, tokens, wide, rank)
                        .with_activation(dtype)
                        .with_tf32(preset == "tf32");
                    let own = problem.with_adapter(dtype);
                    all.extend(of_preset(own, preset));
                    let pair = of_preset(problem.with_adapter(DType::F32), preset);
                    // Rows of eight ranks are half a sector.
                    let aligned = |of: &Planned| of.aligned && rank != 8;
                    all.extend(pair.into_iter().map(|of| Planned { aligned: aligned(&of), ..of }));
                }
            }
        }
        all.extend(beside(dtype));
        all.extend(images(dtype));
    }
    all
}

/// Layers on an image, 3 × 3 in a border of zeros: of each tap three steps and more.
fn images(dtype: DType) -> Vec<Planned> {
    let of = Convolution::new(1, [16, 16], [3, 3]).padding([1, 1]).channels(Channels::Last);
    let odd = Layout { align: dtype.size(), ..Layout::default() };
    let mut all = Vec::new();
    for layout in [Layout::default(), Layout { major: Major::Col, ..Layout::default() }] {
        let problem = |operation, carried: bool| {
            // What fills a tile of shrink, one of gradient, and the ranks that a leader carries.
            let rank = match operation {
                _ if carried => 16,
                Operation::BackwardAdapter => 32,
                _ => 64,
            };
            Problem::new(operation, 256, 128 * of.taps(), 256, rank)
                .with_dtype(dtype)
                .with_convolution(of)
                .with_layout(Operand::W, layout)
                .with_layout(Operand::A, layout)
                // Stored the other way, db's eight ranks of a column are half a sector.
                .with_layout(Operand::Db, Layout::TRANSPOSED)
        };
        let whole = layout == Layout::default();
        for (operation, presets) in [
            (Operation::Forward, &["medium", "small", "unaligned"][..]),
            (
                Operation::BackwardInput,
                &["transposed_medium", "transposed_small", "transposed_unaligned"],
            ),
            (Operation::BackwardAdapter, &["gradient"]),
        ] {
            for preset in presets {
                for (is_odd, operand) in
                    [(false, Operand::X), (true, Operand::X), (true, Operand::Dy)]
                {
                    let problem = problem(operation, false);
                    let problem = if is_odd { problem.with_layout(operand, odd) } else { problem };
                    let aligned = whole && !is_odd && !preset.ends_with("unaligned");
                    let planned = of_preset(problem, preset);
                    all.extend(planned.into_iter().map(|of| Planned { aligned, ..of }));
                }
            }
        }
        for adapter in [dtype, DType::F32] {
            let problem = problem(Operation::Forward, true).with_adapter(adapter);
            let planned = of_preset(problem, "medium");
            all.extend(planned.into_iter().map(|of| Planned { aligned: whole, ..of }));
        }
    }
    all
}

/// Gradients, merge, what a gain comes of, and the conversions of `pack` that no layer above asks for.
fn beside(dtype: DType) -> Vec<Planned> {
    let mut all = Vec::new();
    let gradient = |rank| {
        Problem::new(Operation::BackwardAdapter, 256, 256, 384, rank)
            .with_dtype(dtype)
            // Stored the other way, db's eight ranks of a column are half a sector.
            .with_layout(Operand::Db, Layout::TRANSPOSED)
    };
    for rank in [16, 64] {
        all.extend(of_preset(gradient(rank), "gradient"));
        let odd = Layout { align: dtype.size(), ..Layout::default() };
        let odd = gradient(rank).with_layout(Operand::X, odd);
        all.extend(
            of_preset(odd, "gradient").into_iter().map(|of| Planned { aligned: false, ..of }),
        );
    }
    for layout in [Layout::default(), Layout::TRANSPOSED] {
        let problem = Problem::new(Operation::Merge, 1, 128, 128, 64)
            .with_dtype(dtype)
            .with_layout(Operand::A, layout)
            .with_layout(Operand::B, layout);
        // What has to be turned first is read across its rows.
        let aligned = layout == Layout::default();
        all.extend(of_preset(problem, "merge").into_iter().map(|of| Planned { aligned, ..of }));
    }
    // All of a and b of factors stored so, w1 of two of them; and their gradients.
    for operation in Operation::FACTORS {
        for method in [Method::Loha, Method::Lokr(Kronecker::low(8, 8))] {
            let problem =
                Problem::new(*operation, 1, 256, 384, 8).with_method(method).with_dtype(dtype);
            let planned = of_preset(problem, "contract");
            all.extend(planned.into_iter().map(|of| Planned { aligned: false, ..of }));
        }
    }
    for &operation in Operation::GAINS {
        let problem = Problem::new(operation, 128, 256, 384, 8).with_dtype(dtype).with_bias(true);
        let planned = of_preset(problem, &operation.to_string());
        all.extend(planned.into_iter().map(|of| Planned { aligned: false, ..of }));
    }
    for &adapter in DType::ALL {
        let across = Layout { major: Major::Col, ..Layout::default() };
        let problem = layer(Operation::Forward, 128, 128, 16)
            .with_activation(dtype)
            .with_adapter(adapter)
            .with_layout(Operand::W, across);
        all.extend(
            of_preset(problem, "small").into_iter().map(|of| Planned { aligned: false, ..of }),
        );
    }
    all
}
