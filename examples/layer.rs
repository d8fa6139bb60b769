//! One layer of Llama-3-8B's size, forward and backward: plan it, run it, check it against
//! the definition, and compare it with the three products it replaces.
//!
//!     cargo run --release --example layer
//!     cargo run --release --example layer -- --dtype f32 --tokens 64 --rank 64
//!
//! Fails where a result lies further from the definition than its tolerance.

#[path = "../benches/common/statistics.rs"]
// Shared with the benches, which use more of it.
#[allow(dead_code, unreachable_pub)]
mod statistics;

use std::error::Error;

use clap::Parser;
use fused_lora::reference::{Dense, Sums, expected};
use fused_lora::{
    Adapter, BackwardAdapter, BackwardInput, DType, Device, Forward, GradientA, GradientB, Operand,
    Operation, Plan, Problem, Tensor,
};
use statistics::pairwise;

/// The query projection of Llama-3-8B.
const IN: usize = 4096;
const OUT: usize = 4096;
/// s = alpha / r with PEFT's habit of alpha = 2·r.
const SCALE: f32 = 2.0;
/// Alternating pairs of fused and naive.
const PAIRS: usize = 21;
/// Rows of y and dx, columns of da and rows of db that are checked: f64 loops are slow.
const SAMPLE: usize = 4;

/// One LoRA layer: planned, run, checked, timed.
#[derive(Parser)]
struct Options {
    /// Storage of activations and weight; the adapter is kept in f32, as PEFT does
    #[arg(long, default_value = "bf16", value_parser = storage)]
    dtype: DType,
    /// M
    #[arg(long, default_value_t = 512, value_parser = at_least_one)]
    tokens: usize,
    /// r
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    rank: usize,
    /// A name of `Device::open`; the default is what FUSED_LORA_DEVICE names, or the best
    #[arg(long)]
    device: Option<String>,
}

fn storage(text: &str) -> Result<DType, String> {
    DType::ALL.iter().copied().find(|of| of.to_string() == text).ok_or("f32, f16 or bf16".into())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|size| *size > 0).ok_or_else(|| "at least 1".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options { dtype, tokens, rank, device } = Options::parse();
    let device = match device {
        Some(name) => Device::open(&name)?,
        None => Device::from_env()?,
    };

    // ── plan: one description of the layer serves the whole training step ────
    let forward = Problem::forward(tokens, IN, OUT, rank)
        .with_activation(dtype)
        .with_adapter(DType::F32)
        .with_gradient(DType::F32)
        .with_scale(SCALE);
    let backward_input = forward.with_operation(Operation::BackwardInput);
    let backward_adapter = forward.with_operation(Operation::BackwardAdapter);
    let plan = device.plan(&forward)?;
    println!("{}\n", plan.explain());

    // ── operands: what forward reads, what it leaves for backward ────────────
    let random = |seed, rows, cols, dtype, size| {
        device.tensor(rows, cols, dtype, &uniform(seed, rows * cols, size))
    };
    let fan_in = (IN as f32).sqrt().recip();
    let x = random(1, tokens, IN, dtype, 1.0)?;
    let w = random(2, OUT, IN, dtype, fan_in)?;
    let a = random(3, rank, IN, DType::F32, fan_in)?;
    let b = random(4, OUT, rank, DType::F32, 0.1)?;
    let dy = random(5, tokens, OUT, dtype, 1.0)?;
    let mut y = device.zeros(tokens, OUT, dtype)?;
    let mut dx = device.zeros(tokens, IN, dtype)?;
    let mut shrunk = device.zeros(tokens, forward.shrunk_stride(), dtype)?;
    let mut dshrunk = device.zeros(tokens, forward.shrunk_stride(), dtype)?;
    let mut da = device.zeros(rank, IN, DType::F32)?;
    let mut db = device.zeros(OUT, rank, DType::F32)?;
    let adapter = || Some(Adapter::new(a.matrix(), b.matrix()));

    // ── run: y, and what backward needs of it ────────────────────────────────
    let mut fused = |y: &mut Tensor| {
        let (shrunk, y) = (Some(shrunk.matrix_mut()), y.matrix_mut());
        let (x, w, adapter) = (x.matrix(), w.matrix(), adapter());
        device.run(&plan, Forward::new(x, w, y).with_adapter(adapter).with_shrunk(shrunk))
    };
    fused(&mut y)?;

    // ── compare: the median of alternating pairs, and its interval ───────────
    let mut naive = Naive::new(&device, &forward, &a, &b)?;
    let mut naive_y = device.zeros(tokens, OUT, dtype)?;
    naive.run(&x, &w, &mut naive_y)?;
    let ratio = pairwise(
        PAIRS,
        || fused(&mut y).and_then(|()| device.wait()),
        || naive.run(&x, &w, &mut naive_y).and_then(|()| device.wait()),
    )?;
    println!("forward, fused over three plain products: {ratio} (median of {PAIRS} pairs)");

    // ── run: dx, then da and db ──────────────────────────────────────────────
    device.run(
        &device.plan(&backward_input)?,
        BackwardInput::new(dy.matrix(), w.matrix(), dx.matrix_mut())
            .with_adapter(adapter())
            .dshrunk(dshrunk.matrix_mut()),
    )?;
    device.run(
        &device.plan(&backward_adapter)?,
        BackwardAdapter::new(
            Some(GradientA::new(x.matrix(), dshrunk.matrix(), da.matrix_mut())),
            Some(GradientB::new(dy.matrix(), shrunk.matrix(), db.matrix_mut())),
        ),
    )?;

    // ── check: a few rows and columns against f64 loops ──────────────────────
    // Rows of x make rows of y, and columns of x columns of da: each sample is a smaller
    // problem of its own.
    let all = |tensor: &Tensor| -> Result<Dense, fused_lora::Error> {
        let (cols, values) = (tensor.cols(), tensor.to_f32()?);
        Ok(Dense::from_fn(tensor.rows(), cols, |row, col| f64::from(values[row * cols + col])))
    };
    let rows = sample(tokens);
    let columns = sample(IN.min(OUT));
    let few_tokens = Problem::forward(rows.len(), IN, OUT, rank)
        .with_activation(dtype)
        .with_scale(SCALE)
        .with_keep_shrunk(false);
    let few_features = Problem::forward(tokens, columns.len(), columns.len(), rank)
        .with_activation(dtype)
        .with_operation(Operation::BackwardAdapter);
    let few_dy = few_tokens.with_operation(Operation::BackwardInput);
    let (x, w, a, b, dy) = (all(&x)?, all(&w)?, all(&a)?, all(&b)?, all(&dy)?);
    let (shrunk, dshrunk) = (all(&shrunk)?, all(&dshrunk)?);
    let across = |of: &Dense| pick(&of.transposed(), &columns).transposed();
    let linear = |operand| match operand {
        Operand::X => pick(&x, &rows),
        Operand::Dy => pick(&dy, &rows),
        Operand::W => w.clone(),
        Operand::A => a.clone(),
        Operand::B => b.clone(),
        other => unreachable!("{other} is no input here"),
    };
    let gradients = |operand| match operand {
        Operand::X => across(&x),
        Operand::Dy => across(&dy),
        Operand::Shrunk => shrunk.clone(),
        Operand::Dshrunk => dshrunk.clone(),
        other => unreachable!("{other} is no input here"),
    };
    let mut checks = expected(&few_tokens, Sums::F32, linear);
    checks.extend(expected(&few_dy, Sums::F32, linear));
    checks.extend(expected(&few_features, Sums::F32, gradients));

    let mut exceeded = false;
    for (operand, expected) in checks {
        let got = match operand {
            Operand::Y => pick(&all(&y)?, &rows),
            Operand::Dx => pick(&all(&dx)?, &rows),
            Operand::Da => across(&all(&da)?),
            Operand::Db => pick(&all(&db)?, &columns),
            other => unreachable!("{other} is no output here"),
        };
        let parts = got.values().iter().zip(expected.value.values());
        let used = parts
            .zip(expected.tolerance.values())
            .map(|((got, value), tolerance)| (got - value).abs() / tolerance)
            // A NaN counts as all of it and more.
            .fold(
                0.0,
                |most: f64, used| if used.is_nan() { f64::INFINITY } else { most.max(used) },
            );
        exceeded |= used > 1.0;
        println!("{operand:<3} uses {used:.1e} of its tolerance");
    }
    if exceeded { Err("a result lies outside its tolerance".into()) } else { Ok(()) }
}

