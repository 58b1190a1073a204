/* A thread that does what a rank has started and nobody of its own threads is waiting for.
 *
 * The lock `turn` guards whatever the hand works on. Threads of the rank do the work themselves while they wait for it,
 * which is faster than to wake another thread; the hand takes over what has been left alone for a while.
 */
#ifndef COMM_SHM_HAND_H
#define COMM_SHM_HAND_H

#include "shm.h"
#include "tellers.h"

/* Something that was started and will finish. Whoever holds a reference may look at `finished`, then at the rest. */
typedef struct shm_request {
    _Atomic int references;
    _Atomic int finished;
    shm_status status;
    struct shm_request *next;
    void (*notify)(void *context); /* called once, by a teller, when it has finished */
    void *context;
    shm_notice notice;
    void (*destroy)(struct shm_request *request);
} shm_request;

typedef struct shm_hand {
    pthread_mutex_t turn;
    pthread_cond_t news; /* a request has finished, or somebody has stopped working on them */
    pthread_cond_t due;  /* what the thread sleeps on */
    pthread_t thread;
    int started, asleep, stopping, waiters;
    int64_t active_ns;                            /* when somebody last did something here */
    int64_t (*due_in)(struct shm_hand *, int64_t); /* nanoseconds until it should work, INT64_MAX: nothing to do */
    void (*work)(struct shm_hand *);              /* called with the lock held, which it may release meanwhile */
} shm_hand;

#define SHM_LEFT_ALONE_NS INT64_C(100000) /* how long the rank's own threads have the first try */

int shm_hand_init(shm_hand *hand, int64_t (*due_in)(shm_hand *, int64_t), void (*work)(shm_hand *));
void shm_hand_stop(shm_hand *hand); /* without the lock; returns when the thread has ended */
void shm_hand_lock(shm_hand *hand);
void shm_hand_unlock(shm_hand *hand);
int shm_hand_call(shm_hand *hand, int at_once); /* with the lock held; 0, or what pthread_create answered */
void shm_hand_nap(shm_hand *hand, int64_t most_ns); /* with the lock held, until there is news */

void shm_finish(shm_hand *hand, shm_request *request, shm_status status); /* with the lock held */
int shm_is_finished(const shm_request *request);
void shm_drop(shm_request *request);
/* 0 when it has finished already and nobody will be called; shm_tellers_ready() comes before */
int shm_tell(shm_hand *hand, shm_request *request, void (*notify)(void *), void *context);

#endif
