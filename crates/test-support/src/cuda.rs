//! The CUDA executor behind the seam: on a card, or on the simulated driver where that is on the
//! library path. Operands go into slices of their own, every byte comes back to be compared.

use std::sync::Arc;

use fused_lora::cuda::cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, CudaView, CudaViewMut, sys,
};
use fused_lora::cuda::{Cuda, Raw, Slice, SliceMut, WORKSPACE_HEADER, Workspace, probe};
use fused_lora::reference::Sums;
use fused_lora::{
    Access, Buffer, Capabilities, DType, Operands, Operation, Plan, Problem, Result, Strategy,
};

use crate::executor::{Alter, Executor, Rows, Scratch};
use crate::{Buffers, Data, Stored, lead};

/// On the simulated driver one run in so many is taken: one takes some 30 ms there.
const ONE_IN: u64 = 4;

/// What of the problems the simulated driver is spared.
const MOST_FLOPS: u64 = 200_000_000;

/// Overrides the share of the runs that are taken.
const ONE_IN_VARIABLE: &str = "FUSED_LORA_ONE_IN";

/// An executor with a stream of its own.
pub struct Gpu {
    /// What is tested.
    pub executor: Cuda,
    /// Its own stream.
    pub stream: Arc<CudaStream>,
}

/// The first card, where there is a driver and `wanted` allows it.
pub fn open(wanted: &str) -> Option<Gpu> {
    (matches!(wanted, "auto" | "cuda") && probe().is_ok()).then(Gpu::new)
}

impl Gpu {
    /// On the first card; cudarc tracks its slices by events.
    #[expect(clippy::new_without_default, reason = "it opens a device")]
    pub fn new() -> Gpu {
        let context = CudaContext::new(0).expect("a driver with a device");
        Gpu::on(&context)
    }

    /// On a context, with a new stream and without kernels.
    pub fn on(context: &Arc<CudaContext>) -> Gpu {
        let stream = context.new_stream().expect("a stream");
        Gpu { executor: Cuda::new(context).expect("an executor"), stream }
    }

    /// Whether its launches run in the simulator.
    pub fn is_simulated(&self) -> bool {
        self.executor.context().name().expect("a name").starts_with("ptx-sim")
    }

    /// Whether its driver loads a kernel while a stream is captured: those of CUDA 12.3 and later.
    pub fn loads_beside_captures(&self) -> bool {
        let mut version = 0;
        // SAFETY: the driver writes one number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().expect("a version");
        version >= 12_030
    }

    /// A plan for this card with the choice of this name.
    pub fn plan(&self, problem: &Problem, choice: &str) -> Plan {
        let choice = choice.parse().expect("a choice");
        Plan::choose(problem, &self.executor.capabilities(), &choice)
            .unwrap_or_else(|error| panic!("{error}\n{problem:?}"))
    }
}

/// f32 is multiplied as it is, unless it may be rounded; 16 bits by the tensor cores.
pub fn sums(problem: &Problem) -> Sums {
    match problem.activation() {
        _ if problem.is_tf32() => Sums::Tf32,
        DType::F32 => Sums::F32,
        _ => Sums::TensorCore,
    }
}

/// The elements of one operand on the device.
#[derive(Debug)]
pub struct OnDevice {
    stream: Arc<CudaStream>,
    memory: Memory,
    /// Elements before the buffer, so that the operand's first one lies as its layout promises.
    lead: usize,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    F32(CudaSlice<f32>),
    Halves(CudaSlice<u16>, DType),
}

impl OnDevice {
    /// Brings one buffer to the device.
    pub fn upload(stream: &Arc<CudaStream>, stored: &Stored) -> OnDevice {
        let (dtype, len) = (stored.data.dtype(), stored.data.len());
        let lead = lead(&stored.spec, stored.offset);
        let bytes = stored.data.bytes();
        let memory = match dtype {
            DType::F32 => {
                let mut all = vec![0f32; lead];
                all.extend_from_slice(bytemuck::cast_slice(bytes));
                Memory::F32(stream.clone_htod(&all).expect("an upload"))
            }
            _ => {
                let mut all = vec![0u16; lead];
                all.extend_from_slice(bytemuck::cast_slice(bytes));
                Memory::Halves(stream.clone_htod(&all).expect("an upload"), dtype)
            }
        };
        OnDevice { stream: stream.clone(), memory, lead, len }
    }

