//! The executor over a host's own launches, beside the one on wgpu: for one plan the same bits, from whatever
//! part of the host's memory, and refusals before anything is launched. The host has one buffer for all, and
//! dispatches by wgpu itself. On every adapter of the machine.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use fused_lora::wgpu::{Slice, wgpu};
use fused_lora::{
    Backward, Buffer, Capabilities, DType, Error, Executor, Forward, Host, HostBinding, Hosted,
    Launch, Matrix, Merge, Operand, Place, Result, WgpuCapabilities,
};
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::gpu::{Gpu, all};

/// Bytes of the host's buffer, and what it holds before.
const ROOM: u64 = 1 << 18;
const GARBAGE: u8 = 0xa5;
const SCALE: f32 = 0.75;

/// A part of the host's buffer.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    dtype: DType,
    bytes: Range<u64>,
}

impl Buffer for Part {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn len(&self) -> usize {
        (self.bytes.end - self.bytes.start) as usize / self.dtype.size()
    }

    fn place(&self) -> Place {
        Place { allocation: 7, byte: self.bytes.start }
    }
}

struct Library {
    gpu: Gpu,
    buffer: wgpu::Buffer,
    capabilities: WgpuCapabilities,
    end: Cell<u64>,
    launched: RefCell<Vec<&'static str>>,
}

impl Library {
    fn new(gpu: &Gpu) -> Library {
        let Capabilities::Wgpu(mut capabilities) = gpu.wgpu().capabilities() else { panic!() };
        capabilities.shared_buffers = true;
        let buffer = gpu.storage(&vec![GARBAGE; ROOM as usize]);
        let launched = RefCell::default();
        Library { gpu: gpu.clone(), buffer, capabilities, end: Cell::new(0), launched }
    }

    /// Behind what there is, and `beyond` elements more than a binding may begin at.
    fn cut(&self, dtype: DType, len: usize, beyond: usize) -> Part {
        let align = u64::from(self.capabilities.binding_align);
        let start = self.end.get().next_multiple_of(align) + (beyond * dtype.size()) as u64;
        let bytes = start..start + (len * dtype.size()) as u64;
        self.end.set(bytes.end);
        assert!(bytes.end <= ROOM);
        Part { dtype, bytes }
    }

    fn drawn(&self, dtype: DType, shape: [usize; 2], beyond: usize, seed: u64) -> Matrix<Part> {
        let [rows, cols] = shape;
        let part = self.cut(dtype, rows * cols, beyond);
        let mut random = StdRng::seed_from_u64(seed);
        let mut value = || random.random_range(-1.0f32..1.0);
        let elements = (0..rows * cols).flat_map(|_| match dtype {
            DType::F32 => value().to_le_bytes().to_vec(),
            DType::F16 => f16::from_f32(value()).to_le_bytes().to_vec(),
            DType::Bf16 => bf16::from_f32(value()).to_le_bytes().to_vec(),
        });
        self.put(part.bytes.start, elements.collect());
        Matrix::new(part, rows, cols)
    }

    /// Whole words are written: those at the ends keep what they hold beside it.
    fn put(&self, start: u64, bytes: Vec<u8>) {
        let (first, end) = (start & !3, (start + bytes.len() as u64).next_multiple_of(4));
        let mut words = self.read()[first as usize..end as usize].to_vec();
        let at = (start - first) as usize;
        words[at..at + bytes.len()].copy_from_slice(&bytes);
        self.gpu.queue().write_buffer(&self.buffer, first, &words);
    }

    fn read(&self) -> Vec<u8> {
        self.gpu.read(&[&self.buffer]).remove(0)
    }

    fn bytes(&self, of: &Matrix<Part>) -> Vec<u8> {
        let Range { start, end } = of.buffer.bytes;
        self.read()[start as usize..end as usize].to_vec()
    }

    fn slice(&self, of: &Matrix<Part>) -> Matrix<Slice<'_>> {
        of.clone().map(|part| Slice::part(&self.buffer, part.dtype, part.bytes))
    }
}

