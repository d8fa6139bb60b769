//! How much matching one adapter may cost. Names and patterns meet every module's path, and strangers
//! may have written both: all pairs of a large file would take hours. So each step is paid for, and
//! what the two files' sizes pay for is the end. Spent by `suffixes`, `pattern` and `target`.

/// Steps that even the smallest files may take: a tenth of a second.
const BASE: u64 = 1 << 25;
/// Steps for each byte of the two files. A module's tensors are thousands of bytes, its path tens.
const PER_BYTE: u64 = 64;

/// The steps that are left.
pub(super) struct Work {
    left: u64,
    total: u64,
}

impl Work {
    /// What files of so many bytes may cost.
    pub(super) fn for_bytes(bytes: usize) -> Work {
        let total = (bytes as u64).saturating_mul(PER_BYTE).saturating_add(BASE);
        Work { left: total, total }
    }

    /// For what the caller made, or has read already.
    pub(super) fn unlimited() -> Work {
        Work { left: u64::MAX, total: u64::MAX }
    }

    pub(super) fn spend(&mut self, steps: usize) -> Result<(), String> {
        match self.left.checked_sub(steps as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(format!(
                "its names and patterns take more than {} steps to match with the modules, too many \
                 for files of this size: write fewer patterns, or whole paths instead",
                self.total
            )),
        }
    }
}