    /// Brings the whole buffer back.
    pub fn download(&self, data: &mut Data) {
        let end = self.lead + self.len;
        match &self.memory {
            Memory::F32(of) => {
                let read = self.stream.clone_dtoh(&of.slice(self.lead..end)).expect("a readback");
                self.stream.synchronize().expect("what was asked for");
                data.bytes_mut().copy_from_slice(bytemuck::cast_slice(&read));
            }
            Memory::Halves(of, _) => {
                let read = self.stream.clone_dtoh(&of.slice(self.lead..end)).expect("a readback");
                self.stream.synchronize().expect("what was asked for");
                data.bytes_mut().copy_from_slice(bytemuck::cast_slice(&read));
            }
        }
    }

    /// Overwrites the elements with `data`.
    pub fn restore(&mut self, data: &Data) {
        let range = self.lead..self.lead + self.len;
        match &mut self.memory {
            Memory::F32(of) => {
                let values: &[f32] = bytemuck::cast_slice(data.bytes());
                self.stream.memcpy_htod(values, &mut of.slice_mut(range)).expect("an upload");
            }
            Memory::Halves(of, _) => {
                let values: &[u16] = bytemuck::cast_slice(data.bytes());
                self.stream.memcpy_htod(values, &mut of.slice_mut(range)).expect("an upload");
            }
        }
    }

    /// As the raw tier takes it.
    pub fn raw(&self) -> Raw {
        let slice = self.slice();
        Raw::new(slice.place().byte, slice.len(), slice.dtype())
    }

    /// As the safe tier reads it.
    pub fn slice(&self) -> Slice<'_> {
        let range = self.lead..self.lead + self.len;
        match &self.memory {
            Memory::F32(of) => of.slice(range).into(),
            Memory::Halves(of, dtype) => bits(of.slice(range), *dtype),
        }
    }

    /// As the safe tier writes it.
    pub fn slice_mut(&mut self) -> SliceMut<'_> {
        let range = self.lead..self.lead + self.len;
        match &mut self.memory {
            Memory::F32(of) => of.slice_mut(range).into(),
            Memory::Halves(of, dtype) => {
                let dtype = *dtype;
                bits_mut(of.slice_mut(range), dtype)
            }
        }
    }
}

fn bits(view: CudaView<'_, u16>, dtype: DType) -> Slice<'_> {
    match dtype {
        DType::F16 => Slice::f16_bits(view),
        _ => Slice::bf16_bits(view),
    }
}

fn bits_mut(view: CudaViewMut<'_, u16>, dtype: DType) -> SliceMut<'_> {
    match dtype {
        DType::F16 => SliceMut::f16_bits(view),
        _ => SliceMut::bf16_bits(view),
    }
}

/// All operands of one problem on the device.
#[derive(Debug)]
pub struct DeviceBuffers {
    operation: Operation,
    all: Vec<OnDevice>,
}

impl DeviceBuffers {
    /// Brings every buffer to the device.
    pub fn upload(stream: &Arc<CudaStream>, buffers: &Buffers) -> DeviceBuffers {
        let all = buffers.stored.iter().map(|stored| OnDevice::upload(stream, stored)).collect();
        DeviceBuffers { operation: buffers.operation, all }
    }

    /// Brings every buffer back.
    pub fn download(&self, buffers: &mut Buffers) {
        for (on_device, stored) in self.all.iter().zip(&mut buffers.stored) {
            on_device.download(&mut stored.data);
        }
    }

    /// Overwrites everything, as [`DeviceBuffers::upload`] did.
    pub fn restore(&mut self, buffers: &Buffers) {
        for (on_device, stored) in self.all.iter_mut().zip(&buffers.stored) {
            on_device.restore(&stored.data);
        }
    }

    /// As the raw tier takes them.
    pub fn raw(&self, buffers: &Buffers) -> Operands<Raw, Raw> {
        let mut operands = Operands::new(self.operation);
        for (on_device, stored) in self.all.iter().zip(&buffers.stored) {
            let matrix = stored.shape().map(|()| on_device.raw());
            operands = match stored.spec.access {
                Access::Read => operands.read(stored.operand, matrix),
                _ => operands.written(stored.operand, matrix),
            };
        }
        operands
    }

    /// As the safe tier takes them.
    pub fn operands<'a>(&'a mut self, buffers: &Buffers) -> Operands<Slice<'a>, SliceMut<'a>> {
        self.altered(buffers, &mut |_, shape| Some(shape))
    }

    /// As the safe tier takes them, each changed or left out by `alter`.
    pub fn altered<'a>(
        &'a mut self,
        buffers: &Buffers,
        alter: &mut Alter<'_>,
    ) -> Operands<Slice<'a>, SliceMut<'a>> {
        let mut operands = Operands::new(self.operation);
        for (on_device, stored) in self.all.iter_mut().zip(&buffers.stored) {
            let Some(shape) = alter(stored.operand, stored.shape()) else { continue };
            operands = match stored.spec.access {
                Access::Read => operands.read(stored.operand, shape.map(|()| on_device.slice())),
                _ => operands.written(stored.operand, shape.map(|()| on_device.slice_mut())),
            };
        }
        operands
    }
}

