//! Dispatch by opcode, and the integer, logic, move and control instructions.

use super::call::RETURN;
use super::context::Context;
use super::decode_bulk as bulk;
use super::decode_cluster as cluster;
use super::decode_float as float;
use super::decode_integer as integer;
use super::decode_mbarrier as mbarrier;
use super::decode_mem as mem;
use super::decode_test as test;
use super::decode_warp as warp;
use super::decode_wgmma as wgmma;
use super::inst::{Binary, Logic, Op, Prmt, Ternary, Unary};
use super::mods::{Mods, Res};
use super::types::{Class, Ty};
use crate::text::ast::{Inst, Operand};

const INT: &[Ty] = &[Ty::U16, Ty::U32, Ty::U64, Ty::S16, Ty::S32, Ty::S64];
const SIGNED: &[Ty] = &[Ty::S16, Ty::S32, Ty::S64];
const BITS: &[Ty] = &[Ty::B16, Ty::B32, Ty::B64];

/// Decodes one instruction that will stand at `pc`.
pub(super) fn decode(cx: &mut Context<'_>, inst: &Inst, pc: usize) -> Res<Op> {
    let mut m = Mods::new(cx.file, inst, cx.target);
    let is_float = inst
        .mods
        .last()
        .and_then(|m| Ty::parse(m))
        .is_some_and(|t| t.class() == Class::Float || matches!(t, Ty::Bf16 | Ty::Bf16x2));
    cx.specials = matches!(inst.op.as_str(), "mov" | "cvt");
    match inst.op.as_str() {
        "mov" => mov(cx, m),
        "add" | "sub" | "mad" if m.says("cc") => integer::carry(cx, m),
        "addc" | "subc" | "madc" => integer::carry(cx, m),
        "add" | "min" | "max" if m.says("u16x2") || m.says("s16x2") => integer::halves(cx, m),
        "mul24" | "mad24" => integer::short_product(cx, m),
        "sad" => integer::differences(cx, m),
        "dp4a" | "dp2a" => integer::dot(cx, m),
        "bmsk" | "szext" => integer::masks(cx, m),
        "fns" => integer::nth_set(cx, m),
        "vadd2" | "vadd4" | "vsub2" | "vsub4" | "vavrg2" | "vavrg4" | "vabsdiff2" | "vabsdiff4"
        | "vmin2" | "vmin4" | "vmax2" | "vmax4" | "vset2" | "vset4" => integer::video(cx, m),
        "lop3" if m.says("or") || m.says("and") => integer::logic_with_predicate(cx, m),
        "cvt" if m.says("pack") => integer::pack(cx, m),
        "set" => test::set(cx, m),
        "testp" => test::testp(cx, m),
        "copysign" => test::copysign(cx, m),
        "isspacep" => test::isspacep(cx, m),
        "add" | "sub" | "mul" | "min" | "max" | "div" | "neg" | "abs" | "fma" | "mad"
            if is_float =>
        {
            float::arithmetic(cx, m)
        }
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => float::function(cx, m),
        "add" if m.has("sat") => binary(cx, m, Binary::AddSat, &[Ty::S32]),
        "sub" if m.has("sat") => binary(cx, m, Binary::SubSat, &[Ty::S32]),
        "add" => binary(cx, m, Binary::Add, INT),
        "sub" => binary(cx, m, Binary::Sub, INT),
        "div" => binary(cx, m, Binary::Div, INT),
        "rem" => binary(cx, m, Binary::Rem, INT),
        "min" => binary(cx, m, Binary::Min, INT),
        "max" => binary(cx, m, Binary::Max, INT),
        "mul" | "mad" => multiply(cx, m),
        "neg" => unary(cx, m, Unary::Neg, SIGNED),
        "abs" => unary(cx, m, Unary::Abs, SIGNED),
        "not" => logic_not(cx, m),
        "and" => logic(cx, m, Binary::And, Logic::And),
        "or" => logic(cx, m, Binary::Or, Logic::Or),
        "xor" => logic(cx, m, Binary::Xor, Logic::Xor),
        "shl" => shift(cx, m, Binary::Shl, BITS),
        "shr" => {
            let all = [BITS, INT].concat();
            shift(cx, m, Binary::Shr, &all)
        }
        "bfind" => bfind(cx, m),
        "popc" => count_bits(cx, m, Unary::Popc),
        "cnot" => unary(cx, m, Unary::Cnot, BITS),
        "clz" => count_bits(cx, m, Unary::Clz),
        "brev" => unary(cx, m, Unary::Brev, &[Ty::B32, Ty::B64]),
        "shf" | "lop3" | "prmt" | "bfe" | "bfi" => bit_fields(cx, m),
        "setp" => setp(cx, m),
        "selp" | "slct" => select(cx, m),
        "cvt" => float::cvt(cx, m),
        "bra" => {
            let uniform = m.has("uni");
            m.done()?;
            cx.branch(pc, inst)?;
            Ok(Op::Bra { target: 0, uniform })
        }
        "brx" => branch_table(cx, m, pc),
        "ret" if !cx.calls.is_empty() => {
            let uniform = m.has("uni");
            m.done()?;
            m.count(0)?;
            cx.fix(pc, 0, RETURN);
            Ok(Op::Bra { target: 0, uniform })
        }
        "ret" | "exit" | "trap" => {
            if inst.op == "ret" {
                m.has("uni");
            }
            m.done()?;
            m.count(0)?;
            Ok(if inst.op == "trap" { Op::Trap } else { Op::Exit })
        }
        "ld" | "ldu" => mem::load(cx, m),
        "st" if m.has("async") => cluster::store_async(cx, m),
        "st" => mem::store(cx, m),
        "red" if m.has("async") => cluster::store_async(cx, m),
        "atom" | "red" => mem::atom(cx, m),
        "fence" if m.has("proxy") => cluster::proxy(m),
        "fence" if m.has("mbarrier_init") => cluster::init(m),
        "fence" | "membar" => mem::fence(m),
        "mbarrier" => mbarrier::mbarrier(cx, m),
        "wgmma" => wgmma::wgmma(cx, m),
        "setmaxnreg" => wgmma::setmaxnreg(cx, m),
        "stmatrix" => wgmma::stmatrix(cx, m),
        "elect" => wgmma::elect(cx, m),
        "mapa" => cluster::mapa(cx, m),
        "getctarank" => cluster::getctarank(cx, m),
        "griddepcontrol" => cluster::griddepcontrol(m),
        "cvta" => mem::cvta(cx, m),
        "createpolicy" => mem::createpolicy(cx, m),
        "prefetch" => mem::prefetch(cx, m),
        "applypriority" => mem::applypriority(cx, m),
        "pmevent" => {
            let masked = m.has("mask");
            m.done()?;
            m.count(1)?;
            cx.literal(&inst.operands[0], if masked { 0xFFFF } else { 15 })?;
            Ok(Op::Prefetch)
        }
        "cp" if m.has("reduce") => {
            m.need("async")?;
            m.need("bulk")?;
            bulk::bulk(cx, m, true)
        }
        "cp" => {
            m.need("async")?;
            if m.has("bulk") {
                bulk::bulk(cx, m, false)
            } else if m.has("mbarrier") {
                mbarrier::copies(cx, m)
            } else {
                mem::cp_async(cx, m)
            }
        }
        "ldmatrix" => warp::ldmatrix(cx, m),
        "movmatrix" => warp::movmatrix(cx, m),
        "mma" => warp::mma(cx, m),
        "shfl" => warp::shfl(cx, m),
        "vote" => warp::vote(cx, m),
        "redux" => warp::redux(cx, m),
        "match" => warp::matching(cx, m),
        "activemask" => {
            m.need("b32")?;
            m.done()?;
            m.count(1)?;
            Ok(Op::Activemask { d: cx.dst(&inst.operands[0], Ty::B32)? })
        }
        "barrier" if m.has("cluster") => cluster::barrier(m),
        "bar" | "barrier" => warp::barrier(cx, m),
        "nanosleep" => {
            m.need("u32")?;
            m.done()?;
            m.count(1)?;
            cx.src(&inst.operands[0], Ty::U32)?;
            Ok(Op::Nanosleep)
        }
        other => cx.fail(format!("opcode `{other}` is not known")),
    }
}

