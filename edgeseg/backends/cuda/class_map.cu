// Logits to the class map of a frame, and to an overlay, in one pass: bilinear upsampling and argmax without the
// upsampled logits ever being written. Equal to the NumPy reference (edgeseg.upsample.reference_class_map): each
// interpolation is a * (1 - w) + b * w in float32, along the rows' axis first, without fused multiply-add (compile with
// --fmad=false), and of equal values the first channel wins.
//
// The compiler is told:
//   CHANNELS                  number of classes, 1 to 256
//   CHANNEL_STRIDE, ROW_STRIDE, COLUMN_STRIDE   of the logits, in elements
//   ROWS, COLUMNS             size of the logits
//   FRAME_ROWS, FRAME_COLUMNS size of the class map
//   HALF                      1 where logits are float16
//   OVERLAY                   1 where the frame is blended with the classes' colours
// Shapes known to the compiler turn into constants, and the loop over channels is unrolled.

typedef unsigned char uint8;
typedef unsigned int uint32;

#if HALF
typedef unsigned short logit;
#else
typedef float logit;
#endif

// Rounding moves an interpolated value by less than 4 units of 2**-24 of the largest; this is 40 times as much. The sum is
// for numbers so small that their rounding is not relative.
#define MARGIN(size) (1e-5f * (size) + 1e-43f)

static __device__ inline float as_float(logit value)
{
#if !HALF
    return value;
#elif defined(__CUDA_ARCH__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value));
    return result;
#else
    // On a processor: the float16's exponent and fraction in a float32's place, brought to its bias.
    union { uint32 bits; float number; } result, scale;
    result.bits = (uint32)(value & 0x7fff) << 13;
    scale.bits = 239u << 23;  // 2 to the power of 112
    result.number *= scale.number;
    if ((value & 0x7c00) == 0x7c00) result.bits |= 0x7f800000;
    result.bits |= (uint32)(value & 0x8000) << 16;
    return result.number;
#endif
}

// Value of a channel between two rows of one column of logits.
static __device__ inline float between(const logit* top, const logit* bottom, float up, float down)
{
    return as_float(*top) * up + as_float(*bottom) * down;
}

// The largest value so far, the first channel that has it, and the largest of the others.
struct Lead { float first, second; int channel; };

static __device__ inline void follow(Lead* lead, float value, int channel)
{
    if (value > lead->first) {
        lead->second = lead->first;
        lead->first = value;
        lead->channel = channel;
    } else if (value > lead->second) {
        lead->second = value;
    }
}

static __device__ inline float size_of(float value) { return value < 0 ? -value : value; }

#if OVERLAY
static __device__ inline uint8 blend(uint8 frame, uint8 colour, float keep, float share)
{
    float value = rintf(frame * keep + colour * share);
    return value > 255 ? 255 : (uint8)value;
}
#endif

static __device__ inline void write(
    uint8* class_map, int index, int channel, const uint8* frame, uint8* overlay, const uint8* palette, float share)
{
    class_map[index] = (uint8)channel;
#if OVERLAY
    float keep = 1 - share;
    for (int i = 0; i < 3; i++)
        overlay[3 * index + i] = blend(frame[3 * index + i], palette[3 * channel + i], keep, share);
#else
    (void)frame, (void)overlay, (void)palette, (void)share;
#endif
}

#if !OVERLAY
// A run of pixels of one class; whole words where they are aligned, since single bytes take as long to write.
static __device__ inline void fill(uint8* class_map, int index, int end, int channel)
{
    uint32 word = (uint32)channel * 0x01010101u;
    while (index < end && (index & 3)) class_map[index++] = (uint8)channel;
    for (; index + 4 <= end; index += 4) *(uint32*)(class_map + index) = word;
    while (index < end) class_map[index++] = (uint8)channel;
}
#endif

