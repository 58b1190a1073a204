/* The queue of a group's started collectives.
 *
 * They run one at a time and in order, in whichever thread comes first: one that waits for a later thing of this group,
 * or the hand. The group's own lock keeps a collective whole; this queue keeps the order.
 */
#define _GNU_SOURCE
#include "queue.h"

#include <stdlib.h>
#include <string.h>

#define LARGE_BYTES (256 * 1024) /* worth another thread at once */
#define SLICE_NS INT64_C(50000000)

static shm_queue *queue_of(shm_hand *hand) { return (shm_queue *)(void *)hand; }

shm_scene *shm_look(shm_group *group) {
    shm_scene *scene = malloc(sizeof *scene + group->world * sizeof scene->ranks[0]);
    if (scene == NULL)
        return NULL;
    scene->world = group->world;
    scene->broken = shm_broken(group);
    memcpy(scene->pair, group->pair, sizeof scene->pair);
    for (uint32_t rank = 0; rank < group->world; rank++) {
        shm_sight *sight = &scene->ranks[rank];
        sight->behind = shm_behind(group, rank);
        sight->dead = shm_dead(group, rank);
        sight->left = atomic_load(&group->controls[rank].left) != 0;
        sight->said = shm_said(group, rank, sight->behind);
    }
    return scene;
}

static void destroy(shm_request *request) {
    shm_job *job = (shm_job *)(void *)request;
    if (job->before != NULL)
        shm_drop(&job->before->request);
    free(job->scene);
    free(job);
}

shm_job *shm_job_new(shm_group *group, shm_collective *body, const shm_call *call, int64_t limit_ns) {
    size_t splits = call->splits == NULL ? 0 : 2 * (size_t)group->world;
    shm_job *job = calloc(1, sizeof *job + splits * sizeof(uint64_t));
    if (job == NULL)
        return NULL;
    job->request.references = 1;
    job->request.destroy = destroy;
    job->group = group;
    job->body = body;
    job->call = *call;
    job->limit_ns = limit_ns;
    if (splits != 0) {
        memcpy(job->splits, call->splits, splits * sizeof(uint64_t));
        job->call.splits = job->splits;
    }
    return job;
}

static int64_t due_in(shm_hand *hand, int64_t now) {
    shm_queue *queue = queue_of(hand);
    if (queue->first == NULL || queue->running)
        return INT64_MAX;
    if (queue->first->request.notify != NULL || queue->first->call.header.numel * queue->first->call.width >= LARGE_BYTES)
        return 0;
    return queue->first->born_ns + SHM_LEFT_ALONE_NS - now;
}

/* With the lock held, which is released while the collective runs. */
static void run_first(shm_queue *queue, const shm_patience *patience) {
    shm_job *job = queue->first;
    shm_patience own = *patience;
    own.deadline_ns = shm_now_ns() + job->limit_ns;
    queue->running = 1;
    shm_hand_unlock(&queue->hand);
    shm_status status = job->before != NULL ? job->before->request.status : SHM_OK;
    if (status == SHM_OK && job->late != NULL)
        status = job->late(job);
    if (status == SHM_OK)
        status = job->body(job->group, &job->call, &own);
    if (status == SHM_INTERRUPTED && queue->closing) /* by no signal */
        status = SHM_CLOSED;
    if (status != SHM_OK && status != SHM_CLOSED && status != SHM_FORKED)
        job->scene = shm_look(job->group);
    shm_hand_lock(&queue->hand);
    queue->running = 0;
    if (job->request.next == NULL)
        queue->last = NULL;
    __atomic_store_n(&queue->first, (shm_job *)(void *)job->request.next, __ATOMIC_RELEASE);
    job->request.next = NULL;
    shm_finish(&queue->hand, &job->request, status);
    if (queue->first != NULL) /* the hand may have fallen asleep over it */
        shm_hand_call(&queue->hand, 0);
}

static int closing(void *context) { return ((shm_queue *)context)->closing; }

static void work(shm_hand *hand) {
    shm_queue *queue = queue_of(hand);
    shm_patience patience = {.interrupted = closing, .context = queue};
    run_first(queue, &patience);
}

int shm_queue_init(shm_queue *queue, shm_group *group) {
    queue->group = group;
    return shm_hand_init(&queue->hand, due_in, work);
}

int shm_launch(shm_queue *queue, shm_job *job) {
    shm_hand_lock(&queue->hand);
    if (queue->closing) {
        job->request.references++;
        shm_finish(&queue->hand, &job->request, SHM_CLOSED);
        shm_hand_unlock(&queue->hand);
        return 0;
    }
    int large = job->call.header.numel * job->call.width >= LARGE_BYTES;
    int failed = shm_hand_call(&queue->hand, large);
    if (failed == 0) {
        job->born_ns = queue->hand.active_ns;
        atomic_fetch_add(&job->request.references, 1);
        if (queue->last != NULL)
            queue->last->request.next = &job->request;
        else
            __atomic_store_n(&queue->first, job, __ATOMIC_RELEASE);
        queue->last = job;
    }
    shm_hand_unlock(&queue->hand);
    return failed;
}

shm_status shm_catch_up(shm_queue *queue, shm_job *job, const shm_patience *patience, int help) {
    shm_status status = SHM_OK;
    shm_hand_lock(&queue->hand);
    while (status == SHM_OK && (job == NULL ? queue->first != NULL : !shm_is_finished(&job->request))) {
        if (help && !queue->running) {
            run_first(queue, patience);
            continue;
        }
        int64_t left_ns = patience->deadline_ns - shm_now_ns();
        if (left_ns > 0)
            shm_hand_nap(&queue->hand, left_ns < SLICE_NS ? left_ns : SLICE_NS);
        else if (job != NULL)
            status = SHM_TIMED_OUT;
        shm_hand_unlock(&queue->hand);
        if (patience->interrupted(patience->context))
            status = SHM_INTERRUPTED;
        shm_hand_lock(&queue->hand);
    }
    shm_hand_unlock(&queue->hand);
    return status;
}

void shm_queue_close(shm_queue *queue) {
    shm_hand_lock(&queue->hand);
    queue->closing = 1;
    shm_hand_unlock(&queue->hand);
    shm_hand_stop(&queue->hand);
    shm_hand_lock(&queue->hand);
    while (queue->running)
        shm_hand_nap(&queue->hand, SLICE_NS);
    while (queue->first != NULL) {
        shm_job *job = queue->first;
        queue->first = (shm_job *)(void *)job->request.next;
        job->request.next = NULL;
        shm_finish(&queue->hand, &job->request, SHM_CLOSED);
    }
    queue->last = NULL;
    shm_hand_unlock(&queue->hand);
}
