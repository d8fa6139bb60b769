// window · NAME is what a convolution sees of the images BUFFER: a row is a pixel of what is
// computed, a column one channel of one of the pixels around it; 0 outside the images
//
// needs: p.NAME_first, p.NAME_lines, p.NAME_pixels, p.NAME_height, p.NAME_width, p.NAME_channels
// needs: p.NAME_taps, p.NAME_kernel, p.NAME_stride_y, p.NAME_stride_x, p.NAME_padding_y
// needs: p.NAME_padding_x, p.NAME_dilation_y, p.NAME_dilation_x
// needs: NAME_BACK, NAME_PLANES, NAME_TAPS_FIRST, NAME_FOURS, BUFFER_at, BUFFER_four
// gives: NAME_at, NAME_four, NAME_axis, NAME_place
//
// Rows count from `first` on, by `lines` of `pixels` an image. NAME_BACK: the way back, from a
// pixel to the outputs that it is part of. NAME_PLANES: a stored row is a plane of one channel,
// else the channels of one pixel. NAME_TAPS_FIRST: columns count taps first, and then channels.
// NAME_FOURS: four columns are channels of one pixel.

// Along one axis: `size` stands for outside.
fn NAME_axis(at: u32, reach: u32, stride: u32, padding: u32, size: u32) -> u32 {
    if (NAME_BACK) {
        let ahead = at + padding;
        if (ahead < reach || (ahead - reach) % stride != 0u) { return size; }
        return min((ahead - reach) / stride, size);
    }
    // Before an image it is below 0, and so far above all.
    return min(at * stride + reach - padding, size);
}
// Stored row and column of an element; the third is 0 where there is none.
fn NAME_place(row: u32, col: u32) -> vec3<u32> {
    let token = p.NAME_first + row;
    let line = token / p.NAME_pixels;
    let image = line / p.NAME_lines;
    var tap = col % p.NAME_taps;
    var channel = col / p.NAME_taps;
    if (NAME_TAPS_FIRST) {
        tap = col / p.NAME_channels;
        channel = col % p.NAME_channels;
    }
    let down = tap / p.NAME_kernel * p.NAME_dilation_y;
    let right = tap % p.NAME_kernel * p.NAME_dilation_x;
    let y = NAME_axis(
        line % p.NAME_lines, down, p.NAME_stride_y, p.NAME_padding_y, p.NAME_height,
    );
    let x = NAME_axis(
        token % p.NAME_pixels, right, p.NAME_stride_x, p.NAME_padding_x, p.NAME_width,
    );
    let inside = select(0u, 1u, y < p.NAME_height && x < p.NAME_width);
    if (NAME_PLANES) {
        return vec3(image * p.NAME_channels + channel, y * p.NAME_width + x, inside);
    }
    return vec3((image * p.NAME_height + y) * p.NAME_width + x, channel, inside);
}
fn NAME_at(row: u32, col: u32) -> f32 {
    let place = NAME_place(row, col);
    return select(0.0, BUFFER_at(place.x, place.y), place.z == 1u);
}
fn NAME_four(row: u32, col: u32) -> vec4<f32> {
    if (NAME_FOURS) {
        let place = NAME_place(row, col);
        return select(vec4<f32>(), BUFFER_four(place.x, place.y), vec4(place.z == 1u));
    }
    return vec4(
        NAME_at(row, col), NAME_at(row, col + 1u), NAME_at(row, col + 2u), NAME_at(row, col + 3u),
    );
}
