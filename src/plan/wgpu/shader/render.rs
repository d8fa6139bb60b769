//! Renders a form: what the kernel and its parts need of what was offered, each once, and nothing
//! else: enables, constants, parameters, buffers, the kernel, and below it the parts in the order in
//! which they are needed. Called by `rendered`, once a form.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::form::{Binds, Form, Piece};
use super::params::{Field, Params};
use super::part::{Part, Word, Words};
use super::rendered::Rendered;
use super::windows::Windows;
use super::{BETA, SCALE, SCRATCH, parts};
use crate::plan::Source;
use crate::{DType, Error, Result};

/// The buffer in which the plan keeps what goes from one launch to the next.
const WORKSPACE: &str = "workspace";

/// A text that is being put together.
struct Renderer {
    constants: Vec<(String, String, bool)>,
    params: Params,
    buffers: Vec<Buffer>,
    offers: Vec<Offer>,
    /// What `// where` of a line may ask for, beside operands.
    conditions: Vec<String>,
    /// Names that the text has.
    met: HashSet<String>,
    parts: String,
}

struct Buffer {
    name: String,
    binds: Binds,
    element: &'static str,
    needed: bool,
}

/// Something that can be rendered, and the names that it then gives.
struct Offer {
    what: Offered,
    gives: Vec<String>,
}

