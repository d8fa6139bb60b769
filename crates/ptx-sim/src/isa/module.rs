//! A module ready to run: its entries with slots, constants and shared-memory layout.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call::{Functions, call};
use super::context::{Context, Named};
use super::decode_alu::decode;
use super::hopper::{Hopper, WgmmaA};
use super::inst::{Inst, Op, Slot};
use super::mods::{Res, Target, fail, in_order};
use crate::error::PtxError;
use crate::text::ast::{Entry, Operand, Stmt, Var};

/// Specials that stay what they are while a warp runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    DynamicShared,
    TotalShared,
    /// A number that tells grids apart; here there is no other.
    Gridid,
    /// The cluster among clusters, and how many there are.
    Clusterid(u8),
    Nclusterid(u8),
    /// The CTA in its cluster, and the cluster's shape.
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
}

impl Kernel {
    /// From one lane's own memory to the next's: a multiple of the widest access.
    pub(crate) fn local_stride(&self) -> u64 {
        self.local.next_multiple_of(16)
    }

    /// A lane's own memory, and that stride.
    pub(crate) fn local_sizes(&self) -> (u64, u64) {
        (self.local, self.local_stride())
    }
}

impl Special {
    /// Came with sm_90.
    pub(super) fn of_clusters(self) -> bool {
        use Special::*;
        matches!(
            self,
            Clusterid(_)
                | Nclusterid(_)
                | ClusterCtaid(_)
                | ClusterNctaid(_)
                | ClusterCtarank
                | ClusterNctarank
        )
    }

    /// Of 64 bits, the others of 32.
    pub(super) fn bits(self) -> u32 {
        if self == Special::Gridid { 64 } else { 32 }
    }

    pub(super) fn parse(name: &str) -> Option<Special> {
        let (stem, axis) = match name.rsplit_once('.') {
            Some((stem, "x")) => (stem, 0),
            Some((stem, "y")) => (stem, 1),
            Some((stem, "z")) => (stem, 2),
            Some(_) => return None,
            None => (name, u8::MAX),
        };
        Some(match (stem, axis) {
            ("%tid", 0..=2) => Special::Tid(axis),
            ("%ntid", 0..=2) => Special::Ntid(axis),
            ("%ctaid", 0..=2) => Special::Ctaid(axis),
            ("%nctaid", 0..=2) => Special::Nctaid(axis),
            ("%clusterid", 0..=2) => Special::Clusterid(axis),
            ("%nclusterid", 0..=2) => Special::Nclusterid(axis),
            ("%cluster_ctaid", 0..=2) => Special::ClusterCtaid(axis),
            ("%cluster_nctaid", 0..=2) => Special::ClusterNctaid(axis),
            ("%cluster_ctarank", u8::MAX) => Special::ClusterCtarank,
            ("%cluster_nctarank", u8::MAX) => Special::ClusterNctarank,
            ("%laneid", u8::MAX) => Special::Laneid,
            ("%warpid", u8::MAX) => Special::Warpid,
            ("%nwarpid", u8::MAX) => Special::Nwarpid,
            ("%smid", u8::MAX) => Special::Smid,
            ("%nsmid", u8::MAX) => Special::Nsmid,
            ("%lanemask_eq", u8::MAX) => Special::MaskEq,
            ("%lanemask_le", u8::MAX) => Special::MaskLe,
            ("%lanemask_lt", u8::MAX) => Special::MaskLt,
            ("%lanemask_ge", u8::MAX) => Special::MaskGe,
            ("%lanemask_gt", u8::MAX) => Special::MaskGt,
            ("%dynamic_smem_size", u8::MAX) => Special::DynamicShared,
            ("%total_smem_size" | "%aggr_smem_size", u8::MAX) => Special::TotalShared,
            ("%gridid", u8::MAX) => Special::Gridid,
            _ => return None,
        })
    }
}

/// What fills a constant slot before a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ConstInit {
    Bits(u64),
    /// An address in shared memory, the window's base still to be added.
    Shared(u64),
    /// Likewise in a thread's own memory, in the constants, among the global variables.
    Local(u64),
    Const(u64),
    Global(u64),
    Special(Special),
}

/// A parameter's place in the parameter block.
#[derive(Clone, Debug)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// One entry, decoded.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) insts: Vec<Inst>,
    pub(crate) slots: usize,
    pub(crate) preds: usize,
    pub(crate) inits: Vec<(Slot, ConstInit)>,
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: usize,
    /// Bytes of static shared memory; dynamic memory follows.
    pub(crate) static_shared: u64,
    /// Bytes of memory of every thread's own.
    pub(crate) local: u64,
    /// The module's constants, and those that the entry declares.
    pub(crate) consts: Vec<u8>,
    pub(crate) maxntid: Option<[u32; 3]>,
    pub(crate) reqntid: Option<[u32; 3]>,
    pub(crate) minnctapersm: u32,
    pub(crate) maxnreg: Option<u32>,
    /// `.reqnctapercluster`
    pub(crate) cluster: Option<[u32; 3]>,
    pub(crate) max_cluster_rank: Option<u32>,
    /// It has mbarriers, bulk copies or another of Hopper's engines.
    pub(crate) engines: bool,
    /// By instruction: the operands of `wgmma` that it touches, and whether it writes them. Empty in
    /// a kernel without `wgmma`.
    pub(crate) watch: Vec<Vec<(Slot, bool)>>,
}