fn mov(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let all = [BITS, INT, &[Ty::F32, Ty::F64, Ty::Pred]].concat();
    let ty = m.ty(&all)?;
    m.done()?;
    m.count(2)?;
    let [d, a] = [&m.inst.operands[0], &m.inst.operands[1]];
    match (d, a) {
        (Operand::Vector(_), Operand::Vector(_)) => m.fail("mov takes one vector at most"),
        (Operand::Vector(items), _) => {
            let bits = part_bits(&m, ty, items.len())?;
            let part = part_ty(bits);
            let d = items
                .iter()
                .map(|i| if *i == Operand::Sink { Ok(None) } else { cx.dst(i, part).map(Some) })
                .collect::<Res<Vec<_>>>()?;
            Ok(Op::Unpack { d, s: cx.src(a, ty)?, bits })
        }
        (_, Operand::Vector(items)) => {
            let bits = part_bits(&m, ty, items.len())?;
            let s = cx.srcs(a, items.len(), part_ty(bits))?;
            Ok(Op::Pack { d: cx.dst(d, ty)?, s, bits })
        }
        _ if ty == Ty::Pred => {
            let d = cx.pred(d)?;
            // Any number but zero holds.
            if let Operand::Int(v, _) = a {
                return Ok(Op::SetPred { d, value: *v != 0 });
            }
            let (a, negate) = cx.pred_not(a)?;
            Ok(Op::MovPred { d, a, negate })
        }
        (_, Operand::Name(name)) if clock(name).is_some() => {
            let (bits, high) = clock(name).unwrap_or((32, false));
            if ty.bits() != bits || ty.class() == Class::Float {
                return m.fail(format!("`{name}` has {bits} bits"));
            }
            Ok(Op::Clock { d: cx.dst(d, ty)?, bits, high })
        }
        _ => Ok(Op::Mov { d: cx.dst(d, ty)?, a: cx.src(a, ty)? }),
    }
}

