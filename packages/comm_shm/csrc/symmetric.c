/* Collectives on buffers that every rank has mapped: nothing goes through a slot, the ranks only meet before and after.
 *
 * Before: every rank's buffer holds what its owner wrote. After: every rank has read and written what it will.
 * With S bytes on each of n ranks, a rank moves, and no algorithm can move less (a result elsewhere must be written, and
 * an input must be read, at least once):
 *   one-shot all_reduce:     reads n * S, writes S     to a tensor of its own; one rank alone needs all n * S
 *   two-shot all_reduce:     reads S, writes S         in place: of all n buffers, each byte is read once and written once
 *   all_gather:              reads n * S, writes n * S to a tensor of its own; nothing at all when it looks at the buffers
 *   reduce_scatter:          reads S, writes S / n
 * The staged collectives copy each input into a slot first: S read and S written more on every rank.
 */
#define _GNU_SOURCE
#include "shm.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 16384 /* of a result on its way to several places */
#define ROUNDS 60
#define SPINS 50
#define CROWDED_NS INT64_C(100000) /* a yield that takes this long let others run: a sleeper is back sooner */
#define SLICE_NS INT64_C(50000000) /* a dead peer, a signal handler and the deadline are looked for this often */

static unsigned char *buffer_of(const shm_call *call, uint32_t rank) {
    return call->buffers->first + rank * call->buffers->stride;
}

/* The bytes from `at` on of all buffers, reduced into `out`, and into `also` unless it is NULL. */
static void reduce_at(shm_group *group, const shm_call *call, size_t at, size_t bytes, void *out, void *also) {
    for (uint32_t rank = 0; rank < group->world; rank++)
        group->sources[rank] = buffer_of(call, rank) + at;
    if (bytes != 0)
        shm_reduce(out, also, group->sources, group->world, bytes / call->width, call->header.dtype,
                   call->header.reduce_op);
}

static size_t all_bytes(const shm_call *call) { return (size_t)call->header.numel * call->width; }

static void reduce_for_itself(shm_group *group, const shm_call *call, size_t t) {
    (void)t;
    reduce_at(group, call, 0, all_bytes(call), call->out, NULL);
}

/* Each rank reduces a range of all buffers: between the two meetings nobody else touches that range. Block by block,
 * and a block that was reduced is copied on while it is in the first-level cache. */
static void reduce_for_all(shm_group *group, const shm_call *call, size_t t) {
    (void)t;
    size_t all = all_bytes(call), lines = (all + 63) / 64, world = group->world;
    size_t begin = lines * group->rank / world * 64, end = lines * (group->rank + 1) / world * 64;
    end = end < all ? end : all;
    for (size_t at = begin; world > 1 && at < end; at += BLOCK_BYTES) {
        size_t bytes = end - at < BLOCK_BYTES ? end - at : BLOCK_BYTES;
        reduce_at(group, call, at, bytes, buffer_of(call, 0) + at, buffer_of(call, 1) + at);
        for (uint32_t rank = 2; rank < world; rank++)
            memcpy(buffer_of(call, rank) + at, buffer_of(call, 0) + at, bytes);
    }
}

static void copy_everyones(shm_group *group, const shm_call *call, size_t t) {
    (void)t;
    size_t bytes = all_bytes(call);
    for (uint32_t turn = 0; bytes != 0 && turn < group->world; turn++) {
        uint32_t rank = (group->rank + turn) % group->world; /* each begins elsewhere */
        memcpy(call->out + rank * bytes, buffer_of(call, rank), bytes);
    }
}

/* `out` may be this rank's part of its own buffer: nobody else reads that. */
static void reduce_own_part(shm_group *group, const shm_call *call, size_t t) {
    (void)t;
    reduce_at(group, call, group->rank * all_bytes(call), all_bytes(call), call->out, NULL);
}

