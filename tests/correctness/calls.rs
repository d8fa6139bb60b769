//! Operands in, done: what a call gives is, bit for bit, what the plans give that it stands for, on every
//! executor, for every set of gradients and from any thread; and an error of it has written nothing.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fused_lora::cpu::{Cpu, Slice, SliceMut};
use fused_lora::{
    Adapter, Backward, BackwardAdapter, BackwardInput, BackwardShrink, Candidate, DType, Device,
    Error, Forward, GradientA, GradientB, Layout, Major, Matrix, Merge, Operand, Operands,
    Operation, Outcome, Problem, Result, Tensor,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::executors;

/// A layer's operands on a device. Tensors that are written begin as NaN.
struct Layer {
    device: Device,
    sizes: Sizes,
    x: Tensor,
    w: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    dy: Tensor,
}

/// What a layer is made from.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    in_features: usize,
    out_features: usize,
    rank: usize,
    activation: DType,
    /// Of the adapter and of its gradients.
    adapter: DType,
    output: DType,
    precise: bool,
}

const SCALE: f32 = 0.75;

impl Sizes {
    fn problem(&self) -> Problem {
        Problem::forward(self.tokens, self.in_features, self.out_features, self.rank)
            .with_activation(self.activation)
            .with_adapter(self.adapter)
            .with_gradient(self.adapter)
            .with_output(self.output)
            .with_precise(self.precise)
            .with_scale(SCALE)
            .with_bias(true)
    }

    fn shrunk_stride(&self) -> usize {
        self.problem().shrunk_stride()
    }
}

/// Odd sizes and even ones, both kinds of adapters, f32 results, two parts.
fn all_sizes() -> Vec<Sizes> {
    let sizes = |tokens, in_features, out_features, rank| {
        let (activation, precise) = (DType::F32, false);
        let (adapter, output) = (activation, activation);
        Sizes { tokens, in_features, out_features, rank, activation, adapter, output, precise }
    };
    let of =
        |activation, adapter, sizes| Sizes { activation, adapter, output: activation, ..sizes };
    vec![
        sizes(5, 24, 40, 4),
        of(DType::F16, DType::F16, sizes(9, 17, 33, 3)),
        of(DType::Bf16, DType::F32, sizes(33, 64, 48, 8)),
        Sizes { output: DType::F32, ..of(DType::Bf16, DType::Bf16, sizes(1, 72, 56, 16)) },
        Sizes { precise: true, ..of(DType::Bf16, DType::F32, sizes(20, 40, 24, 5)) },
    ]
}

fn tensor(device: &Device, [rows, cols]: [usize; 2], dtype: DType, random: &mut StdRng) -> Tensor {
    let values: Vec<f32> = (0..rows * cols).map(|_| random.random_range(-1.0..1.0)).collect();
    device.tensor(rows, cols, dtype, &values).expect("a tensor")
}

fn nans(device: &Device, [rows, cols]: [usize; 2], dtype: DType) -> Tensor {
    device.tensor(rows, cols, dtype, &vec![f32::NAN; rows * cols]).expect("a tensor")
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_f32().expect("the elements").into_iter().map(f32::to_bits).collect()
}

impl Layer {
    fn new(device: &Device, sizes: Sizes) -> Layer {
        let mut random = StdRng::seed_from_u64(7);
        let Sizes { tokens, in_features, out_features, rank, activation, adapter, .. } = sizes;
        let mut draw = |shape, dtype| tensor(device, shape, dtype, &mut random);
        Layer {
            device: device.clone(),
            sizes,
            x: draw([tokens, in_features], activation),
            w: draw([out_features, in_features], activation),
            bias: draw([1, out_features], activation),
            a: draw([rank, in_features], adapter),
            b: draw([out_features, rank], adapter),
            dy: draw([tokens, out_features], activation),
        }
    }

    fn y(&self) -> Tensor {
        nans(&self.device, [self.sizes.tokens, self.sizes.out_features], self.sizes.output)
    }

    fn dx(&self) -> Tensor {
        nans(&self.device, [self.sizes.tokens, self.sizes.in_features], self.sizes.output)
    }

    fn da(&self) -> Tensor {
        nans(&self.device, [self.sizes.rank, self.sizes.in_features], self.sizes.adapter)
    }

