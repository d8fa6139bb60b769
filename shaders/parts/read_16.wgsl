// NAME: DTYPE, two to a word, the even one in the low half; rows may begin at any of them.
fn NAME_at(row: u32, col: u32) -> f32 {
    let i = p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w);
    return widen_DTYPE(BUFFER[i >> 1u] >> (16u * (i & 1u))).x;
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let cols = start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(p.NAME.w));
    let words = vec4(
        BUFFER[cols.x >> 1u], BUFFER[cols.y >> 1u], BUFFER[cols.z >> 1u], BUFFER[cols.w >> 1u],
    ) >> (16u * (cols & vec4(1u)));
    return vec4(
        widen_DTYPE(words.x).x, widen_DTYPE(words.y).x,
        widen_DTYPE(words.z).x, widen_DTYPE(words.w).x,
    );
}
