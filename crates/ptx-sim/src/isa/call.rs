//! Calls: the body of a function is decoded again wherever it is called, with registers of its own. So
//! lanes that are in different calls stand at different instructions, as they do on the device, and
//! nothing that runs knows of calls. Recursion has no such form and is refused, as are functions without
//! a body and calls through a register. Called by `module`, statement by statement.

use std::collections::HashMap;

use super::context::{Context, Named};
use super::inst::{Addr, Inst, Load, Op, PSlot, Sem, Slot, Space, Store};
use super::mods::{Res, fail};
use super::module::{ConstInit, Layout, body};
use super::types::{Class, Ty};
use crate::text::ast::{Formal, Func, Inst as Written, Operand};

/// Instructions of an entry, called bodies included.
const MAX_INSTRUCTIONS: usize = 1 << 20;

/// Where a body ends, as a label that no text can hold.
pub(super) const RETURN: &str = " return";
const AFTER: &str = " after";

/// The functions of a module.
pub(super) struct Functions<'t> {
    pub(super) by_name: HashMap<&'t str, &'t Func>,
}

impl<'t> Functions<'t> {
    pub(super) fn of(file: &str, funcs: &'t [Func]) -> Res<Self> {
        let mut by_name: HashMap<&str, &Func> = HashMap::new();
        for func in funcs {
            match by_name.get(func.name.as_str()) {
                Some(known) if known.body.is_some() && func.body.is_some() => {
                    return fail(file, func.span, format!("`{}` is defined twice", func.name));
                }
                Some(known) if known.body.is_some() => {}
                _ => {
                    by_name.insert(&func.name, func);
                }
            }
        }
        Ok(Functions { by_name })
    }
}

/// What a call gives to a formal, or takes from it.
enum Passed {
    /// The same bytes under both names.
    Bytes(Named),
    /// A register's value into or out of such bytes.
    Copied(Named, Slot, Ty),
    /// From register to register.
    Register(Slot, Ty),
}

/// `call{.uni} (returns), name, (arguments);`
pub(super) fn call(
    cx: &mut Context<'_>,
    layout: &mut Layout<'_>,
    (inst, guard): (&Written, Option<(PSlot, bool)>),
    out: &mut Vec<Inst>,
    scopes: &mut u32,
) -> Res<()> {
    let uniform = match inst.mods.as_slice() {
        [] => false,
        [word] if word == "uni" => true,
        _ => return cx.fail("call is `call` or `call.uni`"),
    };
    let (returns, rest) = match inst.operands.as_slice() {
        [Operand::Arguments(returns), rest @ ..] => (returns.as_slice(), rest),
        rest => (&[][..], rest),
    };
    let (name, arguments) = match rest {
        [Operand::Name(name)] => (name, &[][..]),
        [Operand::Name(name), Operand::Arguments(arguments)] => (name, arguments.as_slice()),
        [Operand::Name(name), ..] if name.starts_with('%') => {
            return cx.fail(format!("call through `{name}`: indirect calls are not simulated"));
        }
        _ => return cx.fail("call takes returned values, a function and arguments"),
    };
    let functions = layout.functions;
    let Some(&func) = functions.by_name.get(name.as_str()) else {
        return cx.fail(format!("function `{name}` is not defined; a register here would be an indirect call, which is not simulated"));
    };
    let line = inst.span.line;
    let Some(text) = &func.body else {
        if name == "__assertfail" {
            out.push(Inst { guard, line, op: Op::Trap });
            return Ok(());
        }
        return cx.fail(format!("function `{name}` has no body here: it is not simulated"));
    };
    if cx.calls.iter().any(|(caller, _)| caller == name) {
        return cx.fail(format!("function `{name}` calls itself: recursion is not simulated"));
    }
    if (returns.len(), arguments.len()) != (func.returns.len(), func.params.len()) {
        return cx.fail(format!(
            "function `{name}` returns {} and takes {}, the call has {} and {}",
            func.returns.len(),
            func.params.len(),
            returns.len(),
            arguments.len()
        ));
    }
    *scopes += 1;
    let around = *scopes;
    cx.open.push(around);
    if guard.is_some() || uniform {
        // Lanes that do not call go round; of `.uni` all do the same.
        let skip = guard.map(|(p, negated)| (p, !negated));
        if skip.is_some() {
            cx.fix(out.len(), 0, AFTER);
            out.push(Inst { guard: skip, line, op: Op::Bra { target: 0, uniform } });
        }
    }
    let mut passed = Vec::new();
    for (formal, op) in func.returns.iter().zip(returns) {
        passed.push(pair(cx, layout, formal, op, true)?);
    }
    for (formal, op) in func.params.iter().zip(arguments) {
        let pair = pair(cx, layout, formal, op, false)?;
        if let Passed::Copied(named, slot, ty) = pair {
            out.push(Inst { guard: None, line, op: store(cx, named, slot, ty)? });
        }
        passed.push(pair);
    }
    *scopes += 1;
    let scope = *scopes;
    let callers = cx.enter_function(name, scope);
    let mut moves = Vec::new();
    for (i, (formal, passed)) in func.returns.iter().chain(&func.params).zip(&passed).enumerate() {
        match (formal, passed) {
            (Formal::Param(var), Passed::Bytes(named) | Passed::Copied(named, ..)) => {
                cx.declare(&var.name, *named)?;
            }
            (Formal::Reg { name, .. }, Passed::Register(slot, ty)) => {
                cx.declare_reg(name, *ty)?;
                let inner = cx.register(&Operand::Name(name.clone()))?.0;
                if i < func.returns.len() {
                    moves.push(Op::Mov { d: *slot, a: inner });
                } else {
                    out.push(Inst { guard: None, line, op: Op::Mov { d: inner, a: *slot } });
                }
            }
            _ => {}
        }
    }
    body(cx, layout, text, out, scopes)?;
    let end = out.len() as u32;
    cx.labels.insert((scope, RETURN.into()), end);
    cx.leave_function(callers);
    cx.span = inst.span;
    if out.len() > MAX_INSTRUCTIONS {
        return cx.fail(format!("more than {MAX_INSTRUCTIONS} instructions with what is called"));
    }
    for (passed, _) in passed.iter().zip(&func.returns) {
        if let Passed::Copied(named, slot, ty) = passed {
            out.push(Inst { guard: None, line, op: load(cx, *named, *slot, *ty)? });
        }
    }
    out.extend(moves.into_iter().map(|op| Inst { guard: None, line, op }));
    cx.labels.insert((around, AFTER.into()), out.len() as u32);
    cx.open.pop();
    Ok(())
}

