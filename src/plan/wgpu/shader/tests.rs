//! What the files of `shaders/` say of themselves: every name that one uses is its own, a word of
//! the language, or on its list of needs; and a need that nothing meets is an error by name.

use std::collections::BTreeSet;

use super::params::{Field, Params};
use super::part::{Part, Words};
use super::parts::{chosen, found, kernels};
use super::*;
use crate::Error;

/// What a text may use without saying so.
const LANGUAGE: &str = "
    fn struct return if else for let var const alias true false function workgroup compute
    u32 f32 f16 bool vec2 vec3 vec4 mat4x4 array ptr atomic
    workgroup_size builtin workgroup_id local_invocation_id subgroup_invocation_id subgroup_id
    coop_mat8x8 coop_mat16x16 A B C coopLoad coopLoadT coopStoreT coopMultiplyAdd
    select min max clamp fma sqrt bitcast transpose unpack2x16float subgroupShuffle workgroupBarrier
    atomicLoad atomicAnd atomicOr
";

fn all() -> impl Iterator<Item = &'static Part> {
    let all = kernels::ALL.iter().chain(chosen::ALL).chain(found::ALL);
    all.map(|part| &***part)
}

/// The file's text with its words in their places.
fn text(part: &Part) -> String {
    let mut text = String::new();
    part.render(&mut text, &words(), |_| true);
    text
}

/// Each word stands for itself.
fn words() -> Words {
    Words::new([
        (Word::Name, "NAME"),
        (Word::Buffer, "BUFFER"),
        (Word::DType, "DTYPE"),
        (Word::Left, "LEFT"),
        (Word::Right, "RIGHT"),
        (Word::Out, "OUT"),
    ])
}

/// The names in a text without its comments, in order: identifiers, parameters as `p.name`, and no
/// components of other values.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let mut begins = 0;
        while let Some(at) = code[begins..].find(|of: char| of.is_ascii_alphabetic()) {
            let from = begins + at;
            let is_name = |of: char| of.is_ascii_alphanumeric() || of == '_';
            let len = code[from..].find(|of| !is_name(of)).unwrap_or(code.len() - from);
            let (before, name) = (&code[..from], &code[from..from + len]);
            begins = from + len;
            // `16u`, `1.0f`, `0x8000u`.
            if before.ends_with(|of: char| of.is_ascii_digit()) {
                continue;
            }
            match before.strip_suffix('.') {
                None => names.push(name.to_owned()),
                Some(of) if of.ends_with('p') && !of[..of.len() - 1].ends_with(is_name) => {
                    names.push(format!("p.{name}"));
                }
                Some(_) => {}
            }
        }
    }
    names
}

/// Names that the text declares, at whatever place.
fn declared(text: &str) -> BTreeSet<String> {
    let mut declared = BTreeSet::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let code = code.replace("var<workgroup>", "var");
        let words: Vec<&str> = code
            .split(|of: char| !(of.is_ascii_alphanumeric() || of == '_' || of == ':'))
            .filter(|of| !of.is_empty())
            .collect();
        for pair in words.windows(2) {
            if ["fn", "let", "var", "const", "alias", "struct"].contains(&pair[0]) {
                declared.insert(pair[1].trim_end_matches(':').to_owned());
            }
        }
        // Parameters of functions.
        declared.extend(words.iter().filter_map(|of| of.strip_suffix(':')).map(str::to_owned));
    }
    declared
}

#[test]
fn every_part_says_what_it_needs_and_gives() {
    let language: BTreeSet<&str> = LANGUAGE.split_whitespace().collect();
    for part in all() {
        let (text, words) = (text(part), words());
        let gives: BTreeSet<_> = part.gives().iter().map(|of| of.rendered(&words)).collect();
        let needs: BTreeSet<_> = part.needs(&words, |_| true).into_iter().collect();
        let declared = declared(&text);
        let used: BTreeSet<_> = names(&text).into_iter().collect();
        assert!(!gives.is_empty(), "{} gives nothing", part.name);
        for name in &used {
            // `p` itself stands before each parameter.
            let known = name == "p" || declared.contains(name) || language.contains(&**name);
            assert!(
                known || needs.contains(name),
                "{}: uses {name} and does not need it",
                part.name
            );
        }
        for need in &needs {
            assert!(used.contains(need), "{}: needs {need} and does not use it", part.name);
            assert!(!gives.contains(need), "{}: needs and gives {need}", part.name);
        }
        for name in &gives {
            assert!(declared.contains(name), "{}: gives {name} and has none", part.name);
        }
        // What stands at the outermost level is seen by every other part.
        let outermost = |line: &&str| {
            ["fn ", "const ", "alias ", "var<workgroup> "].iter().any(|of| line.starts_with(of))
        };
        for line in text.lines().filter(outermost) {
            let name = super::tests::declared(line).into_iter().find(|name| {
                let at = line.find(&**name).unwrap_or(usize::MAX);
                at == line.find(' ').map_or(0, |space| space + 1)
            });
            let name = name.unwrap_or_else(|| panic!("{}: {line}", part.name));
            let alone = !all()
                .any(|of| of.name != part.name && names(&super::tests::text(of)).contains(&name));
            assert!(gives.contains(&name) || alone, "{}: gives {name}, unsaid", part.name);
        }
    }
}

/// Every name is given by one part, except where one of several is chosen.
#[test]
fn names_are_given_once() {
    for part in found::ALL {
        for name in part.gives().iter().map(|of| of.rendered(&words())) {
            let others = all().filter(|of| of.name != part.name);
            let again = others.filter(|of| of.giving(&name).is_some()).map(|of| of.name);
            assert_eq!(again.collect::<Vec<_>>(), [""; 0], "{name} of {}", part.name);
        }
    }
}

