//! candle's CUDA storage as operands, on candle's stream. Called by `op`.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice};
use candle_core::{Error, Result, Storage, bail};
use fused_lora::cuda::cudarc::driver::CudaStream;
use fused_lora::cuda::{Cuda, Slice, SliceMut};
use fused_lora::{DType, Executor};

use crate::store::{Store, not_served};

/// One for each device that was met: it keeps plans and kernels, and for each stream a workspace. candle's
/// default stream is another one on every host thread; the core tells them apart.
static DEVICES: Mutex<Vec<Cuda>> = Mutex::new(Vec::new());

fn executor(stream: &Arc<CudaStream>) -> fused_lora::Result<Cuda> {
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cuda) = devices.iter().find(|of| of.context() == stream.context()) {
        return Ok(cuda.clone());
    }
    let cuda = Cuda::new(stream.context())?;
    devices.push(cuda.clone());
    Ok(cuda)
}

impl Store for CudaStorage {
    type Executor = Cuda;

    fn of(storage: &Storage) -> Result<&Self> {
        match storage {
            Storage::Cuda(of) => Ok(of),
            other => bail!("lora: expected a tensor on CUDA, got one on {:?}", other.device()),
        }
    }

    fn into_storage(self) -> Storage {
        Storage::Cuda(self)
    }

    fn read(&self) -> Result<Slice<'_>> {
        Ok(match &self.slice {
            CudaStorageSlice::F32(of) => of.into(),
            CudaStorageSlice::F16(of) => of.into(),
            CudaStorageSlice::BF16(of) => of.into(),
            _ => return not_served(self),
        })
    }

    fn write(&mut self) -> Result<SliceMut<'_>> {
        match &mut self.slice {
            CudaStorageSlice::F32(of) => Ok(of.into()),
            CudaStorageSlice::F16(of) => Ok(of.into()),
            CudaStorageSlice::BF16(of) => Ok(of.into()),
            _ => bail!("lora: expected f32, f16 or bf16"),
        }
    }

    fn memory(&self, dtype: DType, len: usize) -> Result<Self> {
        // The driver gives no memory of no length.
        let (device, room) = (self.device.clone(), len.max(1));
        // SAFETY: the launches that follow overwrite every element before anybody reads one, or an error
        // returns and the memory goes.
        let slice = unsafe {
            match dtype {
                DType::F32 => CudaStorageSlice::F32(device.alloc(room)?),
                DType::F16 => CudaStorageSlice::F16(device.alloc(room)?),
                DType::Bf16 => CudaStorageSlice::BF16(device.alloc(room)?),
            }
        };
        Ok(CudaStorage { slice, device })
    }

    fn run(
        &self,
        run: impl FnOnce(&Cuda, <Cuda as Executor>::Queue<'_>) -> fused_lora::Result<()>,
    ) -> Result<()> {
        let stream = self.device.cuda_stream();
        executor(&stream).and_then(|cuda| run(&cuda, &stream)).map_err(Error::wrap)
    }
}

