//! A decoder block of Llama's shape with an adapter on each of its seven projections, forward and backward,
//! beside the same block of candle's own ops.
//!
//!     cargo run --release --example decoder
//!
//! Prints the time of a step over candle's in alternating pairs, that of the projections alone over products written by
//! hand, how far apart the gradients are, and how much of a small adapter's effect arrives in bf16.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../benches/step/products.rs"]
mod products;
#[allow(dead_code, reason = "this example takes pairs alone")]
#[path = "../../../../benches/common/statistics.rs"]
mod statistics;

use candle_core::{D, DType, Device, Error, Result, Tensor, Var};
use candle_nn::{Linear, Module, VarBuilder, VarMap, linear_no_bias, ops, rotary_emb};
use clap::Parser;
use fused_lora_candle::{Adapter, LoraConfig, LoraLinear};
use statistics::Interval;

/// Forward and backward of one block, fused and by candle's ops
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 512)]
    hidden: usize,
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Pairs of steps
    #[arg(long, default_value_t = 21)]
    pairs: usize,
}

const HEADS: usize = 8;
const KV_HEADS: usize = 2;

/// Names as in the model's files; a `VarBuilder` over them loads it.
struct Block {
    q: LoraLinear,
    k: LoraLinear,
    v: LoraLinear,
    o: LoraLinear,
    gate: LoraLinear,
    up: LoraLinear,
    down: LoraLinear,
    norms: [Tensor; 2],
    head: usize,
}

/// How a layer is run: fused, or by candle's ops.
type Run = fn(&LoraLinear, &Tensor) -> Result<Tensor>;

fn by_ops(layer: &LoraLinear, x: &Tensor) -> Result<Tensor> {
    let y = Linear::new(layer.weight().clone(), layer.bias().cloned()).forward(x)?;
    let Some((_, of)) = layer.active() else { return Ok(y) };
    let [a, b] = [of.a(), of.b()].map(|of| Linear::new(of.clone(), None));
    y + (b.forward(&a.forward(x)?)? * f64::from(of.scale()))?
}

impl Block {
    fn new(options: &Options, base: &VarBuilder<'_>, lora: &VarBuilder<'_>) -> Result<Block> {
        let (hidden, head) = (options.hidden, options.hidden / HEADS);
        let (kv, inner) = (KV_HEADS * head, hidden * 11 / 4);
        let layer = |name, k, n| {
            let linear = linear_no_bias(k, n, base.pp(name))?;
            let config = LoraConfig::new(options.rank, 2.0 * options.rank as f64);
            LoraLinear::from_vb(linear, config, &lora.pp(name))
        };
        let norm = || Tensor::ones(hidden, DType::F32, &Device::Cpu);
        Ok(Block {
            q: layer("self_attn.q_proj", hidden, hidden)?,
            k: layer("self_attn.k_proj", hidden, kv)?,
            v: layer("self_attn.v_proj", hidden, kv)?,
            o: layer("self_attn.o_proj", hidden, hidden)?,
            gate: layer("mlp.gate_proj", hidden, inner)?,
            up: layer("mlp.up_proj", hidden, inner)?,
            down: layer("mlp.down_proj", inner, hidden)?,
            norms: [norm()?, norm()?],
            head,
        })
    }

    fn forward(&self, x: &Tensor, run: Run) -> Result<Tensor> {
        let normed = ops::rms_norm_slow(x, &self.norms[0], 1e-5)?;
        let x = (x + self.attention(&normed, run)?)?;
        let normed = ops::rms_norm_slow(&x, &self.norms[1], 1e-5)?;
        let gated = (run(&self.gate, &normed)?.silu()? * run(&self.up, &normed)?)?;
        &x + run(&self.down, &gated)?
    }

