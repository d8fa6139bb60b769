//! Eight threads, and rayon's own workers, at once: the same bits.

use burn::tensor::DType;
use rayon::prelude::*;

use crate::case::{Case, devices};

#[test]
fn threads_give_the_same_bits() {
    for (name, device, types) in devices() {
        for &dtype in types {
            let values = Case::f32([1, 40], 70, 50, 8).of(dtype, DType::F32).values(8);
            let run = || {
                values.fused(&device).map(|of| of.into_iter().map(f64::to_bits).collect::<Vec<_>>())
            };
            let expected = run();
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..8).map(|_| scope.spawn(|| (0..2).all(|_| run() == expected))).collect();
                for thread in threads {
                    assert!(thread.join().unwrap(), "{name}, {dtype:?}");
                }
            });
            assert!((0..8).into_par_iter().all(|_| run() == expected), "{name}, {dtype:?}, rayon");
        }
    }
}
