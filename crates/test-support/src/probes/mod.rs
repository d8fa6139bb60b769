//! Probes of the instructions that the kernels of `kernels/sm80` rest on: tiny kernels, a warp a CTA, whose
//! inputs are fixed. What they leave is kept in `vectors.txt`, whose head says whose it is: a card's,
//! as `tests/bundle/run --bring-up` brought it back, or, until there is one, the simulator's own.
//! `tests/kernels/probes.rs` replays it in the simulator.

mod inputs;
mod litmus;
mod vectors;

use ptx_sim::{Launch, Memory, MmaModel, Module, Options, run_launch};

pub use litmus::{BUSY, litmus};
pub use vectors::{SIMULATED, Vectors};

/// What an output is made of: NaNs of one type are alike, whatever their payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Byte,
    F32,
    F16,
    Bf16,
}

/// One kernel with its input.
#[derive(Debug, Clone)]
pub struct Probe {
    /// As the vectors have it.
    pub name: String,
    /// The whole module; its entry is `probe(from, to)`.
    pub text: String,
    /// CTAs of 32 threads, each with a part of input and output of its own.
    pub items: usize,
    /// All of it.
    pub input: Vec<u8>,
    /// Bytes that all items leave.
    pub output_len: usize,
    element: Element,
}

/// The entry point of every probe.
pub const ENTRY: &str = "probe";

/// What `mma.sync` multiplies in these kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// m16n8k16.
    Bf16,
    /// m16n8k16.
    F16,
    /// m16n8k8.
    Tf32,
}

impl Factor {
    /// All of them.
    pub const ALL: [Factor; 3] = [Factor::Bf16, Factor::F16, Factor::Tf32];

    /// As names of probes have it.
    pub const fn name(self) -> &'static str {
        match self {
            Factor::Bf16 => "bf16",
            Factor::F16 => "f16",
            Factor::Tf32 => "tf32",
        }
    }

    /// Products of one sum.
    pub const fn depth(self) -> usize {
        match self {
            Factor::Tf32 => 8,
            _ => 16,
        }
    }
}

impl Probe {
    /// Those that `vectors.txt` has, in its order.
    pub fn all() -> Vec<Probe> {
        let mut all = Vec::new();
        for (bytes, cache) in [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg")] {
            all.push(Probe::copy(bytes, cache));
        }
        for count in [1, 2, 4] {
            all.extend([false, true].map(|transposed| Probe::matrix(count, transposed)));
        }
        for factor in Factor::ALL {
            let (name, input) = (format!("one_hot_{}", factor.name()), inputs::one_hot(factor));
            all.push(Probe::multiply(&name, factor, input));
        }
        all.extend(Factor::ALL.map(|factor| Probe::random(factor, 16, 1)));
        let halves = inputs::halves();
        for (name, form, input, element) in [
            ("bf16x2", "cvt.rn.bf16x2.f32 z, x, y", inputs::singles(), Element::Bf16),
            ("f16x2", "cvt.rn.f16x2.f32 z, x, y", inputs::singles(), Element::F16),
            ("tf32", "cvt.rna.tf32.f32 z, x", inputs::singles(), Element::F32),
            ("from_f16", "cvt.f32.f16 z, half", halves, Element::F32),
        ] {
            all.push(Probe::convert(name, form, input, element));
        }
        all
    }

    /// `items` tiles of random numbers of many sizes.
    pub fn random(factor: Factor, items: usize, seed: u64) -> Probe {
        let name = format!("random_{}", factor.name());
        Probe::multiply(&name, factor, inputs::random(factor, items, seed))
    }

