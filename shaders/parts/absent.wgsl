// NAME: not an operand of this rendering; what is called here changes nothing.
fn NAME_at(row: u32, col: u32) -> f32 { return 0.0; }
fn NAME_four(row: u32, col: u32) -> vec4<f32> { return vec4<f32>(); }
fn NAME_old(row: u32, col: u32) -> vec4<f32> { return vec4<f32>(); }
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {}
