//! Cooperative matrices, which a host asks for: whether the adapter has those that there are texts for, whether its driver
//! is known to be wrong with them, and whether a small product comes out exact. Called by hosts, and by
//! [`Device`](crate::Device) for names that end in `+cooperative`.

use half::f16;

use super::{Prepared, Slice, Wgpu, wgpu};
use crate::{
    Access, Choice, DType, Error, Matrix, Operand, Operands, Operation, Plan, Problem, Result,
    Strategy,
};

/// Drivers that report cooperative matrices, and are reported to be wrong with them.
struct Distrusted {
    backend: wgpu::Backend,
    /// The maker's number; none: any.
    vendor: Option<u32>,
    /// A part of what the driver says of itself.
    driver: &'static str,
    device_type: Option<wgpu::DeviceType>,
    reason: &'static str,
}

const INTEL: u32 = 0x8086;
const AMD: u32 = 0x1002;

/// What public trackers say. A driver goes from the list when the report says by which version it is mended.
const DISTRUSTED: [Distrusted; 3] = [
    Distrusted {
        backend: wgpu::Backend::Vulkan,
        vendor: Some(INTEL),
        driver: "Mesa",
        device_type: None,
        reason: "Intel's GPUs of the Xe3 generation load the first tile of workgroup memory in place of others \
                 (tracel-ai/cubecl#1444, mesa#15932)",
    },
    Distrusted {
        backend: wgpu::Backend::Vulkan,
        vendor: Some(AMD),
        driver: "AMD proprietary",
        device_type: Some(wgpu::DeviceType::IntegratedGpu),
        reason: "AMD's own driver for integrated GPUs crashes when it is asked for its matrices (ggml-org/llama.cpp#22750)",
    },
    Distrusted {
        backend: wgpu::Backend::Metal,
        vendor: None,
        driver: "",
        device_type: None,
        reason: "wgpu's own test of them fails now and then on Metal (gfx-rs/wgpu#10001)",
    },
];

/// Why the driver is not trusted, if it is not.
fn distrust(info: &wgpu::AdapterInfo) -> Option<&'static str> {
    let said = format!("{} {}", info.driver, info.driver_info);
    let of = DISTRUSTED.iter().find(|of| {
        of.backend == info.backend
            && of.vendor.is_none_or(|vendor| vendor == info.vendor)
            && of.device_type.is_none_or(|kind| kind == info.device_type)
            && said.contains(of.driver)
    })?;
    Some(of.reason)
}

/// The largest side of those matrices that there are texts for: square, f16 factors, f32 sums.
fn side(all: &[wgpu::CooperativeMatrixProperties]) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let served = all.iter().filter(|of| (of.ab_type, of.cr_type) == (F16, F32));
    let square = served.filter(|of| of.m_size == of.n_size && of.n_size == of.k_size);
    square.map(|of| of.m_size).filter(|of| [8, 16].contains(of)).max()
}

impl Wgpu {
    /// Lets plans use cooperative matrices (tensor cores), wgpu's experimental feature: layers in f16 whose sums are formed in
    /// f32. `adapter` is that of the device, `queue` the device's; a product of small integers is run, and has to come out exact.
    /// It waits for the device. The result begins without pipelines.
    ///
    /// The device was made with [`EXPERIMENTAL_COOPERATIVE_MATRIX`](wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX), `SHADER_F16`
    /// and `SUBGROUP`, for which wgpu wants an [`ExperimentalFeatures`](wgpu::ExperimentalFeatures) of its host.
    ///
    /// # Errors
    /// [`Error::Feature`] for a feature that the device was made without; [`Error::Rejected`] for a driver that is reported to be
    /// wrong with them, for an adapter without matrices of 8 × 8 or 16 × 16, and for a product that is not what it should be.
    pub fn with_cooperative(self, adapter: &wgpu::Adapter, queue: &wgpu::Queue) -> Result<Wgpu> {
        let features = self.device().features();
        for (needed, feature) in [
            (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "EXPERIMENTAL_COOPERATIVE_MATRIX"),
            (wgpu::Features::SHADER_F16, "SHADER_F16"),
            (wgpu::Features::SUBGROUP, "SUBGROUP"),
        ] {
            if !features.contains(needed) {
                return Err(Error::Feature { feature });
            }
        }
        if let Some(reason) = distrust(&adapter.get_info()) {
            return Err(rejected(reason));
        }
        if self.inner.granted.subgroup == 0 {
            return Err(rejected("the adapter's subgroups are not all of one size"));
        }
        let side = side(&adapter.cooperative_matrix_properties()).ok_or_else(|| {
            rejected("the adapter has none of 8 × 8 or 16 × 16 with f16 factors and f32 sums")
        })?;
        let mut capabilities = self.capabilities;
        let mut granted = self.inner.granted;
        (capabilities.cooperative, granted.cooperative) = (side, side);
        let inner = &*self.inner;
        let (device, cache, lost) = (inner.device.clone(), inner.cache.clone(), inner.lost.clone());
        let wgpu = Wgpu::with(device, granted, capabilities, inner.checked, cache, lost);
        [Operation::Forward, Operation::BackwardInput]
            .into_iter()
            .try_for_each(|operation| wgpu.multiplies_exactly(operation, queue))?;
        Ok(wgpu)
    }