    fn db(&self) -> Tensor {
        nans(&self.device, [self.sizes.out_features, self.sizes.rank], self.sizes.adapter)
    }

    fn shrunk(&self) -> Tensor {
        nans(&self.device, [self.sizes.tokens, self.sizes.shrunk_stride()], self.sizes.activation)
    }

    fn forward<'t>(&'t self, y: &'t mut Tensor) -> Forward<&'t Tensor, &'t mut Tensor> {
        Forward::new(&self.x, &self.w, y)
            .bias(&self.bias)
            .adapter(&self.a, &self.b)
            .scale(SCALE)
            .precise(self.sizes.precise)
    }

    fn backward(&self) -> Backward<&Tensor, &mut Tensor> {
        Backward::new(&self.x, &self.w, &self.dy)
            .adapter(&self.a, &self.b)
            .scale(SCALE)
            .precise(self.sizes.precise)
    }

    /// By a plan of the operation.
    fn run<'t>(
        &self,
        operation: Operation,
        operands: impl Into<Operands<&'t Tensor, &'t mut Tensor>>,
    ) {
        let plan = self.device.plan(&self.sizes.problem().with_operation(operation));
        self.device.run(&plan.expect("a plan"), operands).expect("a run");
    }

    /// By plans: y, shrunk, dx, dshrunk, da, db.
    fn by_plans(&self) -> [Tensor; 6] {
        let [mut y, mut shrunk, mut dx] = [self.y(), self.shrunk(), self.dx()];
        let [mut dshrunk, mut da, mut db] = [self.shrunk(), self.da(), self.db()];
        self.run(Operation::Forward, self.forward(&mut y).shrunk(&mut shrunk));
        let input = BackwardInput::new(&self.dy, &self.w, &mut dx).adapter(&self.a, &self.b);
        self.run(Operation::BackwardInput, input.dshrunk(&mut dshrunk));
        let a = GradientA::new(&self.x, &dshrunk, &mut da);
        let b = GradientB::new(&self.dy, &shrunk, &mut db);
        self.run(Operation::BackwardAdapter, BackwardAdapter::new(Some(a), Some(b)));
        [y, shrunk, dx, dshrunk, da, db]
    }
}

fn devices() -> Vec<Device> {
    let open = |name: &str| Device::open(name).expect("a device that the tests have");
    executors().iter().map(|of| open(of.name())).collect()
}

#[test]
fn a_call_gives_the_bits_of_its_plans() {
    for device in devices() {
        for sizes in all_sizes() {
            let layer = Layer::new(&device, sizes);
            let [y, shrunk, dx, _, da, db] = layer.by_plans();
            let at = format!("{} {sizes:?}", device.name());

            let [mut y_alone, mut y_kept, mut kept] = [layer.y(), layer.y(), layer.shrunk()];
            device.forward(layer.forward(&mut y_alone)).expect("forward");
            device.forward(layer.forward(&mut y_kept).shrunk(&mut kept)).expect("forward");
            assert_eq!(bits(&y_alone), bits(&y), "{at}: y");
            assert_eq!(bits(&y_kept), bits(&y), "{at}: y beside shrunk");
            assert_eq!(bits(&kept), bits(&shrunk), "{at}: shrunk");

            for wanted in 0..8 {
                let wants = |bit: usize| wanted & (1 << bit) != 0;
                let [mut dx_got, mut da_got, mut db_got] = [layer.dx(), layer.da(), layer.db()];
                let mut backward = layer.backward().shrunk(&kept);
                if wants(0) {
                    backward = backward.dx(&mut dx_got);
                }
                if wants(1) {
                    backward = backward.da(&mut da_got);
                }
                if wants(2) {
                    backward = backward.db(&mut db_got);
                }
                device.backward(backward).expect("backward");
                for (name, wants_it, got, expected) in [
                    ("dx", wants(0), &dx_got, &dx),
                    ("da", wants(1), &da_got, &da),
                    ("db", wants(2), &db_got, &db),
                ] {
                    match wants_it {
                        true if name == "dx" || wanted == 7 => {
                            assert_eq!(bits(got), bits(expected), "{at}: {name} of {wanted}");
                        }
                        // Alone, a gradient may come of another kernel, and dshrunk without dx.
                        true => assert_close(got, expected, &format!("{at}: {name} of {wanted}")),
                        false => assert!(got.to_f32().unwrap().iter().all(|of| of.is_nan())),
                    }
                }
            }
        }
    }
}

