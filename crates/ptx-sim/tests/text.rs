//! What the parser and the decoder refuse, with its place; and that nothing makes them panic.

use ptx_sim::Module;

const HEAD: &str = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x) {\n.reg .b32 %r<4>; \
                    .reg .b64 %d<4>; .reg .f32 %f<4>; .reg .b16 %h<4>; .reg .pred %p<4>;\n";

fn error(body: &str) -> String {
    match Module::parse("t.ptx", &format!("{HEAD}{body}\n}}")) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("`{body}` was accepted"),
    }
}

#[test]
fn what_is_not_known_is_named_with_its_line() {
    for (body, says) in [
        ("wgmma.fence.sync.aligned;", "needs .target sm_90a"),
        ("tcgen05.fence;", "opcode `tcgen05`"),
        ("add.u32.fast %r0, %r1, %r2;", "`add.u32.fast`: modifier `.fast`"),
        ("add.cc.u16 %h0, %h1, %h2;", "`.u16` is not known"),
        ("ld.tex.u32 %r0, [%d0];", "`.tex` is not known"),
        ("ld.global.v8.u32 {%r0}, [%d0];", "needs .target sm_100, the module is for sm_80"),
        ("ld.shared.v8.u32 {%r0}, [%d0];", "at most 16 bytes"),
        ("add.bf16x2 %r0, %r1, %r2;", "needs .target sm_90, the module is for sm_80"),
        ("cvt.rn.satfinite.e4m3x2.f32 %h0, %f0, %f1;", "needs .target sm_89"),
        ("ld.global.b128 %d0, [%d1];", "`.b128` is not known"),
        ("ld.shared::cluster.u32 %r0, [%r1];", "needs .target sm_90"),
        ("ld.shared.v4.u64 {%d0, %d1, %d2, %d3}, [%d0];", "at most 16 bytes"),
        ("atom.global.min.f64 %d0, [%d1], %d2;", "`.f64` is not known"),
        ("atom.local.add.u32 %r0, [%d1], %r2;", "atomics are for global and shared"),
        ("st.const.u32 [%d1], %r2;", "constants cannot be stored to"),
        ("ld.relaxed.gpu.local.u32 %r0, [%d1];", "take plain loads"),
        ("cp.async.mbarrier.arrive.b32 [%d0];", "`.b32` is not known"),
        ("cp.async.bulk.shared::cluster.global [%r0], [%d0], 16;", "needs .target sm_90"),
        ("cp.async.cg.shared.global [%r0], [%d0], 8;", "cp-size"),
        (
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r0}, {%r1}, {%r2}, {%r3};",
            "vector of 1 where 4 are needed",
        ),
        (
            "mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%r0}, {%r1}, {%r2}, {%r3};",
            "m16n8k128",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16 {%r0}, {%r1}, {%r2}, {%r3};",
            "does not exist",
        ),
        ("fence.proxy.async;", "needs .target sm_90"),
        ("mov.u32 %r0, %envreg3;", "special register `%envreg3` is not simulated"),
        ("call f;", "function `f` is not defined"),
        ("call (%r0), %d0, (%r1), proto;", "indirect calls are not simulated"),
        ("@%p0 brx.idx %r0, list;", "a list of labels"),
        (
            "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%r0}, {%r0}, {%r0}, {%r0};",
            "opcode `wmma`",
        ),
        (".param .b8 stack[];", "has no length"),
        (".shared .b8 big[50000];", "static shared memory"),
        (".local .b8 big[600000];", "local memory"),
        (".const .b8 big[70000];", "constants"),
        (".global .u32 x[2] = {1, 2, 3};", "has 8 bytes, 12 are given"),
        (".global .u8 x = 256;", "does not fit 1 bytes"),
        (".global .u32 x = y;", "a number or a list"),
        (".shared .u32 x = 1;", "no initial value"),
        (".pragma \"prefer_speed\";", "pragma"),
        ("red.global.exch.b32 [%d0], %r0;", "no exch"),
        ("setp.lo.s32 %p0, %r0, %r1;", "does not exist"),
        ("cvt.f16.f32 %h0, %f0;", "another rounding"),
        ("fma.f32 %f0, %f1, %f2, %f3;", "does not exist"),
        ("add.rz.f64 %d0, %d1, %d2;", "are not simulated"),
        ("sqrt.rp.f64 %d0, %d1;", "are not simulated"),
    ] {
        let e = error(body);
        assert!(e.starts_with("t.ptx:6:") && e.contains(says), "{body}: {e}");
    }
}

