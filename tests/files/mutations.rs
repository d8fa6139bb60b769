//! Real and foreign adapter files, damaged at random from a seed: read or refused, but never a panic, never
//! memory by a number that the file only claims, never slow; and what is read can be written and
//! read again. A second or two here; a minute in CI:
//!
//!     FUSED_LORA_MUTATE_SECONDS=60 cargo test --features files --test files mutations -- --nocapture
//!
//! A failure names its seed; `FUSED_LORA_MUTATE_SEED=n` runs that one alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use fused_lora::Error;
use fused_lora::files::{Module, StateDict};
use fused_lora::peft::{AdapterFile, CONFIG_FILE, MODEL_FILE};
use serde_json::json;

use super::delta::delta;
use super::files::{config, model, modules};
use super::memory::measured;
use super::{corpus, golden_files, layouts};

/// A node of a tree of modules, in files that are smaller than that.
const NODE: usize = 4 << 10;
/// A compiled pattern has a size of its own, which the crate bounds.
const AUTOMATON: usize = 2 << 20;
/// Of one pair of files, of this thread alone.
const SLOW: Duration = Duration::from_secs(5);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// The files that are damaged: what PEFT saved, what it did not, and a large one.
fn seeds() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seeds: Vec<_> = corpus::expected().keys().map(|name| corpus::files(name)).collect();
    seeds.push(golden_files());
    let read = |path: &std::path::Path, name| std::fs::read(path.join(name)).unwrap();
    let folders = layouts::folders().into_iter();
    seeds.extend(folders.map(|(_, path)| (read(&path, MODEL_FILE), read(&path, CONFIG_FILE))));
    let paths: Vec<String> =
        (0..300).map(|i| format!("model.layers.{}.mlp.w{}", i / 3, i % 3)).collect();
    let keys: serde_json::Value = paths.iter().map(|path| (path.clone(), json!(1))).collect();
    let fields = json!({"target_modules": paths, "rank_pattern": keys, "alpha_pattern": keys});
    seeds.push((modules(paths.iter().map(String::as_str)), config(&fields)));
    let kohya = model(&[
        ("lora_unet_fc.lora_down.weight", "F16", &[1, 3]),
        ("lora_unet_fc.lora_up.weight", "F16", &[3, 1]),
    ]);
    seeds.push((kohya, config(&json!({}))));
    let state_dicts = layouts::state_dicts().into_iter();
    seeds.extend(state_dicts.map(|(_, file)| (file, config(&json!({})))));
    seeds.push((
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(),
        config(&json!({})),
    ));
    seeds
}

/// Texts that have a meaning in one of the two files.
const WORDS: &[&str] = &[
    "0",
    "1",
    "-1",
    "4294967296",
    "18446744073709551615",
    "1e999",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "[1]",
    "\"a\"",
    "NaN",
    ".*",
    "(",
    ")",
    "(?=",
    "(?i)",
    "\\\\1",
    "\\\\d",
    "\\\\w+",
    "{1,9}",
    "{9999}",
    "[^",
    "|",
    "$",
    "^",
    "*",
    "+",
    "?",
    ".",
    "\\n",
    "\\u00e9",
    "q_proj",
    "v_proj",
    "layers",
    "lora_A",
    "lora_B",
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora_mid.weight",
    ".hada_w1_a",
    ".hada_t1",
    ".lokr_w1",
    ".lokr_w2_b",
    ".lokr_t2",
    ".dora_scale",
    ".alpha",
    "lora_magnitude_vector",
    "\"__metadata__\":{\"lora_adapter_metadata\":\"{}\"},",
    "\"LOHA\"",
    "\"LOKR\"",
    "\"shape\":[10,6,3,3]",
    "\"shape\":[2,2,3,3]",
    "\"shape\":[]",
    ".weight",
    ".default",
    "base_model.model.",
    "_orig_mod.",
    "score",
    "lm_head",
    "\"target_modules\": ",
    "\"exclude_modules\": ",
    "\"layers_to_transform\": ",
    "\"layers_pattern\": ",
    "\"modules_to_save\": ",
    "\"rank_pattern\": ",
    "\"alpha_pattern\": ",
    "\"init_lora_weights\": ",
    "\"F32\"",
    "\"BF16\"",
    "\"I64\"",
    "\"data_offsets\"",
    "all-linear",
    "\"shape\":[0]",
    "\"shape\":[9223372036854775807,2]",
];

