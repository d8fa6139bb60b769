//! Renders the PTX templates of `kernels/` into `OUT_DIR`, and beside them one Rust file with
//! the list of texts and the places of every parameter. Nothing else: no network, no program,
//! the same bytes everywhere. Read by `src/plan/cuda/texts.rs`.
//!
//! The variants are a list; what is not listed does not exist.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

#[path = "build/check.rs"]
mod check;

use check::Check;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};

/// Depth of one step of `linear`.
const DEPTH: usize = 32;

/// A tile of `linear`, and how its CTA is cut into warps: two rows of warps, `warp_columns`
/// columns, each warp `m_tiles` × `n_tiles` fragments of 16 × 8.
struct Tile {
    name: &'static str,
    m_tiles: usize,
    n_tiles: usize,
    warp_columns: usize,
    stages: usize,
    /// CTAs that a multiprocessor should hold: what ptxas divides the registers by.
    resident: usize,
}

/// Most reuse: 84 KiB with 64 ranks, so that it fits the 99 KiB of sm_86 and sm_89.
const LARGE: Tile =
    Tile { name: "large", m_tiles: 4, n_tiles: 8, warp_columns: 4, stages: 3, resident: 1 };
/// For grids that large tiles would leave empty.
const SMALL: Tile =
    Tile { name: "small", m_tiles: 2, n_tiles: 4, warp_columns: 2, stages: 5, resident: 2 };

/// Rows of the list: which kernel, how it loads, on which tile, with how many ranks in its
/// main loop. Each is rendered for both types and both majors.
struct Row {
    kind: &'static str,
    aligned: bool,
    tile: &'static Tile,
    ranks: usize,
}

const fn row(kind: &'static str, tile: &'static Tile, ranks: usize) -> Row {
    Row { kind, aligned: true, tile, ranks }
}

const LINEAR: &[Row] = &[
    row("plain", &LARGE, 0),
    row("plain", &SMALL, 0),
    row("leader", &LARGE, 16),
    row("leader", &LARGE, 32),
    row("leader", &LARGE, 64),
    row("leader", &SMALL, 16),
    row("leader", &SMALL, 64),
    row("recompute", &LARGE, 16),
    row("recompute", &LARGE, 32),
    row("recompute", &LARGE, 64),
    row("recompute", &SMALL, 16),
    row("recompute", &SMALL, 64),
    // Up to 64 ranks of an adapter in two parts.
    row("leader", &LARGE, 128),
    row("leader", &SMALL, 128),
    row("recompute", &SMALL, 128),
    row("shrink", &SMALL, 0),
    row("merge", &SMALL, 0),
    Row { kind: "plain", aligned: false, tile: &SMALL, ranks: 0 },
    Row { kind: "shrink", aligned: false, tile: &SMALL, ranks: 0 },
];

/// Depth of one step of the kernels for f32: rows of 64 bytes, as in 16 bits.
const DEPTH_F32: usize = 16;

/// A tile of `linear` for f32: `warp_rows` rows of two warps, each 32 × `32 · n_quads`.
struct TileF32 {
    name: &'static str,
    warp_rows: usize,
    n_quads: usize,
    stages: usize,
    resident: usize,
}

/// Eight by eight sums a thread; its ring twice fits the 100 KiB of sm_86 and sm_89.
const LARGE_F32: TileF32 =
    TileF32 { name: "large", warp_rows: 4, n_quads: 2, stages: 3, resident: 2 };
/// The same with ranks, which take registers. The border of 64 is four steps, and so many the
/// ring must hold.
const LEADER_F32: TileF32 =
    TileF32 { name: "large", warp_rows: 4, n_quads: 2, stages: 4, resident: 1 };
const SMALL_F32: TileF32 =
    TileF32 { name: "small", warp_rows: 2, n_quads: 1, stages: 4, resident: 3 };
/// The one tile that rounds to tf32 and takes the tensor cores.
const TF32: TileF32 = TileF32 { name: "tf32", warp_rows: 4, n_quads: 2, stages: 3, resident: 2 };