    fn attention(&self, x: &Tensor, run: Run) -> Result<Tensor> {
        let (batch, tokens, hidden) = x.dims3()?;
        let head = self.head;
        let split = |of: Tensor, heads| {
            of.reshape((batch, tokens, heads, head))?.transpose(1, 2)?.contiguous()
        };
        let turns: Vec<f32> =
            (0..head / 2).map(|at| 1.0 / 10000f32.powf(2.0 * at as f32 / head as f32)).collect();
        let at = Tensor::arange(0f32, tokens as f32, x.device())?.unsqueeze(1)?;
        let angles = at.matmul(&Tensor::new(turns, x.device())?.unsqueeze(0)?)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let q = rotary_emb::rope_slow(&split(run(&self.q, x)?, HEADS)?, &cos, &sin)?;
        let k = rotary_emb::rope_slow(&split(run(&self.k, x)?, KV_HEADS)?, &cos, &sin)?;
        let v = split(run(&self.v, x)?, KV_HEADS)?;
        // One head of k and v serves several of q.
        let repeat = |of: Tensor| {
            let shape = (batch, KV_HEADS, HEADS / KV_HEADS, tokens, head);
            of.unsqueeze(2)?
                .broadcast_as(shape)?
                .contiguous()?
                .reshape((batch, HEADS, tokens, head))
        };
        let (k, v) = (repeat(k)?, repeat(v)?);
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (head as f64).sqrt())?;
        let mask: Vec<f32> = (0..tokens * tokens)
            .map(|at| if at % tokens > at / tokens { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        let mask = Tensor::from_vec(mask, (tokens, tokens), x.device())?;
        let weights = ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?;
        let y = weights.matmul(&v)?.transpose(1, 2)?.reshape((batch, tokens, hidden))?;
        run(&self.o, &y)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (frozen, variables) = (VarMap::new(), VarMap::new());
    let base = VarBuilder::from_varmap(&frozen, DType::F32, &Device::Cpu);
    let lora = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let block = Block::new(&options, &base, &lora)?;
    // As in the middle of a training: lora_B is no longer zero.
    for var in variables.all_vars() {
        var.set(&(var.as_tensor().randn_like(0.0, 1.0)? * 0.02)?)?;
    }
    let x = Var::randn(0f32, 1.0, (2, options.tokens, options.hidden), &Device::Cpu)?;
    let step = |run: Run| block.forward(&x, run)?.sqr()?.mean_all()?.backward();
    let fused: Run = |layer, x| layer.forward(x);

    let (ours, theirs) = (step(fused)?, step(by_ops)?);
    let mut apart = 0f32;
    for var in variables.all_vars().iter().chain([&x]) {
        let (Some(ours), Some(theirs)) = (ours.get(var), theirs.get(var)) else {
            candle_core::bail!("a variable without a gradient");
        };
        apart = apart.max(difference(ours, theirs)?);
    }
    let pairs = options.pairs.max(20);
    let run = |run: Run| step(run).map(|of| drop(std::hint::black_box(of)));
    let ratio = statistics::pairwise(pairs, || run(fused), || run(by_ops))?;
    println!("step        {ratio} of candle's autograd (median of {pairs} pairs)");
    let (ratio, of_products) = projections(&block, options.tokens, pairs)?;
    println!("projections {ratio} of products by hand, without a tape and dW");
    let apart = apart.max(of_products);
    println!("gradients   {apart:.0e} apart");
    let [ours, theirs] = share(&block.q, options.rank)?;
    println!(
        "bf16        {ours:.3} of a small adapter's effect reaches q; by separate ops {theirs:.3}"
    );
    if apart > 1e-4 {
        candle_core::bail!("the gradients are not candle's");
    }
    Ok(())
}

/// A step of the seven projections alone, each with an x of its own: its time over the eight products of each, and how far
/// apart the gradients are.
fn projections(block: &Block, tokens: usize, pairs: usize) -> Result<(Interval, f32)> {
    let layers = [&block.q, &block.k, &block.v, &block.o, &block.gate, &block.up, &block.down];
    let of = |layer: &LoraLinear| {
        let [k, n] = layer.features();
        let x = Var::randn(0f32, 1.0, (2 * tokens, k), &Device::Cpu)?;
        // What `backward` begins with.
        Ok::<_, Error>((x, Tensor::ones((2 * tokens, n), DType::F32, &Device::Cpu)?))
    };
    let operands = layers.into_iter().map(of).collect::<Result<Vec<_>>>()?;
    let fused = |at: usize| {
        let gradients = layers[at].forward(&operands[at].0)?.backward()?;
        let (_, adapter) = layers[at].active().ok_or(Error::msg("no adapter"))?;
        let of = |var: &Tensor| gradients.get(var).cloned().ok_or(Error::msg("no gradient"));
        Ok::<_, Error>([of(&operands[at].0)?, of(adapter.a())?, of(adapter.b())?])
    };
    let by_hand = |at: usize| {
        let (x, dy) = &operands[at];
        let x = x.as_detached_tensor();
        let [y, shrunk] = products::forward(layers[at], &x)?;
        std::hint::black_box(y);
        products::backward(layers[at], &x, &shrunk, dy)
    };
    let mut apart = 0f32;
    for at in 0..layers.len() {
        for (ours, theirs) in fused(at)?.iter().zip(&by_hand(at)?) {
            apart = apart.max(difference(ours, theirs)?);
        }
    }
    let all = |step: &dyn Fn(usize) -> Result<[Tensor; 3]>| {
        (0..layers.len()).try_for_each(|at| step(at).map(|of| drop(std::hint::black_box(of))))
    };
    Ok((statistics::pairwise(pairs, || all(&fused), || all(&by_hand))?, apart))
}

/// Frobenius, relative.
fn difference(ours: &Tensor, theirs: &Tensor) -> Result<f32> {
    let norm = |of: &Tensor| of.sqr()?.sum_all()?.to_scalar::<f32>();
    Ok((norm(&(ours - theirs)?)? / norm(theirs)?).sqrt())
}

/// `⟨y − y₀, z⟩ / ⟨z, z⟩` in bf16 with an adapter of a thousandth of the weight's size, z its exact term: fused, and
/// in separate ops that each round to bf16.
fn share(layer: &LoraLinear, rank: usize) -> Result<[f64; 2]> {
    let [k, n] = layer.features();
    let drawn = |rows, cols, size: f64, dtype| {
        (Tensor::randn(0f32, 1.0, (rows, cols), &Device::Cpu)? * size)?.to_dtype(dtype)
    };
    let w = layer.weight().to_dtype(DType::BF16)?;
    let wide = |of: &Tensor| of.to_dtype(DType::F64);
    let size = wide(&w)?.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>()?;
    let x = drawn(256, k, 1.0, DType::BF16)?;
    let a = drawn(rank, k, 1.0, DType::F32)?;
    let b = drawn(n, rank, 1e-3 * size / (rank as f64).sqrt(), DType::F32)?;
    let base = wide(&x)?.matmul(&wide(&w)?.t()?)?;
    let term = wide(&x)?.matmul(&wide(&a)?.t()?)?.matmul(&wide(&b)?.t()?)?;
    let adapter = Adapter::new(a.clone(), b.clone(), 1.0)?;
    let fused = LoraLinear::frozen(Linear::new(w.clone(), None))?.with_adapter("small", adapter)?;
    let product = |x: &Tensor, w: &Tensor| {
        let [x, w] = [x, w].map(|of| of.to_dtype(DType::F32));
        x?.matmul(&w?.t()?)?.to_dtype(DType::BF16)
    };
    let separate = (product(&x, &w)? + product(&product(&x, &a)?, &b)?)?;
    let share = |y: Tensor| -> Result<f64> {
        let arrived = ((wide(&y)? - &base)? * &term)?.sum_all()?.to_scalar::<f64>()?;
        Ok(arrived / term.sqr()?.sum_all()?.to_scalar::<f64>()?)
    };
    Ok([share(fused.infer(&x)?)?, share(separate)?])
}
