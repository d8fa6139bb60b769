//! Every rendering that a wide sample of plans reaches: parsed and validated as WGSL, and
//! translated to what drivers take (SPIR-V, MSL, HLSL), with and without bounds checks; and
//! within what a default device grants. Needs no driver.

use std::collections::BTreeMap;

use fused_lora::{
    AdapterKind, Capabilities, Choice, DType, Error, Language, Launch, Layout, Operand, Operation,
    Outcome, Plan, Problem, WgpuCapabilities,
};
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities as Features, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess};
use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::{draw, draw_factors, draw_gain, draw_images, draw_kronecker};

/// Random problems, each once as drawn and once aligned for vector loads.
const DRAWS: u64 = 1_500;
/// What a LoKr with a whole w2 has texts for.
const KRONECKER: [Operation; 5] = [
    Operation::Forward,
    Operation::BackwardInput,
    Operation::BackwardAdapter,
    Operation::Merge,
    Operation::Norm,
];
/// Sizes with and without tails, and one with several slabs of tokens.
const SIZES: [[usize; 3]; 8] = [
    [1, 64, 48],
    [3, 127, 9],
    [16, 64, 64],
    [17, 40, 130],
    [70, 36, 33],
    [130, 128, 70],
    [300, 64, 72],
    [700, 20, 12],
];

/// What a host may make of a device.
fn devices() -> Vec<WgpuCapabilities> {
    let mut devices = Vec::new();
    for (f16, shared_buffers, storage_params, adapter, subgroup, binding_bytes) in [
        (false, false, false, AdapterKind::Discrete, 0, 128 << 20),
        (true, false, false, AdapterKind::Hardware, 0, 128 << 20),
        (false, true, true, AdapterKind::Software, 4, 128 << 20),
        (true, false, false, AdapterKind::Software, 16, 128 << 20),
        // So small that weights take two windows, and tokens several bands.
        (false, false, false, AdapterKind::Software, 8, 8 << 10),
    ] {
        let mut device = WgpuCapabilities::default();
        device.f16 = f16;
        device.shared_buffers = shared_buffers;
        device.storage_params = storage_params;
        device.adapter = adapter;
        device.subgroup = subgroup;
        device.binding_bytes = binding_bytes;
        devices.push(device);
    }
    // What hosts ask for by name: matrices of either size.
    for cooperative in [8, 16] {
        let mut device = WgpuCapabilities::default();
        (device.f16, device.subgroup, device.cooperative) = (true, 32, cooperative);
        device.adapter = AdapterKind::Discrete;
        devices.push(device);
    }
    devices
}

/// The same problem with aligned operands.
fn aligned(problem: Problem) -> Problem {
    Operand::ALL.iter().copied().fold(problem, |problem, operand| {
        let Some(spec) = problem.spec(operand) else { return problem };
        let stride = Some(spec.stored().1.next_multiple_of(8));
        problem.with_layout(operand, Layout { major: spec.major, stride, align: 16 })
    })
}

/// The launches of every candidate that serves `problem`.
fn launches(problem: &Problem, device: &WgpuCapabilities) -> Vec<Launch> {
    let capabilities = Capabilities::Wgpu(*device);
    let plan = match Plan::new(problem, &capabilities) {
        Ok(plan) => plan,
        // A binding of 8 KiB is too small for some.
        Err(Error::Limit { .. }) if device.binding_bytes < 1 << 20 => return Vec::new(),
        Err(error) => panic!("{problem:?}\n{error}"),
    };
    let serves = |of: &Outcome| matches!(of, Outcome::Chosen(_) | Outcome::Slower(_));
    let serving = plan.candidates().iter().filter(|of| serves(&of.outcome));
    let mut launches = Vec::new();
    for of in serving {
        let choice = Choice { strategy: Some(of.strategy), preset: Some(of.preset.to_owned()) };
        let plan = Plan::choose(problem, &capabilities, &choice).unwrap();
        assert!(plan.workspace_len() as u64 <= device.binding_bytes, "{}", plan.explain());
        if problem.tokens() > 0 && !plan.launches().is_empty() {
            assert!(plan.flops() >= problem.flops(), "{}", plan.explain());
            assert!(plan.bytes() >= problem.bytes(), "{} {}", problem.bytes(), plan.explain());
        }
        for launch in plan.launches() {
            check_launch(launch, device);
        }
        launches.extend_from_slice(plan.launches());
    }
    launches
}