/// On a card, or on the core's simulated driver (`crates/integrations/simulated-cuda`). What candle's own kernels
/// would do is left out: its `backward` adds gradients up with them.
#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use candle_core::{CustomOp3, DType, Device, Tensor, Var};
    use candle_nn::Linear;

    use crate::op::Layer;
    use crate::{Adapter, LoraLinear};

    /// Values that differ, in ±1.
    fn drawn(rows: usize, cols: usize, dtype: DType, seed: usize) -> Tensor {
        let value = |at: usize| ((at * 2_654_435 + seed * 40_503) % 2003) as f32 / 1001.0 - 1.0;
        let values: Vec<f32> = (0..rows * cols).map(value).collect();
        Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn close(cuda: &Tensor, cpu: &Tensor, what: &str) {
        let values = |of: &Tensor| {
            let host = of.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            host.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!((cuda.dims(), cuda.dtype()), (cpu.dims(), cpu.dtype()), "{what}");
        let unit = match cpu.dtype() {
            DType::BF16 => 2f64.powi(-7),
            DType::F16 => 2f64.powi(-10),
            _ => 1e-2,
        };
        let (got, expected) = (values(cuda), values(cpu));
        let largest = expected.iter().fold(0.0f64, |most, of| most.max(of.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            assert!(
                (got - expected).abs() <= 2.0 * unit * largest,
                "{what}: {got}, not {expected}"
            );
        }
    }

    /// x, w, bias, a, b and dy on a device, of a part of each tensor.
    struct Operands {
        tensors: [Tensor; 6],
    }

    impl Operands {
        fn new(dtype: DType, adapter: DType) -> Operands {
            let (m, k, n, r) = (20, 48, 40, 8);
            let wide = |rows, cols, dtype, seed| {
                drawn(rows + 1, cols + 8, dtype, seed)
                    .narrow(0, 1, rows)
                    .unwrap()
                    .narrow(1, 0, cols)
                    .unwrap()
            };
            let tensors = [
                wide(m, k, dtype, 1),
                wide(k, n, dtype, 2).t().unwrap(),
                drawn(1, n, dtype, 3).squeeze(0).unwrap(),
                drawn(r, k, adapter, 4),
                drawn(n, r, adapter, 5),
                wide(m, n, dtype, 6),
            ];
            Operands { tensors }
        }

        fn on(&self, device: &Device) -> Operands {
            Operands { tensors: self.tensors.each_ref().map(|of| of.to_device(device).unwrap()) }
        }

        fn results(&self) -> Vec<Tensor> {
            let [x, w, bias, a, b, dy] = &self.tensors;
            let adapter = Adapter::new(a.clone(), b.clone(), 0.5).unwrap();
            let linear = Linear::new(w.clone(), Some(bias.clone()));
            let mut frozen = LoraLinear::frozen(linear).unwrap();
            let plain = frozen.infer(x).unwrap();
            frozen.insert("it", adapter).unwrap();
            frozen.activate(Some("it")).unwrap();
            let y = frozen.infer(x).unwrap();
            // With a tape, by hand: what candle's `backward` would call.
            let layer = |has_adapter| Layer {
                w: w.clone(),
                bias: Some(bias.clone()),
                scale: 0.5,
                has_adapter,
                keep: has_adapter,
                shrunk: OnceLock::new(),
            };
            let vars = [x, a, b].map(|of| match of.is_contiguous() {
                true => Var::from_tensor(of).unwrap().into_inner(),
                // A view of a variable: tracked, and where it was.
                false => {
                    Var::from_tensor(&drawn(21, 56, of.dtype(), 1).to_device(of.device()).unwrap())
                        .unwrap()
                        .narrow(0, 1, 20)
                        .unwrap()
                        .narrow(1, 0, 48)
                        .unwrap()
                }
            });
            let [x, a, b] = &vars;
            let kept = layer(true);
            let trained = x.apply_op3_no_bwd(a, b, &kept).unwrap();
            assert!(kept.shrunk.get().is_some());
            let gradients = kept.bwd(x, a, b, &trained, dy).unwrap();
            let dx_alone = layer(false).bwd(x, x, x, &trained, dy).unwrap();
            assert!(dx_alone.1.is_none() && dx_alone.2.is_none());
            let (dx, da, db) = gradients;
            let all = [Some(plain), Some(y), Some(trained), dx, da, db, dx_alone.0];
            all.into_iter().flatten().collect()
        }
    }

    #[test]
    fn layers_on_cuda_give_what_they_give_on_the_cpu() {
        let cuda = Device::new_cuda(0).unwrap();
        for (dtype, adapter) in [
            (DType::F32, DType::F32),
            (DType::F16, DType::F16),
            (DType::BF16, DType::F32),
            (DType::BF16, DType::BF16),
        ] {
            let operands = Operands::new(dtype, adapter);
            let (expected, got) = (operands.results(), operands.on(&cuda).results());
            assert_eq!((expected.len(), got.len()), (7, 7));
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                close(got, expected, &format!("{dtype:?}, adapter {adapter:?}: result {at}"));
            }
        }
    }

    #[test]
    fn tensors_of_two_devices_are_refused() {
        let cuda = Device::new_cuda(0).unwrap();
        let w = drawn(8, 16, DType::F32, 1).to_device(&cuda).unwrap();
        let layer = LoraLinear::frozen(Linear::new(w, None)).unwrap();
        let error = layer.infer(&drawn(2, 16, DType::F32, 2)).unwrap_err().to_string();
        assert!(error.contains("CPU"), "{error}");
        let [a, b] = [drawn(2, 16, DType::F32, 3), drawn(8, 2, DType::F32, 4)];
        let mut layer = layer;
        let error = layer.insert("it", Adapter::new(a, b, 1.0).unwrap()).unwrap_err().to_string();
        assert!(error.contains("`it` is on Cpu"), "{error}");
    }

    /// candle's default stream is another one on each host thread.
    #[test]
    fn threads_have_streams_of_their_own() {
        let cuda = Device::new_cuda(0).unwrap();
        let operands = Operands::new(DType::BF16, DType::F32);
        let expected = operands.results();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for (got, expected) in operands.on(&cuda).results().iter().zip(&expected) {
                        close(got, expected, "from another thread");
                    }
                });
            }
        });
    }
}