/// A decoded PTX module.
///
/// ```
/// let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry nothing() { ret; }";
/// let module = ptx_sim::Module::parse("nothing.ptx", ptx).unwrap();
/// assert_eq!(module.entries().collect::<Vec<_>>(), ["nothing"]);
/// let error = ptx_sim::Module::parse("bad.ptx", &ptx.replace("ret", "tcgen05.fence")).unwrap_err();
/// assert!(error.to_string().starts_with("bad.ptx:4:29: opcode `tcgen05`"));
/// ```
#[derive(Debug)]
pub struct Module {
    pub(crate) target: String,
    /// Tells modules apart: each has global variables of its own.
    pub(crate) id: u64,
    /// What the global variables hold before the first launch.
    pub(crate) globals: Vec<u8>,
    pub(crate) kernels: HashMap<String, Arc<Kernel>>,
    order: Vec<String>,
}

impl Module {
    /// Parses and decodes `source`; `file` names it in every report.
    ///
    /// # Errors
    /// The first thing that is malformed or not known, with its line.
    pub fn parse(file: &str, source: &str) -> Result<Module, PtxError> {
        let tree = crate::text::parse(file, source)?;
        if !matches!(
            tree.target.as_str(),
            "sm_70"
                | "sm_75"
                | "sm_80"
                | "sm_86"
                | "sm_87"
                | "sm_89"
                | "sm_90"
                | "sm_90a"
                | "sm_120"
        ) {
            return Err(PtxError {
                file: file.into(),
                line: 1,
                column: 1,
                message: format!("target {} is not simulated", tree.target),
            });
        }
        let number = tree.target.trim_start_matches("sm_").trim_end_matches('a');
        let target =
            Target { sm: number.parse().unwrap_or(0), specific: tree.target.ends_with('a') };
        let mut kernels = HashMap::new();
        let (mut order, mut globals) = (Vec::new(), Vec::new());
        // Those of the module come first, at the same place for every entry.
        let mut image = Image::default();
        for var in tree.vars.iter().filter(|v| v.space == "global") {
            image.place(var);
        }
        globals.append(&mut image.bytes);
        let functions = Functions::of(file, &tree.funcs)?;
        for entry in &tree.entries {
            let kernel = decode_entry(file, target, &tree.vars, &functions, entry, &mut globals)?;
            order.push(entry.name.clone());
            if kernels.insert(entry.name.clone(), Arc::new(kernel)).is_some() {
                return fail(file, entry.span, format!("entry `{}` is defined twice", entry.name));
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Module { target: tree.target, id, globals, kernels, order })
    }

    /// Names of the entries, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// Sizes in bytes of an entry's parameters.
    pub fn params(&self, entry: &str) -> Option<Vec<usize>> {
        Some(self.kernels.get(entry)?.params.iter().map(|p| p.bytes).collect())
    }

    /// Bytes of static shared memory of an entry.
    pub fn static_shared(&self, entry: &str) -> Option<u64> {
        Some(self.kernels.get(entry)?.static_shared)
    }
}

/// Variables with initial bytes, one behind the other.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn place(&mut self, var: &Var) -> u64 {
        let at = self.bytes.len().next_multiple_of(var.align as usize);
        self.bytes.resize(at, 0);
        self.bytes.extend(&var.init);
        self.bytes.resize(at + var.bytes as usize, 0);
        at as u64
    }
}

/// Static shared memory that ptxas accepts.
const MAX_STATIC_SHARED: u64 = 48 << 10;
/// The bank of constants.
const MAX_CONST: usize = 64 << 10;
/// A thread's own memory, by the ISA's limit.
const MAX_LOCAL: u64 = 512 << 10;

pub(super) struct Layout<'g> {
    shared: u64,
    dynamic: Vec<String>,
    dynamic_align: u64,
    local: u64,
    consts: Image,
    /// The module's, to which an entry may add.
    globals: &'g mut Vec<u8>,
    /// The entry's own are being placed: they go behind the module's.
    inside: bool,
    /// Where the module's own stand; their bytes were laid out once before.
    walked: Image,
    pub(super) functions: &'g Functions<'g>,
    /// Variables of functions that live longer than a call: one for all calls.
    placed: HashMap<(u32, u32), Named>,
}

