/* The shared segment of one group of ranks, and what a rank can do with it. Nothing here knows Python or torch.
 *
 * A segment is: one preamble, one control block per rank, then two slots per rank for data.
 * Every rank runs the same steps 1, 2, 3, ...; step s uses slot and header s & 1 of each rank:
 *   write my header and data, publish `arrived = s` (release), wait until everyone's `arrived` is at least s (acquire), read.
 * Two slots are enough and no closing barrier is needed: a rank that writes at step s has seen every peer publish s - 1,
 * and a peer publishes s - 1 only after it has read everything of step s - 2, the last one in the same slots.
 * For the same reason no header of step s can change before this rank itself publishes s + 1.
 */
#ifndef COMM_SHM_H
#define COMM_SHM_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SHM_MAGIC UINT64_C(0x316d68736d6d6f63) /* "commshm1" */
#define SHM_LINE 128                           /* two cache lines: neighbours are prefetched in pairs */
#define SHM_MAX_WORLD 1024

typedef enum {
    SHM_OK = 0,
    SHM_MISMATCH = 1,    /* headers differ; every rank sees it, nothing was touched, the group goes on */
    SHM_TIMED_OUT = 2,   /* this and all that follow leave the group broken */
    SHM_DIED = 3,        /* a process that has not arrived does not exist any more */
    SHM_LEFT = 4,        /* a rank that has not arrived has closed the group */
    SHM_INTERRUPTED = 5, /* a signal handler raised */
    SHM_BROKEN = 6,      /* an earlier or another rank's failure, see shm_broken() */
    SHM_CLOSED = 7,
    SHM_FORKED = 8 /* used in a child of the process that joined */
} shm_status;

typedef enum { SHM_SUM = 0, SHM_AVG = 1, SHM_PRODUCT = 2, SHM_MIN = 3, SHM_MAX = 4 } shm_reduce_op;

/* What a rank says that it is about to do. All ranks must say the same. The numbers are the Python side's codes. */
typedef struct {
    uint64_t serial; /* how many collectives the group has run, this one included */
    uint64_t numel;
    uint32_t op, dtype, reduce_op;
    uint32_t refusal; /* 0, or why this rank will not do it: then no rank does */
} shm_header;

typedef struct {
    _Alignas(SHM_LINE) _Atomic uint32_t arrived; /* last step published; also the futex word */
    _Atomic uint32_t left;
    _Atomic int32_t cpu; /* where it ran when it published, plus 1; a hint */
    shm_header header[2];
    _Alignas(SHM_LINE) _Atomic uint32_t sleepers; /* how many ranks may be in futex_wait on `arrived` */
} shm_control;

typedef struct {
    _Alignas(SHM_LINE) uint64_t magic;
    uint64_t slot_bytes;
    uint32_t world;
    _Alignas(SHM_LINE) _Atomic uint32_t broken; /* 0, or status << 16 | rank that failed first */
} shm_preamble;

typedef struct {
    shm_preamble *base;
    shm_control *controls;
    unsigned char *slots;
    size_t bytes, slot_bytes;
    uint32_t rank, world, step, spins;
    uint64_t serial;
    pid_t owner;
    struct pollfd *watch; /* a pidfd per rank, -1 for this one */
    const float **sources;
    pthread_mutex_t turn; /* threads of one rank take turns */
    int closed;
} shm_group;

/* How long to wait, and what to ask now and then while waiting. */
typedef struct {
    int64_t deadline_ns; /* on CLOCK_MONOTONIC */
    int (*interrupted)(void *);
    void *context;
} shm_patience;

/* segment.c */
size_t shm_bytes(uint32_t world, size_t slot_bytes);
shm_group *shm_open_group(int fd, uint32_t rank, uint32_t world, size_t slot_bytes, const int *pidfds);
void shm_close_group(shm_group *group);
void shm_free_group(shm_group *group);
float *shm_slot(const shm_group *group, uint32_t rank, uint32_t step);

/* wait.c */
int64_t shm_now_ns(void);
void shm_publish(shm_group *group, uint32_t step);
shm_status shm_wait_all(shm_group *group, uint32_t step, const shm_patience *patience);
int shm_behind(const shm_group *group, uint32_t rank); /* steps that `rank` is behind this rank's current one */
int shm_dead(const shm_group *group, uint32_t rank);
void shm_break(shm_group *group, shm_status status);
uint32_t shm_broken(const shm_group *group);
void shm_wake_everyone(shm_group *group);

/* reduce.c */
void shm_reduce_f32(float *out, const float *const *sources, uint32_t world, size_t numel, shm_reduce_op op);

/* collective.c */
shm_status shm_agree(shm_group *group, shm_header header, const shm_patience *patience);
shm_status shm_all_reduce_f32(shm_group *group, float *data, shm_header header, const shm_patience *patience);

#endif