/// Within two roundings of what is stored, and of f32 sums.
fn assert_close(got: &Tensor, expected: &Tensor, what: &str) {
    let unit = got.dtype().roundoff() as f32;
    let (got, expected) = (got.to_f32().unwrap(), expected.to_f32().unwrap());
    let largest = expected.iter().fold(0.0f32, |most, of| most.max(of.abs()));
    for (got, expected) in got.iter().zip(&expected) {
        let error = (got - expected).abs();
        assert!(error <= (4.0 * unit + 1e-5) * largest, "{what}: {got} for {expected}");
    }
}

#[test]
fn what_was_not_kept_is_worked_out_anew() {
    for device in devices() {
        for sizes in all_sizes() {
            let layer = Layer::new(&device, sizes);
            let [.., da, db] = layer.by_plans();
            let [mut dx_got, mut da_got, mut db_got] = [layer.dx(), layer.da(), layer.db()];
            let backward = layer.backward().dx(&mut dx_got).da(&mut da_got).db(&mut db_got);
            device.backward(backward).expect("backward");
            // shrunk comes of another kernel, and may be rounded the other way.
            assert_eq!(bits(&da_got), bits(&da), "{} {sizes:?}", device.name());
            let sums = sizes.tokens as f32 * sizes.activation.roundoff() as f32;
            let (got, expected) = (db_got.to_f32().unwrap(), db.to_f32().unwrap());
            for (got, expected) in got.iter().zip(&expected) {
                let most = 4.0 * sums.max(1e-5) * 4.0 + 4.0 * sizes.adapter.roundoff() as f32 * 8.0;
                assert!((got - expected).abs() <= most, "db: {got} for {expected}, {sizes:?}");
            }
        }
    }
}

#[test]
fn gradients_accumulate_and_dx_does_not() {
    for device in devices() {
        let layer = Layer::new(&device, all_sizes()[0]);
        let [.., dx, _, da, db] = layer.by_plans();
        let mut kept = layer.shrunk();
        device.forward(layer.forward(&mut layer.y()).shrunk(&mut kept)).expect("forward");
        let mut dx_got = layer.dx();
        let zeros = |of: &Tensor| device.zeros(of.rows(), of.cols(), of.dtype()).expect("zeros");
        let [mut da_got, mut db_got] = [zeros(&da), zeros(&db)];
        for _ in 0..2 {
            let backward = layer.backward().shrunk(&kept).dx(&mut dx_got);
            device.backward(backward.da(&mut da_got).db(&mut db_got).beta(1.0)).expect("backward");
        }
        assert_eq!(bits(&dx_got), bits(&dx), "{}", device.name());
        for (got, once) in [(&da_got, &da), (&db_got, &db)] {
            let doubled = once.to_f32().unwrap().into_iter().map(|of| (2.0 * of).to_bits());
            assert_eq!(bits(got), doubled.collect::<Vec<_>>(), "{}", device.name());
        }
    }
}

#[test]
fn merged_is_what_the_plan_merges() {
    for device in devices() {
        for sizes in all_sizes() {
            let layer = Layer::new(&device, sizes);
            let problem = sizes.problem();
            let [mut merged, mut planned] = [layer.w.clone(), layer.w.clone()];
            for (operation, unmerge) in [(Operation::Merge, false), (Operation::Unmerge, true)] {
                let plan = device.plan(&problem.with_operation(operation)).expect("a plan");
                let operands = Merge::new(&mut planned).adapter(&layer.a, &layer.b);
                device.run(&plan, operands).expect("a run");
                let of = Merge::new(&mut merged).adapter(&layer.a, &layer.b).scale(SCALE);
                let done = if unmerge { device.unmerge(of) } else { device.merge(of) };
                done.expect("merge");
                assert_eq!(bits(&merged), bits(&planned), "{} {sizes:?}", device.name());
            }
            assert_ne!(bits(&layer.w), bits(&layer.b), "the tensor that was shared is as it was");
        }
    }
}

