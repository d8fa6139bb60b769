// write_16 · NAME is DTYPE, written by whole words; rows begin at even elements and hold an even
// number
//
// needs: BUFFER, p.NAME, index_inside, index_of, widen_DTYPE, narrow_DTYPE
// gives: NAME_old, NAME_put

fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let low = widen_DTYPE(BUFFER[index_of(p.NAME, row, col) >> 1u]);
    return vec4(low, widen_DTYPE(BUFFER[index_of(p.NAME, row, col + 2u) >> 1u]));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = index_inside(p.NAME, row, col) >> 1u;
    let bits = narrow_DTYPE(value);
    if (row > p.NAME.last_row) { return; }
    if (col <= p.NAME.last_col) { BUFFER[i] = bits.x | (bits.y << 16u); }
    if (col + 2u <= p.NAME.last_col) { BUFFER[i + 1u] = bits.z | (bits.w << 16u); }
}