/// What the launch says of itself.
fn check_launch(launch: &Launch, device: &WgpuCapabilities) {
    let WgpuCapabilities { storage_params, storage_buffers, .. } = *device;
    let buffers = launch.bindings.len() as u32 + u32::from(storage_params);
    assert!(buffers <= storage_buffers, "{}: {buffers} storage buffers", launch.kernel);
    assert!(launch.grid.iter().all(|&groups| (1..=device.workgroups).contains(&groups)));
    assert!(launch.block.iter().product::<u32>() <= device.workgroup_threads);
    assert!(launch.params.len().is_multiple_of(16));
    for binding in &launch.bindings {
        assert_eq!(binding.operand.is_some(), binding.at.is_some());
        assert!(binding.at.is_none_or(|at| at as usize + 4 <= launch.params.len()));
    }
}

/// Parses, validates, and compares the text with what its launch says.
fn validate(text: &str, launch: &Launch, device: &WgpuCapabilities) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{}\n{text}", error.emit_to_string(text)));
    // Conversions of packed halves are part of WebGPU; the type f16 is not.
    let mut features = Features::SHADER_FLOAT16_IN_FLOAT32;
    features.set(Features::SHADER_FLOAT16, device.f16);
    features.set(Features::SUBGROUP, device.subgroup > 0);
    features.set(Features::COOPERATIVE_MATRIX, device.cooperative > 0);
    let info = Validator::new(ValidationFlags::all(), features)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}\n{text}", error.emit_to_string(text)));
    assert_eq!(module.entry_points.len(), 1);
    let entry = &module.entry_points[0];
    assert_eq!((entry.stage, &*entry.name), (ShaderStage::Compute, launch.kernel));
    assert_eq!(entry.workgroup_size, launch.block, "{}", launch.kernel);

    // Bindings are numbered as the launch lists them, the parameters come last.
    let mut storage = 0;
    let mut shared = 0;
    for (handle, global) in module.global_variables.iter() {
        let Some(binding) = &global.binding else {
            if !info.get_entry_point(0)[handle].is_empty() {
                shared += module.types[global.ty].inner.size(module.to_ctx());
            }
            continue;
        };
        assert_eq!(binding.group, 0);
        let at = binding.binding as usize;
        let written = match global.space {
            AddressSpace::Storage { access } => {
                storage += 1;
                access.contains(StorageAccess::STORE)
            }
            AddressSpace::Uniform => false,
            other => panic!("{other:?}"),
        };
        match launch.bindings.get(at) {
            Some(of) => {
                let writes = of.operand.is_none() || of.access != fused_lora::Access::Read;
                assert_eq!(written, writes || device.shared_buffers, "{:?}", of.operand);
            }
            None => {
                assert_eq!((at, written), (launch.bindings.len(), false));
                let size = module.types[global.ty].inner.size(module.to_ctx());
                assert_eq!(size as usize, launch.params.len(), "the parameter block");
            }
        }
    }
    assert!(storage <= device.storage_buffers, "{}: {storage} storage buffers", launch.kernel);
    assert!(shared <= launch.shared_bytes, "{}: {shared} bytes shared", launch.kernel);
    assert!(launch.shared_bytes <= device.workgroup_bytes);
    (module, info)
}

/// No vector in registers is indexed by what is not known before it runs: compilers put it into memory
/// to do that.
fn indexes_no_vector(module: &Module, info: &ModuleInfo, text: &str) {
    let check = |function: &naga::Function, info: &naga::valid::FunctionInfo| {
        for (_, of) in function.expressions.iter() {
            let naga::Expression::Access { base, .. } = of else { continue };
            let inner = info[*base].ty.inner_with(&module.types);
            assert!(
                !matches!(inner, naga::TypeInner::Vector { .. }),
                "{:?}:\n{text}",
                function.name
            );
        }
    };
    module.functions.iter().for_each(|(handle, of)| check(of, &info[handle]));
    check(&module.entry_points[0].function, info.get_entry_point(0));
}