/// What counts instructions here: its bits, and whether they are the upper ones.
fn clock(name: &str) -> Option<(u32, bool)> {
    Some(match name {
        "%clock" | "%globaltimer_lo" => (32, false),
        "%clock_hi" | "%globaltimer_hi" => (32, true),
        "%clock64" | "%globaltimer" => (64, false),
        _ => return None,
    })
}

fn part_bits(m: &Mods<'_>, ty: Ty, n: usize) -> Res<u32> {
    let n = n as u32;
    if ty.class() != Class::Bits || !matches!(n, 2 | 4) || ty.bits() / n < 8 {
        return m.fail(format!("mov of {ty:?} cannot have {n} parts"));
    }
    Ok(ty.bits() / n)
}

fn part_ty(bits: u32) -> Ty {
    match bits {
        8 => Ty::B8,
        16 => Ty::B16,
        _ => Ty::B32,
    }
}

fn unary(cx: &mut Context<'_>, mut m: Mods<'_>, op: Unary, legal: &[Ty]) -> Res<Op> {
    let ty = m.ty(legal)?;
    m.done()?;
    m.count(2)?;
    let ops = &m.inst.operands;
    Ok(Op::Unary { op, bits: ty.bits(), d: cx.dst(&ops[0], ty)?, a: cx.src(&ops[1], ty)? })
}

/// `popc`, `clz`: the result is an integer of 32 bits whatever the source.
fn count_bits(cx: &mut Context<'_>, mut m: Mods<'_>, op: Unary) -> Res<Op> {
    let ty = m.ty(&[Ty::B32, Ty::B64])?;
    m.done()?;
    m.count(2)?;
    let ops = &m.inst.operands;
    Ok(Op::Unary { op, bits: ty.bits(), d: cx.dst(&ops[0], Ty::U32)?, a: cx.src(&ops[1], ty)? })
}

fn bfind(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let shift = m.has("shiftamt");
    let ty = m.ty(&[Ty::U32, Ty::U64, Ty::S32, Ty::S64])?;
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    let op = Unary::Bfind { signed: ty.signed(), shift };
    Ok(Op::Unary { op, bits: ty.bits(), d: cx.dst(&o[0], Ty::U32)?, a: cx.src(&o[1], ty)? })
}

