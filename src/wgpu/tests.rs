//! The executor without the crate's kernels: launches and small texts made by hand, so that
//! each promise to a kernel (where bindings begin, what the parameters say, in which order
//! launches run) stands alone. The kernels themselves are tested in `tests/`.

use std::sync::mpsc;

use super::{Slice, Wgpu, Workspace, wgpu};
use crate::{
    Access, Binding, Capabilities, DType, Error, Forward, Launch, Layout, Matrix, Operand, Plan,
    Problem, Source, WgpuCapabilities,
};

/// Of any adapter, software too. `None` where the machine has none, which is a failure where
/// `FUSED_LORA_REQUIRE` asks for one.
fn device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let [device, _] = devices()?;
    Some(device)
}

/// Two devices of one adapter.
fn devices() -> Option<[(wgpu::Device, wgpu::Queue); 2]> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let Some(adapter) = adapters.first() else {
        let required = std::env::var("FUSED_LORA_REQUIRE").unwrap_or_default();
        assert!(!required.contains("wgpu"), "FUSED_LORA_REQUIRE={required}, but no adapter");
        return None;
    };
    // The least that WebGPU grants, so that offsets have to suit 256 bytes.
    let ask = || adapter.request_device(&wgpu::DeviceDescriptor::default());
    Some([(); 2].map(|()| pollster::block_on(ask()).expect("a default device")))
}

fn buffer(device: &wgpu::Device, usage: wgpu::BufferUsages, contents: &[u8]) -> wgpu::Buffer {
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: contents.len() as u64,
        usage: usage | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: true,
    });
    buffer.get_mapped_range_mut(..).unwrap().copy_from_slice(contents);
    buffer.unmap();
    buffer
}

fn storage(device: &wgpu::Device, contents: &[u8]) -> wgpu::Buffer {
    buffer(device, wgpu::BufferUsages::STORAGE, contents)
}

fn read(device: &wgpu::Device, queue: &wgpu::Queue, of: &wgpu::Buffer) -> Vec<u8> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: of.size(), usage, mapped_at_creation: false };
    let staging = device.create_buffer(&descriptor);
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(of, 0, &staging, 0, of.size());
    queue.submit([encoder.finish()]);
    let (sender, receiver) = mpsc::channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| sender.send(result).unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    receiver.recv().unwrap().unwrap();
    staging.get_mapped_range(..).unwrap().to_vec()
}

