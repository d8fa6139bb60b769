// kronecker_w2 · WGSL
//
// computes   dw2[q,e] = s·Σ v[m,j,q]·x[m,(j,e)] over tokens m and columns j of w1 (+ β·old),
//            rounded once, with v[m,j,q] = Σ w1[i,j]·dy[m,(i,q)], which is formed as it is staged
// tile       TILE × TILE elements of dw2; a thread has 4 × 4 in registers
// threads    TILE / 4 along e × TILE / 4 along q
// workgroup  memory: [ STEPS tokens of v | as many of x ]
// serves     backward_adapter of a LoKr whose w2 is whole; without tokens it leaves β·old
//
// needs: TILE, STEPS, p.tokens, p.w1_rows, p.w1_cols, p.w2_rows, p.w2_cols, p.of_tap
// needs: p.w1_row, p.w1_col, p.scale, p.beta, w1_at, dy_at, x_at, out_old, out_put, out_ROW_MAJOR
// gives: kronecker_w2, staged_v, staged_x, THREADS

const THREADS = TILE / 4u;
var<workgroup> staged_v: array<f32, TILE * STEPS>;
var<workgroup> staged_x: array<f32, TILE * STEPS>;

@compute @workgroup_size(THREADS, THREADS)
fn kronecker_w2(
    @builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>,
) {
    let row = group.y * TILE;
    let col = group.x * TILE;
    let thread = id.y * THREADS + id.x;
    var tile = mat4x4<f32>();
    for (var j = 0u; j < p.w1_cols; j++) {
        for (var first = 0u; first < p.tokens; first += STEPS) {
            // ── stage: w1 meets dy, and x; zero behind every end ─────────────
            for (var i = thread; i < TILE * STEPS; i += THREADS * THREADS) {
                let token = first + i / TILE;
                let q = row + i % TILE;
                let e = col + i % TILE;
                var v = 0.0;
                for (var k = 0u; k < p.w1_rows; k++) {
                    let w1 = w1_at(0u, k * p.w1_row + j * p.w1_col);
                    v = fma(w1, dy_at(token, k * p.w2_rows + q), v);
                }
                let is_token = token < p.tokens;
                staged_v[i] = select(0.0, v, is_token && q < p.w2_rows);
                // e is (tap, one of of_tap).
                let place = e / p.of_tap * p.w1_cols * p.of_tap + e % p.of_tap;
                let x = x_at(token, j * p.of_tap + place);
                staged_x[i] = select(0.0, x, is_token && e < p.w2_cols);
            }
            workgroupBarrier();
            // ── multiply ─────────────────────────────────────────────────────
            for (var k = 0u; k < STEPS; k++) {
                let at_v = k * TILE + 4u * id.y;
                let at_x = k * TILE + 4u * id.x;
                let x = vec4(
                    staged_x[at_x], staged_x[at_x + 1u], staged_x[at_x + 2u], staged_x[at_x + 3u],
                );
                for (var r = 0u; r < 4u; r++) {
                    tile[r] = fma(vec4(staged_v[at_v + r]), x, tile[r]);
                }
            }
            workgroupBarrier();
        }
    }

    // ── finish: the scale, β·old, rounded once ───────────────────────────
    var first_row = row + 4u * id.y;
    var first_col = col + 4u * id.x;
    if (!out_ROW_MAJOR) {
        tile = transpose(tile);
        let swapped = first_row;
        first_row = first_col;
        first_col = swapped;
    }
    for (var r = 0u; r < 4u; r++) {
        var value = p.scale * tile[r];
        if (p.beta != 0.0) { value = fma(vec4(p.beta), out_old(first_row + r, first_col), value); }
        out_put(first_row + r, first_col, value);
    }
}
