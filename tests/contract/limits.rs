//! Plans up to every limit of a device, on every backend, without one: tokens, features and ranks
//! just below, at and above what tiles, grids and bindings hold, for the devices that there are and
//! for hand-made ones. Every legal problem has a strategy, or the error that names the limit; and
//! what a device can run, it runs.

use std::collections::BTreeSet;

use fused_lora::{
    AdapterKind, Binding, Capabilities, CpuCapabilities, CudaCapabilities, DType, Error, Launch,
    Layout, Major, Operand, Operation, Plan, Problem, WgpuCapabilities,
};

/// Tokens of a workgroup, or ranks or columns of a thread or a workgroup, of any kernel.
const TILES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Launches of a plan for wgpu, each of a part of an operand.
const LAUNCHES: usize = 1 << 12;

/// The least that WebGPU grants, and what differs from it.
fn wgpu(change: impl Fn(&mut WgpuCapabilities)) -> WgpuCapabilities {
    let mut device = WgpuCapabilities::default();
    change(&mut device);
    device
}

fn wgpu_devices() -> Vec<WgpuCapabilities> {
    let mut devices = vec![
        wgpu(|_| ()),
        wgpu(|of| of.storage_params = true),
        wgpu(|of| of.binding_bytes = u64::MAX),
        wgpu(|of| of.binding_bytes = 64 << 10),
        wgpu(|of| of.binding_bytes = 0),
        wgpu(|of| of.binding_align = 0),
        wgpu(|of| of.binding_align = u32::MAX),
        wgpu(|of| of.workgroup_bytes = 0),
        wgpu(|of| of.workgroup_bytes = 8 << 10),
        wgpu(|of| of.workgroup_bytes = u32::MAX),
    ];
    for workgroups in [0, 1, 3, 100, 1 << 15, u32::MAX] {
        devices.push(wgpu(|of| of.workgroups = workgroups));
    }
    for threads in [0, 1, 64, 128, 1024] {
        devices.push(wgpu(|of| of.workgroup_threads = threads));
    }
    for buffers in [0, 3, 4, 5, 6, 7, 10, u32::MAX] {
        devices.push(wgpu(|of| of.storage_buffers = buffers));
    }
    for subgroup in [0, 4, 8, 16, 32] {
        devices.push(wgpu(|of| (of.adapter, of.subgroup) = (AdapterKind::Software, subgroup)));
    }
    devices
}

fn cuda_devices() -> Vec<CudaCapabilities> {
    let cuda = |change: &dyn Fn(&mut CudaCapabilities)| {
        let mut device = CudaCapabilities::default();
        change(&mut device);
        device
    };
    vec![
        cuda(&|_| ()),
        cuda(&|of| of.multiprocessors = 1),
        cuda(&|of| of.multiprocessors = 1 << 10),
        cuda(&|of| {
            of.compute_capability = (8, 6);
            (of.shared_bytes, of.shared_bytes_per_multiprocessor) = (99 << 10, 100 << 10);
        }),
        cuda(&|of| of.l2_bytes = 0),
    ]
}

/// What a device counts workgroups and bytes of a binding by.
fn grants(device: &Capabilities) -> [usize; 2] {
    let WgpuCapabilities { workgroups, binding_bytes, .. } = match device {
        Capabilities::Wgpu(device) => *device,
        _ => WgpuCapabilities::default(),
    };
    [workgroups as usize, usize::try_from(binding_bytes).unwrap_or(usize::MAX)]
}

/// Sizes just below, at and above each limit: tiles, as many tiles as a grid has workgroups,
/// elements of a binding where a row has `others` of them, as many of either as a plan has launches, and
/// powers of two.
fn sizes(device: &Capabilities, others: usize, most: usize) -> Vec<usize> {
    let [workgroups, bytes] = grants(device);
    let mut limits = BTreeSet::from(TILES);
    limits.extend(TILES.map(|tile| tile.saturating_mul(workgroups)));
    limits.extend([2, 4].map(|size| bytes / size / others));
    limits.extend([4, 16].map(|tile| (tile * LAUNCHES).saturating_mul(workgroups)));
    limits.extend([2, 4].map(|size| (bytes / size / others).saturating_mul(LAUNCHES)));
    limits.extend((0..40).step_by(4).map(|power| 1 << power));
    let around = limits.into_iter().flat_map(|of| [of.saturating_sub(1), of, of.saturating_add(1)]);
    let all: BTreeSet<usize> = around.filter(|size| (1..=most).contains(size)).collect();
    all.into_iter().collect()
}

/// Whether the plan is one, or the error a limit's own. Plans of wgpu fit the device.
fn check(problem: &Problem, device: &Capabilities, runs: &mut [usize; 2]) {
    match Plan::new(problem, device) {
        Ok(plan) => {
            if let Capabilities::Wgpu(device) = device {
                plan.launches().iter().for_each(|launch| fits(launch, device));
                covers(&plan);
            }
            runs[0] += 1;
        }
        Err(Error::Limit { limit, got, .. } | Error::DeviceLimit { limit, got, .. }) => {
            assert!(got > limit, "{got} is within {limit}: {device:?}\n{problem:?}");
            runs[1] += 1;
        }
        Err(error) => panic!("{error}\n{device:?}\n{problem:?}"),
    }
}

fn fits(launch: &Launch, device: &WgpuCapabilities) {
    let buffers = launch.bindings.len() as u32 + u32::from(device.storage_params);
    assert!(launch.grid.iter().all(|&of| (1..=device.workgroups).contains(&of)), "{launch:?}");
    assert!(launch.block.iter().product::<u32>() <= device.workgroup_threads, "{launch:?}");
    assert!(launch.shared_bytes <= device.workgroup_bytes, "{launch:?}");
    assert!(buffers <= device.storage_buffers, "{launch:?}");
}

