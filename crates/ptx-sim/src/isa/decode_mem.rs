//! Loads, stores, atomics, fences, address conversion, `cp.async`.

use super::context::Context;
use super::hopper::Hopper;
use super::inst::{Atom, AtomOp, AtomTy, CpAsync, Float, Load, Op, Scope, Sem, Space, Store};
use super::mods::{Mods, Res};
use super::types::Ty;
use crate::text::ast::Operand;

const SCOPE: &[(&str, Scope)] =
    &[("cta", Scope::Cta), ("cluster", Scope::Cluster), ("gpu", Scope::Gpu), ("sys", Scope::Sys)];

/// Clusters and all that names them came with sm_90.
fn reachable(m: &Mods<'_>, space: Space, sem: Sem) -> Res<()> {
    let wide = matches!(
        sem,
        Sem::Relaxed(Scope::Cluster)
            | Sem::Acquire(Scope::Cluster)
            | Sem::Release(Scope::Cluster)
            | Sem::AcqRel(Scope::Cluster)
    );
    if wide || space == Space::Cluster { m.since(90) } else { Ok(()) }
}

const SPACE: &[(&str, Space)] = &[
    ("global", Space::Global),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("const", Space::Const),
    ("param", Space::Param),
    ("shared::cluster", Space::Cluster),
];
const ACCESS: &[Ty] = &[
    Ty::B8,
    Ty::B16,
    Ty::B32,
    Ty::B64,
    Ty::U8,
    Ty::U16,
    Ty::U32,
    Ty::U64,
    Ty::S8,
    Ty::S16,
    Ty::S32,
    Ty::S64,
    Ty::F32,
    Ty::F64,
];

/// Hints that change where a line is kept, never what is read; true when a policy operand follows.
/// They are for what may lie in global memory; only loads prefetch.
fn hints(m: &mut Mods<'_>, space: Space, volatile: bool) -> bool {
    if !matches!(space, Space::Global | Space::Generic) {
        return false;
    }
    const L1: &[(&str, ())] = &[
        ("L1::evict_normal", ()),
        ("L1::evict_unchanged", ()),
        ("L1::evict_first", ()),
        ("L1::evict_last", ()),
        ("L1::no_allocate", ()),
    ];
    if !volatile {
        m.pick(L1);
    }
    let policy = m.has("L2::cache_hint");
    if m.inst.op == "ld" {
        m.pick(L2_PREFETCH);
    }
    policy
}

const L2_PREFETCH: &[(&str, ())] = &[("L2::64B", ()), ("L2::128B", ()), ("L2::256B", ())];

/// The policy is the last operand: 64 bits, and nothing that runs depends on its value.
fn policy(cx: &mut Context<'_>, m: &Mods<'_>, with: bool) -> Res<()> {
    if with && let Some(op) = m.inst.operands.last() {
        cx.src(op, Ty::B64)?;
    }
    Ok(())
}

/// `createpolicy`: the value is opaque, here its own number of the eviction priority.
pub(super) fn createpolicy(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let kind = m.want(
        "`.fractional`, `.range` or `.cvt`",
        &[("fractional", 0), ("range", 1), ("cvt", 2)],
    )?;
    let o = &m.inst.operands;
    if kind == 2 {
        m.need("L2")?;
        m.need("b64")?;
        m.done()?;
        m.count(2)?;
        return Ok(Op::Mov { d: cx.dst(&o[0], Ty::B64)?, a: cx.src(&o[1], Ty::B64)? });
    }
    let range = kind == 1;
    if range {
        m.has("global");
    }
    let kind = m.want(
        "an eviction priority",
        &[
            ("L2::evict_normal", 1),
            ("L2::evict_unchanged", 2),
            ("L2::evict_first", 3),
            ("L2::evict_last", 4),
        ],
    )?;
    m.pick(&[("L2::evict_unchanged", ()), ("L2::evict_first", ())]);
    m.need("b64")?;
    m.done()?;
    if range {
        m.count(4)?;
        cx.address(&o[1], Space::Global)?;
        cx.src(&o[2], Ty::U32)?;
        cx.src(&o[3], Ty::U32)?;
    } else if o.len() != 1 {
        m.count(2)?;
        cx.src(&o[1], Ty::F32)?;
    }
    let d = cx.dst(&o[0], Ty::B64)?;
    Ok(Op::Mov { d, a: cx.constant(super::module::ConstInit::Bits(kind))? })
}

