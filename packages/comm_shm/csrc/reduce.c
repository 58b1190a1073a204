/* out = sources[0] op sources[1] op ..., always in rank order, so that the bits depend on nothing but the inputs. */
#include "shm.h"

#include <string.h>

#define BLOCK 2048 /* elements: what is accumulated stays in the first-level cache */

#if defined(__has_feature) /* clang's word for what gcc says with __SANITIZE_THREAD__ */
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

/* One build for every level of vector unit (gcc, and clang from 14 on); the right one is chosen when the library is
 * loaded, which is before ThreadSanitizer can look at anything. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute) && !defined(__SANITIZE_THREAD__)
#if __has_attribute(target_clones)
#define EVERY_LEVEL __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef EVERY_LEVEL
#define EVERY_LEVEL
#endif

/* `out` may be `left` or `right` itself, element for element: no iteration depends on another one. */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* `also` gets the same while the value is in a register; it is NULL where one place is enough. */
#define COMBINE(name, type, expression)                                                                     \
    EVERY_LEVEL static void name(void *out, void *also, const void *left, const void *right, size_t numel) { \
        type *to = out, *too = also;                                                                        \
        const type *from = left, *with = right;                                                             \
        if (too == NULL) {                                                                                  \
            INDEPENDENT for (size_t i = 0; i < numel; i++) {                                                \
                type a = from[i], b = with[i];                                                              \
                to[i] = (type)(expression);                                                                 \
            }                                                                                               \
        } else {                                                                                            \
            INDEPENDENT for (size_t i = 0; i < numel; i++) {                                                \
                type a = from[i], b = with[i];                                                              \
                to[i] = too[i] = (type)(expression);                                                        \
            }                                                                                               \
        }                                                                                                   \
    }

