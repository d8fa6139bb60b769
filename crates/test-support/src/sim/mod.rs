//! Carries a CUDA plan out on `ptx_sim`: addresses go where the bindings say, and each launch
//! runs with every check on. What an executor does through a driver, without one.

pub mod walk;

use std::collections::HashMap;
use std::ops::Range;

use fused_lora::{Capabilities, CudaCapabilities, DType, Launch, Operand, Plan, Spec};
use ptx_sim::{Counters, Memory, Module, Options, run_launch};

use crate::{Buffers, Data, Stored};

/// An A100 with so few multiprocessors that plans for it wait and wrap as on a full one.
pub fn gpu(multiprocessors: u32) -> Capabilities {
    let mut cuda = CudaCapabilities::default();
    cuda.multiprocessors = multiprocessors;
    Capabilities::Cuda(cuda)
}

/// Memory of a device, the workspace in it, and the modules it has loaded.
pub struct Gpu {
    memory: Memory,
    modules: HashMap<*const u8, Module>,
    workspace: u64,
    len: usize,
    edit: Box<dyn Fn(&str) -> String>,
}

impl Gpu {
    /// With `bytes` of workspace, made as an executor makes it: the header is zero, and no
    /// byte of the scratch was ever written.
    pub fn new(bytes: usize) -> Gpu {
        let mut memory = Memory::new();
        let len = bytes.max(64 << 10);
        let workspace = memory.alloc(len).expect("memory for a workspace");
        memory.write(workspace, &vec![0; 64 << 10]).expect("the header");
        Gpu { memory, modules: HashMap::new(), workspace, len, edit: Box::new(str::to_owned) }
    }

    /// Has each text as `edit` leaves it, from now on.
    pub fn edit(&mut self, edit: impl Fn(&str) -> String + 'static) {
        self.modules.clear();
        self.edit = Box::new(edit);
    }

    /// Overwrites the scratch with one word.
    pub fn litter(&mut self, word: u32) {
        let words = (self.len - (64 << 10)) / 4;
        let bytes: Vec<u8> = std::iter::repeat_n(word.to_le_bytes(), words).flatten().collect();
        self.memory.write(self.workspace + (64 << 10), &bytes).expect("the scratch");
    }

    /// Sets the epoch that the next launch finds.
    pub fn set_epoch(&mut self, epoch: u32) {
        self.memory.write(self.workspace, &epoch.to_le_bytes()).expect("the header");
    }

    /// The header's epoch, ticket and done.
    pub fn header(&mut self) -> [u32; 3] {
        [0, 128, 256].map(|at| {
            let bytes = self.memory.read(self.workspace + at, 4).expect("the header");
            u32::from_le_bytes(bytes.try_into().expect("four bytes"))
        })
    }

    /// Bytes of the header that launches have touched, in sectors of 32, if they used it at all:
    /// epoch, ticket and done, and the flags that were raised.
    pub fn header_bytes(&mut self) -> u64 {
        let header = self.memory.read(self.workspace, 64 << 10).expect("the header");
        let raised = header[384..].chunks(32).filter(|of| of.iter().any(|byte| *byte != 0));
        let used = header[..4] != [0; 4];
        32 * (raised.count() + if used { 3 } else { 0 }) as u64
    }

    /// The bytes that the launches of `plan` touched, the header aside. Fails where one of them met a
    /// bank twice, or touched a sector that it need not.
    pub fn least_traffic(&mut self, plan: &Plan, counters: &[Counters]) -> u64 {
        assert_eq!(plan.launches().len(), counters.len());
        for (launch, counters) in plan.launches().iter().zip(counters) {
            let source = launch.source.as_ref().expect("a text");
            let lines: Vec<&str> = source.text.lines().collect();
            for of in counters.lines() {
                let line = lines[of.line as usize - 1];
                assert_eq!(of.wavefronts, of.wavefronts_ideal, "{}: {line}", launch.kernel);
                assert_eq!(of.sectors, of.sectors_ideal, "{}: {line}", launch.kernel);
            }
        }
        counters.iter().map(Counters::bytes_first_touched).sum::<u64>() - self.header_bytes()
    }

    /// Runs every launch of `plan`; counters of each.
    pub fn run(
        &mut self,
        plan: &Plan,
        buffers: &mut Buffers,
        options: &Options,
    ) -> Result<Vec<Counters>, String> {
        assert!(plan.workspace_len() <= self.len, "a workspace of the plan's size");
        let mut places = Vec::new();
        for stored in &buffers.stored {
            let at = self.memory.alloc(stored.data.len() * size(stored)).expect("an operand");
            self.memory.write(at, &bytes(&stored.data)).expect("an operand");
            places.push(at);
        }
        let places: HashMap<Operand, u64> = buffers
            .stored
            .iter()
            .zip(&places)
            .map(|(stored, at)| (stored.operand, at + (stored.offset * size(stored)) as u64))
            .collect();
        let counters = self.launch_all(plan, &places, options)?;
        for stored in &mut buffers.stored {
            let at = places[&stored.operand] - (stored.offset * size(stored)) as u64;
            let len = stored.data.len() * size(stored);
            let read = self.memory.read(at, len).expect("an operand");
            fill(&mut stored.data, &read);
            self.memory.free(at).expect("an operand");
        }
        Ok(counters)
    }