/// Views at any element, as `narrow` makes them: the call reads off that they lie badly.
#[test]
fn operands_may_begin_anywhere() {
    let sizes = all_sizes()[2];
    for device in devices() {
        let layer = Layer::new(&device, sizes);
        let [y, ..] = layer.by_plans();
        // One column more on the left: another stride, and rows that begin at an odd element.
        let widened = |of: &Tensor| {
            let values = of.to_f32().unwrap();
            let rows = values.chunks(of.cols()).flat_map(|row| [&[f32::NAN], row].concat());
            let wide =
                device.tensor(of.rows(), of.cols() + 1, of.dtype(), &rows.collect::<Vec<_>>());
            wide.expect("a tensor")
        };
        let [x, w, a, b] = [&layer.x, &layer.w, &layer.a, &layer.b].map(widened);
        let mut y_got = nans(&device, [sizes.tokens, sizes.out_features + 1], sizes.output);
        fn narrow(of: &Tensor) -> Matrix<&Tensor> {
            Matrix::new(of, of.rows(), of.cols() - 1).at(1).strided(of.cols())
        }
        let (rows, cols) = (sizes.tokens, sizes.out_features);
        let target = Matrix::new(&mut y_got, rows, cols).at(1).strided(cols + 1);
        let forward = Forward::new(narrow(&x), narrow(&w), target).bias(&layer.bias);
        device
            .forward(forward.adapter(narrow(&a), narrow(&b)).scale(SCALE))
            .expect("forward over views");
        let unit = sizes.output.roundoff() as f32;
        let (got, expected) = (y_got.to_f32().unwrap(), y.to_f32().unwrap());
        for (got, expected) in got.chunks(cols + 1).zip(expected.chunks(cols)) {
            assert!(got[0].is_nan(), "the column beside y was written");
            for (got, expected) in got[1..].iter().zip(expected) {
                assert!((got - expected).abs() <= 4.0 * unit * expected.abs().max(1.0));
            }
        }
    }
}

/// Sums of nothing are zero, and are written.
#[test]
fn gradients_of_no_tokens_are_zero() {
    for device in devices() {
        let layer = Layer::new(&device, Sizes { tokens: 0, ..all_sizes()[0] });
        let [mut dx, mut da, mut db] = [layer.dx(), layer.da(), layer.db()];
        let backward = layer.backward().dx(&mut dx).da(&mut da).db(&mut db);
        device.backward(backward).expect("backward");
        for gradient in [da, db] {
            assert!(bits(&gradient).iter().all(|&of| of == 0), "{}", device.name());
        }
    }
}

/// Every operand of a backward pass with another shape: the error names it, and not a bit has changed,
/// though the operand may belong to the last of the steps.
#[test]
fn an_error_of_a_backward_pass_has_written_nothing() {
    for device in devices() {
        let layer = Layer::new(&device, all_sizes()[0]);
        let kept = tensor(&device, [5, 8], DType::F32, &mut StdRng::seed_from_u64(1));
        let cases = [
            (Operand::X, 0, [5, 25]),
            (Operand::W, 1, [40, 25]),
            (Operand::Dy, 2, [6, 40]),
            (Operand::A, 3, [4, 23]),
            (Operand::B, 4, [39, 4]),
            (Operand::Shrunk, 5, [5, 16]),
            (Operand::Dx, 6, [5, 23]),
            (Operand::Da, 7, [5, 24]),
            (Operand::Db, 8, [40, 5]),
        ];
        for (operand, at, [rows, cols]) in cases {
            let wrong = device.zeros(rows, cols, DType::F32).expect("a tensor");
            let read = |of: usize, right| if of == at { &wrong } else { right };
            let written = |of: usize, right: Tensor| if of == at { wrong.clone() } else { right };
            let mut dx = written(6, layer.dx());
            let mut da = written(7, layer.da());
            let mut db = written(8, layer.db());
            let before = [bits(&dx), bits(&da), bits(&db)];
            let [x, w, dy] = [read(0, &layer.x), read(1, &layer.w), read(2, &layer.dy)];
            let backward = Backward::new(x, w, dy)
                .adapter(read(3, &layer.a), read(4, &layer.b))
                .shrunk(read(5, &kept))
                .dx(&mut dx)
                .da(&mut da)
                .db(&mut db);
            let error = device.backward(backward).expect_err("another shape");
            // x is what all sizes are read off: the others disagree with it.
            let named = match error.cause() {
                Error::Shape { operand, .. } => *operand,
                other => panic!("{operand}: {other}"),
            };
            let expected = if operand == Operand::X { Operand::W } else { operand };
            assert_eq!(named, expected, "{}: {error}", device.name());
            assert_eq!([bits(&dx), bits(&da), bits(&db)], before, "{operand}");
        }
        // An output over an input of a later step.
        let mut x = layer.x.clone();
        let before = bits(&x);
        let [mut values, mut other] = [layer.dx(), layer.da()];
        let cpu = Cpu::new();
        let _ = (&mut values, &mut other);
        let error = overlapping(&cpu).expect_err("dx over x");
        assert_eq!(error.cause(), &Error::Overlap { output: Operand::Dx, other: Operand::X });
        assert!(error.to_string().starts_with("backward: dx: "), "{error}");
        x.write(&layer.x.to_f32().unwrap()).expect("a write");
        assert_eq!(bits(&x), before);
    }
}

