// sum · WGSL
//
// computes   da = β·da + the partial sums of all slabs in their order, db alike
// tile       a thread has four stored columns of one stored row
// threads    THREADS, along the stored columns
// serves     backward_adapter, after `gradient`; without slabs (no tokens) it leaves β·old
//
// needs: THREADS, p.groups_x
// needs: sum_da // where da
// needs: sum_db, p.da_rows // where db
// gives: sum

@compute @workgroup_size(THREADS)
fn sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    // Rows of da first, then rows of db; group.z is the part of the row.
    let row = group.y * p.groups_x + group.x;
    let col = 4u * (group.z * THREADS + id.x);
    if (row < p.da_rows) { // where da and db
        sum_da(row, col); // where da
    } else { // where da and db
        sum_db(row - p.da_rows, col); // where db
    } // where da and db
}