/// The texts of `linear` for f32, each in both majors: kind, whether it loads 16 bytes at a
/// time, tile, ranks. A shrink and a merge are `plain` with a factor.
const LINEAR_F32: &[(&str, bool, &TileF32, usize)] = &[
    ("plain", true, &LARGE_F32, 0),
    ("plain", true, &SMALL_F32, 0),
    ("plain", false, &SMALL_F32, 0),
    ("leader", true, &LEADER_F32, 16),
    ("leader", true, &LEADER_F32, 64),
    ("leader", true, &SMALL_F32, 16),
    ("leader", true, &SMALL_F32, 64),
    ("recompute", true, &SMALL_F32, 16),
    ("plain", true, &TF32, 0),
    ("leader", true, &TF32, 16),
];

/// Products that one launch of `linear` can add up: `x·wᵀ`, then borders.
const SEGMENTS: usize = 4;

/// The parameter block of `linear`: names and bytes, in order.
const LINEAR_PARAMS: &[(&str, usize)] = &[
    ("y", 8),
    ("y_offset", 8),
    ("bias", 8),
    ("down", 8),
    ("down_offset", 8),
    ("shrunk", 8),
    ("shrunk_offset", 8),
    ("header", 8),
    ("y_stride", 4),
    ("down_stride", 4),
    ("shrunk_stride", 4),
    ("tokens", 4),
    ("wide", 4),
    ("columns", 4),
    ("rank", 4),
    ("down_rows", 4),
    ("adapter_parts", 4),
    ("part", 4),
    ("parts", 4),
    ("keep", 4),
    ("vectors", 4),
    ("scale", 4),
    ("beta", 4),
    ("segments", 4),
    ("main_steps", 4),
    ("border_steps", 4),
    ("tile_rows", 4),
    ("tile_columns", 4),
    ("band", 4),
    ("y_bytes", 4),
];

/// One entry of the table of segments behind it.
const SEGMENT_PARAMS: &[(&str, usize)] = &[
    ("x", 8),
    ("x_offset", 8),
    ("w", 8),
    ("w_offset", 8),
    ("x_stride", 4),
    ("w_stride", 4),
    ("depth", 4),
    ("pad", 4),
];

/// Matrices that one launch of `pack` converts.
const JOBS: usize = 2;

/// One entry of the parameter block of `pack`.
const JOB_PARAMS: &[(&str, usize)] = &[
    ("from", 8),
    ("to", 8),
    ("high_offset", 8),
    ("low_offset", 8),
    ("outer_stride", 8),
    ("inner_stride", 8),
    ("outer", 4),
    ("inner", 4),
    ("rows", 4),
    ("padded", 4),
    ("pitch", 4),
    ("low", 4),
];

/// Columns of a tile of `gradient`, its ring and the ranks of its texts.
const GRADIENT_COLUMNS: usize = 128;
const GRADIENT_STAGES: usize = 4;
const GRADIENT_RANKS: [usize; 2] = [16, 64];

/// The parameter block of `gradient`.
const GRADIENT_PARAMS: &[(&str, usize)] = &[
    ("header", 8),
    ("slabs", 8),
    ("slabs_offset", 8),
    ("tokens", 4),
    ("rank", 4),
    ("part", 4),
    ("parts", 4),
    ("splits", 4),
    ("span", 4),
    ("partials", 4),
    ("tickets", 4),
    ("beta", 4),
    ("stored", 4),
];

/// One entry of the table of products behind it.
const PRODUCT_PARAMS: &[(&str, usize)] = &[
    ("t", 8),
    ("z", 8),
    ("out", 8),
    ("rank_stride", 8),
    ("column_stride", 8),
    ("t_stride", 4),
    ("z_stride", 4),
    ("columns", 4),
    ("column_tiles", 4),
    ("tiles", 4),
    ("pad", 4),
];

/// `decode`: its ring, shared bytes for the adapter's warp, most warps, and where the counters
/// of strips begin in the header.
const DECODE_STAGES: usize = 3;
const DECODE_ASIDE: usize = 24 << 10;
const DECODE_WARPS: usize = 9;
const COUNTERS: usize = 60 << 10;

/// The parameter block of `decode`.
const DECODE_PARAMS: &[(&str, usize)] = &[
    ("x", 8),
    ("w", 8),
    ("y", 8),
    ("bias", 8),
    ("down", 8),
    ("down_offset", 8),
    ("up", 8),
    ("up_offset", 8),
    ("shrunk", 8),
    ("header", 8),
    ("parts", 8),
    ("slots", 8),
    ("x_stride", 4),
    ("w_stride", 4),
    ("y_stride", 4),
    ("down_stride", 4),
    ("up_stride", 4),
    ("shrunk_stride", 4),
    ("tokens", 4),
    ("deep", 4),
    ("wide", 4),
    ("rank", 4),
    ("part", 4),
    ("precise", 4),
    ("scale", 4),
    ("beta", 4),
    ("steps", 4),
    ("share", 4),
    ("extra", 4),
    ("shrinks", 4),
    ("span", 4),
    ("y_bytes", 4),
];

