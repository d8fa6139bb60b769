// NAME: f16, one by one.
fn NAME_at(row: u32, col: u32) -> f32 {
    return f32(BUFFER[p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w)]);
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let cols = start + min(vec4(col) + vec4(0u, 1u, 2u, 3u), vec4(p.NAME.w));
    return vec4<f32>(vec4(BUFFER[cols.x], BUFFER[cols.y], BUFFER[cols.z], BUFFER[cols.w]));
}
