//! The file of vectors: whose they are, and a line for each item of each probe. Read and written by
//! `tests/kernels/probes.rs` and by the bring-up of a card.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Probe;

/// Whose vectors they are as long as no card has left any.
pub const SIMULATED: &str = "ptx-sim";

const HEAD: &str = "\
# What the probes of crates/test-support/src/probes leave: a line an item, bytes in the order of memory.
# A card's come back from `run --bring-up` as probes.txt, and take this file's place.
";
/// Stands before whose they are.
const MARK: &str = "# of: ";

/// Outputs by the probe's name, and who left them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vectors {
    /// [`SIMULATED`], or a card and its driver.
    pub of: String,
    outputs: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Vectors {
    /// Nothing yet.
    pub fn new(of: &str) -> Vectors {
        Vectors { of: of.to_owned(), outputs: BTreeMap::new() }
    }

    /// The committed ones.
    pub fn committed() -> Vectors {
        include_str!("vectors.txt").parse().unwrap_or_else(|error| panic!("vectors.txt: {error}"))
    }

    /// Keeps what `probe` left.
    pub fn keep(&mut self, probe: &Probe, output: &[u8]) {
        let items = output.chunks(probe.output_len / probe.items).map(<[u8]>::to_vec).collect();
        self.outputs.insert(probe.name.clone(), items);
    }

    /// What `probe` left.
    pub fn output(&self, probe: &Probe) -> Option<Vec<u8>> {
        self.outputs.get(&probe.name).map(|items| items.concat())
    }

    /// The probes of which there is something.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.outputs.keys().map(String::as_str)
    }
}

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}{MARK}{}", self.of)?;
        for (name, items) in &self.outputs {
            for item in items {
                write!(f, "{name} ")?;
                item.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Vectors {
    type Err = String;

    fn from_str(text: &str) -> Result<Vectors, String> {
        let of = text.lines().find_map(|line| line.strip_prefix(MARK));
        let mut vectors = Vectors::new(of.ok_or("no line says whose they are")?);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let wrong = || format!("`{line}` is no line of a probe");
            let (name, hex) = line.split_once(' ').ok_or_else(wrong)?;
            let digit = |at: usize| {
                let byte = hex.get(2 * at..2 * at + 2)?;
                u8::from_str_radix(byte, 16).ok()
            };
            let item: Option<Vec<u8>> = (0..hex.len() / 2).map(digit).collect();
            vectors.outputs.entry(name.to_owned()).or_default().push(item.ok_or_else(wrong)?);
        }
        Ok(vectors)
    }
}