impl Host for Library {
    type Memory = Part;

    fn memory(&self, dtype: DType, len: usize) -> Result<Part> {
        Ok(self.cut(dtype, len, 0))
    }

    fn launch(
        &self,
        launch: &Launch,
        params: &[u8],
        bindings: &[HostBinding<'_, Part>],
    ) -> Result<()> {
        self.launched.borrow_mut().push(launch.kernel);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let bindings: Vec<_> =
            bindings.iter().map(|of| (&self.buffer, of.bytes.clone(), of.read_write)).collect();
        self.gpu.dispatch(&mut pass, launch, &bindings, params, self.capabilities.storage_params);
        drop(pass);
        self.gpu.queue().submit([encoder.finish()]);
        Ok(())
    }
}

/// A layer's operands in the host's buffer.
struct Layer {
    library: Library,
    tokens: usize,
    dtypes: [DType; 2],
    /// x, w, bias, a, b and dy.
    inputs: [Matrix<Part>; 6],
    beyond: usize,
}

impl Layer {
    fn new(gpu: &Gpu, tokens: usize, dtypes: [DType; 2], beyond: usize) -> Layer {
        let library = Library::new(gpu);
        let ([k, n, r], [activation, adapter]) = ([37, 29, 5], dtypes);
        let shapes = [[tokens, k], [n, k], [1, n], [r, k], [n, r], [tokens, n]];
        let types = [activation, activation, activation, adapter, adapter, activation];
        let inputs =
            [0, 1, 2, 3, 4, 5].map(|at| library.drawn(types[at], shapes[at], beyond, at as u64));
        Layer { library, tokens, dtypes, inputs, beyond }
    }

    fn results(&self) -> [Matrix<Part>; 5] {
        let [x, w, _, a, _, _] = &self.inputs;
        let [activation, adapter] = self.dtypes;
        let (shrunk, k, n, r) = (fused_lora::shrunk_stride(a.rows), x.cols, w.rows, a.rows);
        let mut end = self.beyond;
        [
            (activation, [self.tokens, n]),
            (activation, [self.tokens, shrunk]),
            (activation, [self.tokens, k]),
            (adapter, [r, k]),
            (adapter, [n, r]),
        ]
        .map(|(dtype, [rows, cols])| {
            end += 1;
            Matrix::new(self.library.cut(dtype, rows * cols, end), rows, cols)
        })
    }

