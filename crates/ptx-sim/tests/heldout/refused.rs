//! Forms that are legal and not modelled: each is refused by its name and its line.

/// What ptxas takes and the simulator does not: the words that name it in the refusal.
pub(crate) const REFUSED: &[(&str, &str, &str)] = &[
    (
        "sm_80",
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%f0, %f1, %f2, %f3}, %r0, 0x0;",
        "mma.sp",
    ),
    ("sm_80", "mov.u32 %r0, %envreg2;", "%envreg2"),
    ("sm_80", "mov.u32 %r0, %pm0;", "%pm0"),
    ("sm_80", "discard.global.L2 [%d0], 128;", "discard"),
    ("sm_80", "brkpt;", "brkpt"),
    ("sm_80", "vmad.s32.s32.u32 %r0, %r1.b1, %r2.b0, %r3;", "vmad"),
    ("sm_80", "add.rz.f64 %g0, %g1, %g2;", "f64 is rounded to nearest"),
    ("sm_80", "max.xorsign.abs.f32 %f0, %f1, %f2;", "xorsign"),
    ("sm_90a", "multimem.ld_reduce.relaxed.sys.global.add.f32 %f0, [%d1];", "multimem"),
    (
        "sm_90a",
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r1], [%d1, {%r3, %r4, %r5}], [%r2], {%h1};",
        "im2col",
    ),
    (
        "sm_90a",
        "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {%f0, %f1, %f2, %f3}, %d1, %d2, %r0, 0, 1, 1, 1, 0, 0;",
        "sp",
    ),
    ("sm_90a", "tensormap.replace.tile.rank.shared::cta.b1024.b32 [%r1], 2;", "tensormap"),
    ("sm_90a", "fence.proxy.tensormap::generic.acquire.gpu [%d0], 128;", "tensormap"),
    (
        "sm_80",
        "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%f0, %f0, %f0, %f0, %f0, %f0, %f0, %f0}, {%r0, %r0, %r0, %r0, %r0, %r0, %r0, %r0}, {%r0, %r0, %r0, %r0, %r0, %r0, %r0, %r0}, {%f0, %f0, %f0, %f0, %f0, %f0, %f0, %f0};",
        "wmma",
    ),
    (
        "sm_80",
        "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r0, %r1}, {%r0, %r1, %r2, %r3};",
        "m16n8k256",
    ),
    ("sm_90a", "max.relu.s32 %r0, %r1, %r2;", "relu"),
    ("sm_90a", "fence.acquire.sync_restrict::shared::cluster.cluster;", "acquire"),
    ("sm_90a", "{ .reg .b128 %q; ld.global.b128 %q, [%d0]; }", "b128"),
];
