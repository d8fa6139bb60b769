//! Eight threads, and rayon's own workers, at once: the same bits.

use candle_core::DType;

use crate::case::{Case, bits};

#[test]
fn threads_give_the_same_bits() {
    for (dtype, adapter) in [(DType::F32, DType::F32), (DType::BF16, DType::F32)] {
        let tensors = Case::f32(&[70], 130, 90, 8).of(dtype, adapter).tensors(8);
        let layer = tensors.layer();
        let run = || tensors.fused(&layer).each_ref().map(bits);
        let expected = run();
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..4).all(|_| run() == expected))).collect();
            for thread in threads {
                assert!(thread.join().unwrap());
            }
        });
        use rayon::prelude::*;
        assert!((0..16).into_par_iter().all(|_| run() == expected));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert!(pool.install(|| (0..8).into_par_iter().all(|_| run() == expected)));
    }
}