fn binary(cx: &mut Context<'_>, mut m: Mods<'_>, op: Binary, legal: &[Ty]) -> Res<Op> {
    let ty = m.ty(legal)?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
    Ok(Op::Binary { op, bits: ty.bits(), signed: ty.signed(), d, a, b })
}

fn shift(cx: &mut Context<'_>, mut m: Mods<'_>, op: Binary, legal: &[Ty]) -> Res<Op> {
    let ty = m.ty(legal)?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], Ty::U32)?);
    Ok(Op::Binary { op, bits: ty.bits(), signed: ty.signed(), d, a, b })
}

fn multiply(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let half = m.want("`.lo`, `.hi` or `.wide`", &[("lo", 0), ("hi", 1), ("wide", 2)])?;
    let is_mad = m.inst.op == "mad";
    let sat = is_mad && half == 1 && m.has("sat");
    let ty = m.ty(match (sat, half) {
        (true, _) => &[Ty::S32],
        (_, 2) => &[Ty::U16, Ty::S16, Ty::U32, Ty::S32],
        _ => INT,
    })?;
    m.done()?;
    m.count(if is_mad { 4 } else { 3 })?;
    let wide = match (half, ty) {
        (2, Ty::U16) => Ty::U32,
        (2, Ty::S16) => Ty::S32,
        (2, Ty::U32) => Ty::U64,
        (2, Ty::S32) => Ty::S64,
        _ => ty,
    };
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], wide)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
    let (bits, signed) = (ty.bits(), ty.signed());
    if is_mad {
        let high = if sat { Ternary::MadHiSat } else { Ternary::MadHi };
        let op = [Ternary::MadLo, high, Ternary::MadWide][half];
        return Ok(Op::Ternary { op, bits, signed, d, a, b, c: cx.src(&o[3], wide)? });
    }
    let op = [Binary::MulLo, Binary::MulHi, Binary::MulWide][half];
    Ok(Op::Binary { op, bits, signed, d, a, b })
}

fn logic(cx: &mut Context<'_>, mut m: Mods<'_>, op: Binary, pred: Logic) -> Res<Op> {
    if m.has("pred") {
        m.done()?;
        m.count(3)?;
        let o = &m.inst.operands;
        let (d, a, b) = (cx.pred(&o[0])?, cx.pred_not(&o[1])?, cx.pred_not(&o[2])?);
        return Ok(Op::LogicPred { op: pred, d, a, b });
    }
    binary(cx, m, op, BITS)
}

fn logic_not(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    if m.has("pred") {
        m.done()?;
        m.count(2)?;
        let o = &m.inst.operands;
        return Ok(Op::MovPred { d: cx.pred(&o[0])?, a: cx.pred(&o[1])?, negate: true });
    }
    unary(cx, m, Unary::Not, BITS)
}

