//! Runs one workgroup of a WGSL text by naga's representation of it, thread by thread, for its addresses
//! alone: integers and what decides about control flow are computed, numbers in memory are not known. Says
//! which words of workgroup memory each thread meets in which order, what it reads from buffers, and how
//! many multiply-adds it does.

use std::collections::{BTreeMap, HashMap};

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    AddressSpace, ArraySize, BinaryOperator as Op, Block, BuiltIn, Constant, CooperativeData,
    Expression, Function, GlobalVariable, Handle, Literal, LocalVariable, MathFunction, Module,
    ScalarKind, Statement, Type, TypeInner, UnaryOperator,
};

/// What a thread did.
#[derive(Debug, Default)]
pub(super) struct Thread {
    /// Accesses to workgroup memory, in order.
    pub(super) accesses: Vec<Access>,
    /// Multiply-adds, each component for itself.
    pub(super) multiply_adds: u64,
    /// Reads of buffers by their bytes.
    pub(super) reads: BTreeMap<u32, u64>,
}

/// One access to workgroup memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// `stage_rows_x store`.
    pub(super) site: String,
    /// Barriers before it.
    pub(super) epoch: u32,
    pub(super) address: u32,
    pub(super) bytes: u32,
}

#[derive(Debug, Clone)]
enum Value {
    Uint(u32),
    Float(f32),
    Bool(bool),
    /// A number from memory, or made of one.
    Unknown,
    Many(Vec<Value>),
    Pointer(Pointer),
}

#[derive(Debug, Clone)]
struct Pointer {
    root: Root,
    path: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Root {
    Global(Handle<GlobalVariable>),
    /// Of the function that was called so deep.
    Local(usize, Handle<LocalVariable>),
}

enum Flow {
    Next,
    Break,
    Continue,
    Return(Option<Value>),
}

/// A function that runs.
struct Frame<'a> {
    function: &'a Function,
    info: &'a FunctionInfo,
    name: &'a str,
    arguments: Vec<Value>,
    locals: HashMap<Handle<LocalVariable>, Value>,
    values: HashMap<Handle<Expression>, Value>,
}

struct Runner<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    params: &'a [u8],
    frames: Vec<Frame<'a>>,
    epoch: u32,
    thread: Thread,
    /// Its place in a subgroup, and the threads of one.
    lane: u32,
    lanes: u32,
}

/// Every thread of the workgroup `group`, by their linear index; `lanes` of them are a subgroup.
pub(super) fn workgroup(
    module: &Module,
    info: &ModuleInfo,
    params: &[u8],
    group: [u32; 3],
    lanes: u32,
) -> Vec<Thread> {
    let entry = &module.entry_points[0];
    let [x, y, z] = entry.workgroup_size;
    let ids = (0..x * y * z).map(|at| (at, [at % x, at / x % y, at / x / y]));
    ids.map(|(at, id)| {
        let (thread, lane, frames) = (Thread::default(), at % lanes, Vec::new());
        let mut runner = Runner { module, info, params, frames, epoch: 0, thread, lane, lanes };
        let vector = |of: [u32; 3]| Value::Many(of.map(Value::Uint).to_vec());
        let arguments = entry.function.arguments.iter().map(|of| match of.binding {
            Some(naga::Binding::BuiltIn(BuiltIn::LocalInvocationId)) => vector(id),
            Some(naga::Binding::BuiltIn(BuiltIn::WorkGroupId)) => vector(group),
            Some(naga::Binding::BuiltIn(BuiltIn::SubgroupId)) => Value::Uint(at / lanes),
            _ => panic!("another argument of an entry point"),
        });
        let arguments = arguments.collect();
        runner.call(&entry.function, info.get_entry_point(0), &entry.name, arguments);
        runner.thread
    })
    .collect()
}

impl<'a> Runner<'a> {
    fn call(
        &mut self,
        function: &'a Function,
        info: &'a FunctionInfo,
        name: &'a str,
        arguments: Vec<Value>,
    ) -> Option<Value> {
        let (locals, values) = (HashMap::new(), HashMap::new());
        self.frames.push(Frame { function, info, name, arguments, locals, values });
        for (handle, local) in function.local_variables.iter() {
            let value = match local.init {
                Some(init) => self.value(init),
                None => self.zero(local.ty),
            };
            self.frame().locals.insert(handle, value);
        }
        let flow = self.block(&function.body);
        self.frames.pop();
        match flow {
            Flow::Return(value) => value,
            _ => None,
        }
    }