/// dx over x, which da reads after dx was written.
fn overlapping(cpu: &Cpu) -> Result<()> {
    let [w, a, b, dy] = [vec![1.0f32; 6], vec![1.0; 3], vec![1.0; 2], vec![1.0; 8]];
    let mut memory = vec![1.0f32; 12];
    let mut da = vec![0.0f32; 3];
    let start = memory.as_mut_ptr();
    // SAFETY: the call is refused before it reads or writes either.
    let x = unsafe { std::slice::from_raw_parts(start, 12) };
    let backward =
        Backward::new(Matrix::new(x, 4, 3), Matrix::new(&w, 2, 3), Matrix::new(&dy, 4, 2))
            .adapter(Matrix::new(&a, 1, 3), Matrix::new(&b, 2, 1))
            .dx(Matrix::new(memory.as_mut_slice(), 4, 3))
            .da(Matrix::new(&mut da, 1, 3));
    cpu.backward(backward)
}

#[test]
fn the_problem_is_read_off_the_operands() {
    let bf16 = half::bf16::ONE;
    let (x, w) = (vec![bf16; 5 * 24], vec![bf16; 40 * 24]);
    let (a, b) = (vec![1.0f32; 4 * 24], vec![1.0f32; 40 * 4]);
    let (mut y, mut shrunk) = (vec![0.0f32; 5 * 40], vec![bf16; 5 * 8]);
    let forward = Forward::new(
        Matrix::new(&x, 5, 24),
        Matrix::transposed(&w, 40, 24),
        Matrix::new(&mut y, 5, 40),
    )
    .adapter(Matrix::new(&a, 4, 24), Matrix::new(&b, 40, 4))
    .shrunk(Matrix::new(&mut shrunk, 5, 8))
    .scale(3.0);
    let operands: Operands<Slice<'_>, SliceMut<'_>> = forward.into();
    let expected = Problem::forward(5, 24, 40, 4)
        .with_activation(DType::Bf16)
        .with_output(DType::F32)
        .with_scale(3.0)
        .with_layout(Operand::W, Layout::TRANSPOSED);
    let got = operands.problem().expect("a problem");
    for (operand, spec) in expected.specs() {
        let mut got = got.spec(operand).expect("an operand");
        // Where a vector happens to lie is no part of the comparison.
        got.align = spec.align;
        assert_eq!(got, spec, "{operand}");
    }
    assert_eq!((got.scale(), got.specs().count()), (3.0, expected.specs().count()));
    let none = Operands::<Slice<'_>, SliceMut<'_>>::new(Operation::Forward);
    assert_eq!(none.problem(), Err(Error::Missing { operand: Operand::X }));
}

#[test]
fn the_shape_of_shrunk_is_that_of_the_problem() {
    for device in devices() {
        for sizes in all_sizes() {
            let layer = Layer::new(&device, sizes);
            let (mut y, shrunk) = (layer.y(), layer.shrunk());
            let [rows, cols] = layer.forward(&mut y).shrunk_shape();
            assert_eq!([rows, cols], [shrunk.rows(), shrunk.cols()], "{} {sizes:?}", device.name());
            assert_eq!(layer.forward(&mut y).with_adapter(None).shrunk_shape(), [rows, 0]);
        }
    }
}