fn bit_fields(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let o = &m.inst.operands;
    match m.inst.op.as_str() {
        "shf" => {
            let left = m.want("`.l` or `.r`", &[("l", true), ("r", false)])?;
            let wrap = m.want("`.wrap` or `.clamp`", &[("wrap", true), ("clamp", false)])?;
            m.need("b32")?;
            m.done()?;
            m.count(4)?;
            let d = cx.dst(&o[0], Ty::B32)?;
            let (a, b, c) =
                (cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?, cx.src(&o[3], Ty::U32)?);
            Ok(Op::Ternary { op: Ternary::Shf(left, wrap), bits: 32, signed: false, d, a, b, c })
        }
        "lop3" => {
            m.need("b32")?;
            m.done()?;
            m.count(5)?;
            let table = cx.literal(&o[4], 255)? as u8;
            let d = cx.dst(&o[0], Ty::B32)?;
            let (a, b, c) =
                (cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?, cx.src(&o[3], Ty::B32)?);
            Ok(Op::Ternary { op: Ternary::Lop3(table), bits: 32, signed: false, d, a, b, c })
        }
        "prmt" => {
            m.need("b32")?;
            let mode = m.pick(&[
                ("f4e", Prmt::ForwardExtract),
                ("b4e", Prmt::BackwardExtract),
                ("rc8", Prmt::Replicate8),
                ("ecl", Prmt::EdgeLeft),
                ("ecr", Prmt::EdgeRight),
                ("rc16", Prmt::Replicate16),
            ]);
            m.done()?;
            m.count(4)?;
            let d = cx.dst(&o[0], Ty::B32)?;
            let (a, b, c) =
                (cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?, cx.src(&o[3], Ty::B32)?);
            let op = mode.map_or(Ternary::Prmt, Ternary::PrmtMode);
            Ok(Op::Ternary { op, bits: 32, signed: false, d, a, b, c })
        }
        "bfe" => {
            let ty = m.ty(&[Ty::U32, Ty::U64, Ty::S32, Ty::S64])?;
            m.done()?;
            m.count(4)?;
            let d = cx.dst(&o[0], ty)?;
            let (a, b, c) = (cx.src(&o[1], ty)?, cx.src(&o[2], Ty::U32)?, cx.src(&o[3], Ty::U32)?);
            Ok(Op::Ternary { op: Ternary::Bfe, bits: ty.bits(), signed: ty.signed(), d, a, b, c })
        }
        _ => {
            let ty = m.ty(&[Ty::B32, Ty::B64])?;
            m.done()?;
            m.count(5)?;
            let d = cx.dst(&o[0], ty)?;
            let (a, b) = (cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
            let (c, e) = (cx.src(&o[3], Ty::U32)?, cx.src(&o[4], Ty::U32)?);
            Ok(Op::Bfi { bits: ty.bits(), d, a, b, c, e })
        }
    }
}

fn setp(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let cmp = m.want("a comparison", test::COMPARISONS)?;
    let combine = m.pick(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
    let ftz = m.has("ftz");
    let all = [BITS, INT, &[Ty::F16, Ty::F16x2, Ty::Bf16, Ty::Bf16x2, Ty::F32, Ty::F64]].concat();
    let ty = m.ty(&all)?;
    m.done()?;
    m.count(if combine.is_some() { 4 } else { 3 })?;
    let ty_cmp = test::comparison(&m, cmp, ty, ftz)?;
    let o = &m.inst.operands;
    let (p, q) = match &o[0] {
        Operand::Pair(p, q) => (cx.pred_or_sink(p)?, Some(cx.pred_or_sink(q)?)),
        p => (cx.pred(p)?, None),
    };
    let and = match combine {
        Some(op) => {
            let (c, negate) = cx.pred_not(&o[3])?;
            Some((op, c, negate))
        }
        None => None,
    };
    Ok(Op::Setp {
        cmp: cmp.0,
        ty: ty_cmp,
        bits: ty.bits(),
        p,
        q,
        a: cx.src(&o[1], ty)?,
        b: cx.src(&o[2], ty)?,
        and,
    })
}

fn select(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let all = [BITS, INT, &[Ty::F32, Ty::F64]].concat();
    let o = &m.inst.operands;
    if m.inst.op == "selp" {
        let ty = m.ty(&all)?;
        m.done()?;
        m.count(4)?;
        let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
        let (p, negate) = cx.pred_not(&o[3])?;
        let (a, b) = if negate { (b, a) } else { (a, b) };
        return Ok(Op::Selp { d, a, b, p });
    }
    let ftz = m.has("ftz");
    let ty = m.ty(&all)?;
    let by = m.ty(&[Ty::S32, Ty::F32])?;
    m.done()?;
    m.count(4)?;
    if ftz && by != Ty::F32 {
        return m.fail("slct.ftz needs an f32 selector");
    }
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
    // `.ftz` turns a negative subnormal into -0, which counts as not below zero, like +0.
    Ok(Op::Slct { float: by == Ty::F32, ftz, d, a, b, c: cx.src(&o[3], by)? })
}

/// `brx.idx index, name;`
fn branch_table(cx: &mut Context<'_>, mut m: Mods<'_>, pc: usize) -> Res<Op> {
    m.need("idx")?;
    let uniform = m.has("uni");
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    let index = cx.src(&o[0], Ty::U32)?;
    let labels = match &o[1] {
        Operand::Name(name) => cx.branch_targets(name).cloned(),
        _ => None,
    };
    let Some(labels) = labels else { return m.fail("brx.idx takes an index and a list of labels") };
    for (nth, label) in labels.iter().enumerate() {
        cx.fix(pc, nth, label);
    }
    Ok(Op::BraTable { index, targets: vec![0; labels.len()], uniform })
}