// One thread does one strip of one row of the frame: the pixels between the same two columns of logits. There a channel
// is never above the larger of its two ends. Where one channel leads at both ends by more than rounding can move, it is
// the answer for the whole strip; elsewhere only channels that can lead somewhere are compared pixel by pixel.
//
// Args:
//   logits: the engine's output.
//   row_of, row_weight: by row of the frame, the logits' row above, and the share of the one below.
//   strip_of: first pixel of each strip, and the frame's width behind the last.
//   column_of, column_weight: as for rows, by column of the frame.
//   strips: number of strips.
//   class_map: (FRAME_ROWS, FRAME_COLUMNS) at a multiple of 4 bytes, every pixel is written.
//   not_finite: set to 1 where a logit is infinite or not a number.
//   frame, overlay: (FRAME_ROWS, FRAME_COLUMNS, 3) RGB; palette: (CHANNELS, 3) RGB; share: of the colour, 0..1.
extern "C" __global__ void interpolate_classes(
    const logit* __restrict__ logits, const int* __restrict__ row_of, const float* __restrict__ row_weight,
    const int* __restrict__ strip_of, const int* __restrict__ column_of, const float* __restrict__ column_weight,
    int strips, uint8* __restrict__ class_map, uint32* __restrict__ not_finite, const uint8* __restrict__ frame,
    uint8* __restrict__ overlay, const uint8* __restrict__ palette, float share)
{
    int strip = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (strip >= strips || y >= FRAME_ROWS) return;

    int start = strip_of[strip], stop = strip_of[strip + 1];
    int above = row_of[y], below = above + 1 < ROWS ? above + 1 : above;
    int left = column_of[start], right = left + 1 < COLUMNS ? left + 1 : left;
    float down = row_weight[y], up = 1 - down;
    const logit* corners[4] = {
        logits + above * ROW_STRIDE + left * COLUMN_STRIDE, logits + below * ROW_STRIDE + left * COLUMN_STRIDE,
        logits + above * ROW_STRIDE + right * COLUMN_STRIDE, logits + below * ROW_STRIDE + right * COLUMN_STRIDE};

    float p = between(corners[0], corners[1], up, down), q = between(corners[2], corners[3], up, down);
    float odd = (p - p) + (q - q);  // not a number, as soon as one value is infinite or not a number
    float floor = p < q ? p : q;
    float size = size_of(p) > size_of(q) ? size_of(p) : size_of(q);
    Lead at_left = {p, -3.402823466e38f, 0}, at_right = {q, -3.402823466e38f, 0};
    for (int c = 1; c < CHANNELS; c++) {
        int i = c * CHANNEL_STRIDE;
        p = between(corners[0] + i, corners[1] + i, up, down);
        q = between(corners[2] + i, corners[3] + i, up, down);
        odd += (p - p) + (q - q);
        float low = p < q ? p : q;
        floor = low > floor ? low : floor;
        size = size_of(p) > size ? size_of(p) : size;
        size = size_of(q) > size ? size_of(q) : size;
        follow(&at_left, p, c);
        follow(&at_right, q, c);
    }
    if (odd != 0) *not_finite = 1;

    float margin = MARGIN(size);
    int leader = at_left.channel;
    if (leader == at_right.channel && at_left.first - at_left.second > margin
        && at_right.first - at_right.second > margin) {
#if OVERLAY
        for (int x = start; x < stop; x++)
            write(class_map, y * FRAME_COLUMNS + x, leader, frame, overlay, palette, share);
#else
        fill(class_map, y * FRAME_COLUMNS + start, y * FRAME_COLUMNS + stop, leader);
#endif
        return;
    }
    float limit = floor - margin;
    for (int first = start; first < stop; first += 8) {
        int count = stop - first < 8 ? stop - first : 8;
        float best[8];
        int winner[8];
        for (int k = 0; k < 8; k++) winner[k] = -1, best[k] = 0;
        for (int c = 0; c < CHANNELS; c++) {
            int i = c * CHANNEL_STRIDE;
            p = between(corners[0] + i, corners[1] + i, up, down);
            q = between(corners[2] + i, corners[3] + i, up, down);
            if ((p > q ? p : q) < limit) continue;
#pragma unroll
            for (int k = 0; k < 8; k++) {  // a fixed number, so that both arrays are registers
                if (k >= count) continue;
                float weight = column_weight[first + k];
                float value = p * (1 - weight) + q * weight;
                if (winner[k] < 0 || value > best[k]) best[k] = value, winner[k] = c;
            }
        }
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (k < count)
                write(class_map, y * FRAME_COLUMNS + first + k, winner[k] < 0 ? 0 : winner[k], frame, overlay, palette,
                      share);
    }
}

// The same for logits of the class map's own size, one thread a pixel. `column_of` and `row_of` give the logits' pixel.
extern "C" __global__ void argmax_classes(
    const logit* __restrict__ logits, const int* __restrict__ row_of, const int* __restrict__ column_of,
    uint8* __restrict__ class_map, uint32* __restrict__ not_finite, const uint8* __restrict__ frame,
    uint8* __restrict__ overlay, const uint8* __restrict__ palette, float share)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= FRAME_COLUMNS || y >= FRAME_ROWS) return;

    const logit* pixel = logits + row_of[y] * ROW_STRIDE + column_of[x] * COLUMN_STRIDE;
    float best = as_float(*pixel), odd = best - best;
    int winner = 0;
    for (int c = 1; c < CHANNELS; c++) {
        float value = as_float(pixel[c * CHANNEL_STRIDE]);
        odd += value - value;
        if (value > best) best = value, winner = c;
    }
    if (odd != 0) *not_finite = 1;
    write(class_map, y * FRAME_COLUMNS + x, winner, frame, overlay, palette, share);
}