#[test]
fn operands_that_do_not_fit() {
    for (body, says) in [
        ("add.u32 %r0, %r1;", "takes 3 operands"),
        ("add.u32 %r0, %r1, %d2;", "B64 register"),
        ("add.f32 %f0, %f1, %r9;", "`%r9` is not declared"),
        ("add.u32 %r0, %f1, %r2;", "F32 register"),
        ("add.u32 %r0, %r1, 0x100000000;", "does not fit"),
        ("add.u32 %r0, %r1, 1.5;", "is not a U32 operand"),
        ("add.u32 5, %r1, %r2;", "expected a register"),
        ("ld.global.u32 %r0, [%r1];", "cannot address"),
        ("ld.param.u32 %r0, [y];", "`y` is not declared"),
        ("bra NOWHERE;", "label `NOWHERE`"),
        ("L: L: ret;", "defined twice"),
        (".reg .b32 %r1;", "declared twice"),
        ("@%r0 ret;", "not a predicate"),
        ("ld.global.v2.u32 {%r0, %r1, %r2}, [%d0];", "vector of 3"),
        ("lop3.b32 %r0, %r1, %r2, %r3, 256;", "up to 255"),
        ("add.u32 %r0, %r1, 4*;", "expected a number"),
        ("add.u32 %r0, %r1, (4;", "expected `)`"),
        ("add.u32 %r0, %r1, 4/0;", "no value of 64 bits"),
        ("add.u32 %r0, %r1, 1<<64;", "no value of 64 bits"),
        ("mov.u64 %d0, 0xFFFFFFFFFFFFFFFF*2;", "no value of 64 bits"),
        ("add.u32 %r0, %r1, 1<<32;", "does not fit"),
        ("ld.global.u32 %r0, [%d0+(1<<31)];", "does not fit 32 bits"),
    ] {
        let e = error(body);
        assert!(e.starts_with("t.ptx:6:") && e.contains(says), "{body}: {e}");
    }
}

#[test]
fn malformed_text() {
    for (text, says) in [
        ("", "no .version"),
        (".version 7.0\n", "no .target"),
        (".version 7.0\n.target sm_10\n", "sm_10"),
        ("/* open", "never closed"),
        (".version 7.0\n.target sm_80\n.visible .entry k() { ret;", "never closed"),
        (".version 7.0\n.target sm_80\n.func f() { } .func f() { }", "defined twice"),
        (".version 7.0\n.target sm_80\n.func f() .noinline { }", "`.noinline` is not known"),
        (
            ".version 7.0\n.target sm_80\n.func f() { call f; }\n.entry k() { call f; }",
            "function `f` calls itself",
        ),
        (
            ".version 7.0\n.target sm_80\n.extern .func vprintf();\n.entry k() { call vprintf; }",
            "function `vprintf` has no body here",
        ),
        (
            ".version 7.0\n.target sm_80\n.func f(.reg .u32 a) { }\n.entry k() { call f; }",
            "takes 1, the call has 0",
        ),
        (".version 7.0\n.target sm_80\n.extern .global .u32 x[];", ".extern .global"),
        (
            ".version 7.0\n.target sm_80\n.visible .entry k() { mov.u32 %r, 0x; }",
            "malformed number",
        ),
        (
            ".version 7.0\n.target sm_80\n.visible .entry k() { ret; } .visible .entry k() { ret; }",
            "defined twice",
        ),
        (".version 7.0 ?", "unexpected character"),
    ] {
        let e = Module::parse("t.ptx", text).unwrap_err().to_string();
        assert!(e.contains(says), "{text:?}: {e}");
    }
    let deep = format!("{HEAD}add.u32 %r0, %r1, {}", "(".repeat(100_000));
    assert!(Module::parse("t.ptx", &deep).unwrap_err().message.contains("too deeply"));
    let deep = format!("{HEAD}{}", "{".repeat(100_000));
    assert!(Module::parse("t.ptx", &deep).unwrap_err().message.contains("too deeply"));
}

#[test]
fn labels_and_registers_have_scopes() {
    let body =
        "{ .reg .b32 %s; L: mov.u32 %s, 1; bra L; } { .reg .f32 %s; L: mov.f32 %s, 1.0; bra L; }";
    assert!(Module::parse("t.ptx", &format!("{HEAD}{body}}}")).is_ok());
    assert!(error("{ .reg .b32 %s; } mov.u32 %s, 1;").contains("not declared"));
}

/// Every prefix of a real kernel, and every kernel with one token spoilt, is an error or a module,
/// never a panic.
#[test]
fn damaged_text_never_panics() {
    for source in [include_str!("fixtures/gemm_f32.ptx"), include_str!("fixtures/flags.ptx")] {
        for end in (0..source.len()).step_by(3) {
            if source.is_char_boundary(end) {
                let _ = Module::parse("t.ptx", &source[..end]);
            }
        }
        for (at, c) in source.char_indices().step_by(5) {
            for with in ["", ";", "%", "9", "{", "."] {
                let _ = Module::parse(
                    "t.ptx",
                    &format!("{}{with}{}", &source[..at], &source[at + c.len_utf8()..]),
                );
            }
        }
    }
}
