//! What the examples share: a device by its name, a layer of burn's own ops, and a step of both beside each other.

use std::time::Instant;

use burn::module::Reparameterization;
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};
use fused_lora_burn::LoraLinear;

/// How a layer is run.
pub(crate) type Run<const D: usize> = fn(&LoraLinear, Tensor<D>) -> Tensor<D>;

pub(crate) fn fused<const D: usize>(layer: &LoraLinear, x: Tensor<D>) -> Tensor<D> {
    layer.forward(x)
}

/// The layer of burn's own ops with its autodiff.
pub(crate) fn by_ops<const D: usize>(layer: &LoraLinear, x: Tensor<D>) -> Tensor<D> {
    let y = linear(x.clone(), layer.weight(), layer.bias());
    let Some((_, of)) = layer.active() else { return y };
    let shrunk = linear(x, of.a.val(), None);
    y + linear(shrunk, of.b.val(), None).mul_scalar(of.scale)
}

/// burn's own LoRA layer, as `apply_lora` makes it: a layer of the weight `w + s·a·b`, which is formed in each step.
pub(crate) fn own<const D: usize>(layer: &LoraLinear, x: Tensor<D>) -> Tensor<D> {
    let weight = match layer.active() {
        Some((_, of)) => of.apply(layer.weight()),
        None => layer.weight(),
    };
    linear(x, weight, layer.bias())
}

#[allow(deprecated)] // By burn, of ndarray.
pub(crate) fn device(name: &str) -> Result<Device, String> {
    match name {
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Device::ndarray()),
        other => Err(format!("no device `{other}` with these features")),
    }
}

/// The command that runs this bench, as it was given.
#[allow(dead_code)] // Of benches.
pub(crate) fn command(bench: &str) -> String {
    let features = [
        ("wgpu", cfg!(feature = "wgpu")),
        ("fusion", cfg!(feature = "fusion")),
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
    ];
    let features: Vec<&str> = features.iter().filter(|of| of.1).map(|of| of.0).collect();
    let features = features.join(",");
    let mut command =
        format!("cargo bench --bench {bench} --no-default-features --features {features} --");
    for argument in std::env::args().skip(1).filter(|of| of != "--bench") {
        command = format!("{command} {argument}");
    }
    command
}

/// Another order for each seed, and the same in each run.
#[allow(dead_code)] // Of one example.
pub(crate) fn shuffle<T>(of: &mut [T], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for last in (1..of.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        of.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

/// A step, forward, loss and backward, beside the same step by burn's own LoRA and by burn's ops: the time in
/// alternating pairs, and how far apart the gradients of `trained` are.
pub(crate) fn compare<const D: usize>(
    trained: impl Fn() -> Vec<Tensor<2>>,
    device: &Device,
    pairs: usize,
    loss: impl Fn(Run<D>) -> Tensor<1>,
) -> Result<(), String> {
    let gradients = |run: Run<D>| {
        let gradients = loss(run).backward();
        let of = trained().iter().map(|of| of.grad(&gradients)).collect::<Option<Vec<_>>>();
        of.ok_or("a parameter without a gradient")
    };
    let norm = |of: Tensor<2>| -> f64 { of.square().sum().to_data().iter::<f64>().sum() };
    let ours = gradients(fused)?;
    for (name, rival) in [("burn's own LoRA", own as Run<D>), ("burn's ops", by_ops)] {
        let mut apart = 0f64;
        for (ours, theirs) in ours.iter().zip(gradients(rival)?) {
            apart = apart.max((norm(ours.clone() - theirs.clone()) / norm(theirs)).sqrt());
        }
        let median = ratio(device, pairs, &loss, rival)?;
        println!(
            "step        {median:.3} of {name} (median of {pairs} pairs), gradients {apart:.0e} apart"
        );
        if apart > 1e-4 {
            return Err(format!("the gradients are not those of {name}"));
        }
    }
    Ok(())
}

fn ratio<const D: usize>(
    device: &Device,
    pairs: usize,
    loss: impl Fn(Run<D>) -> Tensor<1>,
    rival: Run<D>,
) -> Result<f64, String> {
    let sync = || device.sync().map_err(|error| error.to_string());
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        let mut seconds = [0.0; 2];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            sync()?;
            let start = Instant::now();
            std::hint::black_box(loss([fused, rival][which]).backward());
            sync()?;
            seconds[which] = start.elapsed().as_secs_f64();
        }
        ratios.push(seconds[0] / seconds[1]);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios[ratios.len() / 2])
}
