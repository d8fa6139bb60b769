//! Renders the PTX templates of `kernels/` into `OUT_DIR`, and beside them one Rust file with
//! the table of texts. Nothing else: no network, no program, the same bytes everywhere. Read by
//! `src/plan/cuda/variants.rs`.
//!
//! Which texts there are is said beside the templates (`kernels/sm80/*.rs`); where parameters
//! lie, in `kernels/abi.rs`.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

// The library reads more of them.
#[path = "kernels/abi.rs"]
#[allow(dead_code)]
mod abi;
#[path = "kernels/sm80/backward_gain.rs"]
mod backward_gain;
#[path = "build/check.rs"]
mod check;
#[path = "kernels/sm80/contract.rs"]
mod contract;
#[path = "kernels/sm80/decode.rs"]
mod decode;
#[path = "build/dtype.rs"]
mod dtype;
#[path = "kernels/embedded.rs"]
#[allow(dead_code)]
mod embedded;
#[path = "kernels/sm80/gradient.rs"]
mod gradient;
#[path = "src/plan/key.rs"]
mod key;
#[path = "kernels/sm80/linear.rs"]
mod linear;
#[path = "kernels/sm80/linear_f32.rs"]
mod linear_f32;
#[path = "kernels/sm80/norm.rs"]
mod norm;
#[path = "kernels/numbers.rs"]
mod numbers;
#[path = "kernels/sm80/pack.rs"]
mod pack;
#[path = "build/render.rs"]
mod render;
#[path = "build/text.rs"]
mod text;

use check::Check;
use dtype::DType;

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["build.rs", "build", "kernels", "src/plan/key.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    let mut check = Check::from_env()?;
    let jinja = render::templates(check.is_some())?;
    let texts = [
        linear::texts(),
        linear_f32::texts(),
        decode::texts(),
        gradient::texts(),
        pack::texts(),
        contract::texts(),
        norm::texts(),
        backward_gain::texts(),
    ]
    .concat();
    let mut all = Vec::with_capacity(texts.len());
    for text in &texts {
        let mut rendered = render::render(&jinja, text)?;
        if let Some(check) = &mut check {
            rendered = check.add(out, &text.name, &rendered)?;
        }
        let embedded = render::embedded(&rendered);
        fs::write(render::file(out, &text.name), &embedded)?;
        all.push(embedded);
    }
    fs::write(out.join("cuda_texts.rs"), render::table(&texts, &all))?;
    if let Some(Err(refused)) = check.map(|check| check.run()) {
        refused.lines().for_each(|line| println!("cargo::error={line}"));
        return Err("ptxas refuses what kernels/ renders".into());
    }
    Ok(())
}
