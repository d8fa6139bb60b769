// write_f16_native · NAME is f16, written one by one: no word is shared, rows may begin anywhere
//
// Rounded by `round_f16`, because the conversion alone may round either way.
//
// needs: BUFFER, p.NAME, index_inside, indices_of, round_f16
// gives: NAME_old, NAME_put

fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let i = indices_of(p.NAME, row, col);
    return vec4<f32>(vec4(BUFFER[i.x], BUFFER[i.y], BUFFER[i.z], BUFFER[i.w]));
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = index_inside(p.NAME, row, col);
    let rounded = vec4<f16>(round_f16(value));
    if (row > p.NAME.last_row) { return; }
    if (col <= p.NAME.last_col) { BUFFER[i] = rounded.x; }
    if (col + 1u <= p.NAME.last_col) { BUFFER[i + 1u] = rounded.y; }
    if (col + 2u <= p.NAME.last_col) { BUFFER[i + 2u] = rounded.z; }
    if (col + 3u <= p.NAME.last_col) { BUFFER[i + 3u] = rounded.w; }
}