/// The launches of each kernel take every token once.
fn covers(plan: &Plan) {
    let tokens = plan.problem().tokens();
    let operation = plan.problem().operation();
    let merges = matches!(operation, Operation::Merge | Operation::Unmerge);
    let mut next = std::collections::BTreeMap::new();
    for launch in plan.launches() {
        let of_tokens = |of: &&Binding| {
            use Operand::*;
            matches!(of.operand, Some(X | Dy | Y | Dx)) && !merges
        };
        // Launches for other windows of w take the same tokens again.
        let of_w = launch.bindings.iter().find(|of| of.operand == Some(Operand::W));
        if !merges && of_w.and_then(|of| of.rows).is_some_and(|(first, _)| first > 0) {
            continue;
        }
        let Some(binding) = launch.bindings.iter().find(of_tokens) else { continue };
        let (first, count) = binding.rows.unwrap_or((0, tokens));
        let next = next.entry(launch.kernel).or_insert(0);
        assert_eq!(*next, first, "{}: a gap between bands", launch.kernel);
        *next += count;
    }
    assert!(next.values().all(|&end| end == tokens), "{next:?} of {tokens} tokens");
}

/// Problems of every operation, with storage types and layouts in turn.
fn problems(tokens: usize, features: [usize; 2], rank: usize) -> impl Iterator<Item = Problem> {
    let turn = tokens ^ features[0] ^ features[1] ^ rank;
    Operation::ALL.iter().copied().enumerate().map(move |(at, operation)| {
        let turn = turn.wrapping_add(at);
        let major = if turn & 1 == 0 { Major::Row } else { Major::Col };
        let [in_features, out_features] = features;
        Problem::new(operation, tokens, in_features, out_features, rank)
            .with_dtype(DType::ALL[turn % 3])
            .with_bias(turn & 2 == 0)
            .with_beta(if turn & 4 == 0 { 0.0 } else { 1.0 })
            .with_precise(turn & 8 == 0)
            .with_keep_shrunk(turn & 16 == 0)
            .with_layout(Operand::W, Layout { major, ..Layout::default() })
            .with_layout(Operand::A, Layout { major, ..Layout::default() })
    })
}

/// Most of a dimension that is walked alone.
const MOST: usize = 1 << 40;

/// Walks each dimension alone.
fn walk(devices: impl IntoIterator<Item = Capabilities>) {
    type Draw = fn(usize) -> Vec<Problem>;
    let walks: [(&str, usize, Draw); 5] = [
        ("tokens", 8, |tokens| problems(tokens, [8, 5], 3).collect()),
        ("tokens, two blocks of ranks", 80, |tokens| problems(tokens, [8, 5], 80).collect()),
        ("in_features", 3, |size| problems(3, [size, 5], 2).collect()),
        ("out_features", 9, |size| problems(9, [2, size], 3).collect()),
        ("rank", 5, |rank| problems(5, [4, 3], rank).collect()),
    ];
    for device in devices {
        for (what, others, draw) in walks {
            let mut runs = [0; 2];
            for problem in sizes(&device, others, MOST).into_iter().flat_map(draw) {
                if problem.validate().is_ok() {
                    check(&problem, &device, &mut runs);
                }
            }
            let [planned, limited] = runs;
            assert!(planned + limited > 0);
            println!("{what}: {planned} planned, {limited} over a limit: {device:?}");
        }
    }
}

#[test]
fn cpu() {
    walk([1, 2, 64].map(|workers| Capabilities::Cpu(CpuCapabilities::new(workers))));
}

#[test]
fn cuda() {
    walk(cuda_devices().into_iter().map(Capabilities::Cuda));
}

#[test]
fn wgpu_of_all_kinds() {
    walk(wgpu_devices().into_iter().map(Capabilities::Wgpu));
}

/// However many tokens there are, launches of some of them each serve them all.
#[test]
fn many_tokens_run_on_every_device_that_webgpu_knows() {
    let software =
        |subgroup| wgpu(|of| (of.adapter, of.subgroup) = (AdapterKind::Software, subgroup));
    let devices = [wgpu(|_| ()), software(0), software(4), software(8), software(16)];
    for device in devices.map(Capabilities::Wgpu) {
        for tokens in sizes(&device, 8, 1 << 22) {
            for rank in [1, 16, 65, 512] {
                for problem in problems(tokens, [16, 24], rank) {
                    let plan = Plan::new(&problem, &device);
                    let plan = plan.unwrap_or_else(|error| panic!("{error}\n{problem:?}"));
                    assert!(!plan.launches().is_empty());
                }
            }
        }
    }
}

/// Of a device that binds 64 KiB tokens and columns are both cut into windows, each within its own bound: their product has one, too.
#[test]
fn windows_of_tokens_and_of_columns_multiply() {
    let device = Capabilities::Wgpu(wgpu(|of| of.binding_bytes = 65_535));
    let by_column = Layout { major: Major::Col, ..Layout::default() };
    let plan = |tokens| {
        let problem = Problem::new(Operation::BackwardInput, tokens, 4095, 5440, 1)
            .with_layout(Operand::W, by_column);
        Plan::new(&problem, &device)
    };
    let launches = |tokens| plan(tokens).unwrap().launches().len();
    // In two passes, then in one, which has a launch less for every two tokens; then neither way.
    assert_eq!((launches(14), launches(15)), (7 * 2049, 8 * 2048));
    let error = plan(17).unwrap_err();
    let limit =
        Error::DeviceLimit { what: "launches of a plan", limit: 1 << 14, got: (1 << 14) + 1 };
    assert_eq!(error, limit);
}
