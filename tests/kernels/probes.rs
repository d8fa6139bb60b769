//! The committed vectors of `test_support::probes`, replayed in the simulator; renewed by
//! `FUSED_LORA_PROBES_BLESS=1 cargo test --test kernels probes::` as long as they are its own. And both
//! assemblers' word that a card will take the probes.

use super::gate;
use ptx_sim::{Launch, Memory, MmaModel, Module, Options, Schedule, run_launch};
use test_support::probes::{BUSY, Factor, Probe, SIMULATED, Vectors, litmus};

const FILE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/crates/test-support/src/probes/vectors.txt");
const MODELS: [MmaModel; 3] = [MmaModel::Exact, MmaModel::Ampere, MmaModel::Hopper];

fn simulated(probe: &Probe, mma: MmaModel) -> Vec<u8> {
    probe.simulate(mma).unwrap_or_else(|error| panic!("{}: {error}\n{}", probe.name, probe.text))
}

/// The models that leave what the vectors have of every random tile: one of a card's, the exact one of
/// the simulator's own.
fn models_of(vectors: &Vectors) -> Vec<MmaModel> {
    let equals = |model: &MmaModel| {
        Probe::all().iter().filter(|probe| probe.name.starts_with("random")).all(|probe| {
            let committed = vectors.output(probe).unwrap_or_default();
            probe.differences(&simulated(probe, *model), &committed, 0).0 == 0
        })
    };
    MODELS.into_iter().filter(equals).collect()
}

#[test]
fn committed_vectors_are_what_the_simulator_leaves() {
    if std::env::var_os("FUSED_LORA_PROBES_BLESS").is_some() {
        assert_eq!(
            Vectors::committed().of,
            SIMULATED,
            "a card's vectors are not the simulator's to renew"
        );
        let mut vectors = Vectors::new(SIMULATED);
        for probe in Probe::all() {
            vectors.keep(&probe, &simulated(&probe, MmaModel::Exact));
        }
        std::fs::write(FILE, vectors.to_string()).unwrap();
        return;
    }
    let vectors = Vectors::committed();
    let names: Vec<&str> = vectors.names().collect();
    let mut missing: Vec<String> = Probe::all().into_iter().map(|probe| probe.name).collect();
    missing.retain(|name| !names.contains(&name.as_str()));
    assert!(missing.is_empty() && names.len() == Probe::all().len(), "no vectors of {missing:?}");
    let mut wrong = Vec::new();
    for probe in Probe::all().iter().filter(|probe| !probe.name.starts_with("random")) {
        let (got, committed) = (simulated(probe, MmaModel::Exact), vectors.output(probe).unwrap());
        wrong.extend(probe.differences(&got, &committed, 4).1);
    }
    assert!(wrong.is_empty(), "vectors of {}:\n{}", vectors.of, wrong.join("\n"));
    let models = models_of(&vectors);
    println!("random tiles of {}: as {models:?}", vectors.of);
    match vectors.of.as_str() {
        SIMULATED => assert_eq!(models, [MmaModel::Exact]),
        card => assert!(!models.is_empty(), "no model has the sums of {card}"),
    }
}

/// A bit of a copy, a place of a fragment, a rounding: each shows.
#[test]
fn what_differs_is_told() {
    for (name, said) in [("copy8_ca", "lane 0 byte 0"), ("convert_bf16x2", "item 0 lane 0 byte 0")]
    {
        let probe = Probe::all().into_iter().find(|probe| probe.name == name).unwrap();
        let expected = simulated(&probe, MmaModel::Exact);
        let mut other = expected.clone();
        other[0] ^= 1;
        let (count, told) = probe.differences(&other, &expected, 1);
        assert_eq!((count, told.len()), (1, 1));
        assert!(told[0].contains(said) && told[0].starts_with(name), "{told:?}");
    }
    let probe = Probe::all().into_iter().find(|probe| probe.name == "convert_bf16x2").unwrap();
    let expected = simulated(&probe, MmaModel::Exact);
    // Another payload is no difference.
    let nan = expected.chunks(2).position(|of| of == 0x7fff_u16.to_le_bytes()).expect("a NaN");
    let mut other = expected.clone();
    other[2 * nan] = 0xc0;
    assert_eq!(probe.differences(&other, &expected, 1).0, 0);
    // The models differ in some random tile of each type, or its vectors could not tell them apart.
    for factor in Factor::ALL {
        let probe = Probe::random(factor, 16, 1);
        let [exact, ampere, hopper] = MODELS.map(|model| simulated(&probe, model));
        assert!(exact != ampere && exact != hopper && ampere != hopper, "{factor:?}");
    }
}

/// One that is hot in each register, lane and half: D is a row of B, and C beside it.
#[test]
fn one_hot_tiles_are_rows_of_b() {
    for factor in Factor::ALL {
        let name = format!("one_hot_{}", factor.name());
        let probe = Probe::all().into_iter().find(|probe| probe.name == name).unwrap();
        let left = simulated(&probe, MmaModel::Exact);
        let words: Vec<f32> =
            left.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        // Eight rows of eight of sixteen are hit; the integers of B are below 128.
        for tile in words.chunks(128) {
            let hit = tile.iter().enumerate().filter(|(at, d)| **d != (at % 4) as f32).count();
            assert!((56..=64).contains(&hit), "{name}: {hit} words");
        }
    }
}

#[test]
fn assemblers_take_the_probes() {
    gate::assembles(Probe::all().iter().map(|probe| (probe.name.as_str(), probe.text.as_str())));
    gate::assembles(litmus().iter().map(|(name, text)| (name.as_str(), text.as_str())));
    gate::assembles([("busy", BUSY)]);
}

/// Every form brings data behind its flag, on machines that differ in order; one that does not raise it
/// behind a fence is a race.
#[test]
fn flags_bring_what_they_guard() {
    let texts = litmus();
    for (name, text) in &texts {
        for (seed, schedule) in
            [(1, Schedule::Random), (2, Schedule::Reverse), (3, Schedule::RoundRobin)]
        {
            let wrong = passed(name, text, Options { schedule, seed, ..Options::default() });
            assert_eq!(wrong, Ok(vec![0, 0]), "{name}, {schedule:?}");
        }
    }
    let unfenced = texts[1].1.replace("fence.acq_rel.gpu;", "");
    let said = passed("unfenced", &unfenced, Options::default()).expect_err("a race");
    assert!(said.contains("Race"), "{said}");
}

/// Two pairs on two multiprocessors; their counts of wrong words.
fn passed(name: &str, text: &str, options: Options) -> Result<Vec<u32>, String> {
    let module = Module::parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut memory = Memory::new();
    let [mail, flags, wrong] = [4096, 512, 8].map(|len| memory.alloc(len).unwrap());
    memory.write(mail, &[0; 4096]).unwrap();
    memory.write(flags, &[0; 512]).unwrap();
    let launch = Launch::new("litmus", [4, 1, 1], [128, 1, 1]);
    let launch = launch.ptr(mail).ptr(flags).ptr(wrong).u32(5);
    run_launch(&module, &mut memory, &launch, &options).map_err(|error| error.to_string())?;
    let read = memory.read(wrong, 8).unwrap();
    Ok(read.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