/// An operand and the formal it stands for.
fn pair(
    cx: &mut Context<'_>,
    layout: &mut Layout<'_>,
    formal: &Formal,
    op: &Operand,
    returned: bool,
) -> Res<Passed> {
    match formal {
        Formal::Param(var) => {
            if let Operand::Name(name) = op
                && let Some(named @ Named::Argument(_, bytes)) = cx.lookup(name)
            {
                if bytes != var.bytes {
                    return cx.fail(format!(
                        "`{name}` has {bytes} bytes, `{}` of the function {}",
                        var.name, var.bytes
                    ));
                }
                return Ok(Passed::Bytes(named));
            }
            let ty = match var.bytes {
                1 => Ty::B8,
                2 => Ty::B16,
                4 => Ty::B32,
                8 => Ty::B64,
                n => return cx.fail(format!("`{}` has {n} bytes: no register does", var.name)),
            };
            let slot = if returned { cx.dst(op, ty)? } else { cx.src(op, ty)? };
            Ok(Passed::Copied(layout.argument(var.bytes, var.align), slot, ty))
        }
        Formal::Reg { ty, name, .. } => {
            let ty = cx.register_type(ty)?;
            if ty.class() == Class::Pred {
                return cx.fail(format!("`{name}`: predicates are not passed here"));
            }
            let slot = if returned { cx.dst(op, ty)? } else { cx.src(op, ty)? };
            Ok(Passed::Register(slot, ty))
        }
    }
}

fn address(cx: &mut Context<'_>, named: Named) -> Res<Addr> {
    let Named::Argument(at, _) = named else { return cx.fail("no argument") };
    Ok(Addr { base: cx.constant(ConstInit::Local(at))?, offset: 0, space: Space::Local })
}

fn store(cx: &mut Context<'_>, named: Named, slot: Slot, ty: Ty) -> Res<Op> {
    let addr = address(cx, named)?;
    Ok(Op::Store(Store { addr, sem: Sem::Weak, size: ty.bits() / 8, s: vec![slot] }))
}

fn load(cx: &mut Context<'_>, named: Named, slot: Slot, ty: Ty) -> Res<Op> {
    let addr = address(cx, named)?;
    let d = vec![Some(slot)];
    Ok(Op::Load(Load { addr, sem: Sem::Weak, size: ty.bits() / 8, sign: None, d }))
}
