// read_16 · NAME is DTYPE, two to a word, the even one in the low half; rows may begin at any of
// them
//
// needs: BUFFER, p.NAME, index_of, indices_of, widen_DTYPE, widen_low_DTYPE
// gives: NAME_at, NAME_four

fn NAME_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.NAME, row, col);
    return widen_DTYPE(BUFFER[i >> 1u] >> (16u * (i & 1u))).x;
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    let i = indices_of(p.NAME, row, col);
    let words = vec4(BUFFER[i.x >> 1u], BUFFER[i.y >> 1u], BUFFER[i.z >> 1u], BUFFER[i.w >> 1u]);
    return widen_low_DTYPE(words >> (16u * (i & vec4(1u))));
}
