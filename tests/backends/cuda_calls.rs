//! Operands in, done, on CUDA: both tiers, one arena for all operands, streams that come and go, captures.

use std::sync::Arc;

use fused_lora::cuda::cudarc::driver::result::{ctx, mem_get_info};
use fused_lora::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use fused_lora::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use fused_lora::cuda::{Arena, Cuda, Raw, Slice, SliceMut};
use fused_lora::{Backward, DType, Error, Forward, Matrix, Merge};
use test_support::machine::{Machine, on, on_all};
use test_support::test_name;

const TOKENS: usize = 70;
const IN: usize = 40;
const OUT: usize = 88;
const RANK: usize = 8;
const SCALE: f32 = 0.5;

/// Elements of x, w, a, b, dy, in one f32 allocation one behind the other; then y, dx, da, db.
const LENS: [usize; 9] = [
    TOKENS * IN,
    OUT * IN,
    RANK * IN,
    OUT * RANK,
    TOKENS * OUT,
    TOKENS * OUT,
    TOKENS * IN,
    RANK * IN,
    OUT * RANK,
];
const READ: usize = 5;

/// Where each operand begins, in elements.
fn begins() -> [usize; 9] {
    let mut begin = 0;
    LENS.map(|len| {
        let at = begin;
        begin += len;
        at
    })
}

/// Small integers, so that every sum is exact: x, w, a, b, dy.
fn inputs() -> Vec<f32> {
    let len: usize = LENS[..READ].iter().sum();
    (0..len).map(|at| ((at * 7 + at / 13) % 5) as f32 - 2.0).collect()
}

/// y, dx, da, db by the definition.
fn expected(inputs: &[f32]) -> Vec<f32> {
    let [x, w, a, b, dy] = std::array::from_fn(|at| &inputs[begins()[at]..][..LENS[at]]);
    let product =
        |rows: usize, cols: usize, depth: usize, f: &dyn Fn(usize, usize, usize) -> f32| {
            let sum = |row, col| (0..depth).map(|k| f(row, col, k)).sum::<f32>();
            (0..rows * cols).map(|at| sum(at / cols, at % cols)).collect::<Vec<f32>>()
        };
    let shrunk = product(TOKENS, RANK, IN, &|m, r, k| SCALE * x[m * IN + k] * a[r * IN + k]);
    let dshrunk = product(TOKENS, RANK, OUT, &|m, r, n| SCALE * dy[m * OUT + n] * b[n * RANK + r]);
    let add =
        |one: Vec<f32>, two: Vec<f32>| one.iter().zip(two).map(|(a, b)| a + b).collect::<Vec<_>>();
    let y = add(
        product(TOKENS, OUT, IN, &|m, n, k| x[m * IN + k] * w[n * IN + k]),
        product(TOKENS, OUT, RANK, &|m, n, r| shrunk[m * RANK + r] * b[n * RANK + r]),
    );
    let dx = add(
        product(TOKENS, IN, OUT, &|m, k, n| dy[m * OUT + n] * w[n * IN + k]),
        product(TOKENS, IN, RANK, &|m, k, r| dshrunk[m * RANK + r] * a[r * IN + k]),
    );
    let da = product(RANK, IN, TOKENS, &|r, k, m| dshrunk[m * RANK + r] * x[m * IN + k]);
    let db = product(OUT, RANK, TOKENS, &|n, r, m| dy[m * OUT + n] * shrunk[m * RANK + r]);
    [y, dx, da, db].concat()
}

/// All operands in one allocation, the outputs NaN.
fn memory(stream: &Arc<CudaStream>) -> CudaSlice<f32> {
    let mut all = inputs();
    all.resize(LENS.iter().sum(), f32::NAN);
    stream.clone_htod(&all).expect("an upload")
}

fn outputs(stream: &Arc<CudaStream>, memory: &CudaSlice<f32>) -> Vec<f32> {
    let all = stream.clone_dtoh(memory).expect("a readback");
    stream.synchronize().expect("what was asked for");
    all[LENS[..READ].iter().sum::<usize>()..].to_vec()
}

/// What a tier makes an operand of: its number, for those that are read and those that are written.
fn operands<I, O>(
    mut read: impl FnMut(usize) -> I,
    mut written: impl FnMut(usize) -> O,
) -> (Forward<I, O>, Backward<I, O>) {
    let mut of = |at: usize, rows, cols| Matrix::new(read(at), rows, cols);
    let [x, x_again] = [of(0, TOKENS, IN), of(0, TOKENS, IN)];
    let [w, w_again] = [of(1, OUT, IN), of(1, OUT, IN)];
    let [a, a_again] = [of(2, RANK, IN), of(2, RANK, IN)];
    let [b, b_again] = [of(3, OUT, RANK), of(3, OUT, RANK)];
    let dy = of(4, TOKENS, OUT);
    let forward =
        Forward::new(x, w, Matrix::new(written(5), TOKENS, OUT)).adapter(a, b).scale(SCALE);
    let backward = Backward::new(x_again, w_again, dy)
        .adapter(a_again, b_again)
        .scale(SCALE)
        .dx(Matrix::new(written(6), TOKENS, IN))
        .da(Matrix::new(written(7), RANK, IN))
        .db(Matrix::new(written(8), OUT, RANK));
    (forward, backward)
}

fn bytes(at: usize) -> std::ops::Range<usize> {
    let begin = begins()[at] * size_of::<f32>();
    begin..begin + LENS[at] * size_of::<f32>()
}

