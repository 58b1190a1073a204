/* The shared segment of one group of ranks, and what a rank can do with it. Nothing here knows Python or torch.
 *
 * A segment is: one preamble, one control block per rank, then SHM_SLOTS slots per rank for data.
 * Every rank runs the same steps 1, 2, 3, ...; step s uses slot s mod SHM_SLOTS and card s mod 2 of each rank:
 *   write my header and data, publish `arrived = s` (release), wait until everyone's `arrived` is at least s (acquire), read.
 * A card has the header, `arrived`, and the data when it is little: what a small message needs comes in one cache line.
 * pipeline.c says what is written and read when, and why that many slots are enough without a closing barrier.
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
#define SHM_SLOTS 4 /* a power of 2, so that steps may wrap around */
#define SHM_TICK_NS INT64_C(10000000)

typedef enum {
    SHM_OK = 0,
    SHM_MISMATCH = 1,    /* headers differ; every rank sees it, nothing was touched, the group goes on */
    SHM_TIMED_OUT = 2,   /* this and all that follow leave the group broken */
    SHM_DIED = 3,        /* a process that has not arrived does not exist any more */
    SHM_LEFT = 4,        /* a rank that has not arrived has closed the group */
    SHM_INTERRUPTED = 5, /* a signal handler raised */
    SHM_BROKEN = 6,      /* an earlier or another rank's failure, see shm_broken() */
    SHM_CLOSED = 7,
    SHM_FORKED = 8, /* used in a child of the process that joined */
    SHM_SPLITS = 9,  /* as SHM_MISMATCH, for splits of all_to_all that do not meet, see shm_group.pair */
    /* of messages from rank to rank, see mail.h; none of them breaks the group */
    SHM_MISFIT = 10, /* the receiver had asked for another size or dtype */
    SHM_CUT = 11,    /* the sender had given up in the middle of a message: nothing can follow it */
    SHM_NO_ROOM = 12, /* no memory for the ring, or for a message that came before it was asked for */
    SHM_ELSEWHERE = 13 /* a receive from anyone was taken back: a rank of another host has answered it */
} shm_status;

/* In the order of c10d's ReduceOp. For a premultiplied sum the inputs are scaled before they come here. */
typedef enum {
    SHM_SUM = 0,
    SHM_AVG = 1,
    SHM_PRODUCT = 2,
    SHM_MIN = 3,
    SHM_MAX = 4,
    SHM_BAND = 5,
    SHM_BOR = 6,
    SHM_BXOR = 7,
    SHM_PREMUL_SUM = 8
} shm_reduce_op;

/* What can be reduced: the first of the Python side's codes of dtypes. All others are only moved. */
typedef enum {
    SHM_F32 = 0,
    SHM_F64,
    SHM_F16,
    SHM_BF16,
    SHM_I64,
    SHM_I32,
    SHM_I16,
    SHM_I8,
    SHM_U8,
    SHM_U16,
    SHM_U32,
    SHM_U64,
    SHM_BOOL,
    SHM_C64,
    SHM_C128,
    SHM_KINDS
} shm_kind;

/* What a rank says that it is about to do. All ranks must say the same. The numbers are the Python side's codes. */
typedef struct {
    uint64_t serial; /* how many collectives the group has run, this one included */
    uint64_t numel;
    uint64_t detail; /* what else has to agree: a root, or how many tensors the call is made of */
    uint32_t op, dtype, reduce_op;
    uint32_t refusal; /* 0, or why this rank will not do it: then no rank does */
} shm_header;

/* What a rank says at a step. */
typedef struct {
    _Alignas(SHM_LINE) _Atomic uint32_t arrived; /* the step, once it is published; also the futex word */
    uint32_t unused;
    shm_header header;
    unsigned char data[SHM_LINE - 8 - sizeof(shm_header)]; /* of a collective whose one piece fits in here */
} shm_card;

#define SHM_CARD_BYTES sizeof(((shm_card *)NULL)->data)

typedef struct {
    shm_card cards[2];
    /* rarely written from here on */
    _Alignas(SHM_LINE) _Atomic uint32_t sleepers; /* how many ranks may be in futex_wait on an `arrived` */
    _Atomic uint32_t left;
    _Atomic int32_t cpu; /* where it ran when it published, plus 1; a hint */
} shm_control;

typedef struct {
    _Alignas(SHM_LINE) uint64_t magic;
    uint64_t slot_bytes;
    uint32_t world;
    _Alignas(SHM_LINE) _Atomic uint64_t broken; /* 0, or step << 32 | status << 16 | rank: who failed first, and where */
} shm_preamble;

typedef struct {
    shm_preamble *base;
    shm_control *controls;
    unsigned char *slots;
    size_t bytes, slot_bytes;
    uint32_t rank, world, step;
    uint32_t spins, firm; /* how often to look in a round of waiting; rounds before the first yield */
    uint64_t serial;
    pid_t owner;      /* see shm_foreign() */
    int64_t moved_ns; /* when it last left a core that it shared with a peer */
    struct pollfd *watch; /* a pidfd per rank, -1 for this one */
    const void **sources;
    uint64_t pair[4]; /* after SHM_SPLITS: a rank, another one, what the first sends to it, what that one expects */
    pthread_mutex_t turn; /* threads of one rank take turns */
    int closed;
    pthread_mutex_t life; /* held by who looks at the segment without having the turn, and by who gives it back */
    struct shm_mail *mail;   /* messages from rank to rank, mail.h */
    struct shm_queue *queue; /* collectives that were started, queue.h */
} shm_group;

