//! candle's CPU storage as operands. Called by `op`.

use std::sync::LazyLock;

use candle_core::{CpuStorage, Result, Storage, bail};
use fused_lora::DType;
use fused_lora::cpu::{Cpu, Slice, SliceMut};
use half::{bf16, f16};

use crate::store::{Store, not_served};

/// One for the process: it keeps plans and scratch memory, and works on rayon's threads, as candle does.
static CPU: LazyLock<Cpu> = LazyLock::new(Cpu::new);

impl Store for CpuStorage {
    type Executor = Cpu;

    fn of(storage: &Storage) -> Result<&Self> {
        match storage {
            Storage::Cpu(of) => Ok(of),
            other => bail!("lora: expected a tensor on the CPU, got one on {:?}", other.device()),
        }
    }

    fn into_storage(self) -> Storage {
        Storage::Cpu(self)
    }

    fn read(&self) -> Result<Slice<'_>> {
        Ok(match self {
            CpuStorage::F32(of) => of.into(),
            CpuStorage::F16(of) => of.into(),
            CpuStorage::BF16(of) => of.into(),
            other => return not_served(other),
        })
    }

    fn write(&mut self) -> Result<SliceMut<'_>> {
        Ok(match self {
            CpuStorage::F32(of) => of.into(),
            CpuStorage::F16(of) => of.into(),
            CpuStorage::BF16(of) => of.into(),
            other => return not_served(other),
        })
    }

    fn memory(&self, dtype: DType, len: usize) -> Result<Self> {
        Ok(match dtype {
            DType::F32 => CpuStorage::F32(vec![0.0; len]),
            DType::F16 => CpuStorage::F16(vec![f16::ZERO; len]),
            DType::Bf16 => CpuStorage::BF16(vec![bf16::ZERO; len]),
        })
    }

    fn run(&self, run: impl FnOnce(&Cpu, ()) -> fused_lora::Result<()>) -> Result<()> {
        run(&CPU, ()).map_err(candle_core::Error::wrap)
    }
}