    fn frame(&mut self) -> &mut Frame<'a> {
        self.frames.last_mut().expect("a function that runs")
    }

    fn block(&mut self, block: &'a Block) -> Flow {
        for statement in block.iter() {
            match self.statement(statement) {
                Flow::Next => {}
                other => return other,
            }
        }
        Flow::Next
    }

    fn statement(&mut self, statement: &'a Statement) -> Flow {
        match statement {
            Statement::Emit(range) => {
                for handle in range.clone() {
                    let value = self.evaluate(handle);
                    self.frame().values.insert(handle, value);
                }
            }
            Statement::Block(block) => return self.block(block),
            Statement::If { condition, accept, reject } => {
                let Value::Bool(holds) = self.value(*condition) else {
                    panic!("what is in memory decides in {}", self.frame().name)
                };
                return self.block(if holds { accept } else { reject });
            }
            Statement::Loop { body, continuing, break_if } => loop {
                match self.block(body) {
                    Flow::Break => break,
                    Flow::Return(value) => return Flow::Return(value),
                    Flow::Next | Flow::Continue => {}
                }
                self.block(continuing);
                if break_if.is_some_and(|of| matches!(self.value(of), Value::Bool(true))) {
                    break;
                }
            },
            Statement::Break => return Flow::Break,
            Statement::Continue => return Flow::Continue,
            Statement::Return { value } => return Flow::Return(value.map(|of| self.value(of))),
            Statement::ControlBarrier(_) => self.epoch += 1,
            Statement::Atomic { .. } => {}
            Statement::CooperativeStore { target, data } => {
                let frame = self.frame();
                let info = &frame.info[*target];
                let (side, bytes) = matrix(info.ty.inner_with(&self.module.types));
                self.meet_matrix("store", data, side, bytes);
            }
            Statement::Store { pointer, value } => {
                let value = self.value(*value);
                let Value::Pointer(pointer) = self.value(*pointer) else { panic!("a pointer") };
                self.store(&pointer, value);
            }
            Statement::Call { function, arguments, result } => {
                let arguments = arguments.iter().map(|of| self.value(*of)).collect();
                let called = &self.module.functions[*function];
                let name = called.name.as_deref().unwrap_or_default();
                let value = self.call(called, &self.info[*function], name, arguments);
                if let Some(result) = result {
                    self.frame().values.insert(*result, value.expect("a result"));
                }
            }
            other => panic!("no such statement here: {other:?}"),
        }
        Flow::Next
    }

    /// What was evaluated before, or needs no evaluation.
    fn value(&mut self, handle: Handle<Expression>) -> Value {
        match self.frame().values.get(&handle) {
            Some(value) => value.clone(),
            None => self.evaluate(handle),
        }
    }

    fn evaluate(&mut self, handle: Handle<Expression>) -> Value {
        let frame = self.frame();
        let (function, info) = (frame.function, frame.info);
        match &function.expressions[handle] {
            Expression::Literal(literal) => of_literal(*literal),
            Expression::Constant(constant) => self.constant(*constant),
            Expression::ZeroValue(ty) => self.zero(*ty),
            Expression::FunctionArgument(at) => self.frame().arguments[*at as usize].clone(),
            Expression::GlobalVariable(of) => pointer(Root::Global(*of)),
            Expression::LocalVariable(of) => pointer(Root::Local(self.frames.len() - 1, *of)),
            Expression::Compose { ty, components } => {
                let parts = components.iter().map(|of| self.value(*of)).collect();
                composed(&self.module.types[*ty].inner, parts)
            }
            Expression::Splat { size, value } => {
                let value = self.value(*value);
                Value::Many(vec![value; *size as usize])
            }
            Expression::Swizzle { size, vector, pattern } => match self.value(*vector) {
                Value::Many(of) => {
                    let taken = pattern[..*size as usize].iter();
                    Value::Many(taken.map(|at| of[*at as usize].clone()).collect())
                }
                _ => Value::Unknown,
            },
            Expression::Access { base, index } => {
                let Value::Uint(index) = self.value(*index) else {
                    panic!("an address depends on memory in {}", self.frame().name)
                };
                step(self.value(*base), index)
            }
            Expression::AccessIndex { base, index } => step(self.value(*base), *index),
            Expression::Load { pointer } => {
                let Value::Pointer(pointer) = self.value(*pointer) else { panic!("a pointer") };
                self.load(&pointer)
            }
            Expression::Unary { op, expr } => {
                let op = *op;
                each(self.value(*expr), &|of| match (op, of) {
                    (UnaryOperator::LogicalNot, Value::Bool(of)) => Value::Bool(!of),
                    (UnaryOperator::BitwiseNot, Value::Uint(of)) => Value::Uint(!of),
                    _ => Value::Unknown,
                })
            }
            Expression::Binary { op, left, right } => {
                let (op, left, right) = (*op, self.value(*left), self.value(*right));
                both(left, right, &|left, right| binary(op, left, right))
            }
            Expression::Select { condition, accept, reject } => {
                let (accept, reject) = (self.value(*accept), self.value(*reject));
                select(self.value(*condition), accept, reject)
            }
            Expression::Math { fun, arg, arg1, arg2, .. } => {
                if *fun == MathFunction::Fma {
                    self.thread.multiply_adds +=
                        components(info[handle].ty.inner_with(&self.module.types));
                }
                let mut next = |of: &Option<_>| of.map(|of| self.value(of));
                let (second, third) = (next(arg1), next(arg2));
                let first = self.value(*arg);
                match (fun, second, third) {
                    (MathFunction::Min, Some(second), _) => both(first, second, &least),
                    (MathFunction::Max, Some(second), _) => both(first, second, &most),
                    (MathFunction::Clamp, Some(low), Some(high)) => {
                        both(both(first, low, &most), high, &least)
                    }
                    _ => Value::Unknown,
                }
            }
            Expression::As { expr, kind, .. } => {
                let to_uint = *kind == ScalarKind::Uint;
                each(self.value(*expr), &|of| match of {
                    Value::Uint(of) if to_uint => Value::Uint(of),
                    _ => Value::Unknown,
                })
            }
            Expression::CooperativeLoad { data, .. } => {
                let (side, bytes) = matrix(info[handle].ty.inner_with(&self.module.types));
                self.meet_matrix("load", data, side, bytes);
                Value::Unknown
            }
            Expression::CooperativeMultiplyAdd { c, .. } => {
                let (side, _) = matrix(info[*c].ty.inner_with(&self.module.types));
                // Each thread's share.
                self.thread.multiply_adds += u64::from(side.pow(3) / self.lanes);
                Value::Unknown
            }
            other => panic!("no such expression here: {other:?}"),
        }
    }

    /// A matrix in workgroup memory, met by a whole subgroup as NVIDIA's `ldmatrix` does it: pieces of 16 bytes,
    /// those of eight rows together.
    fn meet_matrix(&mut self, what: &str, data: &CooperativeData, side: u32, bytes: u32) {
        let Value::Pointer(Pointer { root: Root::Global(of), path }) = self.value(data.pointer)
        else {
            panic!("a pointer")
        };
        let Value::Uint(stride) = self.value(data.stride) else { panic!("a stride") };
        let (start, inner) = self.place(of, &path);
        let row = stride * inner.size(self.module.to_ctx());
        assert!(start.is_multiple_of(16) && row.is_multiple_of(16), "what Vulkan asks for");
        let pieces = side * side * bytes / 16;
        for piece in (self.lane..pieces).step_by(self.lanes as usize) {
            let address = start + piece % side * row + piece / side * 16;
            self.meet(what, address, 16);
        }
    }

    fn constant(&self, constant: Handle<Constant>) -> Value {
        self.global(self.module.constants[constant].init)
    }

    fn global(&self, handle: Handle<Expression>) -> Value {
        match &self.module.global_expressions[handle] {
            Expression::Literal(literal) => of_literal(*literal),
            Expression::Constant(of) => self.constant(*of),
            Expression::ZeroValue(ty) => self.zero(*ty),
            Expression::Compose { ty, components } => {
                let parts = components.iter().map(|of| self.global(*of)).collect();
                composed(&self.module.types[*ty].inner, parts)
            }
            Expression::Splat { size, value } => {
                Value::Many(vec![self.global(*value); *size as usize])
            }
            other => panic!("no such constant here: {other:?}"),
        }
    }

    fn zero(&self, ty: Handle<Type>) -> Value {
        match self.module.types[ty].inner {
            TypeInner::Scalar(of) if of.kind == ScalarKind::Uint => Value::Uint(0),
            TypeInner::Scalar(of) if of.kind == ScalarKind::Bool => Value::Bool(false),
            TypeInner::Vector { size, scalar } if scalar.kind == ScalarKind::Uint => {
                Value::Many(vec![Value::Uint(0); size as usize])
            }
            TypeInner::Array { base, size: ArraySize::Constant(size), .. } => {
                Value::Many(vec![self.zero(base); size.get() as usize])
            }
            TypeInner::Matrix { columns, .. } => {
                Value::Many(vec![Value::Unknown; columns as usize])
            }
            _ => Value::Unknown,
        }
    }

    /// Where in a buffer or in workgroup memory a pointer leads, and to what.
    fn place(&self, of: Handle<GlobalVariable>, path: &[u32]) -> (u32, &'a TypeInner) {
        let (module, mut ty) = (self.module, self.module.global_variables[of].ty);
        let mut byte = 0;
        for (at, &index) in path.iter().enumerate() {
            match &module.types[ty].inner {
                TypeInner::Array { base, stride, .. } => {
                    (byte, ty) = (byte + index * stride, *base)
                }
                TypeInner::Struct { members, .. } => {
                    let member = &members[index as usize];
                    (byte, ty) = (byte + member.offset, member.ty);
                }
                TypeInner::Vector { scalar, .. } => {
                    assert_eq!(at + 1, path.len(), "a component has no parts");
                    let of = scalar.kind;
                    let inner = match of {
                        ScalarKind::Uint => &TypeInner::Scalar(naga::Scalar::U32),
                        _ => &TypeInner::Scalar(naga::Scalar::F32),
                    };
                    return (byte + index * u32::from(scalar.width), inner);
                }
                other => panic!("a path through {other:?}"),
            }
        }
        (byte, &module.types[ty].inner)
    }

    fn load(&mut self, pointer: &Pointer) -> Value {
        let of = match pointer.root {
            Root::Local(frame, of) => {
                let value = self.frames[frame].locals[&of].clone();
                return pointer.path.iter().fold(value, |value, index| step(value, *index));
            }
            Root::Global(of) => of,
        };
        let (byte, inner) = self.place(of, &pointer.path);
        let bytes = inner.size(self.module.to_ctx());
        let variable = &self.module.global_variables[of];
        if variable.name.as_deref() == Some("p") {
            return self.parameter(byte, inner);
        }
        match variable.space {
            AddressSpace::WorkGroup => self.meet("load", byte, bytes),
            _ => *self.thread.reads.entry(bytes).or_default() += 1,
        }
        Value::Unknown
    }

    fn parameter(&self, byte: u32, inner: &TypeInner) -> Value {
        let word = &self.params[byte as usize..][..4];
        let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
        match inner {
            TypeInner::Scalar(of) if of.kind == ScalarKind::Uint => Value::Uint(word),
            TypeInner::Scalar(_) => Value::Float(f32::from_bits(word)),
            TypeInner::Struct { members, .. } => {
                let member = |of: &naga::StructMember| {
                    self.parameter(byte + of.offset, &self.module.types[of.ty].inner)
                };
                Value::Many(members.iter().map(member).collect())
            }
            other => panic!("a parameter that is {other:?}"),
        }
    }

    fn store(&mut self, pointer: &Pointer, value: Value) {
        match pointer.root {
            Root::Local(frame, of) => {
                let mut to = self.frames[frame].locals.get_mut(&of).expect("a variable");
                for (at, &index) in pointer.path.iter().enumerate() {
                    if matches!(to, Value::Unknown) {
                        // A part of a number that is not known.
                        assert!(at > 0);
                        return;
                    }
                    let Value::Many(parts) = to else { panic!("no parts") };
                    to = &mut parts[index as usize];
                }
                *to = value;
            }
            Root::Global(of) => {
                let (byte, inner) = self.place(of, &pointer.path);
                let bytes = inner.size(self.module.to_ctx());
                if self.module.global_variables[of].space == AddressSpace::WorkGroup {
                    self.meet("store", byte, bytes);
                }
            }
        }
    }

    fn meet(&mut self, what: &str, address: u32, bytes: u32) {
        let site = format!("{} {what}", self.frame().name);
        self.thread.accesses.push(Access { site, epoch: self.epoch, address, bytes });
    }
}

