//! Names and slots while one entry is decoded: scoped registers, variables, constants, labels.

use std::collections::HashMap;

use super::inst::{Addr, PSlot, Slot, Space};
use super::mods::{Res, Target, fail};
use super::module::{ConstInit, Special};
use super::types::{Class, Ty, mask};
use crate::text::ast::{Inst, Operand, Span};

/// Special registers of which nothing is known here.
const NOT_SIMULATED: [&str; 4] = ["%envreg", "%pm", "%reserved_smem", "%is_explicit_cluster"];

/// Where a name leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Reg(Slot, Ty),
    Pred(PSlot),
    /// Offset in shared memory.
    Shared(u64),
    /// Offset in the parameter block.
    Param(u64),
    /// Offset in each thread's own memory.
    Local(u64),
    /// Offset in the module's constants.
    Const(u64),
    /// Offset in the module's global variables.
    Global(u64),
    /// What a call passes or gets back: an offset in each thread's own memory.
    Argument(u64, u64),
}

impl Named {
    /// A variable's address, `by` bytes further, as the constant that holds it.
    fn address(self, by: i64) -> Option<(ConstInit, Space)> {
        Some(match self {
            Named::Shared(at) => (ConstInit::Shared(at.wrapping_add_signed(by)), Space::Shared),
            Named::Local(at) => (ConstInit::Local(at.wrapping_add_signed(by)), Space::Local),
            Named::Const(at) => (ConstInit::Const(at.wrapping_add_signed(by)), Space::Const),
            Named::Argument(at, _) => (ConstInit::Local(at.wrapping_add_signed(by)), Space::Param),
            Named::Global(at) => (ConstInit::Global(at.wrapping_add_signed(by)), Space::Global),
            Named::Param(at) => (ConstInit::Bits(at.wrapping_add_signed(by)), Space::Param),
            _ => return None,
        })
    }
}

/// The names of a caller while a function's body is decoded.
pub(super) struct Callers {
    names: Vec<HashMap<String, Named>>,
    open: Vec<u32>,
}

