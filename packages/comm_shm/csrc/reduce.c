/* out = sources[0] op sources[1] op ..., always in rank order, so that the bits depend on nothing but the inputs. */
#include "shm.h"

#define BLOCK 2048 /* floats: what is accumulated stays in the first-level cache */

/* One build for every level of vector unit; the right one is chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_LEVEL __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_LEVEL
#endif

/* `out` may be `left` or `right` itself, element for element: no iteration depends on another one. */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define COMBINE(name, expression)                                                          \
    EVERY_LEVEL static void name(float *out, const float *left, const float *right, size_t numel) { \
        INDEPENDENT for (size_t i = 0; i < numel; i++) {                                   \
            float a = left[i], b = right[i];                                               \
            out[i] = (expression);                                                         \
        }                                                                                  \
    }

COMBINE(add, a + b)
COMBINE(multiply, a *b)
COMBINE(lesser, (b < a || b != b) ? b : a)   /* a NaN on either side stays */
COMBINE(greater, (b > a || b != b) ? b : a)

EVERY_LEVEL static void divide(float *out, float by, size_t numel) {
    for (size_t i = 0; i < numel; i++)
        out[i] /= by;
}

typedef void (*combine)(float *, const float *, const float *, size_t);

static combine combine_of(shm_reduce_op op) {
    switch (op) {
    case SHM_PRODUCT:
        return multiply;
    case SHM_MIN:
        return lesser;
    case SHM_MAX:
        return greater;
    default:
        return add;
    }
}

/* For world > 2 no source may overlap `out`: it is written before the third source is read. */
void shm_reduce_f32(float *out, const float *const *sources, uint32_t world, size_t numel, shm_reduce_op op) {
    combine step = combine_of(op);
    for (size_t start = 0; start < numel; start += BLOCK) {
        size_t count = numel - start < BLOCK ? numel - start : BLOCK;
        step(out + start, sources[0] + start, sources[1] + start, count);
        for (uint32_t rank = 2; rank < world; rank++)
            step(out + start, out + start, sources[rank] + start, count);
        if (op == SHM_AVG)
            divide(out + start, (float)world, count);
    }
}
