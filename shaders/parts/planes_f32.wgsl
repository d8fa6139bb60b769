// planes_f32 · NAME is f32, written as planes of images: a row is a pixel, a column a plane
//
// needs: BUFFER, p.NAME, p.NAME_first, p.NAME_rows, p.NAME_pixels, p.NAME_columns
// gives: NAME_old, NAME_put, NAME_place, NAME_put_one
//
// Rows count from `first` on, `pixels` an image, up to `rows` of all.

fn NAME_place(row: u32, col: u32) -> u32 {
    let token = min(p.NAME_first + row, p.NAME_rows - 1u);
    let plane = token / p.NAME_pixels * p.NAME_columns + min(col, p.NAME_columns - 1u);
    return p.NAME.offset + plane * p.NAME.stride + token % p.NAME_pixels;
}
fn NAME_old(row: u32, col: u32) -> vec4<f32> {
    return vec4(
        BUFFER[NAME_place(row, col)], BUFFER[NAME_place(row, col + 1u)],
        BUFFER[NAME_place(row, col + 2u)], BUFFER[NAME_place(row, col + 3u)],
    );
}
fn NAME_put_one(row: u32, col: u32, value: f32) {
    if (p.NAME_first + row >= p.NAME_rows || col >= p.NAME_columns) { return; }
    BUFFER[NAME_place(row, col)] = value;
}
fn NAME_put(row: u32, col: u32, value: vec4<f32>) {
    NAME_put_one(row, col, value.x);
    NAME_put_one(row, col + 1u, value.y);
    NAME_put_one(row, col + 2u, value.z);
    NAME_put_one(row, col + 3u, value.w);
}