/// One to six changes of either file.
fn mutate(random: &mut Random, seeds: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    let mut files: [Vec<u8>; 2] = {
        let (model, config) = &seeds[random.below(seeds.len())];
        [model.clone(), config.clone()]
    };
    let which = random.below(4);
    // One alone in half of the cases: more leave little to read.
    for _ in 0..1 + random.below(2) * random.below(6) {
        // One file in most cases, both in some.
        let file = &mut files[if which < 3 { which % 2 } else { random.below(2) }];
        if file.is_empty() {
            continue;
        }
        // Most changes go into the first kilobytes: the header; the data may be anything.
        let near = file.len().min(4096);
        let end = if random.below(4) == 0 { file.len() } else { near };
        let at = random.below(end);
        let len = random.below(40).min(file.len() - at);
        match random.below(9) {
            0 => file[at] ^= 1 << random.below(8),
            1 => file[at] = random.next() as u8,
            2 => drop(file.drain(at..at + len)),
            3 => {
                let again = file[at..at + len].to_vec();
                file.splice(at..at, again);
            }
            4 => drop(file.splice(at..at, random.of(WORDS).bytes())),
            5 => drop(file.splice(at..at + len, random.of(WORDS).bytes())),
            6 => {
                // A number, a string or a name: up to the next sign of JSON.
                let signs = b",:]}\"";
                let until = file[at..].iter().position(|byte| signs.contains(byte)).unwrap_or(0);
                drop(file.splice(at..at + until, random.of(WORDS).bytes()));
            }
            7 => {
                let (model, config) = &seeds[random.below(seeds.len())];
                let other = if random.below(2) == 0 { model } else { config };
                let from = random.below(other.len());
                let part = &other[from..other.len().min(from + random.below(200))];
                file.splice(at..at, part.iter().copied());
            }
            _ => file.truncate(at),
        }
    }
    // The header's length follows its text in half of the cases, so that damage behind it is met too.
    let [mut model, config] = files;
    if random.below(2) == 0
        && let Some(end) = model.windows(3).rposition(|of| of == b"]}}")
        && end >= 5
    {
        let len = end + 3 - 8;
        model[..8].copy_from_slice(&(len as u64).to_le_bytes());
    }
    (model, config)
}

/// Whether a module that was read is whole: no size but those of its tensors.
fn whole(path: &str, module: &Module) {
    assert!(module.scale.is_finite(), "{path}");
    let (n, k) = (module.out_features(), module.in_features());
    // A small file can stand for a large ΔW.
    if n.saturating_mul(k).saturating_mul(module.rank().max(1)) < 1 << 22 {
        assert_eq!(delta(module).len(), n * k, "{path}");
    }
    let weights = [vec![n, k], vec![n, k / 9, 3, 3], vec![n, k, 1, 1], vec![n, k / 3, 3]];
    for weight in weights {
        let _ = module.clone().for_weight(&weight);
    }
    if module.inner_rank().saturating_mul(n.saturating_add(k)) < 1 << 18 {
        let _ = module.to_lora();
    }
}

