//! Why the CPU executor stands on `gemm` and not on `matrixmultiply`: both on one thread,
//! f32, the products that a layer and its adapter are made of, as ratios gemm/matrixmultiply.
//! Figures and the decision: `benches/results/cpu-gemm.md`.
//!
//!     cargo bench --bench cpu_gemm                 prints the table as Markdown
//!     cargo bench --bench cpu_gemm -- --out FILE   and writes it there, with the machine

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "common/statistics.rs"]
#[allow(dead_code)]
mod statistics;
#[path = "common/table.rs"]
mod table;

use std::convert::Infallible;
use std::fmt::Write as _;

use clap::Parser;
use fused_lora::Device;

use statistics::{Interval, pairwise, seconds};
use table::Table;

/// gemm over matrixmultiply, by alternating pairs.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    table: Table,
}

/// `out[m, n] = lhs[m, k]·rhs[k, n]`. `turned`: rhs is stored as [n, k], as `w` is forward.
struct Product {
    what: &'static str,
    m: usize,
    n: usize,
    k: usize,
    turned: bool,
}

const fn product(what: &'static str, [m, n, k]: [usize; 3], turned: bool) -> Product {
    Product { what, m, n, k, turned }
}

const FEW: &[Product] = &[product("x·wᵀ", [8, 64, 64], true)];
const PRODUCTS: &[Product] = &[
    product("x·wᵀ", [1, 4096, 4096], true),
    product("x·wᵀ", [8, 4096, 4096], true),
    product("x·wᵀ", [64, 4096, 4096], true),
    product("x·wᵀ", [512, 4096, 4096], true),
    product("dy·w", [1, 4096, 4096], false),
    product("dy·w", [8, 4096, 4096], false),
    product("dy·w", [64, 4096, 4096], false),
    product("dy·w", [512, 4096, 4096], false),
    product("shrink, x·aᵀ", [512, 16, 4096], true),
    product("shrink, x·aᵀ", [512, 64, 4096], true),
    product("expand, shrunk·bᵀ", [512, 4096, 16], true),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let (pairs, products) = options.table.extent(PRODUCTS, FEW);
    let mut text = String::from(
        "| product | m | n | k | right operand | gemm / matrixmultiply |\n\
         |---|---|---|---|---|---|\n",
    );
    for of in products {
        let major = if of.turned { "[n, k]" } else { "[k, n]" };
        let ratio = compare(of, pairs);
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "| {} | {} | {} | {} | {major} | {ratio} |", of.what, of.m, of.n, of.k);
        eprintln!("{} m{} n{} k{}: {ratio}", of.what, of.m, of.n, of.k);
    }
    Ok(options.table.finish(&text, &Device::cpu(), "cpu_gemm")?)
}

/// Ratios of times below 1: gemm is faster.
fn compare(of: &Product, pairs: usize) -> Interval {
    let values = |len: usize| (0..len).map(|at| ((at * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let (lhs, rhs): (Vec<f32>, Vec<f32>) = (values(of.m * of.k), values(of.k * of.n));
    let mut out = [vec![0.0f32; of.m * of.n], vec![0.0f32; of.m * of.n]];
    let [by_gemm, by_matrixmultiply] = &mut out;
    let mut gemm = || gemm(of, &lhs, &rhs, by_gemm);
    let mut matrixmultiply = || matrixmultiply(of, &lhs, &rhs, by_matrixmultiply);
    let repeats = repeats(&mut gemm);
    matrixmultiply();
    let again = |run: &mut dyn FnMut()| {
        (0..repeats).for_each(|_| run());
        Ok::<(), Infallible>(())
    };
    let Ok(ratio) = pairwise(pairs, || again(&mut gemm), || again(&mut matrixmultiply));
    let apart = by_gemm.iter().zip(&*by_matrixmultiply).map(|(x, y)| (x - y).abs());
    let apart = apart.fold(0.0f32, f32::max);
    assert!(apart <= 1e-3 * (of.k as f32).sqrt(), "the two differ by {apart}");
    ratio
}

/// How many runs take 5 ms; the first one warms up.
fn repeats(run: &mut impl FnMut()) -> usize {
    run();
    let Ok(once) = seconds(&mut || {
        run();
        Ok::<(), Infallible>(())
    });
    ((5e-3 / once) as usize).clamp(1, 1 << 12)
}

/// Steps along k and along n of the right operand.
fn steps(of: &Product) -> [isize; 2] {
    if of.turned { [1, of.k as isize] } else { [of.n as isize, 1] }
}

fn gemm(of: &Product, lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    let &Product { m, n, k, .. } = of;
    let [along_k, along_n] = steps(of);
    assert!(lhs.len() == m * k && rhs.len() == k * n && out.len() == m * n);
    // SAFETY: the three slices hold what the sizes and steps reach.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            lhs.as_ptr(),
            1,
            k as isize,
            rhs.as_ptr(),
            along_n,
            along_k,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn matrixmultiply(of: &Product, lhs: &[f32], rhs: &[f32], out: &mut [f32]) {
    let &Product { m, n, k, .. } = of;
    let [along_k, along_n] = steps(of);
    assert!(lhs.len() == m * k && rhs.len() == k * n && out.len() == m * n);
    let (row, (a, b, c)) = (n as isize, (lhs.as_ptr(), rhs.as_ptr(), out.as_mut_ptr()));
    // SAFETY: as above; β = 0 leaves `out` unread.
    unsafe {
        matrixmultiply::sgemm(m, k, n, 1.0, a, k as isize, 1, b, along_k, along_n, 0.0, c, row, 1);
    }
}
