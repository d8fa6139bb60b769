// bias, then β·old; `y_put` rounds once.
fn finish(token: u32, col: u32, sum: vec4<f32>) {
    var value = sum;
    if (HAS_BIAS) { value += bias_four(0u, col); }
    if (p.factor.y != 0.0) { value = fma(vec4(p.factor.y), y_old(token, col), value); }
    y_put(token, col, value);
}
