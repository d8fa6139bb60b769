//! Module and entry directives, registers and variables.

use super::ast::{Entry, Module, Span, Stmt, Var};
use super::lexer::Tok;
use super::parser::{Parsed, Parser};

/// `.reg .b32 %r<N>` above this is refused: no handwritten kernel needs it, and a typo must not
/// allocate gigabytes.
const MAX_REGISTERS: u64 = 16_384;

/// Pragmas that steer ptxas alone, by their first word.
const HINTS: [&str; 4] = ["nounroll", "used_bytes_mask", "enable_smem_spilling", "frequency"];

impl Parser<'_> {
    pub(super) fn module(mut self) -> Parsed<Module> {
        let (mut version, mut target) = (None, None);
        let mut module = Module {
            target: String::new(),
            vars: Vec::new(),
            funcs: Vec::new(),
            entries: Vec::new(),
        };
        loop {
            let span = self.span();
            match self.peek().clone() {
                Tok::End => break,
                Tok::Dot(word) => match word.as_str() {
                    "version" => {
                        self.next();
                        // `7.0` reads as a decimal literal.
                        match self.next() {
                            Tok::F64(bits) => version = Some(f64::from_bits(bits)),
                            _ => return self.fail(span, ".version takes major.minor"),
                        }
                    }
                    "target" => {
                        self.next();
                        target = Some(self.word("a target")?);
                        // `debug` says that `.loc` and sections follow, which change nothing that runs.
                        while self.accept(',') {
                            if self.word("a target option")? != "debug" {
                                return self
                                    .fail(span, ".target options other than debug are not known");
                            }
                        }
                    }
                    "address_size" => {
                        self.next();
                        if self.int("64")? != 64 {
                            return self.fail(span, "only .address_size 64 is simulated");
                        }
                    }
                    "visible" | "weak" => {
                        self.next();
                        if !matches!(self.peek(), Tok::Dot(w) if matches!(w.as_str(), "entry" | "func" | "global" | "const"))
                        {
                            return self.expected(&format!(
                                "`.entry`, `.func` or a variable after `.{word}`"
                            ));
                        }
                    }
                    "entry" => {
                        let entry = self.entry()?;
                        module.entries.push(entry);
                    }
                    "func" => {
                        let func = self.function()?;
                        module.funcs.push(func);
                    }
                    "file" => self.file_name()?,
                    "section" => self.section()?,
                    "extern" => {
                        self.next();
                        if *self.peek() == Tok::Dot("func".into()) {
                            let func = self.function()?;
                            module.funcs.push(func);
                            continue;
                        }
                        let var = self.variable(true)?;
                        module.vars.push(var);
                    }
                    "shared" | "global" | "const" => {
                        let var = self.variable(false)?;
                        module.vars.push(var);
                    }
                    other => return self.fail(span, format!("directive `.{other}` is not known")),
                },
                _ => return self.expected("a directive"),
            }
        }
        let top = Span { line: 1, column: 1 };
        if version.is_none() {
            return self.fail(top, "the module has no .version");
        }
        match target {
            Some(target) => module.target = target,
            None => return self.fail(top, "the module has no .target"),
        }
        Ok(module)
    }

    fn entry(&mut self) -> Parsed<Entry> {
        let span = self.span();
        self.next();
        let name = self.word("an entry's name")?;
        let mut entry = Entry {
            name,
            params: Vec::new(),
            maxntid: None,
            reqntid: None,
            minnctapersm: 1,
            maxnreg: None,
            cluster: None,
            max_cluster_rank: None,
            body: Vec::new(),
            span,
        };
        if self.accept('(') && !self.accept(')') {
            loop {
                let param = self.param()?;
                entry.params.push(param);
                if self.accept(')') {
                    break;
                }
                self.punct(',')?;
            }
        }
        loop {
            let span = self.span();
            match self.peek().clone() {
                Tok::Dot(word) => {
                    self.next();
                    match word.as_str() {
                        "maxntid" => entry.maxntid = Some(self.triple()?),
                        "reqntid" => entry.reqntid = Some(self.triple()?),
                        // They steer ptxas's registers; the pool of `setmaxnreg` depends on them.
                        "minnctapersm" => entry.minnctapersm = self.count(32)?,
                        "maxnreg" => entry.maxnreg = Some(self.count(255)?),
                        "reqnctapercluster" => entry.cluster = Some(self.triple()?),
                        // Says that a cluster is meant where the launch gives its size.
                        "explicitcluster" => {}
                        "maxclusterrank" => entry.max_cluster_rank = Some(self.count(16)?),
                        "pragma" => self.pragma_text()?,
                        other => {
                            return self
                                .fail(span, format!("entry directive `.{other}` is not known"));
                        }
                    }
                }
                Tok::Punct('{') => return self.entry_body(entry),
                _ => return self.expected("an entry's body"),
            }
        }
    }

    fn count(&mut self, most: u64) -> Parsed<u32> {
        let span = self.span();
        let value = self.int("a count")?;
        if value == 0 || value > most {
            return self.fail(span, format!("{value} is outside 1..={most}"));
        }
        Ok(value as u32)
    }

    fn triple(&mut self) -> Parsed<[u32; 3]> {
        let mut out = [1; 3];
        for (i, slot) in out.iter_mut().enumerate() {
            if i > 0 && !self.accept(',') {
                break;
            }
            let span = self.span();
            let value = self.int("a number of threads")?;
            if value == 0 || value > 1024 {
                return self.fail(span, format!("{value} threads are outside 1..=1024"));
            }
            *slot = value as u32;
        }
        Ok(out)
    }

    pub(super) fn pragma(&mut self) -> Parsed<()> {
        self.next();
        self.pragma_text()
    }

    fn pragma_text(&mut self) -> Parsed<()> {
        let span = self.span();
        match self.next() {
            // Hints to ptxas that change no result.
            Tok::Str(text) if HINTS.contains(&text.split(' ').next().unwrap_or_default()) => {
                self.punct(';')
            }
            Tok::Str(text) => self.fail(span, format!("pragma \"{text}\" is not known")),
            _ => self.fail(span, ".pragma takes a string"),
        }
    }

    pub(super) fn registers(&mut self, out: &mut Vec<Stmt>) -> Parsed<()> {
        self.next();
        let ty = self.dot("a register type")?;
        loop {
            let span = self.span();
            let name = self.word("a register's name")?;
            let mut count = None;
            if self.accept('<') {
                let n = self.int("a count")?;
                if n == 0 || n > MAX_REGISTERS {
                    return self
                        .fail(span, format!("{n} registers are outside 1..={MAX_REGISTERS}"));
                }
                count = Some(n as u32);
                self.punct('>')?;
            }
            out.push(Stmt::Reg { ty: ty.clone(), name, count, span });
            if self.accept(';') {
                return Ok(());
            }
            self.punct(',')?;
        }
    }

    pub(super) fn param(&mut self) -> Parsed<Var> {
        if *self.peek() != Tok::Dot("param".into()) {
            return self.expected("`.param`");
        }
        self.declaration(false)
    }

    /// `.shared .align 16 .b8 name[N];`, the space still to come.
    pub(super) fn variable(&mut self, is_extern: bool) -> Parsed<Var> {
        let var = self.declaration(is_extern)?;
        if is_extern && var.space != "shared" {
            return self.fail(var.span, format!(".extern .{} is not simulated", var.space));
        }
        if is_extern != (var.bytes == 0) {
            return self.fail(var.span, format!("`{}`: `[]` and .extern go together", var.name));
        }
        self.punct(';')?;
        Ok(var)
    }

    fn declaration(&mut self, is_extern: bool) -> Parsed<Var> {
        let space = self.dot("a state space")?;
        let (mut align, mut size, mut float) = (None, None, false);
        loop {
            let span = self.span();
            let Tok::Dot(word) = self.peek().clone() else { break };
            self.next();
            match word.as_str() {
                "align" => {
                    let value = self.int("an alignment")?;
                    if !value.is_power_of_two() || value > 1024 {
                        return self.fail(
                            span,
                            format!("alignment {value} is not a power of two up to 1024"),
                        );
                    }
                    align = Some(value as u32);
                }
                // `.ptr .global` describes what a parameter points at.
                "ptr" if space == "param" => {
                    if matches!(self.peek(), Tok::Dot(s) if matches!(s.as_str(), "global" | "shared" | "const" | "local"))
                    {
                        self.next();
                    }
                    // What follows is the alignment of the pointee, not of the parameter.
                    if *self.peek() == Tok::Dot("align".into()) {
                        self.next();
                        self.int("an alignment")?;
                    }
                }
                "b8" | "u8" | "s8" => size = Some(1),
                "b16" | "u16" | "s16" | "f16" => size = Some(2),
                "b32" | "u32" | "s32" | "f32" => size = Some(4),
                "b64" | "u64" | "s64" | "f64" => size = Some(8),
                other => {
                    return self.fail(span, format!("`.{other}` is not known in a declaration"));
                }
            }
            float |= matches!(word.as_str(), "f32" | "f64");
        }
        let span = self.span();
        let name = self.word("a name")?;
        let Some(size) = size else { return self.fail(span, format!("`{name}` has no type")) };
        let mut count = 1;
        while self.accept('[') {
            if self.accept(']') {
                count = 0;
                break;
            }
            let n = self.int("a length")?;
            self.punct(']')?;
            count = match u64::checked_mul(count, n) {
                Some(total) if n > 0 && total < 1 << 24 => total,
                _ => return self.fail(span, format!("`{name}` has an impossible length")),
            };
        }
        let bytes = count * size;
        let mut init = Vec::new();
        let at = self.span();
        if self.accept('=') {
            if !matches!(space.as_str(), "global" | "const") {
                return self.fail(at, format!("a variable in .{space} has no initial value"));
            }
            self.initial(&mut init, size as usize, float)?;
            if init.len() as u64 > bytes {
                return self
                    .fail(at, format!("`{name}` has {bytes} bytes, {} are given", init.len()));
            }
        }
        let align = align.unwrap_or(size as u32);
        Ok(Var { name, space, is_extern, align, bytes, init, span })
    }

    /// `5` or `{1, 2, 3}`: elements of `size` bytes.
    fn initial(&mut self, out: &mut Vec<u8>, size: usize, float: bool) -> Parsed<()> {
        let list = self.accept('{');
        loop {
            let span = self.span();
            let negative = self.accept('-');
            let value = match (self.next(), float, size) {
                (Tok::Int(v), false, _) => {
                    let top = if size == 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
                    if v > if negative { top / 2 + 1 } else { top } {
                        return self.fail(span, format!("{v} does not fit {size} bytes"));
                    }
                    if negative { v.wrapping_neg() } else { v }
                }
                (Tok::F32(v), true, 4) => u64::from(v) ^ u64::from(negative) << 31,
                (Tok::F64(v), true, 8) => v ^ u64::from(negative) << 63,
                (Tok::F64(v), true, 4) => {
                    u64::from((f64::from_bits(v) as f32).to_bits()) ^ u64::from(negative) << 31
                }
                _ => return self.fail(span, "an initial value is a number or a list of numbers"),
            };
            out.extend(&value.to_le_bytes()[..size]);
            if !list || self.accept('}') {
                return Ok(());
            }
            self.punct(',')?;
        }
    }
}
