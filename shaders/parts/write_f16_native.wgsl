// NAME: f16, written one by one: no word is shared, rows may begin anywhere. Rounded by
// `narrow_f16`, because a conversion may round either way; what it converts here is exact.
// (naga knows no bitcast from a word to two halves.)
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let cols = start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(p.NAME.w));
    return vec4<f32>(vec4(BUFFER[cols.x], BUFFER[cols.y], BUFFER[cols.z], BUFFER[cols.w]));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = p.NAME.x + row * p.NAME.y + col;
    let bits = narrow_f16(value);
    let low = vec2<f16>(unpack2x16float(bits.x | (bits.y << 16u)));
    let high = vec2<f16>(unpack2x16float(bits.z | (bits.w << 16u)));
    if (row > p.NAME.z) { return; }
    if (col <= p.NAME.w) { BUFFER[i] = low.x; }
    if (col + 1u <= p.NAME.w) { BUFFER[i + 1u] = low.y; }
    if (col + 2u <= p.NAME.w) { BUFFER[i + 2u] = high.x; }
    if (col + 3u <= p.NAME.w) { BUFFER[i + 3u] = high.y; }
}
