// read_f32 · NAME is f32, read one by one
//
// needs: BUFFER, p.NAME, index_of, indices_of
// gives: NAME_at, NAME_four

fn NAME_at(row: u32, col: u32) -> f32 { return BUFFER[index_of(p.NAME, row, col)]; }
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    let i = indices_of(p.NAME, row, col);
    return vec4(BUFFER[i.x], BUFFER[i.y], BUFFER[i.z], BUFFER[i.w]);
}
