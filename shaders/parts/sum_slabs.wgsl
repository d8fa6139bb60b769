// sum_slabs · four columns of a row of OUT, from the partial sums of all slabs in their order
//
// needs: p.beta, OUT_old, OUT_put
// needs: p.slabs, p.OUT_rows, OUT_slabs_four // where slabs
// gives: sum_OUT

fn sum_OUT(row: u32, col: u32) {
    var value = vec4<f32>();
    for (var slab = 0u; slab < p.slabs; slab++) { // where slabs
        value += OUT_slabs_four(slab * p.OUT_rows + row, col); // where slabs
    } // where slabs
    if (p.beta != 0.0) { value = fma(vec4(p.beta), OUT_old(row, col), value); }
    OUT_put(row, col, value);
}
