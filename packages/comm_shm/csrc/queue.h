/* Collectives that were started and run in their order, behind each other and before any later one. */
#ifndef COMM_SHM_QUEUE_H
#define COMM_SHM_QUEUE_H

#include "hand.h"

/* What was known when a collective failed: later ones change the control blocks. */
typedef struct {
    int behind, dead, left;
    shm_header said;
} shm_sight;

typedef struct {
    uint32_t world, broken;
    uint64_t pair[4];
    shm_sight ranks[];
} shm_scene;

typedef struct shm_job {
    shm_request request;
    struct shm_job *before; /* one of the same call: when it has failed, this one does not run */
    shm_group *group;
    shm_collective *body;
    shm_call call;
    shm_status (*late)(struct shm_job *job); /* completes the call when its turn has come; NULL when it is complete */
    void *asked;                             /* what `late` asks */
    int64_t limit_ns, born_ns; /* the time to wait for the other ranks is counted from the turn of the collective on */
    shm_scene *scene;          /* when it has failed and memory allows */
    uint64_t splits[];         /* of all_to_all: the caller's array is gone by then */
} shm_job;

typedef struct shm_queue {
    shm_hand hand;
    shm_group *group;
    shm_job *first, *last;
    int running, closing;
} shm_queue;

shm_scene *shm_look(shm_group *group);

int shm_queue_init(shm_queue *queue, shm_group *group);
void shm_queue_close(shm_queue *queue); /* what has not run is finished as closed; what runs is interrupted */

shm_job *shm_job_new(shm_group *group, shm_collective *body, const shm_call *call, int64_t limit_ns);
int shm_launch(shm_queue *queue, shm_job *job); /* takes references; 0, or what pthread_create answered */

/* Until `job`, or everything when it is NULL, has run: in this thread unless another one is at it. */
shm_status shm_catch_up(shm_queue *queue, shm_job *job, const shm_patience *patience, int help);
static inline int shm_queue_idle(shm_queue *queue) { return __atomic_load_n(&queue->first, __ATOMIC_ACQUIRE) == NULL; }

#endif
