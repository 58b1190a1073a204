/* What two processes can do at best, and what shm_all_reduce does, one after the other in the same two processes.
 *
 * Prints lines of `turn what bytes nanoseconds`: of one call each time, the mean over a batch. Built by shm_floor.py.
 */
#define _GNU_SOURCE
#include "shm.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS 41
#define BUDGET (16 << 20)

typedef struct {
    _Alignas(SHM_LINE) _Atomic uint32_t at;
} flag;

static flag *flags;
static unsigned char *stage; /* pieces of both ranks, taking turns */
static size_t piece;
static uint32_t exchanged;

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void say_here(uint32_t rank) { atomic_store_explicit(&flags[rank].at, ++exchanged, memory_order_release); }

static void see_other(uint32_t rank) {
    while ((int32_t)(atomic_load_explicit(&flags[!rank].at, memory_order_acquire) - exchanged) < 0)
        relax();
}

/* The floor: say that I am here, see that the other is. */
static void exchange_flags(uint32_t rank) {
    say_here(rank);
    see_other(rank);
}

static size_t some(size_t at, size_t bytes) { return bytes - at < piece ? bytes - at : piece; }

/* Where `rank` puts a piece, of which there are four; when pieces change hands, where the other rank put the last one. */
static unsigned char *stage_of(uint32_t rank, size_t count, int change) {
    uint32_t place = change && count / 4 % 2 ? !rank : rank;
    return stage + (count % 4 * 2 + place) * piece;
}

/* The traffic that no all_reduce of private memory through shared memory avoids: in a group of two every byte of the
 * message is put once by each rank where the other one reads it, be it an input or a result. Without any arithmetic. */
static void cross(uint32_t rank, unsigned char *y, const unsigned char *x, size_t bytes, int change) {
    static size_t count;
    for (size_t at = 0; at < bytes + piece; at += piece) { /* a piece is taken while the other rank puts the next one */
        if (at < bytes)
            memcpy(stage_of(rank, count, change), x + at, some(at, bytes));
        say_here(rank);
        if (at >= piece)
            memcpy(y + at - piece, stage_of(!rank, count - 1, change), some(at - piece, bytes));
        see_other(rank);
        count += at < bytes;
    }
}

static int never(void *context) {
    (void)context;
    return 0;
}

static void all_reduce(shm_group *group, float *x, size_t numel) {
    shm_patience patience = {shm_deadline_in(INT64_C(60000000000)), never, NULL};
    shm_call call = {.header = {.numel = numel, .dtype = SHM_F32, .reduce_op = SHM_MAX},
                     .out = (unsigned char *)x,
                     .width = sizeof *x};
    if (shm_all_reduce(group, &call, &patience) != SHM_OK)
        abort();
}

static void say(int turn, const char *what, size_t bytes, int64_t began, size_t calls, uint32_t rank) {
    if (rank == 0 && turn > 0)
        printf("%d %s %zu %.1f\n", turn, what, bytes, (double)(shm_now_ns() - began) / (double)calls);
}

static void measure(shm_group *group, uint32_t rank, size_t bytes, float *x, float *y) {
    size_t calls = BUDGET / bytes < 1 ? 1 : BUDGET / bytes > 2000 ? 2000 : BUDGET / bytes;
    for (int turn = 0; turn <= TURNS; turn++) {
        exchange_flags(rank);
        int64_t began = shm_now_ns();
        for (size_t i = 0; i < calls; i++)
            exchange_flags(rank);
        say(turn, "flags", bytes, began, calls, rank);
        exchange_flags(rank);
        began = shm_now_ns();
        for (size_t i = 0; i < calls; i++) {
            memcpy(y, x, bytes);
            __asm__ __volatile__("" ::: "memory");
        }
        say(turn, "memcpy", bytes, began, calls, rank);
        for (int change = 0; change < 2; change++) {
            exchange_flags(rank);
            began = shm_now_ns();
            for (size_t i = 0; i < calls; i++)
                cross(rank, (unsigned char *)y, (const unsigned char *)x, bytes, change);
            say(turn, change ? "crossing" : "kept", bytes, began, calls, rank);
        }
        exchange_flags(rank);
        began = shm_now_ns();
        for (size_t i = 0; i < calls; i++)
            all_reduce(group, x, bytes / sizeof *x);
        say(turn, "all_reduce", bytes, began, calls, rank);
    }
}

int main(int count, char **words) {
    size_t slot = strtoull(words[1], NULL, 10), most = 0;
    piece = slot;
    int memfd = memfd_create("shm_floor", MFD_CLOEXEC);
    if (memfd < 0 || ftruncate(memfd, (off_t)shm_bytes(2, slot)) != 0)
        return 1;
    flags = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    stage = mmap(NULL, 8 * piece, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (flags == MAP_FAILED || stage == MAP_FAILED)
        return 1;
    for (int i = 2; i < count; i++)
        most = strtoull(words[i], NULL, 10) > most ? strtoull(words[i], NULL, 10) : most;
    pid_t first = getpid();
    uint32_t rank = fork() == 0;
    if (rank == 1 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != first)) /* it would wait for ever */
        return 1;
    int nobody[2] = {-1, -1};
    shm_group *group = shm_open_group(memfd, rank, 2, slot, nobody);
    float *x = aligned_alloc(64, most < 64 ? 64 : most), *y = aligned_alloc(64, most < 64 ? 64 : most);
    if (group == NULL || x == NULL || y == NULL)
        return 1;
    memset(x, 0, most);
    memset(y, 0, most);
    exchange_flags(rank); /* both have mapped the segment */
    for (int i = 2; i < count; i++)
        measure(group, rank, strtoull(words[i], NULL, 10), x, y);
    if (rank == 0)
        wait(NULL);
    return 0;
}