fn pointer(root: Root) -> Value {
    Value::Pointer(Pointer { root, path: Vec::new() })
}

fn of_literal(literal: Literal) -> Value {
    match literal {
        Literal::U32(of) => Value::Uint(of),
        Literal::Bool(of) => Value::Bool(of),
        Literal::F32(of) => Value::Float(of),
        _ => Value::Unknown,
    }
}

/// A vector's parts may be vectors, which are one with it; columns of a matrix stay apart.
fn composed(inner: &TypeInner, parts: Vec<Value>) -> Value {
    let TypeInner::Vector { size, .. } = inner else { return Value::Many(parts) };
    let flat = parts.into_iter().flat_map(|of| match of {
        Value::Many(parts) => parts,
        part => vec![part],
    });
    let flat: Vec<Value> = flat.collect();
    // A vector that is not known counts as one part.
    if flat.len() == *size as usize { Value::Many(flat) } else { Value::Unknown }
}

/// Into a part of a value, or on along a pointer.
fn step(value: Value, index: u32) -> Value {
    match value {
        Value::Many(mut parts) => parts.swap_remove(index as usize),
        Value::Pointer(Pointer { root, mut path }) => {
            path.push(index);
            Value::Pointer(Pointer { root, path })
        }
        _ => Value::Unknown,
    }
}

