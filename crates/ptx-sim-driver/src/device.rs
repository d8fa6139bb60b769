//! What the one device says of itself.

use crate::code::{Code, Res, fail};
use crate::driver::Driver;
use crate::module::SHARED_BY_DEFAULT;

impl Driver {
    pub(crate) fn device_name(&self) -> String {
        format!("ptx-sim {}", self.config.options.chip.name)
    }

    /// The same for the same chip.
    pub(crate) fn device_uuid(&self) -> [u8; 16] {
        let mut uuid = *b"ptx-sim sm_\0\0\0\0\0";
        for (to, from) in uuid[11..].iter_mut().zip(self.config.options.chip.name.bytes().skip(3)) {
            *to = from;
        }
        uuid
    }

    /// An attribute by its number in `cuda.h`.
    pub(crate) fn device_attribute(&self, attribute: i32) -> Res<i32> {
        let options = &self.config.options;
        let chip = options.chip;
        Ok(match attribute {
            1..=3 => [1024, 1024, 64][attribute as usize - 1],
            5 => i32::MAX,
            6 | 7 => 65_535,
            // Shared memory of a block without opting in.
            8 => chip.shared_per_block.min(SHARED_BY_DEFAULT) as i32,
            // Constant memory, warp, pitch, registers of a block, clock in kHz.
            9 => 64 << 10,
            10 => 32,
            11 => i32::MAX,
            12 => 64 << 10,
            13 => 1_000_000,
            14 => 512,
            16 => options.sms as i32,
            // Timeout, integrated, mapped host memory, compute mode.
            17..=20 => 0,
            // Several kernels at once.
            31 => 1,
            32..=35 => 0,
            // Memory clock in kHz, bus width.
            36 => 1_000_000,
            37 => 256,
            38 => 4 << 20,
            39 => chip.threads_per_sm as i32,
            // Copies beside kernels; one address space.
            40 | 41 => 1,
            50 => 0,
            75 => (chip.capability / 10) as i32,
            76 => (chip.capability % 10) as i32,
            78 => 1,
            79 | 80 => 1,
            81 => chip.shared_per_sm as i32,
            82 => 64 << 10,
            // Managed memory, boards, host atomics.
            83..=86 => 0,
            87 => 32,
            88..=94 => 0,
            95 => 1,
            96 => 0,
            97 => chip.shared_per_block as i32,
            98..=105 => 0,
            106 => chip.blocks_per_sm.min(options.blocks_per_sm) as i32,
            107..=110 => 0,
            111 => 1024,
            112..=114 => 0,
            115 => i32::from(self.config.pools),
            // Clusters and tensor maps.
            120 | 127 => i32::from(chip.capability >= 90),
            // What came later is not simulated.
            4 | 15 | 21..=30 | 42..=49 | 51..=74 | 77 | 116..=161 => 0,
            _ => return fail(Code::INVALID_VALUE, format!("device attribute {attribute}")),
        })
    }
}
