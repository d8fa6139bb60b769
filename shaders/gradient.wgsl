// gradient · WGSL
//
// computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk over one slab of tokens, both in one dispatch:
//            the first workgroups of a row form da, the others db
// tile       a thread has GROUPS × 4 ranks × 4 columns in registers
// threads    LANES_N along the columns × LANES_R along the ranks, so that memory gives x and dy
//            once
// serves     backward_adapter; with one slab it writes the gradients, else partial sums,
//            slab by slab, which `sum` adds in order
//
// needs: GROUPS, LANES_R, LANES_N, p.tokens, p.slab_tokens, p.first_slab
// needs: form_da // where da
// needs: form_db, p.da_groups // where db
// gives: gradient

@compute @workgroup_size(LANES_N, LANES_R)
fn gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    // Slab `group.y` of this launch, and of all.
    let first = group.y * p.slab_tokens;
    let end = min(first + p.slab_tokens, p.tokens);
    let slab = p.first_slab + group.y;
    let rank = (group.z * LANES_R + id.y) * GROUPS * 4u;
    if (group.x < p.da_groups) { // where da and db
        form_da(first, end, rank, (group.x * LANES_N + id.x) * 4u, slab); // where da
    } else { // where da and db
        let col = ((group.x - p.da_groups) * LANES_N + id.x) * 4u; // where db
        form_db(first, end, rank, col, slab); // where db
    } // where da and db
}
