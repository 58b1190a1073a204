/* Mapping the segment, and letting it go. The file descriptor belongs to the caller and may be closed after mapping. */
#define _GNU_SOURCE
#include "mail.h"
#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef POPULATE_WRITE
#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, which older headers do not have */
#endif

_Static_assert(offsetof(shm_preamble, broken) == 128, "segment.py writes it where it is");

static size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

static size_t control_bytes(uint32_t world) {
    return round_up(sizeof(shm_preamble) + world * sizeof(shm_control), 4096);
}

/* What is used from the start; the lanes of messages come behind it, and take memory when they are used. */
size_t shm_reserved_bytes(uint32_t world, size_t slot_bytes) {
    return round_up(control_bytes(world) + SHM_SLOTS * (size_t)world * slot_bytes, 4096);
}

size_t shm_bytes(uint32_t world, size_t slot_bytes) {
    return shm_reserved_bytes(world, slot_bytes) + shm_mail_bytes(world);
}

unsigned char *shm_slot(const shm_group *group, uint32_t rank, uint32_t step) {
    return group->slots + (SHM_SLOTS * (size_t)rank + step % SHM_SLOTS) * group->slot_bytes;
}

/* A page that the kernel empties in a child: what stands there is this process, without asking the kernel each time. */
static pid_t this_process(void) {
    static _Atomic(pid_t) *_Atomic page;
    _Atomic(pid_t) *mark = atomic_load_explicit(&page, memory_order_acquire);
    if (mark == NULL) {
        void *fresh = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED || madvise(fresh, 4096, MADV_WIPEONFORK) != 0) {
            if (fresh != MAP_FAILED)
                munmap(fresh, 4096);
            return getpid();
        }
        if (atomic_compare_exchange_strong(&page, &mark, (_Atomic(pid_t) *)fresh))
            mark = fresh;
        else
            munmap(fresh, 4096);
    }
    if (atomic_load_explicit(mark, memory_order_relaxed) == 0)
        atomic_store_explicit(mark, getpid(), memory_order_relaxed);
    return atomic_load_explicit(mark, memory_order_relaxed);
}

int shm_foreign(const shm_group *group) { return group->owner != this_process(); }

/* Spinning helps only while every rank can have a core of its own. */
static void plan_waiting(shm_group *group) {
    cpu_set_t allowed;
    int cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
    int roomy = (uint32_t)cores >= group->world;
    group->spins = roomy ? 100 : 20;
    group->firm = roomy ? 12 : 0;
}

/* Kernels before 5.14 do not know the advice. There the kernel writes zeros, and answers where a write here would be a
 * fault. */
int shm_take_pages(void *at, size_t bytes) {
    if (madvise(at, bytes, POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return errno;
    int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC), failed = zeros < 0 ? errno : 0;
    for (size_t done = 0; failed == 0 && done < bytes;) {
        ssize_t more = read(zeros, (unsigned char *)at + done, bytes - done);
        if (more > 0)
            done += (size_t)more;
        else if (more == 0 || errno != EINTR)
            failed = more == 0 ? EIO : errno;
    }
    if (zeros >= 0)
        close(zeros);
    return failed;
}

static int describe(shm_group *group, const int *pidfds) {
    group->watch = calloc(group->world, sizeof *group->watch);
    group->sources = calloc(group->world, sizeof *group->sources);
    group->mail = calloc(1, sizeof *group->mail);
    group->queue = calloc(1, sizeof *group->queue);
    if (group->watch == NULL || group->sources == NULL || group->mail == NULL || group->queue == NULL) {
        errno = ENOMEM;
        return -1;
    }
    for (uint32_t rank = 0; rank < group->world; rank++) {
        group->watch[rank].fd = pidfds[rank];
        group->watch[rank].events = POLLIN;
    }
    plan_waiting(group);
    group->owner = this_process();
    int failed = pthread_mutex_init(&group->turn, NULL);
    if (failed == 0)
        failed = pthread_mutex_init(&group->life, NULL);
    if (failed == 0)
        failed = shm_queue_init(group->queue, group);
    if (failed != 0)
        errno = failed;
    return failed == 0 ? 0 : -1;
}

static int map(shm_group *group, int fd) {
    group->bytes = shm_bytes(group->world, group->slot_bytes);
    void *at = mmap(NULL, group->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -1;
    madvise(at, group->bytes, MADV_DONTFORK); /* a child must not be able to write into its parent's collectives */
    group->base = at;
    group->controls = (shm_control *)(group->base + 1);
    group->slots = (unsigned char *)at + control_bytes(group->world);
    int failed = shm_mail_init(group->mail, group, (unsigned char *)at + shm_reserved_bytes(group->world, group->slot_bytes));
    if (failed != 0) {
        errno = failed;
        return -1;
    }
    if (group->rank == 0) {
        group->base->slot_bytes = group->slot_bytes;
        group->base->world = group->world;
        group->base->magic = SHM_MAGIC;
    }
    return 0;
}

/* The pidfds are taken over in every case. NULL with errno set when it fails. */
shm_group *shm_open_group(int fd, uint32_t rank, uint32_t world, size_t slot_bytes, const int *pidfds) {
    shm_group *group = calloc(1, sizeof *group);
    if (group == NULL) {
        for (uint32_t peer = 0; peer < world; peer++)
            if (pidfds[peer] >= 0)
                close(pidfds[peer]);
        errno = ENOMEM;
        return NULL;
    }
    group->rank = rank;
    group->world = world;
    group->slot_bytes = slot_bytes;
    group->closed = 1;
    if (describe(group, pidfds) == 0 && map(group, fd) == 0) {
        group->closed = 0;
        return group;
    }
    int failed = errno;
    shm_free_group(group);
    errno = failed;
    return NULL;
}

static void release(shm_group *group) {
    if (group->watch != NULL)
        for (uint32_t peer = 0; peer < group->world; peer++)
            if (group->watch[peer].fd >= 0)
                close(group->watch[peer].fd);
    /* In a forked child the range was never mapped, and may hold something else by now. */
    if (group->base != NULL && !shm_foreign(group))
        munmap(group->base, group->bytes);
    if (group->mail != NULL)
        shm_mail_free(group->mail);
    free(group->watch);
    free(group->sources);
    group->watch = NULL;
    group->sources = NULL;
    group->base = NULL;
}

void shm_close_group(shm_group *group) {
    if (shm_foreign(group) || group->closed)
        return;
    shm_queue_close(group->queue);
    shm_mail_close(group->mail);
    pthread_mutex_lock(&group->turn);
    pthread_mutex_lock(&group->life);
    if (!group->closed) {
        group->closed = 1;
        atomic_store(&group->controls[group->rank].left, 1);
        shm_wake_everyone(group);
        release(group);
    }
    pthread_mutex_unlock(&group->life);
    pthread_mutex_unlock(&group->turn);
}

int shm_hold(shm_group *group) {
    if (shm_foreign(group)) /* where a lock may be one that nobody gives back */
        return 0;
    pthread_mutex_lock(&group->life);
    if (!group->closed)
        return 1;
    pthread_mutex_unlock(&group->life);
    return 0;
}

void shm_let_go(shm_group *group) { pthread_mutex_unlock(&group->life); }

void shm_free_group(shm_group *group) {
    shm_close_group(group);
    release(group);
    if (!shm_foreign(group)) {
        pthread_mutex_destroy(&group->turn);
        pthread_mutex_destroy(&group->life);
    }
    free(group->mail);
    free(group->queue);
    free(group);
}
