// NAME: DTYPE, written by whole words; rows begin at even elements and hold an even number.
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let start = p.NAME.x + min(row, p.NAME.z) * p.NAME.y;
    let low = widen_DTYPE(BUFFER[(start + min(col, p.NAME.w)) >> 1u]);
    return vec4(low, widen_DTYPE(BUFFER[(start + min(col + 2u, p.NAME.w)) >> 1u]));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = (p.NAME.x + row * p.NAME.y + col) >> 1u;
    let bits = narrow_DTYPE(value);
    if (row > p.NAME.z) { return; }
    if (col <= p.NAME.w) { BUFFER[i] = bits.x | (bits.y << 16u); }
    if (col + 2u <= p.NAME.w) { BUFFER[i + 1u] = bits.z | (bits.w << 16u); }
}