/* One piece with a reduce stage and no others: the ranks meet, compare what they said, do it, and meet again. */
#define BETWEEN_MEETINGS(name, work)                                                                \
    shm_status shm_##name(shm_group *group, shm_call *call, const shm_patience *patience) {         \
        static const shm_stages stages = {.reduce = work};                                          \
        return shm_run(group, call, &(shm_course){.pieces = 1}, &stages, patience);                 \
    }

BETWEEN_MEETINGS(one_shot_all_reduce, reduce_for_itself)
BETWEEN_MEETINGS(two_shot_all_reduce, reduce_for_all)
BETWEEN_MEETINGS(symmetric_all_gather, copy_everyones)
BETWEEN_MEETINGS(symmetric_reduce_scatter, reduce_own_part)

/* Signals need no turn: threads of a rank may wait on different channels at the same time. */

shm_status shm_signal(const shm_group *group, shm_channel *channel) {
    if (shm_foreign(group))
        return SHM_FORKED;
    if (group->closed)
        return SHM_CLOSED;
    if (shm_broken(group) != 0)
        return SHM_BROKEN;
    atomic_fetch_add_explicit(&channel->sent, 1, memory_order_release);
    /* Pairs with the increment of `sleepers`: either the sleeper sees the signal, or this rank sees the sleeper. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&channel->sleepers, memory_order_relaxed) != 0)
        syscall(SYS_futex, &channel->sent, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    return SHM_OK;
}

static int take(shm_channel *channel) {
    uint32_t taken = atomic_load_explicit(&channel->taken, memory_order_relaxed);
    while (atomic_load_explicit(&channel->sent, memory_order_acquire) != taken)
        if (atomic_compare_exchange_weak(&channel->taken, &taken, taken + 1))
            return 1;
    return 0;
}

static shm_status look_around(const shm_group *group, uint32_t from, const shm_patience *patience) {
    if (patience->interrupted(patience->context))
        return SHM_INTERRUPTED;
    if (shm_dead(group, from))
        return SHM_DIED;
    if (atomic_load(&group->controls[from].left) != 0)
        return SHM_LEFT;
    if (shm_broken(group) != 0)
        return SHM_BROKEN;
    return shm_now_ns() >= patience->deadline_ns ? SHM_TIMED_OUT : SHM_OK;
}

static void sleep_for_a_slice(shm_channel *channel, uint32_t taken, const shm_patience *patience) {
    int64_t left_ns = patience->deadline_ns - shm_now_ns();
    struct timespec slice = {0, left_ns < 0 ? 0 : left_ns < SLICE_NS ? left_ns : SLICE_NS};
    syscall(SYS_futex, &channel->sent, FUTEX_WAIT, taken, &slice, NULL, 0);
}

static shm_status sleep_until_sent(shm_group *group, uint32_t from, shm_channel *channel,
                                   const shm_patience *patience) {
    shm_status status = SHM_OK;
    atomic_fetch_add(&channel->sleepers, 1);
    while (status == SHM_OK) {
        uint32_t taken = atomic_load(&channel->taken);
        if (take(channel))
            break;
        sleep_for_a_slice(channel, taken, patience);
        status = look_around(group, from, patience);
        if (status != SHM_OK && status != SHM_INTERRUPTED && take(channel)) { /* sent it, then died or left */
            status = SHM_OK;
            break;
        }
    }
    atomic_fetch_sub(&channel->sleepers, 1);
    return status;
}

/* Failing takes nothing and breaks nothing: a signal that comes later is there for the next one who waits. */
shm_status shm_take_signal(shm_group *group, uint32_t from, shm_channel *channel, const shm_patience *patience) {
    if (shm_foreign(group))
        return SHM_FORKED;
    if (group->closed)
        return SHM_CLOSED;
    for (int round = 0; round < ROUNDS; round++) {
        for (int spin = 0; spin < SPINS; spin++)
            if (take(channel))
                return SHM_OK;
        int64_t before = shm_now_ns();
        sched_yield();
        if (shm_now_ns() - before > CROWDED_NS)
            break;
    }
    return sleep_until_sent(group, from, channel, patience);
}