fn each(value: Value, of: &dyn Fn(Value) -> Value) -> Value {
    match value {
        Value::Many(parts) => Value::Many(parts.into_iter().map(|part| each(part, of)).collect()),
        value => of(value),
    }
}

fn both(left: Value, right: Value, of: &dyn Fn(Value, Value) -> Value) -> Value {
    match (left, right) {
        (Value::Many(left), Value::Many(right)) => Value::Many(
            left.into_iter().zip(right).map(|(left, right)| both(left, right, of)).collect(),
        ),
        (Value::Many(left), right) => {
            Value::Many(left.into_iter().map(|left| both(left, right.clone(), of)).collect())
        }
        (left, Value::Many(right)) => {
            Value::Many(right.into_iter().map(|right| both(left.clone(), right, of)).collect())
        }
        (left, right) => of(left, right),
    }
}

fn select(condition: Value, accept: Value, reject: Value) -> Value {
    match (condition, accept, reject) {
        (Value::Bool(holds), accept, reject) => {
            if holds {
                accept
            } else {
                reject
            }
        }
        (Value::Many(conditions), Value::Many(accept), Value::Many(reject)) => {
            let parts = conditions.into_iter().zip(accept).zip(reject);
            Value::Many(parts.map(|((of, accept), reject)| select(of, accept, reject)).collect())
        }
        _ => Value::Unknown,
    }
}

