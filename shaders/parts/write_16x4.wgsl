// write_16x4 · NAME is DTYPE, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: BUFFER, p.NAME, index_inside, index_of, widen_DTYPE, narrow_DTYPE
// gives: NAME_old, NAME_put

fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let words = BUFFER[index_of(p.NAME, row, col) >> 2u];
    return vec4(widen_DTYPE(words.x), widen_DTYPE(words.y));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_DTYPE(value);
    if (row > p.NAME.last_row || col > p.NAME.last_col) { return; }
    let words = vec2(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
    BUFFER[index_inside(p.NAME, row, col) >> 2u] = words;
}