fn vector(m: &mut Mods<'_>) -> usize {
    m.pick(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
}

fn access(m: &mut Mods<'_>, n: usize, space: Space) -> Res<Ty> {
    let ty = m.ty(ACCESS)?;
    m.done()?;
    let bits = ty.bits() as usize * n;
    let wide = bits == 256 && space == Space::Global && ty.bits() >= 32;
    if wide {
        m.since(100)?;
    } else if bits > 128 {
        return m.fail("a vector access has at most 16 bytes, in global memory from sm_100 on 32");
    }
    Ok(ty)
}

pub(super) fn load(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let (mut sem, mut weak, mut volatile) = (Sem::Weak, false, false);
    if m.inst.op == "ldu" {
        // Reads what nobody writes, as `.nc` does.
        sem = Sem::NonCoherent;
    } else if m.has("relaxed") {
        sem = Sem::Relaxed(m.want("a scope", SCOPE)?);
    } else if m.has("acquire") {
        sem = Sem::Acquire(m.want("a scope", SCOPE)?);
    } else if m.has("volatile") {
        (sem, volatile) = (Sem::Relaxed(Scope::Sys), true);
    } else {
        weak = m.has("weak");
    }
    let space = m.pick(SPACE).unwrap_or(Space::Generic);
    if sem == Sem::Weak {
        let cache = m.pick(&[("ca", 0), ("cg", 0), ("cs", 0), ("lu", 1), ("cv", 1)]);
        if m.has("nc") {
            if space != Space::Global || weak || cache == Some(1) {
                return m.fail("`.nc` is for global memory, without `.weak`, `.lu` and `.cv`");
            }
            sem = Sem::NonCoherent;
        }
    }
    if m.inst.op == "ldu" && !matches!(space, Space::Global | Space::Generic) {
        return m.fail("ldu is for global memory");
    }
    if matches!(space, Space::Param | Space::Local | Space::Const) && sem != Sem::Weak {
        return m.fail("parameters, constants and local memory take plain loads");
    }
    reachable(&m, space, sem)?;
    let hinted = m.inst.op == "ld" && hints(&mut m, space, volatile);
    let n = vector(&mut m);
    let ty = access(&mut m, n, space)?;
    m.count(2 + usize::from(hinted))?;
    policy(cx, &m, hinted)?;
    let o = &m.inst.operands;
    let mut d = Vec::new();
    let mut sign = None;
    for item in cx.elements(&o[0], n)? {
        if *item == Operand::Sink && n > 1 {
            d.push(None);
            continue;
        }
        let (slot, bits) = cx.dst_wide(item, ty)?;
        if ty.signed() && bits > ty.bits() {
            if sign.is_some_and(|s| s != bits) {
                return m.fail("the elements of a vector have registers of several widths");
            }
            sign = Some(bits);
        }
        d.push(Some(slot));
    }
    let addr = cx.address(&o[1], space)?;
    Ok(Op::Load(Load { addr, sem, size: ty.bits() / 8, sign, d }))
}

pub(super) fn store(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let (mut sem, mut volatile) = (Sem::Weak, false);
    if m.has("relaxed") {
        sem = Sem::Relaxed(m.want("a scope", SCOPE)?);
    } else if m.has("release") {
        sem = Sem::Release(m.want("a scope", SCOPE)?);
    } else if m.has("volatile") {
        (sem, volatile) = (Sem::Relaxed(Scope::Sys), true);
    } else {
        m.has("weak");
    }
    let space = m.pick(SPACE).unwrap_or(Space::Generic);
    let argument = space == Space::Param && cx.is_argument(m.inst.operands.first());
    if space == Space::Const || (space == Space::Param && !argument) {
        return m.fail("parameters of an entry and constants cannot be stored to");
    }
    if matches!(space, Space::Local | Space::Param) && sem != Sem::Weak {
        return m.fail("local memory takes plain stores");
    }
    reachable(&m, space, sem)?;
    if sem == Sem::Weak {
        m.pick(&[("wb", ()), ("cg", ()), ("cs", ()), ("wt", ())]);
    }
    let hinted = hints(&mut m, space, volatile);
    let n = vector(&mut m);
    let ty = access(&mut m, n, space)?;
    m.count(2 + usize::from(hinted))?;
    policy(cx, &m, hinted)?;
    let o = &m.inst.operands;
    let addr = cx.address(&o[0], space)?;
    let mut s = Vec::new();
    for item in cx.elements(&o[1], n)? {
        s.push(cx.src_wide(item, ty)?);
    }
    Ok(Op::Store(Store { addr, sem, size: ty.bits() / 8, s }))
}

pub(super) fn atom(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let is_red = m.inst.op == "red";
    let sem =
        m.pick(&[("relaxed", 0), ("acquire", 1), ("release", 2), ("acq_rel", 3)]).unwrap_or(0);
    if is_red && matches!(sem, 1 | 3) {
        return m.fail("red is `.relaxed` or `.release`");
    }
    // Without a scope the ISA says gpu.
    let scope = m.pick(SCOPE).unwrap_or(Scope::Gpu);
    let sem =
        [Sem::Relaxed(scope), Sem::Acquire(scope), Sem::Release(scope), Sem::AcqRel(scope)][sem];
    let space = m.pick(SPACE).unwrap_or(Space::Generic);
    if matches!(space, Space::Param | Space::Local | Space::Const) {
        return m.fail("atomics are for global and shared memory");
    }
    reachable(&m, space, sem)?;
    let op = m.want(
        "an operation",
        &[
            ("add", AtomOp::Add),
            ("min", AtomOp::Min),
            ("max", AtomOp::Max),
            ("and", AtomOp::And),
            ("or", AtomOp::Or),
            ("xor", AtomOp::Xor),
            ("inc", AtomOp::Inc),
            ("dec", AtomOp::Dec),
            ("exch", AtomOp::Exch),
            ("cas", AtomOp::Cas),
        ],
    )?;
    let noftz = op == AtomOp::Add && m.has("noftz");
    let hinted = m.has("L2::cache_hint");
    let n = if op == AtomOp::Add { m.pick(&[("v2", 2), ("v4", 4)]).unwrap_or(1) } else { 1 };
    let ty = m.ty(match op {
        AtomOp::Add if noftz => &[Ty::F16, Ty::F16x2, Ty::Bf16, Ty::Bf16x2],
        AtomOp::Add if n > 1 => &[Ty::F32],
        AtomOp::Add => &[Ty::U32, Ty::S32, Ty::U64, Ty::F32, Ty::F64],
        AtomOp::Min | AtomOp::Max => &[Ty::U32, Ty::S32, Ty::U64, Ty::S64],
        AtomOp::Inc | AtomOp::Dec => &[Ty::U32],
        AtomOp::Cas => &[Ty::B16, Ty::B32, Ty::B64],
        _ => &[Ty::B32, Ty::B64],
    })?;
    m.done()?;
    if n > 1 || matches!(ty, Ty::Bf16 | Ty::Bf16x2) {
        m.since(90)?;
    }
    if n > 1 && (space != Space::Global || n * ty.bits() as usize > 128) {
        return m.fail("vectors are added in global memory, 16 bytes at most");
    }
    if is_red && matches!(op, AtomOp::Exch | AtomOp::Cas) {
        return m.fail("red has no exch and no cas");
    }
    let cas = usize::from(op == AtomOp::Cas);
    let skip = usize::from(!is_red);
    m.count(2 + skip + cas + usize::from(hinted))?;
    policy(cx, &m, hinted)?;
    let o = &m.inst.operands;
    let mut d = vec![None; n];
    match o.first() {
        Some(Operand::Sink) | None => {}
        Some(to) if !is_red => {
            for (d, item) in d.iter_mut().zip(cx.elements(to, n)?) {
                *d = if *item == Operand::Sink { None } else { Some(cx.dst(item, ty)?) };
            }
        }
        _ => {}
    }
    let addr = cx.address(&o[skip], space)?;
    let a = cx.srcs(&o[skip + 1], n, ty)?;
    let b = if cas == 1 { Some(cx.src(&o[skip + 2], ty)?) } else { None };
    let ty = match ty {
        Ty::F16 => AtomTy::Float(Float::F16),
        Ty::Bf16 => AtomTy::Float(Float::Bf16),
        Ty::F32 => AtomTy::Float(Float::F32),
        Ty::F64 => AtomTy::Float(Float::F64),
        Ty::F16x2 => AtomTy::Pair(Float::F16),
        Ty::Bf16x2 => AtomTy::Pair(Float::Bf16),
        t if t.signed() => AtomTy::Signed(t.bits()),
        Ty::U32 | Ty::U64 => AtomTy::Unsigned(ty.bits()),
        _ => AtomTy::Bits(ty.bits()),
    };
    Ok(Op::Atom(Atom { addr, sem, op, ty, d, a, b }))
}

pub(super) fn fence(mut m: Mods<'_>) -> Res<Op> {
    // `membar` is `fence.sc`.
    let (scope, sc) = if m.inst.op == "membar" {
        let scope = m.want(
            "`.cta`, `.gl` or `.sys`",
            &[("cta", Scope::Cta), ("gl", Scope::Gpu), ("sys", Scope::Sys)],
        )?;
        (scope, true)
    } else {
        let sc = m.pick(&[("acq_rel", false), ("sc", true)]).unwrap_or(false);
        (m.want("a scope", SCOPE)?, sc)
    };
    if scope == Scope::Cluster {
        m.since(90)?;
    }
    m.done()?;
    m.count(0)?;
    Ok(Op::Fence { scope, sc })
}

pub(super) fn cvta(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let to_space = m.has("to");
    let space = m.want("a state space", SPACE)?;
    if matches!(space, Space::Param | Space::Cluster) {
        m.since(if space == Space::Param { 70 } else { 90 })?;
    }
    m.need("u64")?;
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    Ok(Op::Cvta { d: cx.dst(&o[0], Ty::U64)?, a: cx.src(&o[1], Ty::U64)?, space, to_space })
}

pub(super) fn prefetch(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let map = m.inst.mods.last().is_some_and(|word| word == "tensormap");
    if map {
        m.since(90)?;
        let space =
            m.pick(&[("param", Space::Generic), ("const", Space::Const)]).unwrap_or(Space::Generic);
        m.need("tensormap")?;
        m.done()?;
        m.count(1)?;
        let addr = cx.address(&m.inst.operands[0], space)?;
        return Ok(Op::Hopper(Box::new(Hopper::PrefetchMap { addr })));
    }
    let space =
        m.pick(&[("global", Space::Global), ("local", Space::Local)]).unwrap_or(Space::Generic);
    m.want(
        "`.L1` or `.L2`",
        &[("L1", ()), ("L2", ()), ("L2::evict_last", ()), ("L2::evict_normal", ())],
    )?;
    m.done()?;
    m.count(1)?;
    if space == Space::Local && m.inst.mods.iter().any(|word| word.contains("evict")) {
        return m.fail("an eviction priority is for global memory");
    }
    cx.address(&m.inst.operands[0], space)?;
    Ok(Op::Prefetch)
}

/// A hint, as `prefetch` is.
pub(super) fn applypriority(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let space = if m.has("global") { Space::Global } else { Space::Generic };
    m.need("L2::evict_normal")?;
    m.done()?;
    m.count(2)?;
    if cx.literal(&m.inst.operands[1], 128)? != 128 {
        return m.fail("applypriority is for 128 bytes");
    }
    cx.address(&m.inst.operands[0], space)?;
    Ok(Op::Prefetch)
}

pub(super) fn cp_async(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    if m.has("commit_group") {
        m.done()?;
        m.count(0)?;
        return Ok(Op::CpCommit);
    }
    if m.has("wait_all") {
        m.done()?;
        m.count(0)?;
        return Ok(Op::CpWait { left: None });
    }
    let o = &m.inst.operands;
    if m.has("wait_group") {
        m.done()?;
        m.count(1)?;
        return Ok(Op::CpWait { left: Some(cx.literal(&o[0], u64::from(u32::MAX))? as u32) });
    }
    let cg = m.want("`.ca`, `.cg` or a group instruction", &[("ca", false), ("cg", true)])?;
    if !(m.has("shared::cta") || m.has("shared")) {
        return m.unknown("`.shared`");
    }
    m.need("global")?;
    let hinted = m.has("L2::cache_hint");
    m.pick(L2_PREFETCH);
    m.done()?;
    let extra = usize::from(hinted);
    if o.len() != 4 + extra {
        m.count(3 + extra)?;
    }
    policy(cx, &m, hinted)?;
    let size = cx.literal(&o[2], 16)? as u32;
    if !(size == 16 || (!cg && matches!(size, 4 | 8))) {
        return m.fail("cp-size is 4, 8 or 16; with `.cg` 16");
    }
    // A predicate in the place of src-size says where nothing is read.
    let (mut src_size, mut ignore) = (None, None);
    match o.get(3).filter(|_| o.len() == 4 + extra) {
        Some(op) if cx.is_pred(op) => ignore = Some(cx.pred_not(op)?),
        Some(op) => src_size = Some(cx.src(op, Ty::U32)?),
        None => {}
    }
    let dst = cx.address(&o[0], Space::Shared)?;
    let src = cx.address(&o[1], Space::Global)?;
    Ok(Op::CpAsync(CpAsync { dst, src, size, src_size, ignore }))
}
