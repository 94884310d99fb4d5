// A frame of any size, in any layout, to the network's input: what OpenCV's bilinear resize of 8-bit images gives, bit
// for bit, since networks are calibrated and scored on that.
//
// OpenCV (modules/imgproc/src/resize.cpp: HResizeLinear, VResizeLinear) works with weights of 11 bits. The row above the
// first and the one below the last are the rows themselves; beyond the first and last column the weights are.
//
// The compiler is told:
//   ROWS, COLUMNS   size of the network's input

typedef unsigned char uint8;

// Two neighbours of a pixel on an axis, and their shares of 2048.
struct Neighbours { int first, second, first_share, second_share; };

static __device__ inline int share_of(float weight) { return (int)rintf(weight * 2048.0f); }

static __device__ inline Neighbours neighbours(int place, int size, int fitted)
{
    float exact = (float)((place + 0.5) * ((double)size / fitted) - 0.5);
    int first = (int)floorf(exact);
    float weight = exact - first;
    Neighbours found = {first, first + 1, share_of(1.0f - weight), share_of(weight)};
    return found;
}

// Args:
//   source: (rows, columns, 3) RGB, whose strides are in bytes and may be negative.
//   target: (ROWS, COLUMNS, 3), contiguous; every byte is written.
extern "C" __global__ void fit_frame(
    const uint8* __restrict__ source, int rows, int columns, int row_stride, int column_stride, int channel_stride,
    uint8* __restrict__ target)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= COLUMNS || y >= ROWS) return;

    Neighbours across = neighbours(x, columns, COLUMNS), down = neighbours(y, rows, ROWS);
    if (across.first < 0) across = {0, 0, 2048, 0};
    if (across.second >= columns) across = {columns - 1, columns - 1, 2048, 0};
    if (down.first < 0) down.first = 0;
    if (down.first >= rows) down.first = rows - 1;
    if (down.second >= rows) down.second = rows - 1;

    const uint8* above = source + down.first * row_stride;
    const uint8* below = source + down.second * row_stride;
    for (int c = 0; c < 3; c++) {
        int left = across.first * column_stride + c * channel_stride;
        int right = across.second * column_stride + c * channel_stride;
        int top = above[left] * across.first_share + above[right] * across.second_share;
        int bottom = below[left] * across.first_share + below[right] * across.second_share;
        int sum = ((down.first_share * (top >> 4)) >> 16) + ((down.second_share * (bottom >> 4)) >> 16);
        target[3 * (y * COLUMNS + x) + c] = (uint8)((sum + 2) >> 2);
    }
}
