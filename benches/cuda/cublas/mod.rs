//! The rival: the ways through a layer by cuBLAS at its best. Every product takes the fastest of
//! what cuBLASLt's heuristics propose and of `cublasGemmEx`, timed on this card with the cell's
//! own rotated buffers; with a workspace, sums in f32, and any reduction that cuBLAS allows.
//!
//! `column` says a product in BLAS's columns, `library` holds the handles, `described` is cuBLASLt's
//! side of a product, `kernel` makes the calls.
//! Made by `main.rs`, with the feature `cublas` and where the library is found.

use std::collections::HashMap;
use std::rc::Rc;

mod described;
mod kernel;
mod library;

use self::kernel::{Kernel, kernels};
pub use self::library::Library;
use super::column::Gemm;
use super::common::measure::Outputs;
use super::common::{Cost, Path, Result};
use super::memory::Memory;
use super::products::{Product, Way, outputs, part, products};
use super::timing::{Clock, Length};

/// Kernels that the heuristics may propose.
const PROPOSED: usize = 8;

/// cuBLAS on one cell: what was chosen for a product serves every way that has it.
pub struct Rival<'a> {
    library: &'a Library,
    memory: &'a Memory,
    clock: &'a Clock,
    chosen: HashMap<Product, Rc<Kernel<'a>>>,
}

impl<'a> Rival<'a> {
    pub fn new(library: &'a Library, memory: &'a Memory, clock: &'a Clock) -> Rival<'a> {
        Rival { library, memory, clock, chosen: HashMap::new() }
    }

    /// One way through the layer.
    pub fn path(&mut self, name: &'static str, way: Way) -> Result<Called<'a>> {
        let products = products(self.memory.cell, way);
        let calls = products
            .into_iter()
            .map(|product| Ok((product, self.fastest(product)?)))
            .collect::<Result<_>>()?;
        Ok(Called { name, way, library: self.library, memory: self.memory, calls })
    }

    fn fastest(&mut self, product: Product) -> Result<Rc<Kernel<'a>>> {
        if let Some(kernel) = self.chosen.get(&product) {
            return Ok(kernel.clone());
        }
        let gemm = Gemm::of(&product);
        let addresses = Addresses::of(&product, self.memory);
        let all =
            kernels(self.library, &product, self.memory.cell, &gemm, addresses.align, PROPOSED)?;
        let mut fastest: Option<(f64, Kernel<'a>)> = None;
        for kernel in all {
            // One that the card refuses after all is none.
            let Ok(seconds) = self.time(&kernel, &addresses) else { continue };
            if fastest.as_ref().is_none_or(|(least, _)| seconds < *least) {
                fastest = Some((seconds, kernel));
            }
        }
        let (_, kernel) = fastest.ok_or_else(|| format!("cuBLAS has no kernel for {product:?}"))?;
        let kernel = Rc::new(kernel);
        self.chosen.insert(product, kernel.clone());
        Ok(kernel)
    }

    /// The better of two timings, all sets in turns.
    fn time(&self, kernel: &Kernel<'_>, addresses: &Addresses) -> Result<f64> {
        let sets = self.memory.sets();
        let lap = |runs: usize| (0..runs).try_for_each(|set| kernel.call(addresses.of_set(set)));
        let first = self.clock.time(Length::least(sets), || lap(sets))?;
        let length = Length { laps: 1, ..Length::of(sets, first) };
        let again = self.clock.time(length, || lap(length.runs))?;
        let third = self.clock.time(length, || lap(length.runs))?;
        Ok(again.min(third))
    }
}

/// Where a product's factors and its result lie, set by set: rhs, lhs, out, in BLAS's order.
struct Addresses {
    sets: Vec<[u64; 3]>,
    /// A power of two that divides all of them, 256 at most.
    align: [u32; 3],
}

impl Addresses {
    fn of(product: &Product, memory: &Memory) -> Addresses {
        let views = [product.rhs, product.lhs, product.out];
        let set = |set| views.map(|view| memory.address(view, set));
        let sets: Vec<[u64; 3]> = (0..memory.sets()).map(set).collect();
        let align = |at: usize| {
            let all = sets.iter().fold(256, |bits, set| bits | set[at]);
            1 << all.trailing_zeros()
        };
        let align = [align(0), align(1), align(2)];
        Addresses { sets, align }
    }

    fn of_set(&self, set: usize) -> [u64; 3] {
        self.sets[set % self.sets.len()]
    }
}

/// Products that are called one after the other.
pub struct Called<'a> {
    name: &'static str,
    way: Way,
    library: &'a Library,
    memory: &'a Memory,
    calls: Vec<(Product, Rc<Kernel<'a>>)>,
}

impl Called<'_> {
    /// Which kernel serves each product.
    pub fn choices(&self) -> String {
        self.calls.iter().map(|(_, kernel)| kernel.name()).collect::<Vec<_>>().join(" + ")
    }
}

impl Path for Called<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cost(&self) -> Cost {
        let products = || self.calls.iter().map(|(product, _)| product);
        let flops = products().map(Product::flops).sum();
        let bytes = products().map(|product| product.bytes(self.memory.cell)).sum();
        Cost { launches: self.calls.len(), bytes, least: bytes, flops, least_flops: flops }
    }

    fn run(&mut self, turn: usize) -> Result<()> {
        for (product, kernel) in &self.calls {
            let views = [product.rhs, product.lhs, product.out];
            kernel.call(views.map(|view| self.memory.address(view, turn)))?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        self.library.wait()
    }

    fn outputs(&self) -> Result<Outputs> {
        let cell = self.memory.cell;
        outputs(cell, self.way != Way::Plain, part(cell))
            .into_iter()
            .map(|(operand, view)| Ok((operand, self.memory.read(view)?)))
            .collect()
    }
}
