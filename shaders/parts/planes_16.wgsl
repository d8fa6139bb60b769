// planes_16 · NAME is DTYPE, written as planes of images: a row is a pixel, a column a plane
//
// The other half of a word belongs to the pixel beside, which another thread has: only the half's
// own bits are touched, by atomics.
//
// needs: BUFFER, p.NAME, p.NAME_first, p.NAME_rows, p.NAME_pixels, p.NAME_columns
// needs: widen_low_DTYPE, narrow_DTYPE
// gives: NAME_old, NAME_put, NAME_place, NAME_word, NAME_put_one
//
// Rows count from `first` on, `pixels` an image, up to `rows` of all.

fn NAME_place(row: u32, col: u32) -> u32 {
    let token = min(p.NAME_first + row, p.NAME_rows - 1u);
    let plane = token / p.NAME_pixels * p.NAME_columns + min(col, p.NAME_columns - 1u);
    return p.NAME.offset + plane * p.NAME.stride + token % p.NAME_pixels;
}
fn NAME_word(row: u32, col: u32) -> u32 {
    let i = NAME_place(row, col);
    return atomicLoad(&BUFFER[i >> 1u]) >> (16u * (i & 1u));
}
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    return widen_low_DTYPE(vec4(
        NAME_word(row, col), NAME_word(row, col + 1u),
        NAME_word(row, col + 2u), NAME_word(row, col + 3u),
    ));
}
fn NAME_put_one(row: u32, col: u32, bits: u32) {
    if (p.NAME_first + row >= p.NAME_rows || col >= p.NAME_columns) { return; }
    let i = NAME_place(row, col);
    let shift = 16u * (i & 1u);
    atomicAnd(&BUFFER[i >> 1u], ~(0xffffu << shift));
    atomicOr(&BUFFER[i >> 1u], bits << shift);
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let bits = narrow_DTYPE(value);
    NAME_put_one(row, col, bits.x);
    NAME_put_one(row, col + 1u, bits.y);
    NAME_put_one(row, col + 2u, bits.z);
    NAME_put_one(row, col + 3u, bits.w);
}
