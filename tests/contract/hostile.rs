//! What no honest caller asks: sizes up to `usize::MAX`, any text and any tensor: an error at worst, never a panic or an
//! overflow.

use fused_lora::cpu::{Slice, SliceMut, Workspace};
use fused_lora::reference::{Sums, expected};
use fused_lora::{
    Access, Adapter, AdapterKind, Capabilities, Choice, CpuCapabilities, CudaCapabilities, DType,
    Device, Error, Forward, Layout, Major, Matrix, Operand, Operands, Plan, Problem,
    Strategy as How, WgpuCapabilities,
};
use proptest::prelude::*;
use proptest::sample::select;
use test_support::arbitrary::{dtype, options};
use test_support::{Case, Fill, feasible};

/// A size that arithmetic could trip over.
fn any_size() -> impl Strategy<Value = usize> {
    let edges = [0, 1, 2, 7, 8, 9, 255, 4096].into_iter();
    let powers = (15..64).flat_map(|bit| [(1usize << bit) - 1, 1 << bit, (1 << bit) + 1]);
    let all = edges.chain(powers).chain([usize::MAX - 7, usize::MAX - 1, usize::MAX]);
    prop_oneof![select(all.collect::<Vec<_>>()), any::<usize>()]
}

/// Nearer to what is legal: at most one size is wild.
fn one_wild_size() -> impl Strategy<Value = Problem> {
    let others = prop_oneof![Just(1), 1usize..5000];
    (0usize..4, any_size(), others, 0usize..600).prop_flat_map(|(which, wild, others, rank)| {
        let mut size = [others, others, others, rank];
        size[which] = wild;
        options(Just(size))
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let workers = select(vec![0, 1, 2, 3, 7, 65_536, usize::MAX]);
    workers.prop_map(|workers| Capabilities::Cpu(CpuCapabilities::new(workers)))
}

/// A GPU that claims anything: what plans are made of, each as it is, or wild.
fn device() -> impl Strategy<Value = Capabilities> {
    let wild = select(vec![0, 1, 3, 16, 255, 256, 4096, 65_535, 1 << 16, 1 << 31, u32::MAX]);
    let wild = prop::collection::vec(prop::option::weighted(0.2, wild), 10);
    (wild, any::<[bool; 5]>()).prop_map(|(wild, [cuda, f16, shared, storage, software])| {
        let or = |at: usize, usual: u32| wild[at].unwrap_or(usual);
        if cuda {
            let mut of = CudaCapabilities::default();
            of.compute_capability = (or(0, 8), or(1, 0));
            of.multiprocessors = or(2, 108);
            of.shared_bytes = or(3, 163 << 10);
            of.shared_bytes_per_multiprocessor = or(4, 164 << 10);
            of.l2_bytes = or(5, 40 << 20);
            of.clock_mhz = or(6, 1410);
            of.gigabytes_per_second = or(7, 1555);
            return Capabilities::Cuda(of);
        }
        let mut of = WgpuCapabilities::default();
        of.adapter = if software { AdapterKind::Software } else { AdapterKind::Hardware };
        (of.f16, of.shared_buffers, of.storage_params) = (f16, shared, storage);
        of.workgroup_bytes = or(0, 16 << 10);
        of.workgroup_threads = or(1, 256);
        of.workgroups = or(2, 65_535);
        of.storage_buffers = or(3, 8);
        of.binding_bytes = match wild[4] {
            None => 128 << 20,
            Some(u32::MAX) => u64::MAX,
            Some(bytes) => bytes.into(),
        };
        of.binding_align = or(5, 256);
        Capabilities::Wgpu(of)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

    #[test]
    fn no_size_panics(
        problem in options([any_size(), any_size(), any_size(), any_size()]),
        stride in prop::option::of(any_size()),
        align in any_size(),
        which: prop::sample::Index,
        cpu in capabilities(),
    ) {
        let operand = Operand::ALL[which.index(Operand::ALL.len())];
        let layout = Layout { stride, align, ..Layout::default() };
        walk(problem.with_layout(operand, layout), cpu)?;
    }

    #[test]
    fn one_wild_size_does_not_panic(
        problem in one_wild_size(),
        cpu in capabilities(),
    ) {
        walk(problem, cpu)?;
    }

    #[test]
    fn a_choice_survives_its_text(
        strategy in prop::option::of(select(How::ALL.to_vec())),
        preset in prop::option::of(".+"),
    ) {
        let choice = Choice { strategy, preset };
        prop_assert_eq!(choice.to_string().parse::<Choice>(), Ok(choice));
    }

    #[test]
    fn any_text_is_a_choice_or_an_error(
        text in prop_oneof![".*", "(auto|leader|direct|two_pass|recompute)?/?[a-z]*"],
    ) {
        match text.parse::<Choice>() {
            Ok(choice) => prop_assert_eq!(choice.to_string(), text),
            Err(error) => prop_assert_eq!(error, Error::Choice { got: text }),
        }
    }

    #[test]
    fn any_device_name_opens_or_lists_what_there_is(name in prop_oneof![".*", "cpu|cuda|wgpu:.*"]) {
        match Device::open(&name) {
            Ok(device) => prop_assert!(name == "auto" || name == device.name()),
            Err(Error::Device { wanted, available, .. }) => {
                prop_assert_eq!(wanted, name);
                prop_assert_eq!(available, Device::available().join(", "));
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_tensor_keeps_its_values_rounded(
        (rows, cols, len) in (0usize..9, 0usize..9, 0usize..90),
        dtype in dtype(),
        exact: bool,
    ) {
        let len = if exact { rows * cols } else { len };
        let values: Vec<f32> = (0..len).map(|at| at as f32 / 3.0 - 5.0).collect();
        let device = Device::cpu();
        match device.tensor(rows, cols, dtype, &values) {
            Ok(tensor) => {
                prop_assert_eq!(len, rows * cols);
                prop_assert_eq!((tensor.rows(), tensor.cols(), tensor.dtype()), (rows, cols, dtype));
                let rounded: Vec<f32> = values.iter().map(|value| dtype.round(*value)).collect();
                prop_assert_eq!(tensor.to_f32().unwrap(), rounded);
            }
            Err(error) => {
                let (shape, expected) = ([rows, cols], rows * cols);
                prop_assert!(len != expected);
                prop_assert_eq!(error, Error::TensorLen { shape, expected, got: len });
            }
        }
    }

    #[test]
    fn a_tensor_too_large_is_an_error(rows in 1usize << 33..usize::MAX, cols in 1usize << 33..usize::MAX) {
        let error = Device::cpu().zeros(rows, cols, DType::Bf16).unwrap_err();
        prop_assert!(matches!(error, Error::OutOfMemory { .. }), "{:?}", error);
    }
}

proptest! {
    // Plans of thousands of launches are among them.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3_000) })]

    /// Devices that do not exist: a plan or an error, whatever they claim to grant.
    #[test]
    fn no_device_panics(
        problem in prop_oneof![
            options([any_size(), any_size(), any_size(), any_size()]),
            options([0usize..300, 1usize..9000, 1usize..9000, 0usize..600]),
            one_wild_size(),
        ],
        layouts in prop::collection::vec((any::<bool>(), any_size(), any_size()), Operand::ALL.len()),
        device in device(),
    ) {
        let problem = Operand::ALL.iter().copied().zip(layouts).fold(
            problem,
            |problem, (operand, (transposed, gap, align))| {
                let transposed = transposed && operand.either_major();
                let major = if transposed { Major::Col } else { Major::Row };
                let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
                let Some(spec) = problem.spec(operand) else { return problem };
                // Now and then beyond an address, mostly not.
                let stride = spec.stride.checked_add(if gap < 1 << 20 { gap } else { 0 });
                problem.with_layout(operand, Layout { major, stride, align })
            },
        );
        for choice in ["auto", "leader", "recompute", "two_pass", "direct"] {
            let choice: Choice = choice.parse().unwrap();
            match Plan::choose(&problem, &device, &choice) {
                Ok(plan) => {
                    prop_assert_eq!(problem.validate(), Ok(()));
                    prop_assert!(plan.explain().contains(plan.preset()));
                    prop_assert!(plan.launches().len() <= 1 << 14, "{}", plan.launches().len());
                    for launch in plan.launches() {
                        let threads: u64 = launch.block.iter().map(|of| u64::from(*of)).product();
                        prop_assert!((1..=1024).contains(&threads), "{:?}", launch);
                        prop_assert!(launch.grid.iter().all(|of| *of > 0), "{:?}", launch);
                    }
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// Everything that can be asked of a problem, legal or not; and of its plan, if it has one.
fn walk(problem: Problem, capabilities: Capabilities) -> Result<(), TestCaseError> {
    let valid = problem.validate();
    let mut bytes = 0u64;
    for (_, spec) in problem.specs() {
        let _ = spec.extent();
        bytes = bytes.max(spec.bytes());
    }
    prop_assert!(problem.bytes() >= bytes, "{} of {}", problem.bytes(), bytes);
    prop_assert!(problem.shrunk_stride() >= problem.padded_rank());
    let (flops, plain) = (problem.flops(), problem.plain().flops());
    prop_assert!(flops >= plain);
    match Plan::new(&problem, &capabilities) {
        Ok(plan) => {
            prop_assert_eq!(valid, Ok(()));
            prop_assert!(plan.flops() <= flops);
            prop_assert!(plan.launches().len() <= 1);
            prop_assert!(plan.explain().contains(plan.preset()));
            prop_assert!(plan.floor() >= 1.0);
            let choices = feasible(&problem, &capabilities, &Choice::default());
            prop_assert!(choices.contains(&plan.choice()));
        }
        Err(error) => prop_assert_eq!(Err(error), valid, "a legal problem has a plan"),
    }
    // Operands that nobody could hold: an error, whatever the problem is.
    let nowhere: Vec<f32> = vec![0.0];
    let mut operands = Operands::<_, SliceMut<'_>>::new(problem.operation());
    for (operand, spec) in problem.specs().filter(|(_, spec)| spec.access == Access::Read) {
        let matrix = Matrix::new(Slice::from(&nowhere), spec.rows, spec.cols);
        operands =
            operands.read(operand, Matrix { major: spec.major, ..matrix.strided(spec.stride) });
    }
    let _ = operands.problem_with_layouts(problem);
    if problem.specs().any(|(_, spec)| spec.access != Access::Read) {
        prop_assert!(operands.check(&problem).is_err());
    }
    Ok(())
}

/// Tensors of a device through the same plans as raw slices.
#[test]
fn tensors_match_the_reference() {
    let device = Device::cpu();
    let (tokens, k, n, rank) = (6, 33, 20, 5);
    for &dtype in DType::ALL {
        let problem = Problem::forward(tokens, k, n, rank)
            .with_dtype(dtype)
            .with_scale(0.5)
            .with_keep_shrunk(false)
            .with_layout(Operand::W, Layout::TRANSPOSED);
        let case = Case::new(problem.with_layout(Operand::W, Layout::default()), Fill::Uniform, 2);
        let data = case.buffers();
        let tensor = |operand, transposed: bool| {
            let dense = data.at(operand).dense();
            let dense = if transposed { dense.transposed() } else { dense };
            let values: Vec<f32> = dense.values().iter().map(|value| *value as f32).collect();
            device.tensor(dense.rows(), dense.cols(), dtype, &values).unwrap()
        };
        let (x, w) = (tensor(Operand::X, false), tensor(Operand::W, true));
        let (a, b) = (tensor(Operand::A, false), tensor(Operand::B, false));
        let mut y = device.tensor(tokens, n, dtype, &vec![f32::NAN; tokens * n]).unwrap();
        let plan = device.plan(&problem).unwrap();
        let adapter = Some(Adapter::new(a.matrix(), b.matrix()));
        let operands =
            Forward::new(x.matrix(), w.transposed(), y.matrix_mut()).with_adapter(adapter);
        device.run(&plan, operands).unwrap();
        let results = expected(&problem, Sums::F32, |operand| data.at(operand).dense());
        let of = &results[0].1;
        for (at, got) in y.to_f32().unwrap().into_iter().enumerate() {
            let error = (f64::from(got) - of.value.values()[at]).abs();
            assert!(error <= of.tolerance.values()[at], "{dtype}: y[{at}] is off by {error}");
        }
    }
}

/// Legal by its counts, and more scratch for its workers than an address can name: the plan
/// is there, and it is the workspace that cannot be had.
#[test]
fn a_workspace_beyond_memory_is_an_error() {
    let problem = Problem::forward(1, 1, 1, (1 << 43) - 1);
    let cpu = Capabilities::Cpu(CpuCapabilities::new(usize::MAX));
    let plan = Plan::new(&problem, &cpu).unwrap();
    let bytes = plan.workspace_len();
    assert_eq!(Workspace::for_plan(&plan).unwrap_err(), Error::OutOfMemory { bytes });
}