/// Overwrites the scratch of a workspace, all but its header, with one word.
pub fn litter(stream: &CudaStream, workspace: &mut Workspace, word: u32) {
    let raw = workspace.raw();
    if raw.len > WORKSPACE_HEADER {
        let (at, words) = (raw.address + WORKSPACE_HEADER as u64, (raw.len - WORKSPACE_HEADER) / 4);
        stream.context().bind_to_thread().expect("a context");
        // SAFETY: the range is the workspace's scratch, and no run is on its way: tests wait for
        // each.
        unsafe { sys::cuMemsetD32Async(at, word, words, stream.cu_stream()) }
            .result()
            .expect("a memset");
    }
    stream.synchronize().expect("a memset");
}

impl Executor for Gpu {
    fn name(&self) -> &str {
        "cuda"
    }

    fn capabilities(&self) -> Vec<Capabilities> {
        vec![self.executor.capabilities()]
    }

    fn sums(&self, problem: &Problem) -> Sums {
        sums(problem)
    }

    fn lacks(&self, strategy: Strategy, preset: &str, dtype: DType) -> bool {
        // Its large tiles have no registers for ranks that all tiles carry.
        dtype == DType::F32 && (strategy, preset) == (Strategy::Recompute, "large")
    }

    fn one_in(&self, _rows: Rows) -> u64 {
        match (std::env::var(ONE_IN_VARIABLE), self.is_simulated()) {
            (Ok(one_in), _) => one_in.parse().expect("FUSED_LORA_ONE_IN: a number above 0"),
            (Err(_), true) => ONE_IN,
            (Err(_), false) => 1,
        }
    }

    fn most_flops(&self) -> u64 {
        if self.is_simulated() { MOST_FLOPS } else { u64::MAX }
    }

    fn scratch(&self, bytes: usize) -> Scratch {
        Scratch::Cuda(Workspace::new(&self.stream, bytes).expect("memory for a workspace"))
    }

    fn fill(&self, scratch: &mut Scratch, garbage: f32) {
        litter(&self.stream, of_cuda(scratch), garbage.to_bits());
    }

    fn run_altered(
        &self,
        plan: &Plan,
        buffers: &mut Buffers,
        scratch: &mut Scratch,
        alter: &mut Alter<'_>,
    ) -> Result<()> {
        let mut on_device = DeviceBuffers::upload(&self.stream, buffers);
        let operands = on_device.altered(buffers, alter);
        let result = self.executor.run(&self.stream, plan, operands, of_cuda(scratch));
        on_device.download(buffers);
        result
    }

    fn siblings(&self) -> Vec<(String, Box<dyn Executor>)> {
        // Another stream, and kernels that are compiled anew.
        let other = Gpu::on(self.executor.context());
        vec![("another stream".to_owned(), Box::new(other))]
    }
}

fn of_cuda(scratch: &mut Scratch) -> &mut Workspace {
    match scratch {
        Scratch::Cuda(workspace) => workspace,
        _ => panic!("a workspace of another device"),
    }
}
