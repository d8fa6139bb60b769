// cooperative · WGSL
//
// computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias), shrunk from the workspace, in slices of its sums
// tile       TILE_M tokens × TILE_N columns, of which a subgroup has 2 × 2 matrices of SIZE × SIZE
//            sums in f32; factors are f16
// threads    SUBGROUPS_M × SUBGROUPS_N subgroups of SUBGROUP threads
// workgroup  memory: staged = [ DEPTH steps of x | as many of w ], or [ of shrunk | of b ];
//            leaving = half of the tile on its way to threads that finish it
// serves     forward and, with the roles turned, backward_input, in f16: devices with cooperative
//            matrices whose host asked for them
//
// needs: SIZE, SUBGROUPS_M, SUBGROUPS_N, SUBGROUP, DEPTH, Matrices
// needs: p.depth, p.groups_y, add_x_w, finish
// needs: add_t_b, p.rank // where border
// needs: keep_shrunk // where kept
// needs: p.first_col // where part
// gives: cooperative, staged, TILE_M, TILE_N, THREADS, STEP_FOURS, COLUMN_FOURS, AT_COLUMNS

const TILE_M = 2u * SIZE * SUBGROUPS_M;
const TILE_N = 2u * SIZE * SUBGROUPS_N;
const THREADS = SUBGROUPS_M * SUBGROUPS_N * SUBGROUP;
// Groups of four from one staged row to the next: of steps, and of columns. Two more than there
// are, so that neighbouring rows begin in different banks.
const STEP_FOURS = DEPTH / 4u + 2u;
const COLUMN_FOURS = TILE_N / 4u + 2u;
const AT_COLUMNS = TILE_M * STEP_FOURS;
const HALVES = AT_COLUMNS + max(TILE_N * STEP_FOURS, DEPTH * COLUMN_FOURS);
var<workgroup> staged: array<vec4<f16>, HALVES>;
// From one row of sums to the next.
const SUM_FOURS = TILE_N / 4u + 1u;
var<workgroup> leaving: array<vec4<f32>, SIZE * SUBGROUPS_M * SUM_FOURS>;

@compute @workgroup_size(THREADS)
fn cooperative(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) id: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
) {
    let token = group.x * TILE_M;
    let col = (group.z * p.groups_y + group.y) * TILE_N;
    let own = vec2(subgroup / SUBGROUPS_N, subgroup % SUBGROUPS_N);

    // ── the border: shrunk meets b; then multiply ────────────────────────
    var matrices: Matrices;
    // Of w a part is bound: its first column is one of all.
    var first_col = col;
    first_col += p.first_col; // where part
    add_t_b(&matrices, token, first_col, p.rank, id.x, own); // where border
    add_x_w(&matrices, token, col, p.depth, id.x, own);

    // ── finish: gain, bias, β, rounded once ──────────────────────────────
    let at = own.x * SIZE * SUM_FOURS + own.y * 2u * (SIZE / 4u);
    let beside = at + SIZE / 4u;
    for (var half = 0u; half < 2u; half++) {
        if (half == 0u) {
            coopStoreT(matrices[0], &leaving[at], SUM_FOURS);
            coopStoreT(matrices[1], &leaving[beside], SUM_FOURS);
        } else {
            coopStoreT(matrices[2], &leaving[at], SUM_FOURS);
            coopStoreT(matrices[3], &leaving[beside], SUM_FOURS);
        }
        workgroupBarrier();
        for (var i = id.x; i < SIZE * SUBGROUPS_M * TILE_N / 4u; i += THREADS) {
            let row = i / (TILE_N / 4u);
            let four = i % (TILE_N / 4u);
            let own_row = (row / SIZE * 2u + half) * SIZE + row % SIZE;
            finish(token + own_row, first_col + 4u * four, leaving[row * SUM_FOURS + four]);
        }
        workgroupBarrier();
    }
    if (group.y == 0u && group.z == 0u) { // where kept
        keep_shrunk(token, TILE_M, id.x, THREADS); // where kept
    } // where kept
}
