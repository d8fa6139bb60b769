// write_f32x4 · NAME is f32, written four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: BUFFER, p.NAME, index_inside, index_of
// gives: NAME_old, NAME_put

fn NAME_old(row: u32, col: u32) -> vec4<f32> { return BUFFER[index_of(p.NAME, row, col) >> 2u]; }
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    if (row > p.NAME.last_row || col > p.NAME.last_col) { return; }
    BUFFER[index_inside(p.NAME, row, col) >> 2u] = value;
}