/// What one writes without this crate's fusion, in its own plain products:
/// `y = x·wᵀ; t = x·aᵀ; y += t·(s·b)ᵀ`, with a and s·b cast beforehand.
struct Naive<'a> {
    device: &'a Device,
    plans: [Plan; 3],
    a: Tensor,
    b: Tensor,
    t: Tensor,
}

impl<'a> Naive<'a> {
    fn new(
        device: &'a Device,
        layer: &Problem,
        a: &Tensor,
        b: &Tensor,
    ) -> fused_lora::Result<Self> {
        let (m, r, dtype) = (layer.tokens(), layer.rank(), layer.activation());
        let product = |k, n, beta| {
            device.plan(&Problem::forward(m, k, n, 0).with_dtype(dtype).with_beta(beta))
        };
        let scaled: Vec<f32> = b.to_f32()?.iter().map(|b| layer.scale() * b).collect();
        Ok(Naive {
            device,
            plans: [product(IN, OUT, 0.0)?, product(IN, r, 0.0)?, product(r, OUT, 1.0)?],
            a: device.tensor(r, IN, dtype, &a.to_f32()?)?,
            b: device.tensor(OUT, r, dtype, &scaled)?,
            t: device.zeros(m, r, dtype)?,
        })
    }

    fn run(&mut self, x: &Tensor, w: &Tensor, y: &mut Tensor) -> fused_lora::Result<()> {
        let product = |plan: &Plan, x: &Tensor, w: &Tensor, y: &mut Tensor| {
            let (x, w, y) = (x.matrix(), w.matrix(), y.matrix_mut());
            let plain = Forward::new(x, w, y);
            self.device.run(plan, plain)
        };
        product(&self.plans[0], x, w, y)?;
        product(&self.plans[1], x, &self.a, &mut self.t)?;
        product(&self.plans[2], &self.t, &self.b, y)
    }
}

/// Up to [`SAMPLE`] of `len`, the first and the last among them.
fn sample(len: usize) -> Vec<usize> {
    let most = SAMPLE.min(len);
    (0..most).map(|at| at * (len - 1) / (most - 1).max(1)).collect()
}

/// These rows.
fn pick(of: &Dense, rows: &[usize]) -> Dense {
    Dense::from_fn(rows.len(), of.cols(), |row, col| of.at(rows[row], col))
}

/// Uniform in ±`size`: xorshift64.
fn uniform(seed: u64, len: usize, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| size * next()).collect()
}
