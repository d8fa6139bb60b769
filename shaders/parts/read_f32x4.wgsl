// NAME: f32, four at a time; rows begin at multiples of four and hold a multiple of four.
fn NAME_at(row: u32, col: u32) -> f32 {
    let i = p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w);
    return BUFFER[i >> 2u][i & 3u];
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    return BUFFER[(p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w)) >> 2u];
}