impl Layout<'_> {
    /// Room for what a call passes, in each thread's own memory.
    pub(super) fn argument(&mut self, bytes: u64, align: u32) -> Named {
        let at = self.local.next_multiple_of(u64::from(align));
        self.local = at + bytes;
        Named::Argument(at, bytes)
    }
}

fn place(cx: &mut Context<'_>, layout: &mut Layout<'_>, var: &Var) -> Res<()> {
    cx.span = var.span;
    let lasting = !cx.calls.is_empty() && !matches!(var.space.as_str(), "local" | "param");
    let key = (var.span.line, var.span.column);
    if lasting && let Some(&named) = layout.placed.get(&key) {
        return cx.declare(&var.name, named);
    }
    place_new(cx, layout, var)?;
    if lasting && let Some(named) = cx.lookup(&var.name) {
        layout.placed.insert(key, named);
    }
    Ok(())
}

fn place_new(cx: &mut Context<'_>, layout: &mut Layout<'_>, var: &Var) -> Res<()> {
    match var.space.as_str() {
        "param" => {
            let named = layout.argument(var.bytes, var.align);
            if layout.local > MAX_LOCAL {
                return cx.fail(format!("more than {MAX_LOCAL} bytes of local memory"));
            }
            return cx.declare(&var.name, named);
        }
        "local" => {
            let at = layout.local.next_multiple_of(u64::from(var.align));
            layout.local = at + var.bytes;
            if layout.local > MAX_LOCAL {
                return cx.fail(format!("more than {MAX_LOCAL} bytes of local memory"));
            }
            return cx.declare(&var.name, Named::Local(at));
        }
        "const" => {
            let at = layout.consts.place(var);
            if layout.consts.bytes.len() > MAX_CONST {
                return cx.fail(format!("more than {MAX_CONST} bytes of constants"));
            }
            return cx.declare(&var.name, Named::Const(at));
        }
        "global" if layout.inside => {
            let mut image = Image { bytes: std::mem::take(layout.globals) };
            let at = image.place(var);
            *layout.globals = image.bytes;
            return cx.declare(&var.name, Named::Global(at));
        }
        "global" => {
            let at = layout.walked.place(var);
            return cx.declare(&var.name, Named::Global(at));
        }
        _ => {}
    }
    if var.is_extern {
        // All extern arrays share one address: the end of the static ones, known only then.
        layout.dynamic.push(var.name.clone());
        layout.dynamic_align = layout.dynamic_align.max(u64::from(var.align));
        return Ok(());
    }
    let at = layout.shared.next_multiple_of(u64::from(var.align));
    layout.shared = at + var.bytes;
    if layout.shared > MAX_STATIC_SHARED {
        return cx.fail(format!("more than {MAX_STATIC_SHARED} bytes of static shared memory"));
    }
    cx.declare(&var.name, Named::Shared(at))
}

/// Static variables may stand in any block; the dynamic base lies behind all of them.
fn static_bytes(stmts: &[Stmt], mut at: u64) -> u64 {
    for stmt in stmts {
        match stmt {
            Stmt::Var(var) if var.space == "shared" => {
                at = at.next_multiple_of(u64::from(var.align)) + var.bytes;
            }
            Stmt::Block(inner) => at = static_bytes(inner, at),
            _ => {}
        }
    }
    at
}

