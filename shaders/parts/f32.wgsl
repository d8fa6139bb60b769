// f32 · the rounding that storage adds is none
//
// gives: round_f32

fn round_f32(value: vec4<f32>) -> vec4<f32> { return value; }