fn in_arena<'m>(
    arena: &'m Arena<'m>,
) -> (Forward<Slice<'m>, SliceMut<'m>>, Backward<Slice<'m>, SliceMut<'m>>) {
    operands(|at| arena.read(bytes(at), DType::F32), |at| arena.write(bytes(at), DType::F32))
}

fn raw(
    memory: &CudaSlice<f32>,
    stream: &Arc<CudaStream>,
) -> (Forward<Raw, Raw>, Backward<Raw, Raw>) {
    let guarded = Slice::from(memory).guard(stream);
    let at =
        |at: usize| Raw::new(guarded.raw().address + bytes(at).start as u64, LENS[at], DType::F32);
    operands(at, at)
}

#[test]
fn one_arena_serves_every_operand_in_both_tiers() {
    on_all(test_name!(), || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.new_stream().expect("a stream");
        let cuda = Cuda::new(&context).expect("an executor");
        let expected = expected(&inputs());

        let mut safe = memory(&stream);
        let arena = Arena::from(&mut safe);
        let (forward, backward) = in_arena(&arena);
        cuda.forward(&stream, forward).expect("forward");
        cuda.backward(&stream, backward).expect("backward");
        assert_eq!(outputs(&stream, &safe), expected, "the safe tier");

        let bare = memory(&stream);
        let (forward, backward) = raw(&bare, &stream);
        stream.synchronize().expect("uploads");
        // SAFETY: this thread may have any context, or none.
        unsafe { ctx::set_current(std::ptr::null_mut()) }.expect("no context");
        // SAFETY: the stream is the context's, and the memory lives until the readback, which waits.
        unsafe {
            cuda.forward_raw(stream.cu_stream(), forward).expect("forward");
            cuda.backward_raw(stream.cu_stream(), backward).expect("backward");
        }
        assert_eq!(ctx::get_current().expect("a thread"), None, "left another context behind");
        assert_eq!(outputs(&stream, &bare), expected, "the raw tier");
    });
}

/// Parts of one arena that overlap, and parts that reach beyond it.
#[test]
fn an_arena_refuses_what_overlaps() {
    on(Machine::Any, test_name!(), "", || {
        let context = CudaContext::new(0).expect("a device");
        let stream = context.new_stream().expect("a stream");
        let cuda = Cuda::new(&context).expect("an executor");
        let mut all = stream.alloc_zeros::<u8>(4096).expect("memory");
        let arena = Arena::from(&mut all);
        let x = || Matrix::new(arena.read(0..64, DType::F32), 2, 8);
        let w = || Matrix::new(arena.read(64..192, DType::F32), 4, 8);
        let forward = |y| cuda.forward(&stream, Forward::new(x(), w(), Matrix::new(y, 2, 4)));
        let over = forward(arena.write(32..64, DType::F32)).expect_err("y over x");
        assert!(matches!(over.cause(), Error::Overlap { .. }), "{over}");
        let beyond = forward(arena.write(4080..4112, DType::F32)).expect_err("beyond the arena");
        assert!(matches!(beyond.cause(), Error::TooShort { expected: 8, got: 4, .. }), "{beyond}");
        let odd = forward(arena.write(194..226, DType::F32)).expect_err("between two elements");
        assert!(matches!(odd.cause(), Error::Misaligned { .. }), "{odd}");
        forward(arena.write(192..224, DType::F32)).expect("apart from both");
    });
}

/// A workspace a stream: those of streams that are gone are used again, and none is made for a stream that has
/// one.
#[test]
fn streams_come_and_go() {
    on_all(test_name!(), || {
        let context = CudaContext::new(0).expect("a device");
        let cuda = Cuda::new(&context).expect("an executor");
        let expected = expected(&inputs());
        let keep = context.new_stream().expect("a stream");
        let mut after_first = None;
        for round in 0..6 {
            let passing = context.new_stream().expect("a stream");
            for stream in [&keep, &passing] {
                let mut memory = memory(stream);
                let arena = Arena::from(&mut memory);
                let (forward, backward) = in_arena(&arena);
                cuda.forward(stream, forward).expect("forward");
                cuda.backward(stream, backward).expect("backward");
                assert_eq!(outputs(stream, &memory), expected, "round {round}");
            }
            drop(passing);
            context.synchronize().expect("the end of all");
            let (free, _) = mem_get_info().expect("memory of the device");
            match after_first {
                None => after_first = Some(free),
                Some(first) => assert_eq!(free, first, "round {round} kept more memory"),
            }
        }
    });
}

#[test]
fn a_capture_is_refused_by_name() {
    on(Machine::Any, test_name!(), "", || {
        let context = CudaContext::new(0).expect("a device");
        // SAFETY: one stream, and everything on it.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().expect("a stream");
        let cuda = Cuda::new(&context).expect("an executor");
        let memory_of_all = memory(&stream);
        let (forward, backward) = raw(&memory_of_all, &stream);
        let mut w = memory(&stream);
        stream.synchronize().expect("uploads");
        stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
            .expect("a capture");
        // SAFETY: as above; nothing is launched.
        let errors = unsafe {
            [
                cuda.forward_raw(stream.cu_stream(), forward).expect_err("a capture"),
                cuda.backward_raw(stream.cu_stream(), backward).expect_err("a capture"),
            ]
        };
        for error in errors {
            assert!(
                matches!(error.cause(), Error::Capture { reason } if reason.contains("Cuda::run")),
                "{error}"
            );
        }
        let merge = Merge::new(Matrix::new(&mut w, 1, LENS.iter().sum()));
        let error = cuda.merge(&stream, merge).expect_err("a capture");
        assert!(matches!(error.cause(), Error::Capture { .. }), "{error}");
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        stream.end_capture(flags).expect("an unspoilt capture");
    });
}