/* A NaN on either side stays. */
#define FLOATING(type)                                  \
    COMBINE(add_##type, type, a + b)                    \
    COMBINE(multiply_##type, type, a *b)                \
    COMBINE(lesser_##type, type, (b < a || b != b) ? b : a) \
    COMBINE(greater_##type, type, (b > a || b != b) ? b : a)

#define ORDERED(type)                          \
    COMBINE(lesser_##type, type, b < a ? b : a) \
    COMBINE(greater_##type, type, b > a ? b : a)

/* Sums and products wrap around; the low bits of both are those of the unsigned type. */
#define MODULAR(type)                               \
    COMBINE(add_##type, type, a + b)                \
    COMBINE(multiply_##type, type, UINT64_C(1) * a * b) \
    COMBINE(and_##type, type, a &b)                 \
    COMBINE(or_##type, type, a | b)                 \
    COMBINE(xor_##type, type, a ^ b)

FLOATING(float)
FLOATING(double)
ORDERED(int64_t)
ORDERED(int32_t)
ORDERED(int16_t)
ORDERED(int8_t)
ORDERED(uint64_t)
ORDERED(uint32_t)
ORDERED(uint16_t)
ORDERED(uint8_t)
MODULAR(uint64_t)
MODULAR(uint32_t)
MODULAR(uint16_t)
MODULAR(uint8_t)

/* in the order of shm_reduce_op; NULL where it is not defined */
#define FLOATING_ROW(type) \
    { add_##type, add_##type, multiply_##type, lesser_##type, greater_##type, NULL, NULL, NULL, add_##type }
#define INTEGER_ROW(type, bits)                                                                                \
    {                                                                                                          \
        add_##bits, NULL, multiply_##bits, lesser_##type, greater_##type, and_##bits, or_##bits, xor_##bits, NULL \
    }

typedef void (*combine)(void *, void *, const void *, const void *, size_t);

static const combine table[SHM_KINDS][SHM_PREMUL_SUM + 1] = {
    [SHM_F32] = FLOATING_ROW(float),
    [SHM_F64] = FLOATING_ROW(double),
    [SHM_F16] = FLOATING_ROW(float),
    [SHM_BF16] = FLOATING_ROW(float),
    [SHM_I64] = INTEGER_ROW(int64_t, uint64_t),
    [SHM_I32] = INTEGER_ROW(int32_t, uint32_t),
    [SHM_I16] = INTEGER_ROW(int16_t, uint16_t),
    [SHM_I8] = INTEGER_ROW(int8_t, uint8_t),
    [SHM_U8] = INTEGER_ROW(uint8_t, uint8_t),
    [SHM_U16] = INTEGER_ROW(uint16_t, uint16_t),
    [SHM_U32] = INTEGER_ROW(uint32_t, uint32_t),
    [SHM_U64] = INTEGER_ROW(uint64_t, uint64_t),
    /* bytes that are 0 or 1: a sum says whether there is any, a product whether all are */
    [SHM_BOOL] = {or_uint8_t, NULL, and_uint8_t, and_uint8_t, or_uint8_t, and_uint8_t, or_uint8_t, xor_uint8_t, NULL},
    /* pairs of floats; only what acts on both parts alike */
    [SHM_C64] = {add_float, add_float, [SHM_PREMUL_SUM] = add_float},
    [SHM_C128] = {add_double, add_double, [SHM_PREMUL_SUM] = add_double},
};

static const uint8_t widths[SHM_KINDS] = {
    [SHM_F32] = 4, [SHM_F64] = 8, [SHM_F16] = 2, [SHM_BF16] = 2, [SHM_I64] = 8,  [SHM_I32] = 4, [SHM_I16] = 2, [SHM_I8] = 1,
    [SHM_U8] = 1,  [SHM_U16] = 2, [SHM_U32] = 4, [SHM_U64] = 8,  [SHM_BOOL] = 1, [SHM_C64] = 8, [SHM_C128] = 16,
};

size_t shm_width(uint32_t kind) { return kind < SHM_KINDS ? widths[kind] : 0; }

int shm_reduces(uint32_t kind, uint32_t op) {
    return kind < SHM_KINDS && op <= SHM_PREMUL_SUM && table[kind][op] != NULL;
}

EVERY_LEVEL static void divide_float(float *out, float by, size_t numel) {
    for (size_t i = 0; i < numel; i++)
        out[i] /= by;
}

EVERY_LEVEL static void divide_double(double *out, double by, size_t numel) {
    for (size_t i = 0; i < numel; i++)
        out[i] /= by;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The 16-bit formats, in integer steps that every vector unit has; rounding is to nearest, ties to even. */

EVERY_LEVEL static void widen_bf16(float *restrict out, const uint16_t *restrict in, size_t numel) {
    for (size_t i = 0; i < numel; i++)
        out[i] = float_of((uint32_t)in[i] << 16);
}

EVERY_LEVEL static void narrow_bf16(uint16_t *restrict out, const float *restrict in, size_t numel) {
    for (size_t i = 0; i < numel; i++) {
        uint32_t bits = bits_of(in[i]);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        out[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
}

EVERY_LEVEL static void widen_f16(float *restrict out, const uint16_t *restrict in, size_t numel) {
    for (size_t i = 0; i < numel; i++) {
        uint32_t half = in[i], exponent = half & 0x7c00, mantissa = half & 0x3ff;
        uint32_t normal = ((half & 0x7fff) << 13) + (UINT32_C(112) << 23); /* the exponent's bias is 127, was 15 */
        uint32_t special = mantissa << 13 | 0x7f800000;
        uint32_t tiny = bits_of((float)(int32_t)mantissa * 0x1p-24f);
        uint32_t magnitude = exponent == 0x7c00 ? special : exponent == 0 ? tiny : normal;
        out[i] = float_of(magnitude | (half & 0x8000) << 16);
    }
}

EVERY_LEVEL static void narrow_f16(uint16_t *restrict out, const float *restrict in, size_t numel) {
    for (size_t i = 0; i < numel; i++) {
        uint32_t bits = bits_of(in[i]), magnitude = bits & 0x7fffffff;
        uint32_t normal = (magnitude - (UINT32_C(112) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
        /* Below 2^-14 the steps are 2^-24: adding 2^23 to that many steps leaves their rounded number in the low bits. */
        uint32_t tiny = bits_of(float_of(magnitude) * 0x1p24f + 0x1p23f) - 0x4b000000;
        uint32_t finite = magnitude < 0x38800000 ? tiny : normal;
        uint32_t high = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
        out[i] = (uint16_t)((magnitude >= 0x477ff000 ? high : finite) | (bits >> 16 & 0x8000));
    }
}

typedef void (*widening)(float *restrict, const uint16_t *restrict, size_t);

static void put_twice(void *also, size_t at, const void *from, size_t bytes) {
    if (also != NULL)
        memcpy((unsigned char *)also + at, from, bytes);
}

/* In f32, rounded once at the end. */
static void reduce_halves(uint16_t *out, void *also, const void *const *sources, uint32_t world, size_t numel,
                          uint32_t kind, uint32_t op) {
    float total[BLOCK], next[BLOCK];
    widening widen = kind == SHM_F16 ? widen_f16 : widen_bf16;
    combine step = table[kind][op];
    for (size_t start = 0; start < numel; start += BLOCK) {
        size_t count = numel - start < BLOCK ? numel - start : BLOCK;
        widen(total, (const uint16_t *)sources[0] + start, count);
        for (uint32_t rank = 1; rank < world; rank++) {
            widen(next, (const uint16_t *)sources[rank] + start, count);
            step(total, NULL, total, next, count);
        }
        if (op == SHM_AVG)
            divide_float(total, (float)world, count);
        (kind == SHM_F16 ? narrow_f16 : narrow_bf16)(out + start, total, count);
        put_twice(also, start * sizeof *out, out + start, count * sizeof *out);
    }
}

/* The sources are read at `at`; only the last one is read after `to` is written, and element by element at that. */
static void reduce_block(void *to, void *also, const void *const *sources, size_t at, uint32_t world, size_t count,
                         combine step) {
    double total[BLOCK];
    const void *left = (const unsigned char *)sources[0] + at;
    for (uint32_t rank = 1; rank < world; rank++) {
        int last = rank + 1 == world;
        void *result = last ? to : total;
        step(result, last ? also : NULL, left, (const unsigned char *)sources[rank] + at, count);
        left = result;
    }
}

/* `out`, and `also` unless it is NULL, may be sources: nothing is read from a source after its place was written. */
void shm_reduce(void *out, void *also, const void *const *sources, uint32_t world, size_t numel, uint32_t kind,
                uint32_t op) {
    if (kind == SHM_F16 || kind == SHM_BF16) {
        reduce_halves(out, also, sources, world, numel, kind, op);
        return;
    }
    combine step = table[kind][op];
    int paired = kind >= SHM_C64, doubles = kind == SHM_F64 || kind == SHM_C128;
    int at_once = world > 1 && op != SHM_AVG; /* the last step has the result */
    size_t width = shm_width(kind) >> paired, total = numel << paired;
    if (world == 2 && at_once) { /* nothing lies between */
        step(out, also, sources[0], sources[1], total);
        return;
    }
    for (size_t start = 0; start < total; start += BLOCK) {
        size_t count = total - start < BLOCK ? total - start : BLOCK, at = start * width;
        unsigned char *to = (unsigned char *)out + at;
        if (world > 1)
            reduce_block(to, also != NULL && at_once ? (unsigned char *)also + at : NULL, sources, at, world, count, step);
        else if (out != sources[0])
            memmove(to, (const unsigned char *)sources[0] + at, count * width);
        if (op == SHM_AVG && doubles)
            divide_double((double *)(void *)to, world, count);
        else if (op == SHM_AVG)
            divide_float((float *)(void *)to, (float)world, count);
        if (!at_once)
            put_twice(also, at, to, count * width);
    }
}