    /// Runs a small layer of integers, whose exact result f16 holds.
    fn multiplies_exactly(&self, operation: Operation, queue: &wgpu::Queue) -> Result<()> {
        // More than one tile each way, and no whole one.
        let problem = Problem::new(operation, TOKENS, IN, OUT, RANK).with_dtype(DType::F16);
        let choice =
            Choice { strategy: Some(Strategy::TwoPass), preset: Some("cooperative".to_owned()) };
        let plan = Plan::choose(&problem, &self.capabilities(), &choice)?;
        let mut buffers = Vec::new();
        for (operand, spec) in problem.specs() {
            let (rows, cols) = spec.stored();
            let bytes: Vec<u8> = (0..rows * cols)
                .flat_map(|at| f16::from_f32(integer(operand, at) as f32).to_le_bytes())
                .collect();
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            buffers.push((operand, spec, self.inner.filled("a trial's operand", usage, &bytes)?));
        }
        let mut operands = Operands::new(operation);
        for (operand, spec, buffer) in &buffers {
            let matrix = Matrix::new(Slice::new(buffer, DType::F16), spec.rows, spec.cols);
            operands = match spec.access {
                Access::Read => operands.read(*operand, matrix),
                Access::Write | Access::Update => operands.written(*operand, matrix),
            };
        }
        let prepared = self.prepare_kept(&plan, operands)?;
        let out = match operation {
            Operation::Forward => Operand::Y,
            _ => Operand::Dx,
        };
        let Some((.., out)) = buffers.iter().find(|of| of.0 == out) else { return Ok(()) };
        let bytes = self.submitted(&prepared, out, queue)?;
        verdict(operation, &bytes)
    }

    /// Runs what was prepared, and reads a buffer back.
    fn submitted(
        &self,
        prepared: &Prepared,
        of: &wgpu::Buffer,
        queue: &wgpu::Queue,
    ) -> Result<Vec<u8>> {
        let size = of.size();
        let staging = self.inner.scoped("readback", size, |device| {
            let staging = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("fused-lora readback"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let recorded = prepared.encode(&mut pass);
            drop(pass);
            encoder.copy_buffer_to_buffer(of, 0, &staging, 0, size);
            queue.submit([encoder.finish()]);
            // Whether it worked shows when the range is taken.
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
            let polled = device.poll(wgpu::PollType::wait_indefinitely());
            let polled = polled.map_err(|error| rejected(error.to_string()));
            recorded.and(polled.map(|_| staging))
        })??;
        self.inner.check_alive()?;
        let range = staging.get_mapped_range(..).map_err(|error| rejected(error.to_string()))?;
        Ok(range.to_vec())
    }
}

fn rejected(reason: impl Into<String>) -> Error {
    Error::Rejected { what: "cooperative matrices".to_owned(), reason: reason.into() }
}

const TOKENS: usize = 70;
const IN: usize = 72;
const OUT: usize = 76;
const RANK: usize = 8;

/// Whether the sums, in f16, are what they should be.
fn verdict(operation: Operation, bytes: &[u8]) -> Result<()> {
    let got = bytes.chunks_exact(2).map(|of| f16::from_le_bytes([of[0], of[1]]).to_f32());
    let sums = expected(operation);
    let right = got.zip(&sums).filter(|(got, want)| *got == **want as f32).count();
    match sums.len() - right {
        0 => Ok(()),
        wrong => Err(rejected(format!(
            "{wrong} of {} sums of a small {operation} are not what they should be",
            sums.len()
        ))),
    }
}

/// −1, 0 or 1 for each element of an operand.
fn integer(operand: Operand, at: usize) -> i32 {
    ((at * 7 + at / 11 * 5 + operand as usize) % 3) as i32 - 1
}

/// What a layer of these comes to, row by row; scale 1.
fn expected(operation: Operation) -> Vec<i32> {
    let of = |operand, row: usize, cols: usize, col: usize| integer(operand, row * cols + col);
    let w = |row, col| of(Operand::W, row, IN, col);
    let a = |row, col| of(Operand::A, row, IN, col);
    let b = |row, col| of(Operand::B, row, RANK, col);
    let layer = |row: usize, col: usize| match operation {
        Operation::Forward => {
            let x = |k| of(Operand::X, row, IN, k);
            let shrunk = |rank| (0..IN).map(|k| x(k) * a(rank, k)).sum::<i32>();
            (0..IN).map(|k| x(k) * w(col, k)).sum::<i32>()
                + (0..RANK).map(|rank| shrunk(rank) * b(col, rank)).sum::<i32>()
        }
        _ => {
            let dy = |n| of(Operand::Dy, row, OUT, n);
            let shrunk = |rank| (0..OUT).map(|n| dy(n) * b(n, rank)).sum::<i32>();
            (0..OUT).map(|n| dy(n) * w(n, col)).sum::<i32>()
                + (0..RANK).map(|rank| shrunk(rank) * a(rank, col)).sum::<i32>()
        }
    };
    let columns = if operation == Operation::Forward { OUT } else { IN };
    (0..TOKENS * columns).map(|at| layer(at / columns, at % columns)).collect()
}

#[cfg(test)]
mod tests {
    use wgpu::{Backend, CooperativeMatrixProperties, CooperativeScalarType, DeviceType};