fn decode_entry(
    file: &str,
    target: Target,
    vars: &[Var],
    functions: &Functions<'_>,
    entry: &Entry,
    globals: &mut Vec<u8>,
) -> Res<Kernel> {
    let mut cx = Context::new(file, target);
    let mut layout = Layout {
        shared: 0,
        dynamic: Vec::new(),
        dynamic_align: 1,
        local: 0,
        consts: Image::default(),
        globals,
        inside: false,
        walked: Image::default(),
        functions,
        placed: HashMap::new(),
    };
    for var in vars {
        place(&mut cx, &mut layout, var)?;
    }
    layout.inside = true;
    let bodies = functions.by_name.values().filter_map(|f| f.body.as_deref());
    let dynamic =
        bodies.fold(static_bytes(&entry.body, layout.shared), |at, b| static_bytes(b, at));
    let dynamic = dynamic.next_multiple_of(layout.dynamic_align);
    for name in std::mem::take(&mut layout.dynamic) {
        cx.declare(&name, Named::Shared(dynamic))?;
    }
    // The module's names stay below: a function's body sees these alone.
    cx.enter(0);
    let (mut params, mut param_bytes) = (Vec::new(), 0);
    for var in &entry.params {
        cx.span = var.span;
        if var.bytes == 0 {
            return cx.fail(format!("parameter `{}` has no length", var.name));
        }
        let offset = (param_bytes as u64).next_multiple_of(u64::from(var.align));
        cx.declare(&var.name, Named::Param(offset))?;
        param_bytes = (offset + var.bytes) as usize;
        params.push(Param {
            name: var.name.clone(),
            offset: offset as usize,
            bytes: var.bytes as usize,
        });
    }
    let mut insts = Vec::new();
    let mut scopes = 0;
    body(&mut cx, &mut layout, &entry.body, &mut insts, &mut scopes)?;
    cx.span = entry.span;
    // Falling off the end is what `ret` does; so every pc inside a warp stays inside the text.
    let last = insts.last().map_or(entry.span.line, |i: &Inst| i.line);
    insts.push(Inst { guard: None, line: last, op: Op::Exit });
    if layout.local > MAX_LOCAL {
        return cx.fail(format!("more than {MAX_LOCAL} bytes of local memory"));
    }
    for (pc, nth, label, open, span) in std::mem::take(&mut cx.fixups) {
        let target = open.iter().rev().find_map(|&scope| cx.labels.get(&(scope, label.clone())));
        match target {
            Some(&to) => match &mut insts[pc].op {
                Op::Bra { target, .. } => *target = to,
                Op::BraTable { targets, .. } => targets[nth] = to,
                _ => {}
            },
            None => return fail(file, span, format!("label `{label}` is not defined")),
        }
    }
    let engines = insts.iter().any(|i| matches!(i.op, Op::Hopper(_)));
    let watch = watched(&insts);
    Ok(Kernel {
        name: entry.name.clone(),
        file: file.into(),
        insts,
        slots: cx.slots,
        preds: cx.preds,
        inits: cx.inits,
        params,
        param_bytes,
        static_shared: if dynamic > 0 { dynamic } else { layout.shared },
        local: layout.local,
        consts: layout.consts.bytes,
        maxntid: entry.maxntid,
        reqntid: entry.reqntid,
        minnctapersm: entry.minnctapersm,
        maxnreg: entry.maxnreg,
        cluster: entry.cluster,
        max_cluster_rank: entry.max_cluster_rank,
        engines,
        watch,
    })
}

/// What each instruction does to the registers of `wgmma`.
fn watched(insts: &[Inst]) -> Vec<Vec<(Slot, bool)>> {
    let mut operands: HashSet<Slot> = HashSet::new();
    for inst in insts {
        if let Op::Hopper(op) = &inst.op
            && let Hopper::Wgmma(w) = &**op
        {
            operands.extend(&w.d);
            if let WgmmaA::Registers(a) = &w.a {
                operands.extend(a);
            }
        }
    }
    if operands.is_empty() {
        return Vec::new();
    }
    let touched = |inst: &Inst| {
        let mut touched = Vec::new();
        inst.op.slots(&mut |slot, write| {
            if operands.contains(&slot) {
                touched.push((slot, write));
            }
        });
        touched
    };
    insts.iter().map(touched).collect()
}

pub(super) fn body(
    cx: &mut Context<'_>,
    layout: &mut Layout<'_>,
    stmts: &[Stmt],
    out: &mut Vec<Inst>,
    scopes: &mut u32,
) -> Res<()> {
    for stmt in stmts {
        match stmt {
            Stmt::Reg { ty, name, count, span } => {
                cx.span = *span;
                let ty = cx.register_type(ty)?;
                match count {
                    None => cx.declare_reg(name, ty)?,
                    Some(n) => {
                        for i in 0..*n {
                            cx.declare_reg(&format!("{name}{i}"), ty)?;
                        }
                    }
                }
            }
            Stmt::Var(var) => place(cx, layout, var)?,
            Stmt::Targets(name, labels, span) => {
                cx.span = *span;
                let scope = cx.open.last().copied().unwrap_or(0);
                cx.targets.insert((scope, name.clone()), labels.clone());
            }
            Stmt::Label(name, span) => {
                cx.span = *span;
                let scope = cx.open.last().copied().unwrap_or(0);
                if cx.labels.insert((scope, name.clone()), out.len() as u32).is_some() {
                    return cx.fail(format!("label `{name}` is defined twice"));
                }
            }
            Stmt::Block(inner) => {
                *scopes += 1;
                cx.enter(*scopes);
                body(cx, layout, inner, out, scopes)?;
                cx.leave();
            }
            Stmt::Inst(inst) => {
                cx.span = inst.span;
                let guard = match &inst.guard {
                    Some(g) => Some((cx.pred(&Operand::Name(g.name.clone()))?, g.negated)),
                    None => None,
                };
                if inst.op == "call" {
                    call(cx, layout, (inst, guard), out, scopes)?;
                    continue;
                }
                let op = match in_order(inst) {
                    Some(ordered) => decode(cx, &ordered, out.len())?,
                    None => decode(cx, inst, out.len())?,
                };
                out.push(Inst { guard, line: inst.span.line, op });
            }
        }
    }
    Ok(())
}
