/* Publishing a step and waiting for the others: spin, then yield, then sleep in the kernel in bounded slices. */
#define _GNU_SOURCE
#include "shm.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EAGER 8 /* looks without a pause, which takes longer than a cache line from another core */
#define ROUNDS 60 /* of spinning a little and yielding once, before sleeping */
#define CROWDED_NS INT64_C(100000) /* a yield that takes this long let strangers run: a sleeper is back sooner */
#define MOVE_NS INT64_C(2000000) /* a move costs some 20 us: at most one in this time */
#define SLICE_NS INT64_C(50000000) /* a dead peer, a signal and the deadline are looked for this often */

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Take a cache line away from the other cores, before it is written. */
static inline void fetch_for_writing(const void *line) {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)line)); /* the builtin only reads unless told -mprfchw */
#else
    __builtin_prefetch(line, 1);
#endif
}

static int64_t read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t shm_now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

int64_t shm_deadline_in(int64_t limit_ns) { return read_clock(CLOCK_MONOTONIC_COARSE) + SHM_TICK_NS + limit_ns; }

static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t slice_ns) {
    struct timespec slice = {slice_ns / 1000000000, slice_ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &slice, NULL, 0);
}

/* Wrap-around is harmless: no two ranks are ever more than one step apart. */
static inline int reached(uint32_t arrived, uint32_t step) { return (int32_t)(arrived - step) >= 0; }

static inline int arrived_at(const shm_group *group, uint32_t rank, uint32_t step) {
    return reached(atomic_load_explicit(&shm_card_of(group, rank, step)->arrived, memory_order_acquire), step);
}

void shm_publish(shm_group *group, uint32_t step) {
    shm_control *mine = &group->controls[group->rank];
    int cpu = sched_getcpu() + 1;
    if (cpu != atomic_load_explicit(&mine->cpu, memory_order_relaxed))
        atomic_store_explicit(&mine->cpu, cpu, memory_order_relaxed);
    atomic_store_explicit(&shm_card_of(group, group->rank, step)->arrived, step, memory_order_release);
}

/* Wake who sleeps until this rank has arrived. Either the sleeper sees the step, or this rank sees the sleeper: the fence
 * pairs with the increment in sleep_for. It comes after the first look at the others, when the store of the step has long
 * left this core, and before this rank sleeps or returns; a sleeper needs the others as well, so it loses no time. */
static inline void wake_sleepers(shm_group *group, uint32_t step) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&group->controls[group->rank].sleepers, memory_order_relaxed) != 0)
        futex_wake(&shm_card_of(group, group->rank, step)->arrived);
}

void shm_wake_everyone(shm_group *group) {
    for (uint32_t rank = 0; rank < group->world; rank++)
        for (uint32_t step = 0; step < 2; step++)
            futex_wake(&shm_card_of(group, rank, step)->arrived);
}

static uint32_t last_published(const shm_group *group) {
    uint32_t one = atomic_load_explicit(&shm_card_of(group, group->rank, 0)->arrived, memory_order_relaxed);
    uint32_t other = atomic_load_explicit(&shm_card_of(group, group->rank, 1)->arrived, memory_order_relaxed);
    return reached(one, other) ? one : other;
}

/* The first failure stands: what the others see afterwards follows from it. */
void shm_break(shm_group *group, shm_status status) {
    uint64_t whole = 0, step = last_published(group);
    atomic_compare_exchange_strong(&group->base->broken, &whole, step << 32 | (uint32_t)status << 16 | group->rank);
    shm_wake_everyone(group);
}

/* Whether the group failed before every rank had completed this step: who failed at a later one had completed it. */
static int broken_by(const shm_group *group, uint32_t step) {
    uint64_t word = atomic_load_explicit(&group->base->broken, memory_order_acquire);
    return word != 0 && reached(step, (uint32_t)(word >> 32));
}

int shm_behind(const shm_group *group, uint32_t rank) {
    int32_t one = (int32_t)(group->step - atomic_load_explicit(&shm_card_of(group, rank, 0)->arrived, memory_order_acquire));
    int32_t other = (int32_t)(group->step - atomic_load_explicit(&shm_card_of(group, rank, 1)->arrived, memory_order_acquire));
    return one < other ? one : other;
}

shm_header shm_said(const shm_group *group, uint32_t rank, int behind) {
    return shm_card_of(group, rank, behind > 0 ? group->step - (uint32_t)behind : group->step)->header;
}

int shm_dead(const shm_group *group, uint32_t rank) {
    struct pollfd look = {.fd = group->watch[rank].fd, .events = POLLIN}; /* another thread may be polling */
    return look.fd >= 0 && poll(&look, 1, 0) == 1 && (look.revents & POLLIN) != 0;
}

/* Is there a reason to stop waiting? Of the ranks that are still missing, has one died, or left? At the first step,
 * which all ranks join by, it may also be a dead one that has arrived: who has not joined by then finds it gone, and never
 * arrives. */
static shm_status look_around(shm_group *group, uint32_t step, const shm_patience *patience) {
    if (patience->interrupted(patience->context))
        return SHM_INTERRUPTED;
    int some_dead = poll(group->watch, group->world, 0) > 0, some_left = 0;
    if (shm_broken(group) != 0) /* before who died or left: they may have ended because of that */
        return SHM_BROKEN;
    for (uint32_t rank = 0; rank < group->world; rank++) {
        int left = atomic_load(&group->controls[rank].left) != 0; /* before this look at whether it has arrived */
        int missing = !arrived_at(group, rank, step);
        if (some_dead && (group->watch[rank].revents & POLLIN) != 0 && (missing || step == 1))
            return SHM_DIED;
        some_left |= left && missing;
    }
    if (shm_broken(group) != 0) /* since then, and before who left: as above */
        return SHM_BROKEN;
    if (some_left)
        return SHM_LEFT;
    return shm_now_ns() >= patience->deadline_ns ? SHM_TIMED_OUT : SHM_OK;
}

