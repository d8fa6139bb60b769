// NAME: DTYPE, written four at a time; rows begin at multiples of four and hold a multiple of four.
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let i = p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w);
    let words = BUFFER[i >> 2u];
    return vec4(widen_DTYPE(words.x), widen_DTYPE(words.y));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_DTYPE(value);
    if (row > p.NAME.z || col > p.NAME.w) { return; }
    let words = vec2(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
    BUFFER[(p.NAME.x + row * p.NAME.y + col) >> 2u] = words;
}
