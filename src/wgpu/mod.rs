//! WebGPU through [`wgpu`]: the module that takes plans to a caller's compute pass. Holds
//! no shader yet; [`Device`](crate::Device) says so when asked for one.

pub use ::wgpu;
