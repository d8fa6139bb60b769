//! What launches cost, and the model that orders candidates by it.

/// The work of some launches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Operations.
    pub(super) flops: u64,
    /// Bytes to and from memory; what a workgroup reads counts once for each workgroup.
    pub(super) bytes: u64,
    /// Launches.
    pub(super) launches: u32,
    /// Microseconds of arithmetic on a GPU and on a software driver.
    pub(super) micros: [f64; 2],
}

impl Cost {
    pub(super) fn add(&mut self, other: Cost) {
        self.flops = self.flops.saturating_add(other.flops);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.launches += other.launches;
        for (micros, more) in self.micros.iter_mut().zip(other.micros) {
            *micros += more;
        }
    }

    /// By the model; only the order matters.
    pub(super) fn micros(&self, software: bool) -> f64 {
        self.micros[usize::from(software)]
    }
}