enum Offered {
    Part(&'static Part, Words),
    Windows(Windows),
}

/// # Errors
/// [`Error::Rejected`], with the name that nothing gives.
pub(super) fn render(kernel: &'static Part, form: &Form) -> Result<Rendered> {
    let mut renderer = Renderer {
        constants: Vec::new(),
        params: Params::default(),
        buffers: Vec::new(),
        offers: Vec::new(),
        conditions: Vec::new(),
        met: HashSet::new(),
        // Most texts are shorter.
        parts: String::with_capacity(16 << 10),
    };
    form.pieces.iter().for_each(|piece| renderer.take(*piece));
    let words = Words::default();
    renderer.add(kernel, &words, kernel.giving_with(&words))?;
    Ok(renderer.finish(kernel, form))
}

impl Renderer {
    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Constant(name, value) => {
                self.constants.push((name.to_owned(), format!("u32 = {value}u"), false));
            }
            Piece::Flag(flag, value) => {
                self.constants.push((flag.text(), format!("bool = {value}"), false));
            }
            Piece::Uint(name) => self.params.add(name.to_owned(), Field::Uint),
            Piece::Float(name) => self.params.add(name.to_owned(), Field::Float),
            Piece::Condition(name) => self.conditions.push(name.to_owned()),
            Piece::Part(part, words) => self.offer(part.0, Words::new(words.into_iter().flatten())),
            Piece::Operand { name, binds, element, part, dtype } => {
                let name = name.text();
                self.buffer(name.clone(), binds, element);
                self.matrix(&name, &name, part.0, dtype);
            }
            Piece::Workspace => self.buffer(WORKSPACE.to_owned(), Binds::ReadWrite, "vec4<f32>"),
            Piece::Scratch(name, part) => self.matrix(name, WORKSPACE, part.0, SCRATCH),
            Piece::Windows(name, windows) => {
                let windows = Windows { name: name.to_owned(), windows };
                let gives = windows.gives().collect();
                self.offers.push(Offer { what: Offered::Windows(windows), gives });
            }
        }
    }

    fn offer(&mut self, part: &'static Part, words: Words) {
        let gives = part.giving_with(&words);
        self.offers.push(Offer { what: Offered::Part(part, words), gives });
    }

    fn buffer(&mut self, name: String, binds: Binds, element: &'static str) {
        self.buffers.push(Buffer { name, binds, element, needed: false });
    }

    /// A matrix in a buffer, and what reads or writes it.
    fn matrix(&mut self, name: &str, buffer: &str, part: &'static Part, dtype: DType) {
        self.params.add(name.to_owned(), Field::Matrix);
        self.conditions.push(name.to_owned());
        let dtype = dtype.to_string();
        let words = [(Word::Name, name), (Word::Buffer, buffer), (Word::DType, &*dtype)];
        self.offer(part, Words::new(words));
    }

    /// The text, of all that was needed.
    fn finish(self, kernel: &'static Part, form: &Form) -> Rendered {
        let mut text = String::with_capacity(self.parts.len() + (4 << 10));
        let cooperative = self.parts.contains("coop_mat");
        if cooperative || self.buffers.iter().any(|of| of.needed && of.element.contains("f16")) {
            text.push_str("enable f16;\n\n");
        }
        if cooperative {
            text.push_str("enable wgpu_cooperative_matrix;\n\n");
        }
        // naga refuses the words, and allows the operations without them.
        if form.browser && self.parts.contains("subgroup_invocation_id") {
            text.push_str("enable subgroups;\n\n");
        }
        for (name, value, _) in self.constants.iter().filter(|of| of.2) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "const {name}: {value};");
        }
        text.push('\n');
        let (params, places) = self.params.render(&mut text);
        text.push('\n');
        let mut buffers = Vec::new();
        for (index, of) in self.buffers.iter().enumerate().filter(|of| of.1.needed) {
            let Buffer { name, binds, element, .. } = of;
            let mode = match binds {
                Binds::Read => "read",
                Binds::ReadWrite => "read_write",
            };
            let declared = format!("var<storage, {mode}> {name}: array<{element}>;");
            let _ = writeln!(text, "@group(0) @binding({}) {declared}", buffers.len());
            buffers.push((index, self.params.place(&places, name)));
        }
        let space = if form.storage_params { "storage, read" } else { "uniform" };
        let _ = writeln!(text, "@group(0) @binding({}) var<{space}> p: Params;", buffers.len());
        text.push_str(&self.parts);
        let [scale, beta] = [SCALE, BETA].map(|name| self.params.place(&places, name));
        let source = Source::wgsl(&text, kernel.name);
        Rendered { source, params, places, scale, beta, buffers }
    }

    /// Renders what gives `need`, where nothing did so far.
    fn meet(&mut self, need: String, by: &str) -> Result<()> {
        // Every text declares it.
        if self.met.contains(&need) || need == "Matrix" {
            return Ok(());
        }
        let is_param = need.strip_prefix("p.").is_some_and(|field| self.params.need(field));
        if is_param {
            // Declared with the others.
        } else if let Some(of) = self.constants.iter_mut().find(|of| of.0 == need) {
            of.2 = true;
        } else if let Some(of) = self.buffers.iter_mut().find(|of| of.name == need) {
            of.needed = true;
        } else if let Some(at) = self.offers.iter().position(|of| of.gives.contains(&need)) {
            let Offer { what, gives } = self.offers.swap_remove(at);
            match what {
                Offered::Part(part, words) => return self.add(part, &words, gives),
                Offered::Windows(of) => {
                    self.met.extend(gives);
                    of.render(&mut self.parts);
                    return of.needs().into_iter().try_for_each(|need| self.meet(need, &of.name));
                }
            }
        } else if let Some((part, words)) = parts::giving(&need) {
            return self.add(part, &words, part.giving_with(&words));
        } else {
            let reason = format!("no part gives `{need}`, which `{by}` needs");
            return Err(Error::Rejected { what: by.to_owned(), reason });
        }
        self.met.insert(need);
        Ok(())
    }

    /// Renders a part, and below it those that it needs.
    fn add(&mut self, part: &'static Part, words: &Words, gives: Vec<String>) -> Result<()> {
        let mut text = std::mem::take(&mut self.parts);
        text.push('\n');
        self.met.extend(gives);
        part.render(&mut text, words, |name| self.has(name));
        self.parts = text;
        part.needs(words, |name| self.has(name))
            .into_iter()
            .try_for_each(|need| self.meet(need, part.name))
    }

    /// Whether `// where name` holds.
    fn has(&self, name: &str) -> bool {
        self.conditions.iter().any(|of| of == name)
    }
}
