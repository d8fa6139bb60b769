//! The conformance corpus on the simulator: every probe runs under all orders and gives one result; where a
//! real GPU has been asked the result is the GPU's. Prints the forms that no hardware has confirmed.

mod common;
#[path = "corpus/probes.rs"]
#[allow(dead_code)] // the recorder uses more of it
mod probes;
#[path = "corpus/vectors.rs"]
#[allow(dead_code)]
mod vectors;

#[path = "../../../tests/kernels/gate/tools.rs"]
#[allow(dead_code)] // the gate in the root package uses all of it
mod tools;

use std::collections::{BTreeMap, BTreeSet};

use common::hopper::all_orders;
use probes::{Probe, Tensor};
use ptx_sim::{
    Launch, Memory, MmaModel, Module, Options, Swizzle, TensorMap, TensorType, run_launch,
};

fn map(tensor: &Tensor, address: u64) -> [u8; 128] {
    let ty = if tensor.element == 2 { TensorType::Bf16 } else { TensorType::F32 };
    let swizzle = match tensor.swizzle {
        32 => Swizzle::B32,
        64 => Swizzle::B64,
        128 => Swizzle::B128,
        _ => Swizzle::None,
    };
    let map = TensorMap::dense(ty, address, &tensor.dims, &tensor.boxes).swizzled(swizzle);
    map.encode().expect("the limits are kept")
}

fn run(p: &Probe, options: &Options) -> Vec<u32> {
    let module = Module::parse("probe.ptx", &p.text)
        .unwrap_or_else(|e| panic!("{}: {e}\n{}", p.name, p.text));
    let mut memory = Memory::new();
    let input = memory.alloc(p.input.len()).unwrap();
    memory.write(input, &p.input).unwrap();
    let out = memory.alloc(4 * p.words).unwrap();
    let bytes = match &p.tensor {
        Some(tensor) => map(tensor, if tensor.out { out } else { input }),
        None => [0; 128],
    };
    let launch = Launch::new("f", [1, 1, 1], [p.threads, 1, 1]).shared(p.shared);
    let launch = launch.ptr(out).ptr(input).bytes(&bytes);
    // Tensor cores round as the H100's do.
    let options = Options { mma: MmaModel::Hopper, ..*options };
    run_launch(&module, &mut memory, &launch, &options)
        .unwrap_or_else(|e| panic!("{}: {e}\n{}", p.name, p.text));
    let bytes = memory.read(out, 4 * p.words).unwrap_or_else(|e| panic!("{}: {e}", p.name));
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn the_simulator_agrees_with_itself_and_with_every_gpu_that_was_asked() {
    let probes = probes::all();
    let mut recorded: BTreeMap<String, Vec<vectors::Vector>> = BTreeMap::new();
    for v in vectors::parse(include_str!("corpus/vectors.txt")).unwrap() {
        recorded.entry(v.name.clone()).or_default().push(v);
    }
    let (mut open, mut wrong, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for p in &probes {
        assert!(names.insert(p.name.clone()), "two probes are called `{}`", p.name);
        let mut results = all_orders().into_iter().map(|o| run(p, &o));
        let words = results.next().unwrap();
        assert!(results.all(|other| other == words), "`{}` depends on the order", p.name);
        let fitting: Vec<_> = recorded
            .get(&p.name)
            .into_iter()
            .flatten()
            .filter(|v| v.hash == vectors::hash(p))
            .collect();
        if fitting.is_empty() {
            open.push(p.name.as_str());
        }
        for v in fitting {
            if let Some(at) = words.iter().zip(&v.words).position(|(a, b)| a != b) {
                let (here, there) = (words[at], v.words[at]);
                wrong.push(format!("{}: word {at} is {here:#x}, on {} {there:#x}", p.name, v.gpu));
            }
        }
    }
    let strangers: Vec<&String> = recorded.keys().filter(|name| !names.contains(*name)).collect();
    assert!(strangers.is_empty(), "no probe is called so: {strangers:?}");
    println!("{} of {} probes have not been confirmed by hardware:", open.len(), probes.len());
    open.iter().for_each(|name| println!("  {name}"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_recorded_result_that_differs_is_noticed() {
    let p = &probes::all()[0];
    let words = run(p, &all_orders()[0]);
    let line = vectors::line(p, "some GPU", &words);
    let read = vectors::parse(&format!("# comment\n{line}\n")).unwrap();
    assert_eq!((read.len(), &read[0].words, read[0].hash), (1, &words, vectors::hash(p)));
    assert!(vectors::parse("a = b = c").is_err());
    let simulated = vectors::parse(&vectors::line(p, "ptx-sim sm_90", &words)).unwrap_err();
    assert!(simulated.contains("simulated"), "{simulated}");
}

/// What no assembler takes could be recorded by nobody.
#[test]
fn every_probe_assembles() {
    let Some(tools) = tools::Tools::find() else { return };
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut wrong = Vec::new();
    for (i, p) in probes::all().iter().enumerate() {
        let target = p.text.lines().find_map(|l| l.strip_prefix(".target ")).expect("a target");
        let file = dir.join(format!("probe-{i}.ptx"));
        std::fs::write(&file, &p.text).unwrap();
        let run = std::process::Command::new(&tools.newest.path)
            .args([&format!("-arch={target}"), "-o"])
            .args([&file.with_extension("cubin"), &file])
            .output()
            .unwrap();
        if !run.status.success() {
            wrong.push(format!("{}: {}", p.name, String::from_utf8_lossy(&run.stderr)));
        }
        let _ = std::fs::remove_file(&file);
        let _ = std::fs::remove_file(file.with_extension("cubin"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
