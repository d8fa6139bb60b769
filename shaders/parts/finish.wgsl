// finish · gain, bias, then β·old; `y_put` rounds once
//
// needs: p.beta, y_old, y_put
// needs: gain_four // where gain
// needs: bias_four // where bias
// gives: finish

fn finish(token: u32, col: u32, sum: vec4<f32>) {
    var value = sum;
    value *= gain_four(0u, col); // where gain
    value += bias_four(0u, col); // where bias
    if (p.beta != 0.0) { value = fma(vec4(p.beta), y_old(token, col), value); }
    y_put(token, col, value);
}
