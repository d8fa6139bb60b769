//! Random problems and buffers at the executors' entry: what is legal matches the reference,
//! what is not returns the right error, names the operand and writes nothing.

use fused_lora::cpu::{Cpu, Workspace};
use fused_lora::{
    Access, Capabilities, DType, Error, Layout, Major, Matrix, Operand, Operation, Plan,
};
use proptest::prelude::*;
use proptest::sample::select;
use test_support::arbitrary::legal;
use test_support::{Case, Data, Fill, Harness, Reference, Rows, Usage, launch, takes};

/// What a caller can get wrong with one operand.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Rows,
    Cols,
    DType,
    Major,
    StrideTooSmall,
    Stride,
    TooShort,
    Overflow,
    Missing,
    Misaligned,
}

const WRONGS: [Wrong; 10] = [
    Wrong::Rows,
    Wrong::Cols,
    Wrong::DType,
    Wrong::Major,
    Wrong::StrideTooSmall,
    Wrong::Stride,
    Wrong::TooShort,
    Wrong::Overflow,
    Wrong::Missing,
    Wrong::Misaligned,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn legal_problems_match_the_reference(problem in legal(), seed: u64) {
        let case = Case::new(problem, Fill::Uniform, seed);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        let mut usage = Usage::default();
        prop_assert_eq!(problem.validate(), Ok(()));
        // Every case is new here, and so are its kernels.
        let mut harness = Harness::of_a_case("properties").rarer(8);
        harness.each(&problem, Some(seed), |executor, plan| {
            let after = launch(executor, plan, &before, &case);
            usage.check(plan, &after, reference.of(executor.sums(&problem)), &case);
        });
    }

    /// One operand is wrong in one way: the error says which and how, and nothing is written.
    #[test]
    fn a_wrong_operand_is_named(
        problem in legal(),
        wrong in select(WRONGS.to_vec()),
        which: prop::sample::Index,
        seed: u64,
    ) {
        let specs: Vec<_> = problem.specs().collect();
        prop_assume!(!specs.is_empty());
        let (operand, spec) = specs[which.index(specs.len())];
        let (stored_rows, stored_cols) = spec.stored();
        // What cannot be wrong: a stride below no columns, another stride of one row.
        prop_assume!(wrong != Wrong::StrideTooSmall || stored_cols > 0);
        prop_assume!(wrong != Wrong::Stride || stored_rows > 1);

        let mut problem = problem;
        let mut buffers = Case::new(problem, Fill::Uniform, seed).buffers();
        let stored = buffers.at_mut(operand);
        let (len, extent) = (stored.data.len(), spec.extent().unwrap());
        let other = DType::ALL[(DType::ALL.iter().position(|of| *of == spec.dtype).unwrap() + 1) % 3];
        if wrong == Wrong::DType {
            stored.data = Data::guards(other, len);
        }
        if wrong == Wrong::Misaligned {
            // Promise what no operand behind a guard has, on any device.
            let layout = Layout { major: spec.major, stride: Some(spec.stride), align: 1 << 40 };
            problem = problem.with_layout(operand, layout);
        }
        let changed = |of: Matrix<()>| match wrong {
            Wrong::Rows => Matrix { rows: of.rows + 1, ..of },
            Wrong::Cols => Matrix { cols: of.cols + 1, ..of },
            Wrong::Major => Matrix {
                major: if of.major == Major::Row { Major::Col } else { Major::Row },
                ..of
            },
            Wrong::StrideTooSmall => of.strided(stored_cols - 1),
            Wrong::Stride => of.strided(of.stride + 1),
            Wrong::TooShort => of.at(len - extent + 1),
            Wrong::Overflow => of.at(usize::MAX - (seed as usize % 1000)),
            Wrong::DType | Wrong::Missing | Wrong::Misaligned => of,
        };
        let before = buffers.clone();
        for executor in test_support::executors() {
            let key = format!("{problem:?} {seed}");
            if !takes(executor.as_ref(), Rows::Drawn, 1, &problem, &key) {
                continue;
            }
            let all = executor.capabilities();
            let capabilities = all[seed as usize % all.len()];
            let plan = Plan::new(&problem, &capabilities).unwrap();
            let mut scratch = executor.scratch(plan.workspace_len());
            let mut alter = |of, shape| match (of == operand, wrong) {
                (true, Wrong::Missing) => None,
                (true, _) => Some(changed(shape)),
                _ => Some(shape),
            };
            let error = executor
                .run_altered(&plan, &mut buffers, &mut scratch, &mut alter)
                .expect_err("a wrong operand");
            prop_assert!(matches!(&error, Error::Call { .. }), "{error}");
            let error = error.cause().clone();
            buffers.assert_untouched(&before);

            let shape = [spec.rows, spec.cols];
            let right = match (wrong, error.clone()) {
                (Wrong::Rows, error) => {
                    error == Error::Shape { operand, expected: shape, got: [spec.rows + 1, spec.cols] }
                }
                (Wrong::Cols, error) => {
                    error == Error::Shape { operand, expected: shape, got: [spec.rows, spec.cols + 1] }
                }
                (Wrong::DType, error) => {
                    error == Error::DType { operand, expected: spec.dtype, got: other }
                }
                (Wrong::Major, Error::Major { operand: of, expected, .. }) => {
                    of == operand && expected == spec.major
                }
                (Wrong::StrideTooSmall, error) => {
                    let (expected, got) = (stored_cols, stored_cols - 1);
                    error == Error::StrideTooSmall { operand, expected, got }
                }
                (Wrong::Stride, error) => {
                    error == Error::Stride { operand, expected: spec.stride, got: spec.stride + 1 }
                }
                (Wrong::TooShort, error) => {
                    error == Error::TooShort { operand, expected: len + 1, got: len }
                }
                (Wrong::Overflow, error) => error == Error::Overflow { operand },
                (Wrong::Missing, error) => error == Error::Missing { operand },
                (Wrong::Misaligned, Error::Misaligned { operand: of, .. }) => of == operand,
                _ => false,
            };
            prop_assert!(right, "{}: {:?}: {:?}", executor.name(), wrong, error);
        }
    }

    /// An operand that the problem does not have, or on the wrong side.
    #[test]
    fn an_extra_operand_is_named(problem in legal(), which: prop::sample::Index) {
        let operand = Operand::ALL[which.index(Operand::ALL.len())];
        let mut buffers = Case::new(problem, Fill::Uniform, 1).buffers();
        let before = buffers.clone();
        let spec = problem.spec(operand);
        let extra = vec![0.0f32; 1];
        let mut extra_out = vec![0.0f32; 1];
        let operands = buffers.operands();
        let operands = match spec {
            Some(spec) if spec.access == Access::Read => {
                operands.written(operand, Matrix::new((&mut extra_out).into(), 1, 1))
            }
            _ => operands.read(operand, Matrix::new((&extra).into(), 1, 1)),
        };
        let plan = Plan::new(&problem, &Cpu::new().capabilities()).unwrap();
        let mut workspace = Workspace::for_plan(&plan).unwrap();
        let result = Cpu::new().run(&plan, operands, &mut workspace);
        buffers.assert_untouched(&before);
        let error = result.unwrap_err();
        prop_assert_eq!(error.cause(), &Error::Unexpected { operand });
    }

    #[test]
    fn operands_of_another_operation_are_refused(problem in legal(), other in 0..Operation::ALL.len()) {
        let other = Operation::ALL[other];
        let merge = |of| matches!(of, Operation::Merge | Operation::Unmerge);
        let expected = problem.operation();
        prop_assume!(other != expected && !(merge(other) && merge(expected)));
        let mut buffers = Case::new(problem, Fill::Uniform, 1).buffers();
        buffers.operation = other;
        let before = buffers.clone();
        let plan = Plan::new(&problem, &Cpu::new().capabilities()).unwrap();
        let mut workspace = Workspace::for_plan(&plan).unwrap();
        let result = Cpu::new().run(&plan, buffers.operands(), &mut workspace);
        buffers.assert_untouched(&before);
        prop_assert_eq!(result, Err(Error::Operation { expected, got: other }));
    }

    /// Layouts that no buffer can have.
    #[test]
    fn an_illegal_layout_is_named(problem in legal(), which: prop::sample::Index, how in 0..3) {
        let specs: Vec<_> = problem.specs().collect();
        prop_assume!(!specs.is_empty());
        let (operand, spec) = specs[which.index(specs.len())];
        let layout = Layout { major: spec.major, stride: Some(spec.stride), align: spec.align };
        let (rows, cols) = spec.stored();
        let (layout, expected) = match how {
            0 if !operand.either_major() => {
                (Layout { major: Major::Col, ..layout }, Error::RowMajorOnly { operand })
            }
            1 if cols > 0 => {
                let error = Error::StrideTooSmall { operand, expected: cols, got: cols - 1 };
                (Layout { stride: Some(cols - 1), ..layout }, error)
            }
            2 if rows > 1 => {
                (Layout { stride: Some(usize::MAX / 2), ..layout }, Error::Overflow { operand })
            }
            _ => return Err(TestCaseError::reject("nothing illegal to do")),
        };
        let problem = problem.with_layout(operand, layout);
        prop_assert_eq!(problem.validate(), Err(expected.clone()));
        prop_assert_eq!(Plan::new(&problem, &Capabilities::cpu()), Err(expected));
    }
}
