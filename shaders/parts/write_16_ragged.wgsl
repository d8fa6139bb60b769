// NAME: DTYPE, rows of any length that begin anywhere: the other half of a word may belong
// to another thread, or to nobody. So only the half's own bits are touched, by atomics.
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let cols = start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(p.NAME.w));
    let words = vec4(
        atomicLoad(&BUFFER[cols.x >> 1u]), atomicLoad(&BUFFER[cols.y >> 1u]),
        atomicLoad(&BUFFER[cols.z >> 1u]), atomicLoad(&BUFFER[cols.w >> 1u]),
    ) >> (16u * (cols & vec4(1u)));
    return vec4(
        widen_DTYPE(words.x).x, widen_DTYPE(words.y).x,
        widen_DTYPE(words.z).x, widen_DTYPE(words.w).x,
    );
}
fn NAME_put_one(row: u32, col: u32, bits: u32) {
    if (row > p.NAME.z || col > p.NAME.w) { return; }
    let i = p.NAME.x + row * p.NAME.y + col;
    let shift = 16u * (i & 1u);
    atomicAnd(&BUFFER[i >> 1u], ~(0xffffu << shift));
    atomicOr(&BUFFER[i >> 1u], bits << shift);
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_DTYPE(value);
    NAME_put_one(row, col, bits.x);
    NAME_put_one(row, col + 1u, bits.y);
    NAME_put_one(row, col + 2u, bits.z);
    NAME_put_one(row, col + 3u, bits.w);
}