pub(super) struct Context<'a> {
    pub(super) file: &'a str,
    pub(super) target: Target,
    scopes: Vec<HashMap<String, Named>>,
    consts: HashMap<ConstInit, Slot>,
    pub(super) inits: Vec<(Slot, ConstInit)>,
    pub(super) slots: usize,
    pub(super) preds: usize,
    /// The scopes that are open, by number, for the labels.
    pub(super) open: Vec<u32>,
    pub(super) labels: HashMap<(u32, String), u32>,
    /// Branches to patch: pc, which of its targets, label, scopes open at the branch, place.
    pub(super) fixups: Vec<(usize, usize, String, Vec<u32>, Span)>,
    /// `.branchtargets`, by their name.
    pub(super) targets: HashMap<(u32, String), Vec<String>>,
    /// The functions whose bodies are being decoded, the innermost last, and the scope of each.
    pub(super) calls: Vec<(String, u32)>,
    /// `CC.CF`, where an instruction names it.
    carry: Option<PSlot>,
    pub(super) span: Span,
    /// The instruction may name special registers and variables: `mov` and `cvt` alone may.
    pub(super) specials: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(file: &'a str, target: Target) -> Self {
        Context {
            file,
            target,
            scopes: vec![HashMap::new()],
            consts: HashMap::new(),
            inits: Vec::new(),
            slots: 0,
            preds: 0,
            open: vec![0],
            labels: HashMap::new(),
            fixups: Vec::new(),
            targets: HashMap::new(),
            calls: Vec::new(),
            carry: None,
            span: Span::default(),
            specials: false,
        }
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Res<T> {
        fail(self.file, self.span, message)
    }

    pub(super) fn enter(&mut self, scope: u32) {
        self.scopes.push(HashMap::new());
        self.open.push(scope);
    }

    pub(super) fn leave(&mut self) {
        self.scopes.pop();
        self.open.pop();
    }

    /// Opens a function's body, which sees the module's names and none of its caller's; gives what
    /// [`leave_function`](Self::leave_function) takes back.
    pub(super) fn enter_function(&mut self, name: &str, scope: u32) -> Callers {
        let names = self.scopes.split_off(1);
        self.scopes.push(HashMap::new());
        self.calls.push((name.into(), scope));
        Callers { names, open: std::mem::replace(&mut self.open, vec![scope]) }
    }

    pub(super) fn leave_function(&mut self, callers: Callers) {
        self.scopes.truncate(1);
        self.scopes.extend(callers.names);
        self.open = callers.open;
        self.calls.pop();
    }

    /// The predicate that stands for the carry.
    pub(super) fn carry(&mut self) -> PSlot {
        let preds = &mut self.preds;
        *self.carry.get_or_insert_with(|| {
            *preds += 1;
            (*preds - 1) as PSlot
        })
    }

    /// Branches to `label`, the `nth` target of the instruction at `pc`.
    pub(super) fn fix(&mut self, pc: usize, nth: usize, label: &str) {
        self.fixups.push((pc, nth, label.into(), self.open.clone(), self.span));
    }

    /// The labels behind a name of `.branchtargets`.
    pub(super) fn branch_targets(&self, name: &str) -> Option<&Vec<String>> {
        self.open.iter().rev().find_map(|&scope| self.targets.get(&(scope, name.into())))
    }

    pub(super) fn declare(&mut self, name: &str, named: Named) -> Res<()> {
        let taken = match self.scopes.last_mut() {
            Some(scope) => scope.insert(name.into(), named).is_some(),
            None => false,
        };
        if taken { self.fail(format!("`{name}` is declared twice")) } else { Ok(()) }
    }

    fn slot(&mut self) -> Res<Slot> {
        let slot = self.slots;
        if slot >= usize::from(u16::MAX) {
            return self.fail("more than 65535 registers and constants in one entry");
        }
        self.slots += 1;
        Ok(slot as Slot)
    }

    pub(super) fn register_type(&self, ty: &str) -> Res<Ty> {
        match Ty::parse(ty).filter(|t| !matches!(t, Ty::Bf16 | Ty::Bf16x2 | Ty::Tf32)) {
            Some(ty) => Ok(ty),
            None => self.fail(format!("register type `.{ty}` is not known")),
        }
    }

    pub(super) fn declare_reg(&mut self, name: &str, ty: Ty) -> Res<()> {
        if ty == Ty::Pred {
            if self.preds >= usize::from(u16::MAX) {
                return self.fail("more than 65535 predicates in one entry");
            }
            self.preds += 1;
            let slot = (self.preds - 1) as PSlot;
            return self.declare(name, Named::Pred(slot));
        }
        let slot = self.slot()?;
        self.declare(name, Named::Reg(slot, ty))
    }

    pub(super) fn lookup(&self, name: &str) -> Option<Named> {
        self.scopes.iter().rev().find_map(|s| s.get(name)).copied()
    }

    /// The slot that holds a constant in every lane.
    pub(super) fn constant(&mut self, init: ConstInit) -> Res<Slot> {
        if let Some(&slot) = self.consts.get(&init) {
            return Ok(slot);
        }
        let slot = self.slot()?;
        self.consts.insert(init, slot);
        self.inits.push((slot, init));
        Ok(slot)
    }

    pub(super) fn zero(&mut self) -> Res<Slot> {
        self.constant(ConstInit::Bits(0))
    }

    /// A destination register whose type agrees with `ty`.
    pub(super) fn dst(&self, op: &Operand, ty: Ty) -> Res<Slot> {
        let (slot, reg) = self.register(op)?;
        if ty.agrees(reg) {
            return Ok(slot);
        }
        self.fail(format!("{op:?} is a {reg:?} register, the instruction writes {ty:?}"))
    }

    /// A destination that may be wider than the value (`ld`, `cvt`): slot and its bits.
    pub(super) fn dst_wide(&self, op: &Operand, ty: Ty) -> Res<(Slot, u32)> {
        let (slot, reg) = self.register(op)?;
        let float = ty.class() == Class::Float || reg.class() == Class::Float;
        let untyped = reg.class() == Class::Bits;
        let fits = if float && !untyped { ty.agrees(reg) } else { reg.bits() >= ty.bits() };
        if fits {
            return Ok((slot, reg.bits()));
        }
        self.fail(format!("{op:?} is a {reg:?} register, the instruction writes {ty:?}"))
    }

    /// A source that may be wider than what is read of it (`st`, `cvt`).
    pub(super) fn src_wide(&mut self, op: &Operand, ty: Ty) -> Res<Slot> {
        if let Operand::Name(name) = op
            && let Some(Named::Reg(slot, reg)) = self.lookup(name)
        {
            let float = ty.class() == Class::Float || reg.class() == Class::Float;
            let untyped = reg.class() == Class::Bits;
            let fits = if float && !untyped { ty.agrees(reg) } else { reg.bits() >= ty.bits() };
            if !fits {
                return self
                    .fail(format!("{op:?} is a {reg:?} register, the instruction reads {ty:?}"));
            }
            return Ok(slot);
        }
        self.src(op, ty)
    }

    pub(super) fn register(&self, op: &Operand) -> Res<(Slot, Ty)> {
        if let Operand::Name(name) = op {
            match self.lookup(name) {
                Some(Named::Reg(slot, ty)) => return Ok((slot, ty)),
                Some(Named::Pred(_)) => {
                    return self.fail(format!("`{name}` is a predicate, not a register"));
                }
                Some(_) => return self.fail(format!("`{name}` is a variable, not a register")),
                None => return self.fail(format!("`{name}` is not declared")),
            }
        }
        self.fail(format!("expected a register, found {op:?}"))
    }

    /// A register of exactly these bits, not a constant.
    pub(super) fn register_of(&self, op: &Operand, ty: Ty) -> Res<Slot> {
        self.dst(op, ty)
    }

    pub(super) fn pred(&self, op: &Operand) -> Res<PSlot> {
        match op {
            Operand::Name(name) => match self.lookup(name) {
                Some(Named::Pred(slot)) => Ok(slot),
                Some(_) => self.fail(format!("`{name}` is not a predicate")),
                None => self.fail(format!("`{name}` is not declared")),
            },
            _ => self.fail(format!("expected a predicate, found {op:?}")),
        }
    }

    pub(super) fn is_pred(&self, op: &Operand) -> bool {
        match op {
            Operand::Not(_) => true,
            Operand::Name(name) => matches!(self.lookup(name), Some(Named::Pred(_))),
            _ => false,
        }
    }

    /// A predicate to write, or `_`, which stands for one that nobody reads.
    pub(super) fn pred_or_sink(&mut self, op: &Operand) -> Res<PSlot> {
        if *op != Operand::Sink {
            return self.pred(op);
        }
        self.preds += 1;
        Ok((self.preds - 1) as PSlot)
    }

    /// A predicate or its negation.
    pub(super) fn pred_not(&self, op: &Operand) -> Res<(PSlot, bool)> {
        match op {
            Operand::Not(inner) => Ok((self.pred(inner)?, true)),
            _ => Ok((self.pred(op)?, false)),
        }
    }

    /// A source: register, immediate or special, as `ty`.
    pub(super) fn src(&mut self, op: &Operand, ty: Ty) -> Res<Slot> {
        let name = match op {
            Operand::Name(name) => name,
            Operand::NameOffset(name, offset) => {
                return match self.lookup(name).and_then(|n| n.address(*offset)) {
                    Some((init, space)) => self.variable(name, init, space, ty),
                    None => self.fail(format!("`{name}+{offset}` is not an operand here")),
                };
            }
            _ => return self.immediate(op, ty),
        };
        match self.lookup(name) {
            Some(Named::Reg(slot, reg)) if ty.agrees(reg) => Ok(slot),
            Some(Named::Reg(_, reg)) => {
                self.fail(format!("`{name}` is a {reg:?} register, the instruction reads {ty:?}"))
            }
            Some(Named::Pred(_)) => {
                self.fail(format!("`{name}` is a predicate, the instruction reads {ty:?}"))
            }
            Some(named) => match named.address(0) {
                Some((init, space)) => self.variable(name, init, space, ty),
                None => self.fail(format!("`{name}` is not an operand here")),
            },
            None => match Special::parse(name) {
                Some(_) if !self.specials => {
                    self.fail(format!("`{name}`: mov and cvt alone read special registers"))
                }
                Some(special)
                    if self.target.sm < 90
                        && (special.of_clusters() || name == "%aggr_smem_size") =>
                {
                    self.fail(format!("`{name}` needs .target sm_90"))
                }
                Some(special) if ty.bits() == special.bits() && ty.class() != Class::Float => {
                    self.constant(ConstInit::Special(special))
                }
                Some(special) => {
                    let bits = special.bits();
                    self.fail(format!("`{name}` has {bits} bits, the instruction reads {ty:?}"))
                }
                None if NOT_SIMULATED.iter().any(|s| name.starts_with(s)) => {
                    self.fail(format!("special register `{name}` is not simulated"))
                }
                None => self.fail(format!("`{name}` is not declared")),
            },
        }
    }

    /// A variable's address as an operand: 64 bits, or 32 where the space is that small.
    fn variable(&mut self, name: &str, init: ConstInit, space: Space, ty: Ty) -> Res<Slot> {
        if !self.specials {
            return self.fail(format!("the address of `{name}`: mov alone reads it"));
        }
        let least = if matches!(space, Space::Global | Space::Param) { 64 } else { 32 };
        if ty.bits() < least || ty.class() == Class::Float {
            return self.fail(format!("the address of `{name}` is no {ty:?} operand"));
        }
        self.constant(init)
    }

    fn immediate(&mut self, op: &Operand, ty: Ty) -> Res<Slot> {
        let value = match (*op).clone() {
            Operand::Int(v, negative) if ty.class() != Class::Float => {
                let m = mask(ty.bits());
                let fits = if negative { (v as i64) >= -((m >> 1) as i64) - 1 } else { v <= m };
                if !fits {
                    return self.fail(format!("immediate {} does not fit {ty:?}", v as i64));
                }
                v & m
            }
            Operand::F32(bits) if matches!(ty, Ty::F32 | Ty::B32) => u64::from(bits),
            Operand::F64(bits) if matches!(ty, Ty::F64 | Ty::B64) => bits,
            Operand::F64(bits) if ty == Ty::F32 => {
                u64::from((f64::from_bits(bits) as f32).to_bits())
            }
            other => return self.fail(format!("{other:?} is not a {ty:?} operand")),
        };
        self.constant(ConstInit::Bits(value))
    }

    /// An integer that must be known at decode time.
    pub(super) fn literal(&self, op: &Operand, limit: u64) -> Res<u64> {
        match op {
            Operand::Int(v, false) if *v <= limit => Ok(*v),
            _ => self.fail(format!("expected an integer constant up to {limit}, found {op:?}")),
        }
    }

    /// `[base+offset]` in `space`.
    pub(super) fn address(&mut self, op: &Operand, space: Space) -> Res<Addr> {
        let Operand::Address(base, offset) = op else {
            return self.fail(format!("expected an address, found {op:?}"));
        };
        let base = match &**base {
            Operand::Name(name) => match (self.lookup(name), space) {
                (
                    Some(Named::Reg(
                        slot,
                        Ty::U32 | Ty::S32 | Ty::B32 | Ty::U64 | Ty::S64 | Ty::B64,
                    )),
                    Space::Shared | Space::Cluster | Space::Local | Space::Const,
                ) => slot,
                (
                    Some(Named::Reg(slot, Ty::U64 | Ty::S64 | Ty::B64)),
                    Space::Global | Space::Generic,
                ) => slot,
                (Some(Named::Reg(_, reg)), _) => {
                    return self
                        .fail(format!("`{name}` ({reg:?}) cannot address .{space:?} memory"));
                }
                (Some(Named::Shared(at)), Space::Cluster) => {
                    self.constant(ConstInit::Shared(at))?
                }
                (Some(Named::Argument(at, _)), Space::Param) => {
                    let base = self.constant(ConstInit::Local(at))?;
                    return Ok(Addr { base, offset: *offset, space: Space::Local });
                }
                (Some(named), _) if named.address(0).is_some_and(|(_, of)| of == space) => {
                    match named.address(0) {
                        Some((init, _)) => self.constant(init)?,
                        None => return self.fail(format!("`{name}` has no address")),
                    }
                }
                (Some(_), _) => return self.fail(format!("`{name}` is not in .{space:?} memory")),
                (None, _) => return self.fail(format!("`{name}` is not declared")),
            },
            other => return self.fail(format!("{other:?} cannot be an address")),
        };
        Ok(Addr { base, offset: *offset, space })
    }

    /// An address among what a call passes.
    pub(super) fn is_argument(&self, op: Option<&Operand>) -> bool {
        let Some(Operand::Address(base, _)) = op else { return false };
        matches!(&**base, Operand::Name(name)
            if matches!(self.lookup(name), Some(Named::Argument(..))))
    }

    /// `{a, b}` or a single register, as its elements.
    pub(super) fn elements<'o>(&self, op: &'o Operand, n: usize) -> Res<&'o [Operand]> {
        let items = match op {
            Operand::Vector(items) => items.as_slice(),
            _ if n == 1 => std::slice::from_ref(op),
            _ => return self.fail(format!("expected a vector of {n}, found {op:?}")),
        };
        if items.len() == n {
            Ok(items)
        } else {
            self.fail(format!("vector of {} where {n} are needed", items.len()))
        }
    }

    pub(super) fn srcs(&mut self, op: &Operand, n: usize, ty: Ty) -> Res<Vec<Slot>> {
        self.elements(op, n)?.iter().map(|item| self.src(item, ty)).collect()
    }

    pub(super) fn dsts(&self, op: &Operand, n: usize, ty: Ty) -> Res<Vec<Slot>> {
        self.elements(op, n)?.iter().map(|item| self.dst(item, ty)).collect()
    }

    pub(super) fn branch(&mut self, pc: usize, inst: &Inst) -> Res<()> {
        match inst.operands.as_slice() {
            [Operand::Name(label)] => {
                self.fix(pc, 0, label);
                Ok(())
            }
            _ => self.fail("bra takes one label"),
        }
    }
}
