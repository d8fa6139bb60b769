//! The templates of `kernels/`, and what every one of them knows: its text's numbers, and by
//! name the fields of the parameter blocks and of the workspace's header. Called by build.rs.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior, context};

use crate::abi::{self, Block};
use crate::check;
use crate::embedded::like;
use crate::key;
use crate::numbers::{Kind, Tile};
use crate::text::Text;

/// Every template, under its path below `kernels/`; `marked` with its lines.
pub(crate) fn templates(marked: bool) -> Result<Environment<'static>, Box<dyn Error>> {
    let mut jinja = Environment::new();
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    jinja.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    let mut folders = vec![PathBuf::from("kernels")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == "ptx") {
                let name = path.strip_prefix("kernels")?.to_string_lossy().replace('\\', "/");
                let source = fs::read_to_string(&path)?;
                let source = if marked { check::with_marks(&name, &source) } else { source };
                jinja.add_template_owned(name, source)?;
            }
        }
    }
    block::<abi::Linear>(&mut jinja, "linear");
    block::<abi::Segment>(&mut jinja, "segment");
    block::<abi::Window>(&mut jinja, "window");
    block::<abi::Tapped>(&mut jinja, "tapped");
    block::<abi::Pack>(&mut jinja, "pack");
    block::<abi::Job>(&mut jinja, "job");
    block::<abi::Gradient>(&mut jinja, "gradient");
    block::<abi::Product>(&mut jinja, "product");
    block::<abi::Decode>(&mut jinja, "decode");
    block::<abi::Contract>(&mut jinja, "contract");
    block::<abi::Norm>(&mut jinja, "norm");
    block::<abi::BackwardGain>(&mut jinja, "backward_gain");
    block::<abi::Header>(&mut jinja, "header");
    jinja.add_global("segments", abi::SEGMENTS);
    jinja.add_global("jobs", abi::JOBS);
    jinja.add_global("products", abi::PRODUCTS);
    jinja.add_global("stored_f32", abi::STORED_F32);
    jinja.add_global("stored_bf16", abi::STORED_BF16);
    Ok(jinja)
}

/// `name.field.at` and `name.field.type`, and `name.bytes`, in every template.
fn block<T: Block>(jinja: &mut Environment<'_>, name: &'static str) {
    let place = |at: usize, ptx: &str| context! { at, type => ptx };
    let fields = T::FIELDS.iter().map(|of| (of.name, place(of.offset, of.ptx)));
    let bytes = [("bytes", Value::from(size_of::<T>()))];
    let all: BTreeMap<&str, Value> = fields.chain(bytes).collect();
    jinja.add_global(name, Value::from_pairs(all));
}

/// The text as it is written, marks included.
pub(crate) fn render(jinja: &Environment<'_>, text: &Text) -> Result<String, minijinja::Error> {
    let of = &text.numbers;
    // A kind's name that is none is undefined, and fails.
    let kinds = Kind::ALL.iter().map(|kind| (kind.name(), *kind == of.kind));
    let more: BTreeMap<&str, usize> = text.more.iter().copied().collect();
    jinja.get_template(text.template)?.render(context! {
        name => text.name.as_str(),
        kind => Value::from_pairs(kinds),
        entry => of.kind.entry(),
        dtype => of.dtype.to_string(),
        adapter => of.adapter.to_string(),
        tf32 => of.tile == Tile::Tf32,
        pair => of.pair,
        k_major => of.k_major,
        aligned => of.aligned,
        gathers => of.gathers,
        walks => of.walks,
        ranks => of.ranks,
        tokens => of.rows,
        columns => of.columns,
        depth => of.depth,
        stages => of.stages,
        threads => of.threads,
        resident => of.resident,
        ..Value::from_pairs(more)
    })
}

/// The text as the library embeds it: its name's line, and code without indentation, comments, rules and the
/// spaces behind commas and semicolons, which are a fifth of all texts. Lines stay where they are, for the
/// driver's messages.
pub(crate) fn embedded(text: &str) -> String {
    let line = |(at, line): (usize, &str)| {
        let line = line.trim_start();
        let code = match at {
            // What the text is called.
            0 => line,
            _ => line.split("//").next().unwrap_or_default(),
        };
        format!("{}\n", code.trim_end().replace(", ", ",").replace("; ", ";"))
    };
    text.lines().enumerate().map(line).collect()
}

/// The other text that one can be told by, and the lines in which it is not what `like` makes of that.
fn differs<'a>(
    name: &str,
    text: &'a str,
    all: &BTreeMap<&str, &'a str>,
) -> Option<(String, Vec<(usize, &'a str)>)> {
    let other = name.split('_').map(|word| if word == "f16" { "bf16" } else { word });
    let other = other.collect::<Vec<_>>().join("_");
    let from = all.get(&*other).filter(|_| other != name && !name.contains("bf16"))?;
    let made = like(from, []);
    let lines: Vec<_> = text.lines().enumerate().zip(made.lines()).collect();
    let lines: Vec<_> =
        lines.into_iter().filter(|((_, line), made)| line != made).map(|(of, _)| of).collect();
    let bytes: usize = lines.iter().map(|(_, line)| line.len()).sum();
    let is_told = bytes < text.len() / 2 && like(from, lines.iter().copied()) == text;
    is_told.then_some((other, lines))
}

/// The Rust source of the table: a slice of texts, each with its key, for each kind, in the order of
/// `Kind::ALL`; before it those that are embedded whole.
pub(crate) fn table(texts: &[Text], all: &[String]) -> String {
    let named: BTreeMap<&str, &str> =
        texts.iter().map(|of| &*of.name).zip(all.iter().map(|of| &**of)).collect();
    let mut rust = String::new();
    let constant = |name: &str| format!("TEXT_{}", name.to_uppercase());
    let embedded = |name: &str| match differs(name, named[name], &named) {
        None => format!("Embedded::Whole({})", constant(name)),
        Some((other, lines)) => {
            format!("Embedded::Like {{ other: {}, lines: &{lines:?} }}", constant(&other))
        }
    };
    for (name, text) in &named {
        if differs(name, text, &named).is_none() {
            rust += &format!(
                "const {}: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\"));\n",
                constant(name)
            );
        }
    }
    let mut slices = Vec::new();
    for kind in Kind::ALL {
        let of = texts.iter().filter(|text| text.numbers.kind == *kind);
        let row = |text: &Text| {
            // The names of its enums are in scope where the table is included.
            let Text { name, numbers, .. } = text;
            let (key, text) = (key::of(named[&**name]), embedded(name));
            format!("    Variant::new(\"{name}\", {numbers:?}, {key:#x}, {text}),\n")
        };
        let rows: Vec<String> = of.map(row).collect();
        let static_name = kind.name().to_uppercase();
        rust +=
            &format!("static {static_name}: [Variant; {}] = [\n{}];\n", rows.len(), rows.concat());
        slices.push(format!("&{static_name}"));
    }
    rust + &format!(
        "pub(super) static ALL: [&[Variant]; {}] = [{}];\n",
        slices.len(),
        slices.join(", ")
    )
}

/// Where the build writes a text, and the library embeds it from.
pub(crate) fn file(out: &Path, name: &str) -> PathBuf {
    out.join(format!("{name}.ptx"))
}
