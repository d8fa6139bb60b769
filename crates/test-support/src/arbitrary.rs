//! Random problems for proptest.

use fused_lora::{DType, Gradients, Layout, Major, Operand, Operation, Problem};
use proptest::prelude::*;
use proptest::sample::select;

/// Any storage type.
pub fn dtype() -> impl Strategy<Value = DType> {
    select(DType::ALL.to_vec())
}

/// Sizes, types and options; no layouts yet.
pub fn options(size: impl Strategy<Value = [usize; 4]>) -> impl Strategy<Value = Problem> {
    let gradients = select(vec![Gradients::Both, Gradients::A, Gradients::B]);
    let types = (dtype(), dtype(), dtype(), any::<bool>());
    let numbers = (select(vec![1.0f32, -0.5, 3.0, 0.0]), select(vec![0.0f32, 1.0, -0.5]));
    let flags = any::<[bool; 4]>();
    (select(Operation::ALL.to_vec()), size, types, numbers, flags, gradients).prop_map(
        |(operation, [m, k, n, r], types, (scale, beta), flags, of)| {
            let (activation, adapter, gradient, sums_as_they_are) = types;
            Problem::new(operation, m, k, n, r)
                .with_activation(activation)
                .with_output(sums_as_they_are.then_some(DType::F32))
                .with_adapter(adapter)
                .with_gradient(gradient)
                .with_scale(scale)
                .with_beta(beta)
                .with_bias(flags[0])
                .with_gain(flags[3])
                .with_precise(flags[1])
                .with_keep_shrunk(flags[2])
                .with_gradients(of)
        },
    )
}

/// Small legal problems with majors, strides and promised alignments.
pub fn legal() -> impl Strategy<Value = Problem> {
    let size =
        (0usize..24, 1usize..40, 1usize..40, 0usize..20).prop_map(|(m, k, n, r)| [m, k, n, r]);
    let layouts = prop::collection::vec((any::<bool>(), 0usize..5), Operand::ALL.len());
    (options(size), layouts, any::<bool>()).prop_map(|(problem, layouts, begins_anywhere)| {
        let pairs = Operand::ALL.iter().copied().zip(layouts);
        pairs.fold(problem, |problem, (operand, (transposed, gap))| {
            let transposed = transposed && operand.either_major();
            let major = if transposed { Major::Col } else { Major::Row };
            let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
            let Some(spec) = problem.spec(operand) else { return problem };
            let align = if begins_anywhere { spec.dtype.size() } else { 0 };
            let layout = Layout { major, stride: Some(spec.stored().1 + gap), align };
            problem.with_layout(operand, layout)
        })
    })
}
