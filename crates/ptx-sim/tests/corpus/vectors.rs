//! The file of what GPUs gave: a line for each probe. Written by the recorder, read by the replay.

use super::probes::Probe;

#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) gpu: String,
    pub(crate) hash: u64,
    pub(crate) words: Vec<u32>,
}

/// Of text and input: a probe that was changed has to be recorded anew.
pub(crate) fn hash(p: &Probe) -> u64 {
    let bytes = p.text.bytes().chain(p.input.iter().copied());
    bytes.fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

pub(crate) fn line(p: &Probe, gpu: &str, words: &[u32]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("{w:x}")).collect();
    format!("{} = {gpu} = {:016x} = {}", p.name, hash(p), words.join(" "))
}

/// # Errors
/// The first line that is malformed, or that no hardware gave.
pub(crate) fn parse(text: &str) -> Result<Vec<Vector>, String> {
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|l| {
            let parts: Vec<&str> = l.split(" = ").collect();
            let [name, gpu, hash, words] = parts[..] else { return Err(format!("malformed: {l}")) };
            if gpu.starts_with("ptx-sim") {
                return Err(format!("`{name}` was recorded on a simulated GPU"));
            }
            let number = |w: &str| u32::from_str_radix(w, 16).map_err(|e| format!("{w}: {e}"));
            Ok(Vector {
                name: name.into(),
                gpu: gpu.into(),
                hash: u64::from_str_radix(hash, 16).map_err(|e| format!("{hash}: {e}"))?,
                words: words.split(' ').map(number).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}
