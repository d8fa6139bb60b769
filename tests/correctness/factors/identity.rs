//! Factors that are LoRA by their values give LoRA's bits.

use fused_lora::{Adapter, Backward, DType, Factor, Forward, Merge, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{SCALE, bits, devices};

/// LoHa of rank 1 beside ones, and LoKr beside a w1 of a single one, are LoRA: every bit of it.
#[test]
fn what_is_lora_has_its_bits() {
    for device in devices() {
        let mut random = StdRng::seed_from_u64(3);
        let mut draw = |rows: usize, cols: usize| {
            let values: Vec<f32> =
                (0..rows * cols).map(|_| random.random_range(-1.0..1.0)).collect();
            device.tensor(rows, cols, DType::F32, &values).unwrap()
        };
        let (tokens, k, n) = (19, 40, 33);
        let (x, w, dy) = (draw(tokens, k), draw(n, k), draw(tokens, n));
        let ones =
            |rows, cols| device.tensor(rows, cols, DType::F32, &vec![1.0; rows * cols]).unwrap();
        for (rank, is_loha) in [(1, true), (4, false), (1, false)] {
            let (a, b) = (draw(rank, k), draw(n, rank));
            let (of_n, of_k, one) = (ones(n, 1), ones(1, k), ones(1, 1));
            let other = match is_loha {
                true => Adapter::loha(&b, &a, &of_n, &of_k),
                false => Adapter::lokr(Factor::whole(&one), Factor::low(&b, &a)),
            };
            let run = |adapter: Adapter<&Tensor>| {
                let zeros = |rows, cols| device.zeros(rows, cols, DType::F32).unwrap();
                let (mut y, mut dx) = (zeros(tokens, n), zeros(tokens, k));
                let (mut da, mut db, mut merged) = (zeros(rank, k), zeros(n, rank), w.clone());
                let forward = Forward::new(&x, &w, &mut y).with_adapter(Some(adapter));
                device.forward(forward.scale(SCALE)).unwrap();
                let call = Backward::new(&x, &w, &dy).with_adapter(Some(adapter)).scale(SCALE);
                let call = call.dx(&mut dx);
                let (mut rest, mut last) = (zeros(n, 1), zeros(1, k));
                let mut single = zeros(1, 1);
                device
                    .backward(match adapter {
                        Adapter::Loha { .. } => {
                            call.dw1a(&mut db).dw1b(&mut da).dw2a(&mut rest).dw2b(&mut last)
                        }
                        Adapter::Lokr { .. } => call.dw1(&mut single).dw2a(&mut db).dw2b(&mut da),
                        _ => call.da(&mut da).db(&mut db),
                    })
                    .unwrap();
                let merge = Merge::new(&mut merged).with_adapter(Some(adapter)).scale(SCALE);
                device.merge(merge).unwrap();
                [y, dx, da, db, merged].map(|of| bits(&of))
            };
            let (lora, other) = (run(Adapter::new(&a, &b)), run(other));
            let names = ["y", "dx", "da", "db", "w"];
            for ((name, lora), other) in names.iter().zip(lora).zip(other) {
                assert_eq!(lora, other, "{}: {name}, rank {rank}, LoHa {is_loha}", device.name());
            }
        }
    }
}

/// LoCon whose core is the identity, on a kernel of one element, is LoRA.
#[test]
fn a_core_that_is_the_identity_is_lora() {
    for device in devices() {
        let mut random = StdRng::seed_from_u64(5);
        let mut draw = |rows: usize, cols: usize| {
            let values: Vec<f32> =
                (0..rows * cols).map(|_| random.random_range(-1.0..1.0)).collect();
            device.tensor(rows, cols, DType::F32, &values).unwrap()
        };
        let (tokens, k, n, rank) = (9, 40, 33, 3);
        let (x, w, dy) = (draw(tokens, k), draw(n, k), draw(tokens, n));
        let (a, b) = (draw(rank, k), draw(n, rank));
        let identity: Vec<f32> =
            (0..9).map(|at| if at / 3 == at % 3 { 1.0 } else { 0.0 }).collect();
        let core = device.tensor(rank, rank, DType::F32, &identity).unwrap();
        let zeros = |rows, cols| device.zeros(rows, cols, DType::F32).unwrap();
        let [lora, tucker] = [false, true].map(|has_core| {
            let (mut y, mut dx) = (zeros(tokens, n), zeros(tokens, k));
            let (mut da, mut db, mut dcore) = (zeros(rank, k), zeros(n, rank), zeros(rank, rank));
            let forward = Forward::new(&x, &w, &mut y).scale(SCALE);
            let backward = Backward::new(&x, &w, &dy).scale(SCALE).dx(&mut dx);
            let (forward, backward) = match has_core {
                false => {
                    (forward.adapter(&a, &b), backward.adapter(&a, &b).da(&mut da).db(&mut db))
                }
                true => {
                    let backward = backward.tucker(&a, &core, &b).dcore(&mut dcore);
                    (forward.tucker(&a, &core, &b), backward.ddown(&mut da).dup(&mut db))
                }
            };
            device.forward(forward).unwrap();
            device.backward(backward).unwrap();
            [y, dx, da, db].map(|of| bits(&of))
        });
        assert_eq!(lora, tucker, "{}", device.name());
    }
}