fn translate(module: &Module, info: &ModuleInfo, entry: &str, checked: bool) {
    let has_matrices =
        |of: &naga::Type| matches!(of.inner, naga::TypeInner::CooperativeMatrix { .. });
    let cooperative = module.types.iter().any(|(_, of)| has_matrices(of));
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let policies = BoundsCheckPolicies {
        index: policy,
        buffer: policy,
        image_load: policy,
        binding_array: policy,
    };
    let options = spv::Options {
        lang_version: (1, 3),
        bounds_check_policies: policies,
        force_loop_bounding: checked,
        ..Default::default()
    };
    let of =
        spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
    let words = spv::write_vec(module, info, &options, Some(&of)).expect("SPIR-V");
    assert!(words.len() > 100);
    if cooperative {
        // wgpu has them on Vulkan and on Metal, and on Metal they are not trusted (`src/wgpu/cooperative.rs`).
        return;
    }
    let options = msl::Options {
        lang_version: (2, 4),
        bounds_check_policies: policies,
        force_loop_bounding: checked,
        ..Default::default()
    };
    let (text, _) = msl::write_string(module, info, &options, &Default::default()).expect("MSL");
    assert!(text.contains("kernel void"));
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        restrict_indexing: checked,
        force_loop_bounding: checked,
        ..Default::default()
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &Default::default())
        .write(module, info, None)
        .expect("HLSL");
    assert!(text.contains("numthreads"));
}

#[test]
fn every_rendering_is_valid_and_translates() {
    let mut texts: BTreeMap<String, &'static str> = BTreeMap::new();
    for device in devices() {
        // Of those with matrices only one kernel has other texts.
        let draws = if device.cooperative > 0 { DRAWS / 8 } else { DRAWS };
        for seed in 0..draws {
            let mut rng = StdRng::seed_from_u64(seed);
            let problem = draw(&mut rng, &SIZES);
            let (factors, gain) = (draw_factors(&mut rng), draw_gain(&mut rng));
            // Few texts, of many sizes.
            let whole = (seed < DRAWS / 20).then(|| draw_kronecker(&mut rng, &KRONECKER));
            let all = [problem, factors, gain];
            let images = (seed % 4 == 0).then(|| draw_images(&mut rng));
            let all = all.into_iter().chain(images).flat_map(|of| [of, aligned(of)]);
            for problem in all.chain(whole) {
                for launch in launches(&problem, &device) {
                    let source = launch.source.as_ref().expect("a text");
                    assert_eq!((source.language, source.entry), (Language::Wgsl, launch.kernel));
                    if texts.insert(source.text.to_string(), launch.kernel).is_none() {
                        let (module, info) = validate(&source.text, &launch, &device);
                        indexes_no_vector(&module, &info, &source.text);
                        translate(&module, &info, source.entry, seed % 2 == 0);
                    }
                }
            }
        }
    }
    let mut sizes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (text, kernel) in &texts {
        let (count, bytes) = sizes.entry(kernel).or_default();
        *count += 1;
        *bytes = text.len().max(*bytes);
    }
    for (kernel, (count, bytes)) in sizes {
        println!("  {kernel:<10} {count:>5} texts, the longest {bytes} bytes");
    }
    assert!(texts.len() > 500, "the sample is too narrow: {} texts", texts.len());
}

/// The same problem gives the same text, and sizes do not change it: what a cache holds
/// for one layer serves another.
#[test]
fn sizes_do_not_change_a_text() {
    let capabilities = Capabilities::Wgpu(WgpuCapabilities::default());
    let texts = |tokens, in_features, out_features| {
        let problem = Problem::forward(tokens, in_features, out_features, 16)
            .with_dtype(DType::Bf16)
            .with_bias(true);
        let choice = "two_pass/wide".parse().unwrap();
        let plan = Plan::choose(&problem, &capabilities, &choice).unwrap();
        let text = |launch: &Launch| launch.source.as_ref().unwrap().text.clone();
        plan.launches().iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts(64, 4096, 4096), texts(64, 1024, 14336));
    // Of the shrink's slices there are few different numbers.
    assert_eq!(texts(512, 4096, 4096), texts(4000, 1024, 14336));
    assert_eq!(texts(512, 4096, 4096).len(), 2);
}

