// read_f16x4_native · NAME is f16, read four at a time; rows begin at multiples of four and hold a
// multiple of four
//
// needs: BUFFER, p.NAME, index_of
// gives: NAME_at, NAME_four

fn NAME_at(row: u32, col: u32) -> f32 {
    let i = index_of(p.NAME, row, col);
    return f32(BUFFER[i >> 2u][i & 3u]);
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(BUFFER[index_of(p.NAME, row, col) >> 2u]);
}
