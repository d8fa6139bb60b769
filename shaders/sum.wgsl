// sum · WGSL
//
// computes   da = β·da + the partial sums of all slabs in their order, db alike
// tile       a thread has four stored columns of one stored row
// serves     backward_adapter, after `gradient`; without slabs (no tokens) it leaves β·old

fn sum_da(row: u32, col: u32) {
    var value = vec4<f32>();
    for (var slab = 0u; slab < p.size.x; slab++) { value += parts_a_four(slab * p.size.y + row, col); }
    if (p.factor.y != 0.0) { value = fma(vec4(p.factor.y), da_old(row, col), value); }
    da_put(row, col, value);
}
fn sum_db(row: u32, col: u32) {
    var value = vec4<f32>();
    for (var slab = 0u; slab < p.size.x; slab++) { value += parts_b_four(slab * p.size.z + row, col); }
    if (p.factor.y != 0.0) { value = fma(vec4(p.factor.y), db_old(row, col), value); }
    db_put(row, col, value);
}

@compute @workgroup_size(THREADS)
fn sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    // Rows of da first, then rows of db; group.z is the part of the row.
    let row = group.y * p.size.w + group.x;
    let col = 4u * (group.z * THREADS + id.x);
    if (row < p.size.y) {
        sum_da(row, col);
    } else {
        sum_db(row - p.size.y, col);
    }
}