    use super::*;

    #[test]
    fn drivers_that_are_reported_are_not_trusted() {
        let said = |vendor, driver: &str, device_type, backend| {
            let mut info = wgpu::AdapterInfo::new(device_type, backend);
            (info.vendor, info.driver_info) = (vendor, driver.to_owned());
            distrust(&info)
        };
        let (discrete, integrated) = (DeviceType::DiscreteGpu, DeviceType::IntegratedGpu);
        for (vendor, driver, device_type, backend, trusted) in [
            (INTEL, "Mesa 26.1.6", integrated, Backend::Vulkan, false),
            (INTEL, "101.8826", discrete, Backend::Vulkan, true),
            (AMD, "AMD proprietary driver 26.3.1 (LLPC)", integrated, Backend::Vulkan, false),
            (AMD, "AMD proprietary driver 26.3.1 (LLPC)", discrete, Backend::Vulkan, true),
            (AMD, "radv Mesa 26.1.6", integrated, Backend::Vulkan, true),
            (0x10de, "580.65", discrete, Backend::Vulkan, true),
            (0, "", integrated, Backend::Metal, false),
            (0x1_0005, "Mesa 26.1.6 (LLVM 19.1.7)", DeviceType::Cpu, Backend::Vulkan, true),
        ] {
            let reason = said(vendor, driver, device_type, backend);
            assert_eq!(reason.is_none(), trusted, "{driver} {device_type:?}: {reason:?}");
        }
    }

    #[test]
    fn the_largest_square_of_f16_and_f32_is_taken() {
        use CooperativeScalarType::{F16, F32};
        let of = |m_size, n_size, k_size, ab_type, cr_type| CooperativeMatrixProperties {
            m_size,
            n_size,
            k_size,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        };
        let eight = of(8, 8, 8, F16, F32);
        assert_eq!(side(&[of(8, 8, 8, F16, F16), eight]), Some(8));
        assert_eq!(side(&[eight, of(16, 16, 16, F16, F32)]), Some(16));
        assert_eq!(side(&[of(16, 16, 16, F16, F16), of(16, 8, 16, F16, F32)]), None);
        assert_eq!(side(&[of(8, 8, 8, F32, F32), of(16, 16, 8, F16, F32)]), None);
    }

    /// Every sum fits f16, and there are many different ones: what lies in a wrong place is seen.
    #[test]
    fn the_trial_is_exact_and_sees_places() {
        for operation in [Operation::Forward, Operation::BackwardInput] {
            let sums = expected(operation);
            assert!(sums.iter().all(|of| of.abs() < 2048));
            let different: std::collections::BTreeSet<i32> = sums.iter().copied().collect();
            assert!(different.len() > 30, "{operation}: {} different sums", different.len());

            let halves = |of: &[i32]| -> Vec<u8> {
                of.iter().flat_map(|of| f16::from_f32(*of as f32).to_le_bytes()).collect()
            };
            assert_eq!(verdict(operation, &halves(&sums)), Ok(()));
            let mut wrong = sums.clone();
            wrong[TOKENS] += 1;
            for (bytes, count) in [(halves(&wrong), 1), (halves(&sums[2..]), sums.len())] {
                let error = verdict(operation, &bytes).unwrap_err().to_string();
                let begins = "cooperative matrices: rejected by the device: ";
                assert!(error.starts_with(begins), "{error}");
                assert!(count > 1 || error.contains("1 of "), "{error}");
            }
        }
    }
}