/// Halves of x, two to a word, go to the workspace in one launch and from there to y in the
/// next. `x_at` and `y_at` are parameters that the executor fills in.
const TEXT: &str = "
struct Params { x_at: u32, y_at: u32, count: u32, pad: u32 }
@group(0) @binding(0) var<storage, READ> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;
@group(0) @binding(2) var<SPACE> params: Params;
@compute @workgroup_size(4) fn take(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.count {
        let at = params.x_at + id.x;
        scratch[id.x] = (x[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
    }
}
@group(0) @binding(0) var<storage, read_write> from_scratch: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<atomic<u32>>;
@compute @workgroup_size(4) fn give(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.count {
        let at = params.y_at + id.x;
        let shift = 16u * (at % 2u);
        atomicAnd(&y[at / 2u], ~(0xffffu << shift));
        atomicOr(&y[at / 2u], from_scratch[id.x] << shift);
    }
}
";

const COUNT: usize = 7;

/// 7 tokens, one feature: x and y are columns of 7 halves, here without gaps.
/// Operands may begin at any element.
fn problem() -> Problem {
    let problem = Problem::forward(COUNT, 1, 1, 0).with_dtype(DType::Bf16);
    let anywhere = Layout { align: 2, ..Layout::default() };
    [Operand::X, Operand::W, Operand::Y]
        .into_iter()
        .fold(problem, |problem, operand| problem.with_layout(operand, anywhere))
}

fn launch(entry: &'static str, text: &str, bindings: Vec<Binding>) -> Launch {
    let source = Source::wgsl(text, entry);
    let mut params = vec![0xee; 16];
    params[8..12].copy_from_slice(&(COUNT as u32).to_le_bytes());
    let (grid, block) = ([2, 1, 1], [4, 1, 1]);
    Launch { source: Some(source), grid, block, bindings, params, ..Launch::of("by hand") }
}

/// What the text above does, planned for `planned`.
fn plan(planned: WgpuCapabilities, text: &str) -> Plan {
    let read = if planned.shared_buffers { "read_write" } else { "read" };
    let space = if planned.storage_params { "storage, read" } else { "uniform" };
    let text = text.replace("READ", read).replace("SPACE", space);
    let operand =
        |operand, access, at| Binding { operand: Some(operand), access, rows: None, at: Some(at) };
    let workspace = Binding { operand: None, access: Access::Write, rows: None, at: None };
    let launches = vec![
        launch("take", &text, vec![operand(Operand::X, Access::Read, 0), workspace]),
        launch("give", &text, vec![workspace, operand(Operand::Y, Access::Write, 4)]),
    ];
    Plan::of_launches(problem(), Capabilities::Wgpu(planned), launches, 4 * COUNT)
}

/// `x` at `x_at` and `y` at `y_at` elements of their buffers; w is there, but not bound.
fn forward<'a>(
    [x, w, y]: [&'a wgpu::Buffer; 3],
    x_at: usize,
    y_at: usize,
) -> Forward<Slice<'a>, Slice<'a>> {
    let matrix = |buffer, at| Matrix::new(Slice::new(buffer, DType::Bf16), COUNT, 1).at(at);
    Forward::new(matrix(x, x_at), Matrix::new(Slice::new(w, DType::Bf16), 1, 1), matrix(y, y_at))
}

fn halves(of: impl Iterator<Item = u16>) -> Vec<u8> {
    of.flat_map(u16::to_le_bytes).collect()
}

fn run(
    executor: &Wgpu,
    queue: &wgpu::Queue,
    plan: &Plan,
    operands: Forward<Slice<'_>, Slice<'_>>,
    workspace: Workspace<'_>,
) -> crate::Result<()> {
    let mut encoder = executor.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    let result = executor.encode(&mut pass, plan, operands, workspace);
    drop(pass);
    queue.submit([encoder.finish()]);
    result
}

#[test]
fn launches_see_their_operands_at_any_offset_and_run_in_order() {
    let Some((device, queue)) = device() else { return };
    let x = storage(&device, &halves(0..2048));
    let w = storage(&device, &[0; 16]);
    let scratch = storage(&device, &[0xab; 1024]);
    let executor = Wgpu::new(&device).unwrap();
    let Capabilities::Wgpu(granted) = executor.capabilities() else { panic!() };
    let mut shared = granted;
    (shared.shared_buffers, shared.storage_params) = (true, true);
    for planned in [granted, shared] {
        for executor in [executor.clone(), executor.clone().with_checks(true)] {
            let plan = plan(planned, TEXT);
            for (x_at, y_at) in [(0, 0), (1, 0), (0, 1), (127, 129), (128, 131), (1000, 2041)] {
                let y = storage(&device, &halves((0..2048).map(|_| 0x5a5a)));
                let operands = forward([&x, &w, &y], x_at, y_at);
                run(&executor, &queue, &plan, operands, Workspace::new(&scratch)).unwrap();
                let mut want = vec![0x5a5a; 2048];
                want[y_at..y_at + COUNT]
                    .iter_mut()
                    .zip(x_at as u16..)
                    .for_each(|(of, value)| *of = value);
                assert_eq!(read(&device, &queue, &y), halves(want.into_iter()), "{x_at} {y_at}");
            }
        }
    }
}

/// Warm, and with every offset seen, nothing is made any more but bind groups; a prepared
/// plan makes none either.
#[test]
fn nothing_is_made_twice() {
    let Some((device, queue)) = device() else { return };
    let x = storage(&device, &halves(0..64));
    let [w, y] = [&[0; 64], &[0; 64]].map(|of| storage(&device, of));
    let scratch = storage(&device, &[0; 64]);
    let executor = Wgpu::new(&device).unwrap();
    let Capabilities::Wgpu(granted) = executor.capabilities() else { panic!() };
    let plan_of = || plan(granted, TEXT);
    executor.warm_up(&plan_of()).unwrap();
    let warm = executor.created();
    assert_eq!((warm.pipelines, warm.blocks), (2, 0));
    let again = |x_at| {
        let operands = forward([&x, &w, &y], x_at, 3);
        run(&executor, &queue, &plan_of(), operands, Workspace::new(&scratch)).unwrap();
        executor.created()
    };
    // One block of each launch: the other's offset is not filled in.
    assert_eq!((again(5).pipelines, again(5).blocks), (2, 2));
    assert_eq!(again(6).blocks, 3, "another offset");
    assert_eq!(again(5), again(6), "all of it seen before");
    let prepared = executor
        .prepare(&plan_of(), forward([&x, &w, &y], 5, 3), Workspace::new(&scratch))
        .unwrap();
    assert_eq!(executor.created(), again(6));
    for _ in 0..3 {
        let mut encoder = device.create_command_encoder(&Default::default());
        prepared.encode(&mut encoder.begin_compute_pass(&Default::default())).unwrap();
        queue.submit([encoder.finish()]);
    }
    assert_eq!(executor.created(), again(6));
    assert_eq!(read(&device, &queue, &y)[6..20], halves(6..13), "the last run was prepared at 6");
}

#[test]
fn what_the_device_rejects_is_a_typed_error() {
    let Some([(device, queue), (elsewhere, _)]) = devices() else { return };
    let [x, w, y] = [(); 3].map(|()| storage(&device, &[0; 64]));
    let scratch = storage(&device, &[0; 64]);
    let executor = Wgpu::new(&device).unwrap();
    let Capabilities::Wgpu(granted) = executor.capabilities() else { panic!() };
    // A word that does not parse, a name that does not resolve, bindings that do not fit.
    for (from, to) in [("struct", "strukt"), ("fn take", "fn taken"), ("binding(1)", "binding(9)")]
    {
        let plan = plan(granted, &TEXT.replace(from, to));
        let error = executor.warm_up(&plan).unwrap_err();
        let Error::Rejected { what, reason } = &error else { panic!("{error:?}") };
        assert!(what == "by hand" && !reason.is_empty(), "{error}");
        let operands = forward([&x, &w, &y], 0, 0);
        let refused = run(&executor, &queue, &plan, operands, Workspace::new(&scratch));
        assert_eq!(refused.unwrap_err(), error);
    }
    let plan = plan(granted, TEXT);
    // A buffer of another device.
    let foreign = storage(&elsewhere, &[0; 64]);
    let operands = forward([&foreign, &w, &y], 0, 0);
    let error = run(&executor, &queue, &plan, operands, Workspace::new(&scratch)).unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
    // A buffer that the host has destroyed: before it is bound, and after.
    let [before, after] = [(); 2].map(|()| storage(&device, &[0; 64]));
    before.destroy();
    let operands = forward([&before, &w, &y], 0, 0);
    let error = run(&executor, &queue, &plan, operands, Workspace::new(&scratch)).unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
    let operands = forward([&after, &w, &y], 0, 0);
    let prepared = executor.prepare(&plan, operands, Workspace::new(&scratch)).unwrap();
    after.destroy();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let mut encoder = device.create_command_encoder(&Default::default());
    let recorded = prepared.encode(&mut encoder.begin_compute_pass(&Default::default()));
    queue.submit([encoder.finish()]);
    // Whichever of the two says so.
    assert!(pollster::block_on(scope.pop()).is_some() || recorded.is_err());
    // And the executor goes on.
    let operands = forward([&x, &w, &y], 0, 0);
    run(&executor, &queue, &plan, operands, Workspace::new(&scratch)).unwrap();
}

#[test]
fn a_lost_device_is_an_error() {
    let Some((device, queue)) = device() else { return };
    let [x, w, y] = [(); 3].map(|()| storage(&device, &[0; 64]));
    let scratch = storage(&device, &[0; 64]);
    let executor = Wgpu::new(&device).unwrap();
    let Capabilities::Wgpu(granted) = executor.capabilities() else { panic!() };
    let plan = plan(granted, TEXT);
    let prepared =
        executor.prepare(&plan, forward([&x, &w, &y], 0, 0), Workspace::new(&scratch)).unwrap();
    let watching = executor.clone().with_checks(true);
    let told = Wgpu::new(&device).unwrap();
    watching.watch();
    device.destroy();
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let lost = |result: crate::Result<()>| {
        let error = result.expect_err("the device is lost");
        assert!(matches!(error, Error::DeviceLost { .. }), "{error:?}");
    };
    // Through the callback, also where the executor was made from the one that watches.
    lost(watching.warm_up(&plan));
    lost(executor.warm_up(&plan));
    let mut encoder = device.create_command_encoder(&Default::default());
    lost(prepared.encode(&mut encoder.begin_compute_pass(&Default::default())));
    let operands = forward([&x, &w, &y], 0, 0);
    lost(run(&executor, &queue, &plan, operands, Workspace::new(&scratch)));
    // Without a callback it shows when something is made, and is remembered.
    lost(told.warm_up(&plan));
    // And a host may say so.
    let other = Wgpu::new(&self::device().unwrap().0).unwrap();
    other.lose("the host says so");
    let error = other.warm_up(&plan).unwrap_err();
    assert_eq!(error, Error::DeviceLost { reason: "the host says so".to_owned() });
}
