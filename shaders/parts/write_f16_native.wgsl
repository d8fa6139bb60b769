// NAME: f16, written one by one: no word is shared, rows may begin anywhere. Rounded by
// `round_f16`, because the conversion alone may round either way.
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let cols = start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(p.NAME.w));
    return vec4<f32>(vec4(BUFFER[cols.x], BUFFER[cols.y], BUFFER[cols.z], BUFFER[cols.w]));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = p.NAME.x + row * p.NAME.y + col;
    let rounded = vec4<f16>(round_f16(value));
    if (row > p.NAME.z) { return; }
    if (col <= p.NAME.w) { BUFFER[i] = rounded.x; }
    if (col + 1u <= p.NAME.w) { BUFFER[i + 1u] = rounded.y; }
    if (col + 2u <= p.NAME.w) { BUFFER[i + 2u] = rounded.z; }
    if (col + 3u <= p.NAME.w) { BUFFER[i + 3u] = rounded.w; }
}