/// A weight over the limit of a binding is bound in windows: where its rows are columns of the output
/// each is a dispatch, however many there are; where they are steps of the sum all are of one dispatch,
/// and beyond the buffers that a device has the weight is refused by name.
#[test]
fn a_large_weight_is_bound_in_windows() {
    let device = WgpuCapabilities::default();
    for operation in [Operation::Forward, Operation::BackwardInput] {
        for major in [fused_lora::Major::Row, fused_lora::Major::Col] {
            // 235 MB.
            let problem = Problem::new(operation, 64, 14336, 4096, 16)
                .with_layout(Operand::W, Layout { major, ..Layout::default() });
            let plan = Plan::new(&problem, &Capabilities::Wgpu(device)).unwrap();
            let launch = plan.launches().last().unwrap();
            let bindings = plan.launches().iter().flat_map(|of| &of.bindings);
            let windows = bindings.filter(|of| of.operand == Some(Operand::W));
            let windows: Vec<_> = windows.map(|of| of.rows.unwrap()).collect();
            let columns = (operation == Operation::Forward) == (major == fused_lora::Major::Row);
            let of_w = launch.bindings.iter().filter(|of| of.operand == Some(Operand::W));
            assert_eq!(of_w.count(), if columns { 1 } else { 2 }, "{}", plan.explain());
            let rows = problem.spec(Operand::W).unwrap().stored().0;
            assert_eq!(windows.len(), 2);
            assert_eq!((windows[0].0, windows[0].1), (0, windows[1].0));
            assert_eq!(windows[1].0 + windows[1].1, rows);
            validate(&launch.source.as_ref().unwrap().text, launch, &device);
        }
    }
    // The head of a language model, 1 GB.
    let head = Problem::forward(64, 4096, 128_256, 16).with_dtype(DType::Bf16);
    let plan = Plan::new(&head, &Capabilities::Wgpu(device)).unwrap();
    let launches = plan.launches().iter();
    let layers = launches.filter(|of| of.bindings.iter().any(|of| of.operand == Some(Operand::W)));
    assert_eq!(layers.count(), 8, "{}", plan.explain());
    let turned = Layout { major: fused_lora::Major::Col, ..Layout::default() };
    let problem = Problem::forward(64, 16384, 16384, 16).with_layout(Operand::W, turned);
    match Plan::new(&problem, &Capabilities::Wgpu(device)) {
        Err(Error::Limit { operand: Operand::W, got, .. }) => assert_eq!(got, 1 << 30),
        other => panic!("{other:?}"),
    }
}

/// Six texts are kept as they are, for readers and editors. `BLESS=1` writes them anew.
#[test]
fn rendered_texts_are_those_that_are_kept() {
    let forward = Problem::forward(512, 4096, 4096, 16).with_dtype(DType::Bf16).with_bias(true);
    let gradients = Problem::new(Operation::BackwardAdapter, 512, 4096, 4096, 16);
    let aligned = aligned(forward);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/rendered");
    for (problem, choice, kernel) in [
        (aligned, "two_pass/registers", "shrink"),
        (aligned, "two_pass/large", "partial_shrink"),
        (aligned, "two_pass/wide", "linear"),
        (aligned.with_dtype(DType::F16), "two_pass/cooperative", "cooperative"),
        (forward, "two_pass/decode", "decode"),
        (gradients.with_dtype(DType::F16), "direct/gradient", "gradient"),
    ] {
        let mut device = WgpuCapabilities::default();
        if kernel == "cooperative" {
            (device.f16, device.subgroup, device.cooperative) = (true, 32, 16);
        }
        let choice = choice.parse().unwrap();
        let plan = Plan::choose(&problem, &Capabilities::Wgpu(device), &choice).unwrap();
        let launch = plan.launches().iter().find(|of| of.kernel == kernel).unwrap();
        let text = &*launch.source.as_ref().unwrap().text;
        let path = folder.join(format!("{kernel}.wgsl"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{kernel}.wgsl differs: BLESS=1 cargo test --test kernels rendered");
        validate(text, launch, &device);
    }
}