#[test]
fn the_cpu_writes_what_was_never_initialised() {
    let (x, w) = ([1.0f32; 6], [2.0f32; 12]);
    let mut y = Box::<[f32]>::new_uninit_slice(8);
    let forward = |y: &mut [MaybeUninit<f32>], beta| {
        let y = Matrix::new(SliceMut::from(y), 2, 4);
        let forward = Forward::new(Matrix::new(&x, 2, 3), Matrix::new(&w, 4, 3), y);
        Cpu::new().forward(forward.beta(beta))
    };
    let error = forward(&mut y, 1.0).expect_err("old values of nothing");
    assert_eq!(error.cause(), &Error::Uninitialised { operand: Operand::Y });
    forward(&mut y, 0.0).expect("forward");
    // SAFETY: forward has written all of it.
    assert_eq!(*unsafe { y.assume_init() }, [6.0; 8]);

    let mut y = [f32::NAN; 8];
    let mut whole = SliceMut::from(&mut y);
    for _ in 0..2 {
        let y = Matrix::new(&mut whole, 2, 4);
        let forward = Forward::new(Matrix::new(&x, 2, 3), Matrix::new(&w, 4, 3), y);
        Cpu::new().forward(forward).expect("a reborrow");
    }
    assert_eq!(y, [6.0; 8]);
}

#[test]
fn an_option_that_the_plan_is_without_is_refused() {
    let device = Device::cpu();
    let layer = Layer::new(&device, all_sizes()[4]);
    let plan = device.plan(&layer.sizes.problem().with_precise(false)).expect("a plan");
    let [mut y, mut shrunk] = [layer.y(), layer.shrunk()];
    let error = device.run(&plan, layer.forward(&mut y).shrunk(&mut shrunk));
    assert_eq!(error, Err(Error::Option { option: "precise" }));
}

/// Eight threads, and rayon's workers with calls inside calls, on one device: 600 calls each way. A lock
/// that is held while rayon works hangs here: its holder steals a call that waits for it.
#[test]
fn any_thread_calls_any_device() {
    for device in devices() {
        // On the CPU large enough to be shared out among its workers.
        let small = all_sizes()[0];
        let sizes = match device.name() {
            "cpu" => Sizes { tokens: 64, in_features: 256, out_features: 256, ..small },
            _ => small,
        };
        let layer = Arc::new(Layer::new(&device, sizes));
        let [y, ..] = layer.by_plans();
        let expected = bits(&y);
        let called = AtomicUsize::new(0);
        let call = || {
            let mut y = layer.y();
            device.forward(layer.forward(&mut y)).expect("forward");
            called.fetch_add(1, Ordering::Relaxed);
            y
        };
        let calls = 600;
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..calls / 8).for_each(|_| assert_eq!(bits(&call()), expected)));
            }
        });
        rayon::scope(|scope| {
            for _ in 0..calls / 4 {
                scope.spawn(|_| {
                    let inside = || rayon::join(call, call);
                    let ((a, b), (c, d)) = rayon::join(inside, inside);
                    for y in [a, b, c, d] {
                        assert_eq!(bits(&y), expected, "{}", device.name());
                    }
                });
            }
        });
        assert_eq!(called.into_inner(), calls / 8 * 8 + calls / 4 * 4, "{}", device.name());
    }
}

/// Calls that come to rayon's workers one after the other, while the workers share out the products of those
/// before: who waits for a part of his own product takes the next call meanwhile. A lock that is held over the
/// product is then taken twice by one thread.
#[test]
fn calls_inside_rayon_share_its_workers() {
    let (tokens, features) = (96, 384);
    let (x, w) = (vec![1.0f32; tokens * features], vec![1.0f32; features * features]);
    let device = Device::cpu();
    let tensor = |values: &[f32], rows| device.tensor(rows, features, DType::F32, values);
    let (of_x, of_w) = (tensor(&x, tokens).expect("x"), tensor(&w, features).expect("w"));
    let cpu = Cpu::new();
    let call = |by_device: bool| {
        let mut y = vec![f32::NAN; tokens * features];
        if by_device {
            let mut of_y = device.zeros(tokens, features, DType::F32).expect("y");
            device.forward(Forward::new(&of_x, &of_w, &mut of_y)).expect("forward");
            y = of_y.to_f32().expect("y");
        } else {
            let (x, w) = (Matrix::new(&x, tokens, features), Matrix::new(&w, features, features));
            cpu.forward(Forward::new(x, w, Matrix::new(&mut y, tokens, features)))
                .expect("forward");
        }
        assert!(y.iter().all(|of| *of == features as f32));
    };
    let workers = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("threads");
    workers.in_place_scope(|scope| {
        for at in 0..400 {
            let call = &call;
            scope.spawn(move |_| call(at % 2 == 0));
            thread::sleep(Duration::from_micros(at % 7 * 100));
        }
    });
}

