// NAME: f32, written one by one.
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let cols = start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(p.NAME.w));
    return vec4(BUFFER[cols.x], BUFFER[cols.y], BUFFER[cols.z], BUFFER[cols.w]);
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = p.NAME.x + row * p.NAME.y + col;
    if (row > p.NAME.z) { return; }
    if (col <= p.NAME.w) { BUFFER[i] = value.x; }
    if (col + 1u <= p.NAME.w) { BUFFER[i + 1u] = value.y; }
    if (col + 2u <= p.NAME.w) { BUFFER[i + 2u] = value.z; }
    if (col + 3u <= p.NAME.w) { BUFFER[i + 3u] = value.w; }
}