/// The same file as one of another layout, in a word.
fn other_outcome(file: &[u8]) -> &'static str {
    let start = ThreadTime::now();
    let (read, memory) = measured(|| StateDict::from_bytes(file));
    assert!(start.elapsed() < SLOW, "{:?}", start.elapsed());
    assert!(memory.largest <= file.len().max(AUTOMATON), "{memory:?} for {} bytes", file.len());
    match read {
        Ok(read) => {
            for (name, module) in &read.modules {
                whole(name, module);
            }
            let written = read.to_bytes().expect("what is read can be written");
            assert!(StateDict::from_bytes(&written).expect("and read again") == read);
            "read"
        }
        Err(Error::Adapter { reason, .. }) => {
            assert!(!reason.is_empty() && reason.len() < 2000, "{} bytes", reason.len());
            "refused"
        }
        Err(other) => panic!("{other}"),
    }
}

/// What became of it, in a word.
fn outcome(model: &[u8], config: &[u8], over: &mut usize) -> &'static str {
    let start = ThreadTime::now();
    let (read, memory) = measured(|| AdapterFile::from_bytes(model, config));
    let took = start.elapsed();
    assert!(took < SLOW, "{took:?}");
    let size = model.len() + config.len();
    *over += usize::from(memory.largest > size.max(NODE));
    assert!(memory.largest <= size.max(AUTOMATON), "{memory:?} for files of {size} bytes");
    match read {
        Ok(file) => {
            for (path, module) in &file.modules {
                whole(path, module);
            }
            let (model, config) = file.to_bytes().expect("what is read can be written");
            let again = AdapterFile::from_bytes(&model, &config).expect("and read again");
            assert!(again == file, "read, written and read again: another adapter");
            "read"
        }
        Err(Error::Adapter { path, reason }) => {
            assert!(!reason.is_empty() && reason.len() < 2000, "{} bytes", reason.len());
            match &*path {
                MODEL_FILE => "tensors refused",
                CONFIG_FILE => "configuration refused",
                other => panic!("{other}"),
            }
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn mutations_of_the_corpus_are_read_or_refused() {
    let variable = |name| std::env::var(name).ok().map(|of| of.parse::<u64>().unwrap());
    let seconds = variable("FUSED_LORA_MUTATE_SECONDS").unwrap_or(2);
    let only = variable("FUSED_LORA_MUTATE_SEED");
    let seeds = seeds();
    let foreign = 2 + layouts::state_dicts().len();
    for (at, (model, config)) in seeds.iter().enumerate() {
        // Whole: PEFT's are read, those of other layouts and the pointer refused; and the other way round.
        let own = at + foreign < seeds.len();
        let expected = if own { "read" } else { "tensors refused" };
        assert_eq!(outcome(model, config, &mut 0), expected, "seed file {at}");
        let other = !own && at + 1 < seeds.len();
        assert_eq!(other_outcome(model), if other { "read" } else { "refused" }, "seed file {at}");
    }
    let (start, mut outcomes, mut over) = (Instant::now(), BTreeMap::new(), 0);
    let mut others = BTreeMap::new();
    let mut seed = only.unwrap_or(0);
    loop {
        let (model, config) = mutate(&mut Random(seed), &seeds);
        let both = || (outcome(&model, &config, &mut over), other_outcome(&model));
        match catch_unwind(AssertUnwindSafe(both)) {
            Ok((outcome, other)) => {
                *outcomes.entry(outcome).or_insert(0) += 1;
                *others.entry(other).or_insert(0) += 1;
            }
            Err(_) => panic!("FUSED_LORA_MUTATE_SEED={seed}"),
        }
        seed += 1;
        if only.is_some() || (seed % 64 == 0 && start.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    println!("{seed} pairs of files in {:.0} s: {outcomes:?}", start.elapsed().as_secs_f64());
    println!("the first of them as a file of another layout: {others:?}");
    println!("a single allocation larger than the two files, for a pattern: {over}");
    // Each way is gone often enough to mean something.
    let often = |outcome| outcomes.get(outcome).copied().unwrap_or(0) * 40 > seed;
    let read = others.get("read").copied().unwrap_or(0);
    assert!(only.is_some() || read * 40 > seed);
    assert!(
        only.is_some()
            || ["read", "tensors refused", "configuration refused"].into_iter().all(often)
    );
}
