// shrunk · four ranks of shrunk from their sums
//
// needs: p.scale, p.rank, round_DTYPE
// needs: p.padded_rank, kept_put // where kept
// gives: finish_shrunk
//
// Scaled, the pad behind the rank zero, rounded once as it is stored. Precise: a high part, and a
// low one of what that left. Returns what was stored; with `keeps` it goes to the caller's copy.

fn finish_shrunk(token: u32, rank: u32, sum: vec4<f32>, keeps: bool) -> vec4<f32> {
    let ranks = vec4(rank) + vec4(0u, 1u, 2u, 3u);
    let value = select(vec4<f32>(), p.scale * sum, ranks < vec4(p.rank));
    let high = round_DTYPE(value);
    var low = vec4<f32>();
    let exponent = bitcast<vec4<u32>>(high) & vec4(0x7f800000u); // where precise
    let finite = exponent != vec4(0x7f800000u); // where precise
    low = select(low, round_DTYPE(value - high), finite); // where precise
    // The rank with its pad: behind it begins the low part, or what is not shrunk's.
    if (keeps && rank < p.padded_rank) { // where kept
        kept_put(token, rank, high); // where kept
        kept_put(token, p.padded_rank + rank, low); // where kept and precise
    } // where kept
    return high + low;
}
