//! Walks an opcode's modifiers in their order; what is left over is an error by name.

use super::types::Ty;
use crate::error::PtxError;
use crate::text::ast::{Inst, Span};

/// A module's target: sm_90a is 90 and specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) sm: u32,
    pub(super) specific: bool,
}

pub(super) struct Mods<'a> {
    pub(super) file: &'a str,
    pub(super) inst: &'a Inst,
    target: Target,
    at: usize,
}

pub(super) type Res<T> = Result<T, PtxError>;

pub(super) fn fail<T>(file: &str, span: Span, message: impl Into<String>) -> Res<T> {
    Err(PtxError {
        file: file.into(),
        line: span.line,
        column: span.column,
        message: message.into(),
    })
}

impl<'a> Mods<'a> {
    pub(super) fn new(file: &'a str, inst: &'a Inst, target: Target) -> Self {
        Mods { file, inst, target, at: 0 }
    }

    /// The form exists from sm_`least` on, as ptxas has it too.
    pub(super) fn since(&self, least: u32) -> Res<()> {
        if self.target.sm >= least {
            return Ok(());
        }
        let (written, target) = (self.written(), self.target.sm);
        self.fail(format!("`{written}` needs .target sm_{least}, the module is for sm_{target}"))
    }

    /// The form exists on sm_90a and on nothing else.
    pub(super) fn only_90a(&self) -> Res<()> {
        if self.target == (Target { sm: 90, specific: true }) {
            return Ok(());
        }
        let (written, target) = (self.written(), self.target.sm);
        self.fail(format!("`{written}` needs .target sm_90a, the module is for sm_{target}"))
    }

    /// Passes over a word that the caller has understood.
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Res<T> {
        fail(self.file, self.inst.span, message)
    }

    fn written(&self) -> String {
        let mut text = self.inst.op.clone();
        for m in &self.inst.mods {
            text.push('.');
            text.push_str(m);
        }
        text
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.inst.mods.get(self.at).map(String::as_str)
    }

    /// `word` stands somewhere among the modifiers.
    pub(super) fn says(&self, word: &str) -> bool {
        self.inst.mods.iter().any(|m| m == word)
    }

    /// Takes `word` if it comes next.
    pub(super) fn has(&mut self, word: &str) -> bool {
        let hit = self.peek() == Some(word);
        self.at += usize::from(hit);
        hit
    }

    pub(super) fn need(&mut self, word: &str) -> Res<()> {
        if self.has(word) { Ok(()) } else { self.unknown(&format!("`.{word}`")) }
    }

    /// Takes the next modifier if `table` knows it.
    pub(super) fn pick<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let next = self.peek()?;
        let hit = table.iter().find(|(word, _)| *word == next)?;
        self.at += 1;
        Some(hit.1)
    }

    pub(super) fn want<T: Copy>(&mut self, what: &str, table: &[(&str, T)]) -> Res<T> {
        match self.pick(table) {
            Some(v) => Ok(v),
            None => self.unknown(what),
        }
    }

    pub(super) fn unknown<T>(&self, wanted: &str) -> Res<T> {
        match self.peek() {
            Some(m) => self
                .fail(format!("`{}`: `.{m}` is not known here, expected {wanted}", self.written())),
            None => self.fail(format!("`{}`: {wanted} is missing", self.written())),
        }
    }

    pub(super) fn ty(&mut self, legal: &[Ty]) -> Res<Ty> {
        match self.peek().and_then(Ty::parse) {
            Some(ty) if legal.contains(&ty) => {
                self.at += 1;
                Ok(ty)
            }
            _ => self.unknown("a type this opcode takes"),
        }
    }

    pub(super) fn done(&self) -> Res<()> {
        match self.peek() {
            None => Ok(()),
            Some(m) => self.fail(format!("`{}`: modifier `.{m}` is not known", self.written())),
        }
    }

    pub(super) fn count(&self, n: usize) -> Res<()> {
        let got = self.inst.operands.len();
        if got == n {
            Ok(())
        } else {
            self.fail(format!("`{}` takes {n} operands, {got} given", self.written()))
        }
    }
}

/// Order, scope, space and operation of an access in the order in which the ISA's syntax has them; ptxas takes them in
/// any, and compilers write them in several. `None`: they stand so already.
pub(super) fn in_order(inst: &Inst) -> Option<Inst> {
    if !matches!(inst.op.as_str(), "ld" | "st" | "atom" | "red") {
        return None;
    }
    let rank = |word: &str| {
        Some(match word {
            "weak" | "relaxed" | "acquire" | "release" | "acq_rel" | "volatile" => 0,
            "cta" | "cluster" | "gpu" | "sys" => 1,
            "global" | "shared" | "shared::cta" | "shared::cluster" | "local" | "const" => 2,
            "add" | "min" | "max" | "and" | "or" | "xor" | "inc" | "dec" | "exch" | "cas" => 3,
            _ => return None,
        })
    };
    let ranks: Vec<i32> = inst.mods.iter().map_while(|word| rank(word)).collect();
    if ranks.is_sorted() {
        return None;
    }
    let mut mods = inst.mods.clone();
    mods[..ranks.len()].sort_by_key(|word| rank(word));
    let (guard, op, operands, span) = (None, inst.op.clone(), inst.operands.clone(), inst.span);
    Some(Inst { guard, op, mods, operands, span })
}
