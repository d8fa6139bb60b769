// read_16x4 · NAME is DTYPE, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: BUFFER, p.NAME, index_of, widen_DTYPE
// gives: NAME_at, NAME_four

fn NAME_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.NAME, row, col);
    return widen_DTYPE(BUFFER[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    let words = BUFFER[index_of(p.NAME, row, col) >> 2u];
    return vec4(widen_DTYPE(words.x), widen_DTYPE(words.y));
}