    /// The same tiles with every operand replaced by its absolute value: the sums of absolute values
    /// that a bound of the error is a part of.
    pub fn absolute(&self) -> Probe {
        // The signs of both halves; of a word that is one number, the lower is a bit of its fraction.
        let sign = if self.text.contains(".tf32.") { 0x7fff_ffff } else { 0x7fff_7fff };
        let mut probe = self.clone();
        for (at, word) in probe.input.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let sign = if at % 10 < 6 { sign } else { 0x7fff_ffff };
            *word = (u32::from_le_bytes(*word) & sign).to_le_bytes();
        }
        probe
    }

    fn copy(bytes: usize, cache: &str) -> Probe {
        let words = bytes / 4;
        let fill = lines(words, |at| format!("st.shared.b32 [at+{}], filled;", 4 * at));
        let store = lines(words, |at| {
            format!(
                "ld.shared.b32 word{at}, [at+{}]; st.global.b32 [target+{}], word{at};",
                4 * at,
                4 * at
            )
        });
        let text = include_str!("copy.ptx")
            .replace("BYTES", &bytes.to_string())
            .replace("CACHE", cache)
            .replace("FILL", &fill)
            .replace("STORE", &store);
        let name = format!("copy{bytes}_{cache}");
        Probe {
            name,
            text,
            items: 1,
            input: inputs::counting(512),
            output_len: 32 * bytes,
            element: Element::Byte,
        }
    }

    fn matrix(count: usize, transposed: bool) -> Probe {
        let form = format!("x{count}{}", if transposed { ".trans" } else { "" });
        let words: Vec<String> = (0..count).map(|at| format!("out{at}")).collect();
        let store = lines(count, |at| format!("st.global.b32 [target+{}], out{at};", 4 * at));
        let text = include_str!("matrix.ptx")
            .replace("FORM", &form)
            .replace("COUNT", &count.to_string())
            .replace("BYTES", &(4 * count).to_string())
            .replace("WORDS", &words.join(", "))
            .replace("STORE", &store);
        Probe {
            name: format!("matrix_{}", form.replace('.', "_")),
            text,
            items: 1,
            input: inputs::counting(512),
            output_len: 32 * 4 * count,
            element: Element::Byte,
        }
    }

    fn multiply(name: &str, factor: Factor, input: Vec<u8>) -> Probe {
        let (size, of) = (16 / factor.depth(), factor.name());
        let form = format!("m16n8k{}.row.col.f32.{of}.{of}.f32", 16 / size);
        let items = input.len() / (32 * 40);
        let text = include_str!("multiply.ptx").replace("FORM", &form);
        let (name, output_len) = (name.to_owned(), items * 32 * 16);
        Probe { name, text, items, input, output_len, element: Element::F32 }
    }

    fn convert(name: &str, form: &str, input: Vec<u8>, element: Element) -> Probe {
        let items = input.len() / (32 * 8);
        let text = include_str!("convert.ptx").replace("FORM", form);
        let (name, output_len) = (format!("convert_{name}"), items * 32 * 4);
        Probe { name, text, items, input, output_len, element }
    }

    /// What the simulator leaves, with every check on.
    ///
    /// # Errors
    /// Why it refuses the text, or ends the launch.
    pub fn simulate(&self, mma: MmaModel) -> Result<Vec<u8>, String> {
        let module = Module::parse(&self.name, &self.text).map_err(|error| error.to_string())?;
        let mut memory = Memory::new();
        let place = |memory: &mut Memory, len| memory.alloc(len).map_err(|error| error.to_string());
        let from = place(&mut memory, self.input.len())?;
        let to = place(&mut memory, self.output_len)?;
        memory.write(from, &self.input).map_err(|error| error.to_string())?;
        let launch = Launch::new(ENTRY, [self.items as u32, 1, 1], [32, 1, 1]).ptr(from).ptr(to);
        let options = Options { mma, ..Options::default() };
        run_launch(&module, &mut memory, &launch, &options).map_err(|error| error.to_string())?;
        memory.read(to, self.output_len).map_err(|error| error.to_string())
    }

    /// The elements, at most `most` of them, in which two outputs differ, each with item, lane and both
    /// values; and how many do.
    pub fn differences(&self, got: &[u8], expected: &[u8], most: usize) -> (usize, Vec<String>) {
        let size = match self.element {
            Element::Byte => 1,
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
        };
        let (item, mut count, mut told) = (self.output_len / self.items, 0, Vec::new());
        for (at, (one, two)) in got.chunks(size).zip(expected.chunks(size)).enumerate() {
            if one == two || (self.is_nan(one) && self.is_nan(two)) {
                continue;
            }
            count += 1;
            if told.len() < most {
                let (byte, lane) = (at * size, at * size % item / (item / 32));
                told.push(format!(
                    "{} item {} lane {lane} byte {}: {}, expected {}",
                    self.name,
                    byte / item,
                    byte % (item / 32),
                    hex(one),
                    hex(two),
                ));
            }
        }
        (count + got.len().abs_diff(expected.len()), told)
    }

    fn is_nan(&self, bytes: &[u8]) -> bool {
        match (self.element, bytes) {
            (Element::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).is_nan(),
            (Element::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).is_nan(),
            (Element::Bf16, &[a, b]) => half::bf16::from_le_bytes([a, b]).is_nan(),
            _ => false,
        }
    }
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().join("\n    ")
}

/// The lowest byte last.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
