// NAME: DTYPE, four at a time; rows begin at multiples of four and hold a multiple of four.
fn NAME_at(row: u32, col: u32) -> f32 {
    let i = p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w);
    return widen_DTYPE(BUFFER[i >> 2u][(i >> 1u) & 1u] >> (16u * (i & 1u))).x;
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    let i = p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w);
    let words = BUFFER[i >> 2u];
    return vec4(widen_DTYPE(words.x), widen_DTYPE(words.y));
}