fn least(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Uint(left), Value::Uint(right)) => Value::Uint(left.min(right)),
        _ => Value::Unknown,
    }
}

fn most(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Uint(left), Value::Uint(right)) => Value::Uint(left.max(right)),
        _ => Value::Unknown,
    }
}

fn binary(op: Op, left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Uint(left), Value::Uint(right)) => match op {
            Op::Add => Value::Uint(left.wrapping_add(right)),
            Op::Subtract => Value::Uint(left.wrapping_sub(right)),
            Op::Multiply => Value::Uint(left.wrapping_mul(right)),
            Op::Divide => Value::Uint(left / right),
            Op::Modulo => Value::Uint(left % right),
            Op::And => Value::Uint(left & right),
            Op::InclusiveOr => Value::Uint(left | right),
            Op::ExclusiveOr => Value::Uint(left ^ right),
            Op::ShiftLeft => Value::Uint(left << right),
            Op::ShiftRight => Value::Uint(left >> right),
            _ => Value::Bool(compared(op, &left, &right)),
        },
        (Value::Float(left), Value::Float(right)) => match op {
            Op::Equal
            | Op::NotEqual
            | Op::Less
            | Op::LessEqual
            | Op::Greater
            | Op::GreaterEqual => Value::Bool(compared(op, &left, &right)),
            _ => Value::Unknown,
        },
        (Value::Bool(left), Value::Bool(right)) => Value::Bool(match op {
            Op::And | Op::LogicalAnd => left & right,
            Op::InclusiveOr | Op::LogicalOr => left | right,
            _ => left == right,
        }),
        _ => Value::Unknown,
    }
}

fn compared<T: PartialOrd>(op: Op, left: &T, right: &T) -> bool {
    match op {
        Op::Equal => left == right,
        Op::NotEqual => left != right,
        Op::Less => left < right,
        Op::LessEqual => left <= right,
        Op::Greater => left > right,
        Op::GreaterEqual => left >= right,
        other => panic!("no such operator here: {other:?}"),
    }
}

/// Side and bytes of an element.
fn matrix(inner: &TypeInner) -> (u32, u32) {
    match inner {
        TypeInner::CooperativeMatrix { columns, scalar, .. } => {
            (*columns as u32, scalar.width.into())
        }
        other => panic!("no matrix: {other:?}"),
    }
}

fn components(inner: &TypeInner) -> u64 {
    match inner {
        TypeInner::Vector { size, .. } => *size as u64,
        _ => 1,
    }
}
