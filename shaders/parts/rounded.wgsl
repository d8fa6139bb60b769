// rounded · to DTYPE, in f32
//
// needs: round_DTYPE
// gives: rounded

fn rounded(value: vec4<f32>) -> vec4<f32> { return round_DTYPE(value); }