/// An adapter of rank 0, and no adapter at all, are the plain layer.
#[test]
fn without_a_rank_it_is_the_plain_layer() {
    for device in devices() {
        let layer = Layer::new(&device, all_sizes()[0]);
        let [mut plain, mut empty] = [layer.y(), layer.y()];
        device.forward(Forward::new(&layer.x, &layer.w, &mut plain)).expect("forward");
        let a = device.zeros(0, 24, DType::F32).expect("a tensor");
        let b = device.zeros(40, 0, DType::F32).expect("a tensor");
        let forward = Forward::new(&layer.x, &layer.w, &mut empty);
        device.forward(forward.with_adapter(Some(Adapter::new(&a, &b)))).expect("forward");
        assert_eq!(bits(&plain), bits(&empty), "{}", device.name());

        let [mut dx, mut dx_empty] = [layer.dx(), layer.dx()];
        let mut da = device.zeros(0, 24, DType::F32).expect("a tensor");
        device
            .backward(Backward::new(&layer.x, &layer.w, &layer.dy).dx(&mut dx))
            .expect("backward");
        let backward = Backward::new(&layer.x, &layer.w, &layer.dy).adapter(&a, &b);
        device.backward(backward.dx(&mut dx_empty).da(&mut da)).expect("backward");
        assert_eq!(bits(&dx), bits(&dx_empty), "{}", device.name());
    }
}

/// What the shrink alone writes is what goes between the steps.
#[test]
fn a_step_can_be_run_alone() {
    let device = Device::cpu();
    let layer = Layer::new(&device, all_sizes()[0]);
    let [.., dshrunk, _, _] = layer.by_plans();
    let mut got = layer.shrunk();
    let problem = layer.sizes.problem().with_operation(Operation::BackwardShrink);
    let plan = device.plan(&problem).expect("a plan");
    device.run(&plan, BackwardShrink::new(&layer.dy, &layer.b, &mut got)).expect("a run");
    assert_eq!(bits(&got), bits(&dshrunk));
}

/// Each candidate that could run is timed once, the fastest first, and its choice is the same when it is read back;
/// the caller's plans are what they were.
#[test]
fn candidates_are_timed_and_given_back() {
    let layer = Problem::forward(9, 40, 56, 4).with_activation(DType::Bf16).with_bias(true);
    let problems = [
        layer.with_adapter(DType::F32).with_beta(0.5),
        layer
            .with_operation(Operation::BackwardInput)
            .with_layout(Operand::W, Layout { major: Major::Col, stride: Some(61), align: 0 }),
        layer.with_operation(Operation::BackwardShrink),
        layer.with_operation(Operation::Norm),
        // Nothing to do.
        Problem::forward(0, 40, 56, 4),
    ];
    for device in devices() {
        // A driver for the CPU takes minutes to compile all candidates of a layer.
        let first = if device.name().starts_with("wgpu") { 2 } else { 0 };
        for problem in problems.into_iter().skip(first) {
            let timings = device.tune(&problem).unwrap();
            let plan = device.plan(&problem).unwrap();
            let possible =
                |of: &&Candidate| matches!(of.outcome, Outcome::Chosen(_) | Outcome::Slower(_));
            let name = |of: &Candidate| format!("{}/{}", of.strategy, of.preset);
            let mut expected: Vec<String> =
                plan.candidates().iter().filter(possible).map(name).collect();
            let mut timed: Vec<String> = timings.iter().map(|of| of.choice.to_string()).collect();
            expected.sort();
            timed.sort();
            assert_eq!(timed, expected, "{problem:?}");
            assert!(timings.is_sorted_by(|one, other| one.micros <= other.micros));
            for timing in &timings {
                let choice = timing.choice.to_string().parse().unwrap();
                let again = device.choose(&problem, &choice).unwrap();
                assert_eq!(again.choice(), timing.choice);
                assert!(timing.micros >= 0.0 && timing.micros.is_finite());
                // Every driver of Vulkan that is tested has timestamps; of CUDA's events there is no use yet.
                assert_eq!(timing.on_device, device.name().starts_with("wgpu"));
            }
        }
    }
}