    /// Runs every launch of `plan`, whose rows lie as far apart as its strides say, on operands that
    /// come and go in `buffers`, where they lie closer.
    pub fn run_far(
        &mut self,
        plan: &Plan,
        buffers: &mut Buffers,
        options: &Options,
    ) -> Result<(), String> {
        let mut places = HashMap::new();
        for stored in &buffers.stored {
            let far = plan.problem().spec(stored.operand).expect("an operand of the plan");
            let len = far.extent().expect("a size that fits") * size(stored);
            let at = self.memory.alloc_sparse(len).map_err(|error| error.to_string())?;
            for (from, to) in rows(stored, &far) {
                self.memory.write(at + to, &bytes(&stored.data)[from]).expect("a row");
            }
            places.insert(stored.operand, at);
        }
        self.launch_all(plan, &places, options)?;
        for stored in &mut buffers.stored {
            let far = plan.problem().spec(stored.operand).expect("an operand of the plan");
            let at = places[&stored.operand];
            for (to, from) in rows(stored, &far) {
                let row = self.memory.read(at + from, to.len()).expect("a row");
                stored.data.bytes_mut()[to].copy_from_slice(&row);
            }
            self.memory.free(at).expect("an operand");
        }
        Ok(())
    }

    fn launch_all(
        &mut self,
        plan: &Plan,
        places: &HashMap<Operand, u64>,
        options: &Options,
    ) -> Result<Vec<Counters>, String> {
        let mut counters = Vec::new();
        for launch in plan.launches() {
            let mut params = launch.params.clone();
            for binding in &launch.bindings {
                let address = match binding.operand {
                    None => self.workspace,
                    Some(operand) => *places.get(&operand).expect("a bound operand"),
                };
                let at = binding.at.expect("CUDA binds by address") as usize;
                params[at..at + 8].copy_from_slice(&address.to_le_bytes());
            }
            counters.push(self.launch(launch, &params, options)?);
        }
        Ok(counters)
    }

    fn launch(
        &mut self,
        launch: &Launch,
        params: &[u8],
        options: &Options,
    ) -> Result<Counters, String> {
        let source = launch.source.as_ref().expect("a text");
        let module = self.modules.entry(source.text.as_ptr()).or_insert_with(|| {
            let name = source.text.lines().next().unwrap_or_default();
            Module::parse(name.trim_start_matches("// "), &(self.edit)(&source.text))
                .unwrap_or_else(|error| panic!("{error}"))
        });
        let of = ptx_sim::Launch::new(source.entry, launch.grid, launch.block)
            .shared(launch.shared_bytes)
            .bytes(params);
        run_launch(module, &mut self.memory, &of, options).map_err(|error| error.to_string())
    }
}

/// The bytes of each stored row: in its buffer, and where it begins as `far` has it.
fn rows(stored: &Stored, far: &Spec) -> Vec<(Range<usize>, u64)> {
    let (rows, cols) = stored.spec.stored();
    let size = size(stored);
    let row = |at: usize| {
        let start = (stored.offset + at * stored.spec.stride) * size;
        (start..start + cols * size, (at * far.stride * size) as u64)
    };
    (0..rows).map(row).collect()
}

fn size(stored: &Stored) -> usize {
    stored.spec.dtype.size()
}

fn bytes(data: &Data) -> Vec<u8> {
    match data {
        Data::F32(of) => of.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect(),
        Data::F16(of) => of.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect(),
        Data::Bf16(of) => of.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect(),
    }
}

fn fill(data: &mut Data, bytes: &[u8]) {
    let half = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
    match data {
        Data::F32(of) => {
            for (value, bytes) in of.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_bits(u32::from_le_bytes(*bytes));
            }
        }
        Data::F16(of) => {
            for (at, value) in of.iter_mut().enumerate() {
                *value = half::f16::from_bits(half(at));
            }
        }
        Data::Bf16(of) => {
            for (at, value) in of.iter_mut().enumerate() {
                *value = half::bf16::from_bits(half(at));
            }
        }
    }
}

/// Storage types that `mma.sync` multiplies.
pub const HALVES: [DType; 2] = [DType::Bf16, DType::F16];
