//! Two plans of one problem by time, in alternating pairs, on the same operands. Shared by the benches that
//! show what an option costs.

use fused_lora::{Device, Forward, Plan, Problem, Result, Tensor};

use super::statistics::{Interval, pairwise, seconds};

/// Time of the first plan over that of the second. Both are forward, with an adapter and without shrunk.
pub fn ratio(device: &Device, [one, other]: [&Plan; 2], pairs: usize) -> Result<Interval> {
    let problem: &Problem = one.problem();
    let (tokens, rank) = (problem.tokens(), problem.rank());
    let (k, n) = (problem.in_features(), problem.out_features());
    let tensor = |rows: usize, cols: usize| {
        let values: Vec<f32> =
            (0..rows * cols).map(|at| ((at * 37 % 101) as f32 - 50.0) / 50.0).collect();
        device.tensor(rows, cols, problem.activation(), &values)
    };
    let (x, w) = (tensor(tokens, k)?, tensor(n, k)?);
    let (a, b) = (tensor(rank, k)?, tensor(n, rank)?);
    let mut outputs = [tensor(tokens, n)?, tensor(tokens, n)?];
    let run = |plan: &Plan, y: &mut Tensor, repeats: usize| {
        for _ in 0..repeats {
            device.run(plan, Forward::new(&x, &w, y.matrix_mut()).adapter(&a, &b))?;
        }
        device.wait()
    };
    let [y, other_y] = &mut outputs;
    run(other, other_y, 1)?;
    run(one, y, 1)?;
    let once = seconds(&mut || run(one, y, 1))?;
    let repeats = ((5e-3 / once) as usize).clamp(1, 1 << 10);
    pairwise(pairs, || run(one, y, repeats), || run(other, other_y, repeats))
}
