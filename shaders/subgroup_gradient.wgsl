// subgroup_gradient · WGSL
//
// computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk over one slab of tokens, both in one dispatch, as
//            `gradient` does
// tile       a thread has GROUPS × 4 ranks × 4 columns in registers; x and dy are read from
//            memory, dshrunk and shrunk once a subgroup
// threads    LANES_N along the columns, whole subgroups; all of them have the same ranks
// serves     backward_adapter: software drivers with subgroups, where a load costs a branch a
//            thread and a shuffle one instruction; slabs as in `gradient`
//
// needs: GROUPS, LANES_N, p.tokens, p.slab_tokens, p.first_slab
// needs: form_da // where da
// needs: form_db, p.da_groups // where db
// gives: subgroup_gradient

@compute @workgroup_size(LANES_N)
fn subgroup_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // Slab `group.y` of this launch, and of all.
    let first = group.y * p.slab_tokens;
    let end = min(first + p.slab_tokens, p.tokens);
    let slab = p.first_slab + group.y;
    let rank = group.z * GROUPS * 4u;
    if (group.x < p.da_groups) { // where da and db
        form_da(first, end, rank, (group.x * LANES_N + id.x) * 4u, slab, lane); // where da
    } else { // where da and db
        let col = ((group.x - p.da_groups) * LANES_N + id.x) * 4u; // where db
        form_db(first, end, rank, col, slab, lane); // where db
    } // where da and db
}
