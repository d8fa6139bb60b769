// gradient · WGSL
//
// computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk over one slab of tokens, both in one dispatch:
//            the first workgroups of a row form da, the others db
// tile       a thread has GROUPS × 4 ranks × 4 columns in registers
// threads    LANES_N along the columns × LANES_R along the ranks, so that memory gives x and dy once
// serves     backward_adapter; with one slab it writes the gradients, else partial sums,
//            slab by slab, which `sum` adds in order

@compute @workgroup_size(LANES_N, LANES_R)
fn gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    // Slab `group.y` of this launch, and of all.
    let first = group.y * p.slab.x;
    let end = min(first + p.slab.x, p.size.x);
    let slab = p.slab.y + group.y;
    let rank = (group.z * LANES_R + id.y) * GROUPS * 4u;
    if (group.x < p.slab.z) {
        form_da(first, end, rank, (group.x * LANES_N + id.x) * 4u, slab);
    } else {
        form_db(first, end, rank, ((group.x - p.slab.z) * LANES_N + id.x) * 4u, slab);
    }
}
