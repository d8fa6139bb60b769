//! Hosts as tensor libraries are: memory, streams and encoders of their own, a whole step of training by
//! plans.

#[cfg(all(feature = "cuda", unix))]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;
