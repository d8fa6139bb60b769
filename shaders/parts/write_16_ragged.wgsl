// write_16_ragged · NAME is DTYPE, rows of any length that begin anywhere
//
// The other half of a word may belong to another thread, or to nobody. So only the half's own bits
// are touched, by atomics.
//
// needs: BUFFER, p.NAME, index_inside, indices_of, widen_low_DTYPE, narrow_DTYPE
// gives: NAME_old, NAME_put, NAME_put_one

fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let i = indices_of(p.NAME, row, col);
    let words = vec4(
        atomicLoad(&BUFFER[i.x >> 1u]), atomicLoad(&BUFFER[i.y >> 1u]),
        atomicLoad(&BUFFER[i.z >> 1u]), atomicLoad(&BUFFER[i.w >> 1u]),
    );
    return widen_low_DTYPE(words >> (16u * (i & vec4(1u))));
}
fn NAME_put_one(row: u32, col: u32, bits: u32) {
    if (row > p.NAME.last_row || col > p.NAME.last_col) { return; }
    let i = index_inside(p.NAME, row, col);
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
