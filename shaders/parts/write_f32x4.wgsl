// NAME: f32, written four at a time; rows begin at multiples of four and hold a multiple of four.
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    return BUFFER[(p.NAME.x + min(row, p.NAME.z) * p.NAME.y + min(col, p.NAME.w)) >> 2u];
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    if (row > p.NAME.z || col > p.NAME.w) { return; }
    BUFFER[(p.NAME.x + row * p.NAME.y + col) >> 2u] = value;
}
