// write_f32 · NAME is f32, written one by one
//
// needs: BUFFER, p.NAME, index_inside, indices_of
// gives: NAME_old, NAME_put

fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    let i = indices_of(p.NAME, row, col);
    return vec4(BUFFER[i.x], BUFFER[i.y], BUFFER[i.z], BUFFER[i.w]);
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    let i = index_inside(p.NAME, row, col);
    if (row > p.NAME.last_row) { return; }
    if (col <= p.NAME.last_col) { BUFFER[i] = value.x; }
    if (col + 1u <= p.NAME.last_col) { BUFFER[i + 1u] = value.y; }
    if (col + 2u <= p.NAME.last_col) { BUFFER[i + 2u] = value.z; }
    if (col + 3u <= p.NAME.last_col) { BUFFER[i + 3u] = value.w; }
}