/* How long to wait, and what to ask now and then while waiting. */
typedef struct {
    int64_t deadline_ns; /* on CLOCK_MONOTONIC */
    int (*interrupted)(void *); /* only after linger */
    void (*linger)(void *);     /* said once a wait lasts; may be NULL */
    void *context;
} shm_patience;

/* segment.c */
size_t shm_bytes(uint32_t world, size_t slot_bytes);
size_t shm_reserved_bytes(uint32_t world, size_t slot_bytes);
shm_group *shm_open_group(int fd, uint32_t rank, uint32_t world, size_t slot_bytes, const int *pidfds);
int shm_take_pages(void *at, size_t bytes); /* of memory that nothing was written to; 0, or why there is none */
void shm_close_group(shm_group *group);
int shm_hold(shm_group *group); /* whether the segment is there; it stays until shm_let_go */
void shm_let_go(shm_group *group);
void shm_free_group(shm_group *group);
unsigned char *shm_slot(const shm_group *group, uint32_t rank, uint32_t step);
int shm_foreign(const shm_group *group); /* whether this is a child of the process that joined */

/* The first failure as status << 16 | rank, 0 if there is none. */
static inline uint32_t shm_broken(const shm_group *group) {
    return (uint32_t)atomic_load_explicit(&group->base->broken, memory_order_acquire);
}

static inline shm_card *shm_card_of(const shm_group *group, uint32_t rank, uint32_t step) {
    return &group->controls[rank].cards[step & 1];
}

/* wait.c */
int64_t shm_now_ns(void);
int64_t shm_deadline_in(int64_t limit_ns); /* never early, and at most SHM_TICK_NS late: read from a cheaper clock */
void shm_publish(shm_group *group, uint32_t step);
shm_status shm_wait_all(shm_group *group, uint32_t step, const shm_patience *patience);
int shm_behind(const shm_group *group, uint32_t rank); /* steps that `rank` is behind this rank's current one */
shm_header shm_said(const shm_group *group, uint32_t rank, int behind); /* in that step */
int shm_dead(const shm_group *group, uint32_t rank);
void shm_break(shm_group *group, shm_status status);
void shm_wake_everyone(shm_group *group);

/* reduce.c */
size_t shm_width(uint32_t kind);                 /* bytes of an element, 0 for what is no shm_kind */
int shm_reduces(uint32_t kind, uint32_t op);     /* whether that is defined */
void shm_reduce(void *out, void *also, const void *const *sources, uint32_t world, size_t numel, uint32_t kind,
                uint32_t op);

/* One buffer of each rank, where all ranks have them mapped: see symmetric.c. */
typedef struct {
    unsigned char *first; /* rank 0's */
    size_t stride;        /* bytes from one rank's to the next one's */
} shm_buffers;

/* How a collective is cut and where its pieces go: the C core's own, while it runs. */
typedef struct {
    size_t piece, pieces; /* elements that one rank gives another one at a time, and how often */
    size_t front;         /* bytes of a slot before them */
    int on_card;          /* the only piece goes on the card, not into a slot */
    int changes_hands;    /* a rank's slot is another one's the next time: see slot_of in collective.c */
    uint32_t first;       /* step of the first piece */
} shm_course;

/* pipeline.c */
typedef struct {
    shm_header header;       /* .numel counts what one rank gives (broadcast, all_gather) or gets (reduce_scatter) */
    union {
        const unsigned char *in;    /* all_reduce and broadcast: the same as out */
        const shm_buffers *buffers; /* symmetric.c */
    };
    unsigned char *out;
    size_t width;           /* bytes of an element */
    const uint64_t *splits; /* all_to_all: elements for each rank, then elements from each rank */
    shm_course *course;     /* while it runs */
} shm_call;

_Static_assert(sizeof(shm_call) <= 80, "gcc empties more with an instruction that takes as long as a line from a peer");

/* What is done with piece t of a collective, and when: see pipeline.c. NULL where there is nothing to do. */
typedef struct {
    void (*put)(shm_group *group, const shm_call *call, size_t t);
    void (*reduce)(shm_group *group, const shm_call *call, size_t t);
    void (*take)(shm_group *group, const shm_call *call, size_t t);
    shm_status (*agreed)(shm_group *group, shm_call *call); /* once, when the headers were found equal */
} shm_stages;

shm_status shm_run(shm_group *group, shm_call *call, shm_course *course, const shm_stages *stages,
                   const shm_patience *patience);

/* collective.c */

typedef shm_status shm_collective(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_agree(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_all_reduce(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_broadcast(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_all_gather(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_reduce_scatter(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_all_to_all(shm_group *group, shm_call *call, const shm_patience *patience);

/* symmetric.c */
shm_status shm_one_shot_all_reduce(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_two_shot_all_reduce(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_symmetric_all_gather(shm_group *group, shm_call *call, const shm_patience *patience);
shm_status shm_symmetric_reduce_scatter(shm_group *group, shm_call *call, const shm_patience *patience);

/* A channel from one rank to another: how many signals were sent, and how many of them taken. In shared memory. */
typedef struct {
    _Atomic uint32_t sent, taken, sleepers, unused;
} shm_channel;

shm_status shm_signal(const shm_group *group, shm_channel *channel);
shm_status shm_take_signal(shm_group *group, uint32_t from, shm_channel *channel, const shm_patience *patience);

#endif