#[test]
fn lines_are_short() {
    for part in all() {
        for line in text(part).lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", part.name);
        }
    }
}

#[test]
fn an_unmet_need_is_an_error_by_name() {
    let wgpu = WgpuCapabilities::default();
    let shader = Shader::new(&wgpu);
    let size = Size { grid: [1; 3], block: [1; 3], smem_bytes: 0 };
    let Err(Error::Rejected { reason, .. }) = shader.launch(&kernels::SHRINK, size) else {
        panic!()
    };
    assert_eq!(reason, "no part gives `TILE_TOKENS`, which `shrink` needs");

    // A part of a part.
    let mut shader = Shader::new(&wgpu);
    shader.constant("THREADS", 64);
    shader.uint("groups_x", 1);
    shader.uint("da_rows", 1);
    shader.beta(Old::Replaced, Scalars { scale: 1.0, beta: 0.0 });
    shader.condition("da", true);
    let Err(Error::Rejected { reason, .. }) = shader.launch(&kernels::SUM, size) else { panic!() };
    assert_eq!(reason, "no part gives `da_old`, which `sum_slabs` needs");
}

#[test]
fn what_is_not_there_renders_nothing() {
    let part = Part::new(
        "test",
        "// needs: a\n// needs: b_LEFT // where bias\n// gives: f\n\nfn f() {\n    a();\n    b_LEFT(); // where bias and kept\n}\n",
    );
    let words = Words::new([(Word::Left, "x")]);
    let render = |has: &[&str]| {
        let mut text = String::new();
        part.render(&mut text, &words, |name| has.contains(&name));
        (text, part.needs(&words, |name| has.contains(&name)))
    };
    let (text, needs) = render(&["bias", "kept"]);
    assert!(text.contains("b_x(); // where bias and kept\n"), "{text}");
    assert_eq!(needs, ["a", "b_x"]);
    let (text, needs) = render(&["bias"]);
    assert_eq!(
        text,
        "// needs: a\n// needs: b_x // where bias\n// gives: f\n\nfn f() {\n    a();\n}\n"
    );
    assert_eq!(needs, ["a", "b_x"]);
    assert_eq!(render(&[]).1, ["a"]);
}

/// The declaration and the places come from one list.
#[test]
fn parameters_lie_where_the_text_says() {
    let mut params = Params::default();
    let fields = [
        ("unused", Field::Uint),
        ("x", Field::Matrix),
        ("tokens", Field::Uint),
        ("scale", Field::Float),
        ("y", Field::Matrix),
    ];
    fields.into_iter().for_each(|(name, field)| params.add(name.to_owned(), field));
    assert!(["tokens", "scale", "x", "y"].iter().all(|name| params.need(name)));
    assert!(!params.need("z"));
    let mut text = String::new();
    let (len, places) = params.render(&mut text);
    assert_eq!(places, [None, Some(16), Some(0), Some(4), Some(32)]);
    assert_eq!(params.place(&places, "y"), Some(32));
    assert_eq!((params.place(&places, "unused"), params.place(&places, "z")), (None, None));
    let matrix = Matrix { offset: 1, stride: 2, last_row: 3, last_col: 4 };
    let values = [
        Value::Uint(9),
        Value::Matrix(matrix),
        Value::Uint(5),
        Value::Float(1.5),
        Value::Matrix(Matrix { stride: usize::MAX, ..matrix }),
    ];
    let mut bytes = vec![0; len];
    for (value, at) in values.into_iter().zip(places) {
        at.into_iter().for_each(|at| value.write(&mut bytes[at as usize..]));
    }
    let words: Vec<u32> =
        bytes.chunks(4).map(|of| u32::from_le_bytes(of.try_into().unwrap())).collect();
    assert_eq!(words, [5, 1.5f32.to_bits(), 0, 0, 1, 2, 3, 4, 1, u32::MAX, 3, 4]);
    let want = "\
// A stored matrix, in elements: where it begins in its binding, from row to row, its last ones.
struct Matrix {
    offset: u32,
    stride: u32,
    last_row: u32,
    last_col: u32,
}
struct Params {
    tokens: u32,
    scale: f32,
    @align(16) x: Matrix,
    @align(16) y: Matrix,
}
";
    assert_eq!(text, want);
}

/// A form is rendered once, whatever its values; another form is another text.
#[test]
fn equal_forms_share_a_text() {
    let wgpu = WgpuCapabilities::default();
    let launch = |threads, tokens| {
        let mut shader = Shader::new(&wgpu);
        shader.constant("THREADS", threads);
        for (name, value) in [("groups_x", tokens), ("da_rows", 0), ("db_rows", 0)] {
            shader.uint(name, value);
        }
        shader.beta(Old::Beta, Scalars { scale: 1.0, beta: 0.5 });
        let size = Size { grid: [1; 3], block: [1; 3], smem_bytes: 0 };
        shader.launch(&kernels::SUM, size).unwrap()
    };
    let text = |launch: &Launch| launch.source.clone().unwrap();
    let (one, two, other) = (launch(64, 5), launch(64, 6), launch(32, 5));
    assert!(std::sync::Arc::ptr_eq(&text(&one).text, &text(&two).text));
    assert_ne!(one.params, two.params);
    assert_ne!(text(&one), text(&other));
    assert_eq!(one.params, other.params);
}
