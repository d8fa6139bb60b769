//! CUDA through [`cudarc`]: the module that takes plans to a caller's stream. Holds no
//! kernel yet; [`Device`](crate::Device) says so when asked for one.

pub use cudarc;