static shm_status sleep_for(shm_group *group, uint32_t rank, uint32_t step, const shm_patience *patience) {
    shm_status status = SHM_OK;
    shm_control *peer = &group->controls[rank];
    _Atomic uint32_t *arrived = &shm_card_of(group, rank, step)->arrived;
    atomic_fetch_add(&peer->sleepers, 1);
    while (status == SHM_OK) {
        uint32_t seen = atomic_load(arrived);
        if (reached(seen, step))
            break;
        int64_t left_ns = patience->deadline_ns - shm_now_ns();
        if (left_ns > 0)
            futex_wait(arrived, seen, left_ns < SLICE_NS ? left_ns : SLICE_NS);
        if (arrived_at(group, rank, step))
            break;
        status = look_around(group, step, patience);
        /* A rank that published and then died, left or failed has done its part of this step. */
        if (status != SHM_INTERRUPTED && arrived_at(group, rank, step))
            status = SHM_OK;
    }
    atomic_fetch_sub(&peer->sleepers, 1);
    return status;
}

/* A rank that last ran where this one runs now cannot run before this one stops. Yielding does not always stop it:
 * under autogroup scheduling every session (each torchrun worker is one) yields to itself only. */
static int shares_this_core(shm_control *peer) {
    return atomic_load_explicit(&peer->cpu, memory_order_relaxed) == sched_getcpu() + 1;
}

/* The cores that this thread may run on and no rank of the group was seen on; how many they are. */
static int free_cores(shm_group *group, const cpu_set_t *allowed, cpu_set_t *unused) {
    *unused = *allowed;
    for (uint32_t rank = 0; rank < group->world; rank++) {
        int cpu = atomic_load_explicit(&group->controls[rank].cpu, memory_order_relaxed) - 1;
        if (cpu >= 0 && cpu < CPU_SETSIZE)
            CPU_CLR(cpu, unused);
    }
    return CPU_COUNT(unused);
}

/* Two ranks that wake each other are often put on one core, and stay there while another one is idle. Go there: asking
 * for other cores moves the thread at once, and what it was allowed before is allowed again right after. */
static int move_away(shm_group *group) {
    cpu_set_t allowed, unused;
    int64_t now = shm_now_ns();
    if (now - group->moved_ns < MOVE_NS || sched_getaffinity(0, sizeof allowed, &allowed) != 0 ||
        free_cores(group, &allowed, &unused) == 0)
        return 0;
    group->moved_ns = now;
    shm_control *mine = &group->controls[group->rank];
    atomic_store_explicit(&mine->cpu, 0, memory_order_relaxed); /* or the peer, on its own now, would move as well */
    int moved = sched_setaffinity(0, sizeof unused, &unused) == 0;
    if (moved)
        sched_setaffinity(0, sizeof allowed, &allowed);
    atomic_store_explicit(&mine->cpu, sched_getcpu() + 1, memory_order_relaxed);
    return moved;
}

/* A round is short because the peer may be waiting for this core. But whoever yields to a stranger is away for a time
 * slice, so a rank that has a core of its own does that only after some rounds. */
static shm_status wait_for(shm_group *group, uint32_t rank, uint32_t step, const shm_patience *patience) {
    for (int round = 0; round < ROUNDS; round++) {
        if (shares_this_core(&group->controls[rank]) && !move_away(group))
            break;
        if (round >= (int)group->firm) {
            int64_t before = shm_now_ns();
            sched_yield();
            if (shm_now_ns() - before > CROWDED_NS)
                break;
        }
        for (uint32_t spin = 0; spin < group->spins; spin++) {
            if (arrived_at(group, rank, step))
                return SHM_OK;
            relax();
        }
    }
    return sleep_for(group, rank, step, patience);
}

/* The first of the other ranks, from `rank` on, that has not arrived. */
static inline uint32_t first_missing(const shm_group *group, uint32_t rank, uint32_t step) {
    while (rank < group->world && (rank == group->rank || arrived_at(group, rank, step)))
        rank++;
    return rank;
}

static shm_status wait_long(shm_group *group, uint32_t rank, uint32_t step, const shm_patience *patience) {
    if (patience->linger != NULL)
        patience->linger(patience->context);
    while (rank < group->world) {
        shm_status status = wait_for(group, rank, step, patience);
        if (status != SHM_OK)
            return status;
        rank = first_missing(group, rank, step);
    }
    return SHM_OK;
}

shm_status shm_wait_all(shm_group *group, uint32_t step, const shm_patience *patience) {
    shm_status status = SHM_OK;
    uint32_t rank = first_missing(group, 0, step);
    for (uint32_t spin = 0; rank < group->world && spin < group->spins; spin++) {
        if (spin >= EAGER)
            relax();
        rank = first_missing(group, rank, step);
    }
    wake_sleepers(group, step);
    if (rank < group->world)
        status = wait_long(group, rank, step, patience);
    if (status != SHM_OK)
        return status;
    const shm_card *next = shm_card_of(group, group->rank, step + 1); /* which nobody reads any more */
    fetch_for_writing(next);
    fetch_for_writing((const char *)next + 64);
    return broken_by(group, step) ? SHM_BROKEN : SHM_OK;
}
