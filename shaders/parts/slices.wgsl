// slices · shrunk from the slices of its sums in the workspace
//
// needs: SLICES, p.tokens, slices_four, finish_shrunk
// needs: p.padded_rank // where kept
// gives: t_four
// gives: keep_shrunk
//
// Slices are added in their order; four are read at a time, so that a thread waits for memory once
// for all of them.

fn slice_sum(row: u32, rank: u32) -> vec4<f32> {
    if (SLICES < 4u) { return slices_four(row, rank); }
    var sum = vec4<f32>();
    for (var slice = 0u; slice < SLICES; slice += 4u) {
        let first = slices_four(slice * p.tokens + row, rank);
        let second = slices_four((slice + 1u) * p.tokens + row, rank);
        let third = slices_four((slice + 2u) * p.tokens + row, rank);
        let fourth = slices_four((slice + 3u) * p.tokens + row, rank);
        sum = sum + first + second + third + fourth;
    }
    return sum;
}
fn t_four(row: u32, rank: u32) -> vec4<f32> {
    return finish_shrunk(row, rank, slice_sum(row, rank), false);
}
// The caller's copy of `tokens` rows from `token` on, by all threads of a workgroup.
fn keep_shrunk(token: u32, tokens: u32, thread: u32, threads: u32) { // where kept
    for (var i = thread; i < tokens * p.padded_rank / 4u; i += threads) { // where kept
        let row = token + i % tokens; // where kept
        let rank = i / tokens * 4u; // where kept
        _ = finish_shrunk(row, rank, slice_sum(row, rank), true); // where kept
    } // where kept
} // where kept
