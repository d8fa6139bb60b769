// summed · w with a Kronecker product added, in f32
//
// needs: base_at, base_four, summand
// gives: w_at, w_four

fn w_at(row: u32, col: u32) -> f32 { return base_at(row, col) + summand(row, col); }
fn w_four(row: u32, col: u32) -> vec4<f32> {
    let four = vec4(
        summand(row, col), summand(row, col + 1u), summand(row, col + 2u), summand(row, col + 3u),
    );
    return base_four(row, col) + four;
}