    /// All operations on `executor`, with the operands as it takes them.
    fn run<'a, E: Executor<SliceMut<'a> = <E as Executor>::Slice<'a>>>(
        &'a self,
        executor: &E,
        mut queue: impl FnMut(&mut dyn FnMut(E::Queue<'_>) -> Result<()>) -> Result<()>,
        of: impl Fn(&'a Matrix<Part>) -> Matrix<E::Slice<'a>>,
        results: &'a [Matrix<Part>; 5],
    ) -> Result<()> {
        let [x, w, bias, a, b, dy] = &self.inputs;
        let [y, shrunk, dx, da, db] = results;
        queue(&mut |queue| {
            let forward = Forward::new(of(x), of(w), of(y)).bias(of(bias)).adapter(of(a), of(b));
            executor.forward(queue, forward.scale(SCALE).shrunk(of(shrunk)))
        })?;
        queue(&mut |queue| {
            let backward = Backward::new(of(x), of(w), of(dy)).adapter(of(a), of(b)).scale(SCALE);
            executor.backward(queue, backward.shrunk(of(shrunk)).dx(of(dx)).da(of(da)).db(of(db)))
        })?;
        // Again without shrunk, onto what is there: it is worked out anew.
        queue(&mut |queue| {
            let backward = Backward::new(of(x), of(w), of(dy)).adapter(of(a), of(b)).scale(SCALE);
            executor.backward(queue, backward.da(of(da)).db(of(db)).beta(0.5))
        })?;
        let merge = || Merge::new(of(w)).adapter(of(a), of(b)).scale(SCALE);
        queue(&mut |queue| executor.merge(queue, merge()))?;
        queue(&mut |queue| executor.unmerge(queue, merge().scale(2.0 * SCALE)))
    }

    fn after(&self, results: &[Matrix<Part>; 5]) -> Vec<Vec<u8>> {
        let all = results.iter().chain([&self.inputs[1]]);
        all.map(|of| self.library.bytes(of)).collect()
    }
}

#[test]
fn a_host_that_launches_gets_the_bits_of_the_executor_on_wgpu() {
    for gpu in all() {
        for (tokens, dtypes, beyond) in [
            (9, [DType::F32, DType::F32], 0),
            (9, [DType::F32, DType::F32], 3),
            (1, [DType::F16, DType::F16], 8),
            (6, [DType::Bf16, DType::F32], 1),
            (0, [DType::F32, DType::F32], 0),
        ] {
            let what = format!("{tokens} tokens in {dtypes:?}, {beyond} elements further");
            let ours = Layer::new(&gpu, tokens, dtypes, beyond);
            let results = ours.results();
            let hosted = Hosted::new(ours.library.capabilities);
            ours.run(&hosted, |call| call(&ours.library), Matrix::clone, &results).unwrap();
            let launched = ours.library.launched.borrow();
            assert!(
                launched.iter().any(|of| of.ends_with("gradient")) || tokens == 0,
                "{launched:?}"
            );

            let theirs = Layer::new(&gpu, tokens, dtypes, beyond);
            let expected = theirs.results();
            let wgpu = gpu.wgpu().clone().with_shared_buffers(true);
            let in_a_pass =
                |call: &mut dyn FnMut(&mut wgpu::ComputePass<'static>) -> Result<()>| {
                    let mut encoder = gpu.device().create_command_encoder(&Default::default());
                    let pass = encoder.begin_compute_pass(&Default::default());
                    let mut pass = pass.forget_lifetime();
                    let called = call(&mut pass);
                    drop(pass);
                    gpu.queue().submit([encoder.finish()]);
                    called
                };
            theirs.run(&wgpu, in_a_pass, |of| theirs.library.slice(of), &expected).unwrap();
            assert_eq!(ours.after(&results), theirs.after(&expected), "{what}");
        }
    }
}

#[test]
fn what_is_refused_is_refused_before_a_launch() {
    for gpu in all() {
        let layer = Layer::new(&gpu, 4, [DType::F32; 2], 0);
        let [y, shrunk, dx, da, db] = layer.results();
        let [x, w, _, a, b, dy] = layer.inputs.clone();
        let hosted = Hosted::new(layer.library.capabilities);
        let host = &layer.library;
        let narrow = Matrix { cols: 36, ..x.clone() };
        let forward = |x: &Matrix<Part>, y: &Matrix<Part>| {
            let forward = Forward::new(x.clone(), w.clone(), y.clone());
            hosted.forward(host, forward.adapter(a.clone(), b.clone()))
        };
        let cause = |result: Result<()>| result.unwrap_err().cause().clone();
        assert!(matches!(cause(forward(&narrow, &y)), Error::Shape { operand: Operand::W, .. }));
        let onto_x = Matrix::new(x.buffer.clone(), 4, 29);
        let overlap = Error::Overlap { output: Operand::Y, other: Operand::X };
        assert_eq!(cause(forward(&x, &onto_x)), overlap);
        // The last of the steps is refused, and none is launched.
        let backward = Backward::new(x.clone(), w.clone(), dy).adapter(a.clone(), b.clone());
        let short = Matrix { rows: 4, ..da };
        let refused = backward.shrunk(shrunk).dx(dx).da(short).db(db);
        let refused = cause(hosted.backward(host, refused));
        assert!(matches!(refused, Error::Shape { operand: Operand::Da, .. }), "{refused}");
        assert!(layer.library.launched.borrow().is_empty());
        forward(&x, &y).unwrap();
        assert!(!layer.library.launched.borrow().is_empty());
    }
}