/// Offsets of the fields, naturally aligned, and the block's length.
fn places(fields: &[(&'static str, usize)]) -> (Vec<(&'static str, usize)>, usize) {
    let mut end = 0usize;
    let mut out = Vec::new();
    for &(name, bytes) in fields {
        let at = end.next_multiple_of(bytes);
        end = at + bytes;
        out.push((name, at));
    }
    (out, end.next_multiple_of(8))
}

fn constants(rust: &mut String, module: &str, places: &[(&str, usize)], len: usize) {
    let _ = writeln!(rust, "pub(crate) mod {module} {{");
    for (name, at) in places.iter().filter(|(name, _)| *name != "pad") {
        let _ = writeln!(rust, "    pub(crate) const {}: usize = {at};", name.to_uppercase());
    }
    let _ = writeln!(rust, "    pub(crate) const LEN: usize = {len};\n}}");
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=kernels");
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    let mut check = Check::from_env()?;
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    jinja.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    let mut folders = vec![Path::new("kernels").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == "ptx") {
                let name = path.strip_prefix("kernels")?.to_string_lossy().replace('\\', "/");
                let mut source = fs::read_to_string(&path)?;
                if check.is_some() {
                    source = check::with_marks(&name, &source);
                }
                jinja.add_template_owned(name, source)?;
            }
        }
    }

    let (linear, linear_len) = places(LINEAR_PARAMS);
    let (segment, segment_len) = places(SEGMENT_PARAMS);
    let (job, job_len) = places(JOB_PARAMS);
    let (gradient, gradient_len) = places(GRADIENT_PARAMS);
    let (product, product_len) = places(PRODUCT_PARAMS);
    let (decode, decode_len) = places(DECODE_PARAMS);
    let mut rust = String::new();
    constants(&mut rust, "linear_at", &linear, linear_len + SEGMENTS * segment_len);
    constants(&mut rust, "segment_at", &segment, segment_len);
    constants(&mut rust, "job_at", &job, job_len);
    constants(&mut rust, "gradient_at", &gradient, gradient_len + 2 * product_len);
    constants(&mut rust, "product_at", &product, product_len);
    constants(&mut rust, "decode_at", &decode, decode_len);
    let _ = writeln!(rust, "pub(crate) const COUNTERS: usize = {COUNTERS};");
    let _ = writeln!(rust, "pub(crate) const DECODE_ASIDE: usize = {DECODE_ASIDE};");
    let _ = writeln!(rust, "pub(crate) const PRODUCT_TABLE: usize = {gradient_len};");
    let _ = writeln!(rust, "pub(crate) const JOBS: usize = {JOBS};");
    let _ = writeln!(rust, "pub(crate) const SEGMENT_TABLE: usize = {linear_len};");
    let mut texts = String::new();
    let mut count = 0;

    let at = |places: &[(&'static str, usize)]| {
        places.iter().copied().collect::<std::collections::BTreeMap<_, _>>()
    };
    for row in LINEAR {
        let Row { kind, aligned, tile, ranks } = *row;
        let Tile { m_tiles, n_tiles, warp_columns, stages, resident, .. } = *tile;
        let (tokens, columns) = (2 * 16 * m_tiles, 8 * n_tiles * warp_columns);
        let threads = 64 * warp_columns;
        // Rows of 32 elements of two bytes: x, w, and the ranks in the main loop.
        let stage = (tokens + columns + ranks) * DEPTH * 2;
        let shared = (stages * stage).max(tokens * columns * 2);
        let entry = if matches!(kind, "shrink" | "merge") { kind } else { "linear" };
        for dtype in ["bf16", "f16"] {
            for turned in [false, true] {
                let mut name = format!("{kind}_{}", tile.name);
                if ranks > 0 {
                    let _ = write!(name, "_r{ranks}");
                }
                let _ = write!(name, "_{dtype}");
                name.push_str(if turned { "_turned" } else { "" });
                name.push_str(if aligned { "" } else { "_unaligned" });
                let text = jinja.get_template("sm80/linear.ptx")?.render(context! {
                    name => name.as_str(), entry, kind, aligned, dtype, turned, ranks, m_tiles, n_tiles,
                    warp_columns, stages, resident, threads, stage, tokens, columns,
                    at => at(&linear),
                    segment => at(&segment),
                    segments => SEGMENTS,
                    segment_table => linear_len,
                    segment_len,
                    params_len => linear_len + SEGMENTS * segment_len,
                })?;
                write(&mut check, out, &name, text)?;
                count += 1;
                let _ = writeln!(
                    texts,
                    "    Text {{ entry: \"{entry}\", kind: \"{kind}\", \
                     tile_name: \"{}\", dtype: \"{dtype}\", turned: {turned}, \
                     aligned: {aligned}, ranks: {ranks}, threads: {threads}, \
                     shared_bytes: {shared}, tile: [{tokens}, {columns}, {DEPTH}], \
                     stages: {stages}, resident: {resident}, \
                     text: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\")), shared: OnceLock::new() }},",
                    tile.name,
                );
            }
        }
    }
    for &(kind, aligned, tile, ranks) in LINEAR_F32 {
        let TileF32 { name: tile_name, warp_rows, n_quads, stages, resident } = *tile;
        let (tokens, columns, threads) = (32 * warp_rows, 64 * n_quads, 64 * warp_rows);
        let stage = (tokens + columns + ranks) * DEPTH_F32 * 4;
        for turned in [false, true] {
            let mut name = format!("{kind}_{tile_name}");
            if ranks > 0 {
                let _ = write!(name, "_r{ranks}");
            }
            name.push_str("_f32");
            name.push_str(if turned { "_turned" } else { "" });
            name.push_str(if aligned { "" } else { "_unaligned" });
            let text = jinja.get_template("sm80/linear_f32.ptx")?.render(context! {
                name => name.as_str(), kind, aligned, turned, ranks, warp_rows, n_quads,
                tf32 => tile_name == "tf32",
                stages, resident, threads, stage, tokens, columns,
                at => at(&linear),
                segment => at(&segment),
                segment_table => linear_len,
                segment_len,
                params_len => linear_len + SEGMENTS * segment_len,
            })?;
            write(&mut check, out, &name, text)?;
            count += 1;
            let _ = writeln!(
                texts,
                "    Text {{ entry: \"linear\", kind: \"{kind}\", \
                 tile_name: \"{tile_name}\", dtype: \"f32\", turned: {turned}, \
                 aligned: {aligned}, ranks: {ranks}, threads: {threads}, \
                 shared_bytes: {}, tile: [{tokens}, {columns}, {DEPTH_F32}], \
                 stages: {stages}, resident: {resident}, \
                 text: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\")), shared: OnceLock::new() }},",
                stages * stage,
            );
        }
    }
    for (dtype, depth, bytes) in [("bf16", DEPTH, 2), ("f16", DEPTH, 2), ("f32", DEPTH_F32, 4)] {
        for (ranks, aligned) in GRADIENT_RANKS.into_iter().flat_map(|of| [(of, true), (of, false)])
        {
            let (columns, stages, threads) = (GRADIENT_COLUMNS, GRADIENT_STAGES, 128);
            let (stage, resident) = ((columns + ranks) * depth * bytes, 3);
            let mut name = format!("gradient_r{ranks}_{dtype}");
            name.push_str(if aligned { "" } else { "_unaligned" });
            let text = jinja.get_template("sm80/gradient.ptx")?.render(context! {
                name => name.as_str(), aligned, dtype, depth, ranks, columns, stages, threads,
                stage, resident,
                at => at(&gradient),
                product => at(&product),
                product_table => gradient_len,
                product_len,
                params_len => gradient_len + 2 * product_len,
            })?;
            write(&mut check, out, &name, text)?;
            count += 1;
            let _ = writeln!(
                texts,
                "    Text {{ entry: \"gradient\", kind: \"gradient\", \
                 tile_name: \"\", dtype: \"{dtype}\", turned: false, \
                 aligned: {aligned}, ranks: {ranks}, threads: {threads}, \
                 shared_bytes: {}, tile: [{ranks}, {columns}, {depth}], \
                 stages: {stages}, resident: {resident}, \
                 text: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\")), shared: OnceLock::new() }},",
                stages * stage,
            );
        }
    }
    for dtype in ["bf16", "f16", "f32"] {
        for from in ["f32", "bf16", "f16"] {
            let name = format!("pack_{from}_{dtype}");
            let threads = 256;
            let text = jinja.get_template("sm80/pack.ptx")?.render(context! {
                name => name.as_str(), dtype, from, threads, job => at(&job), job_len, jobs => JOBS,
            })?;
            write(&mut check, out, &name, text)?;
            count += 1;
            let _ = writeln!(
                texts,
                "    Text {{ entry: \"pack\", kind: \"pack\", \
                 tile_name: \"{from}\", dtype: \"{dtype}\", turned: false, aligned: false, \
                 ranks: 0, threads: {threads}, shared_bytes: 0, tile: [0, 0, 0], stages: 0, \
                 resident: 1, \
                 text: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\")), shared: OnceLock::new() }},",
            );
        }
    }
    let types = [("bf16", "bf16"), ("bf16", "f32"), ("f16", "f16"), ("f16", "f32"), ("f32", "f32")];
    for (dtype, adapter) in types {
        for turned in [false, true] {
            // A strip of w and a step of the sum: a warp's share of a stage is 4 KiB of w, as
            // chunks of 16 bytes a lane, and behind it x of sixteen tokens.
            let (strip, depth) = match (dtype, turned) {
                ("f32", _) => (32, 32),
                (_, false) => (32, 64),
                (_, true) => (64, 32),
            };
            let (halves, groups, tiles) = (depth / 32, strip / 32, strip / 16);
            // Nine warps leave each 168 registers, eight 255: what the sums of f32 take.
            let warps = if dtype == "f32" { DECODE_WARPS - 1 } else { DECODE_WARPS };
            let (stages, threads) = (DECODE_STAGES, 32 * warps);
            let stage = 4096 + 16 * depth * if dtype == "f32" { 4 } else { 2 };
            // Words of eight tokens' sums, as the kernel scatters them.
            let tile_words = match (dtype, turned) {
                ("f32", _) => 256,
                (_, false) => 260,
                (_, true) => 544,
            };
            let red = 2 * tile_words * 4;
            // Eight chunks of four elements a lane, and x beside each two or four.
            let wide_adapter = adapter != dtype;
            let four = if wide_adapter { 16 } else { 8 };
            let aside_stage = 8 * 32 * four + if turned { 1024 } else { 2048 };
            let aside_stages = DECODE_ASIDE / aside_stage;
            let mut name = format!("decode_{dtype}");
            name.push_str(if wide_adapter { "_f32" } else { "" });
            name.push_str(if turned { "_turned" } else { "" });
            let template = if dtype == "f32" { "sm80/decode_f32.ptx" } else { "sm80/decode.ptx" };
            let text = jinja.get_template(template)?.render(context! {
                name => name.as_str(), dtype, turned, wide_adapter, strip, depth, halves, groups,
                tiles, stages, threads, stage, tile_words, red, aside_stage, aside_stages,
                aside => DECODE_ASIDE,
                counters => COUNTERS,
                at => at(&decode),
                params_len => decode_len,
            })?;
            write(&mut check, out, &name, text)?;
            count += 1;
            // A warp that streams: its ring and its sums.
            let shared = stages * stage + red;
            let _ = writeln!(
                texts,
                "    Text {{ entry: \"decode\", kind: \"decode\", \
                 tile_name: \"{adapter}\", dtype: \"{dtype}\", turned: {turned}, \
                 aligned: true, ranks: 64, threads: {threads}, \
                 shared_bytes: {shared}, tile: [16, {strip}, {depth}], \
                 stages: {stages}, resident: 1, \
                 text: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\")), shared: OnceLock::new() }},",
            );
        }
    }
    let _ = writeln!(rust, "pub(crate) static TEXTS: [Text; {count}] = [\n{texts}];");
    fs::write(out.join("cuda_texts.rs"), rust)?;
    if let Some(Err(refused)) = check.map(|check| check.run()) {
        refused.lines().for_each(|line| println!("cargo::error={line}"));
        return Err("ptxas refuses what kernels/ renders".into());
    }
    Ok(())
}

/// A text into the folder that the library embeds from.
fn write(
    check: &mut Option<Check>,
    out: &Path,
    name: &str,
    mut text: String,
) -> Result<(), Box<dyn Error>> {
    if let Some(check) = check {
        text = check.add(out, name, &text)?;
    }
    Ok(fs::write(out.join(format!("{name}.ptx")), text)?)
}
