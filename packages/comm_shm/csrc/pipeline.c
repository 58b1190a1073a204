/* How every collective runs: take turns, say what it is, compare, and move the data piece by piece.
 *
 * Step s of the group is the time between this rank's publishing s and its waiting for everyone's s. Piece t of a
 * collective goes through these stages, and at every step a rank works on several pieces:
 *
 *     put(t)      before publishing step f + t, where f is the collective's first: into this rank's slot
 *     reduce(t)   after waiting for step f + t, before publishing the next: reads slots, writes back into one of them
 *     take(t)     after waiting for that one (without a reduce stage, for step f + t): reads slots
 *
 * so that between publishing a step and waiting for it there is a take to do, and the others' arrival is not waited for.
 *
 * Four slots are enough, and no closing barrier is needed. A rank writes into slot s mod 4 at step s after it has
 * waited for everyone's s - 1, at the start of a collective too, for no collective ends before. Whoever has published
 * s - 1 has done its takes of all pieces that it could take after waiting for s - 3 - that is, of slots up to s - 4.
 * The cards are two: a header is compared by a rank before it publishes the next step, and data on a card is read by then
 * as well, for there is one piece and no reduce stage.
 */
#include "shm.h"

#include <string.h>

#define WORDS (sizeof(shm_header) / sizeof(uint64_t))

_Static_assert(WORDS * sizeof(uint64_t) == 3 * sizeof(uint64_t) + 4 * sizeof(uint32_t), "a header has no gaps");

static shm_status enter(shm_group *group, const shm_patience *patience) {
    if (shm_foreign(group))
        return SHM_FORKED;
    if (pthread_mutex_trylock(&group->turn) != 0) {
        if (patience->linger != NULL)
            patience->linger(patience->context); /* whoever has the turn may need what this thread holds */
        pthread_mutex_lock(&group->turn);
    }
    shm_status status = SHM_OK;
    if (group->closed)
        status = SHM_CLOSED;
    else if (shm_broken(group) != 0)
        status = SHM_BROKEN;
    if (status != SHM_OK)
        pthread_mutex_unlock(&group->turn);
    return status;
}

static shm_status leave(shm_group *group, shm_status status) {
    if (status != SHM_OK && status != SHM_MISMATCH && status != SHM_SPLITS)
        shm_break(group, status);
    pthread_mutex_unlock(&group->turn);
    return status;
}

static void say(shm_group *group, const shm_header *header) {
    uint32_t step = ++group->step;
    shm_card_of(group, group->rank, step)->header = *header;
    shm_publish(group, step);
}

/* Without a call: the compiler makes a few instructions of it. */
static inline int same(const shm_header *said, const shm_header *other) {
    uint64_t differ = 0, a[WORDS], b[WORDS];
    memcpy(a, said, sizeof a);
    memcpy(b, other, sizeof b);
    for (size_t i = 0; i < WORDS; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

/* Every rank compares all headers, so every rank comes to the same answer. */
static shm_status compare(const shm_group *group, const shm_header *header) {
    for (uint32_t rank = 0; rank < group->world; rank++)
        if (rank != group->rank && !same(&shm_card_of(group, rank, group->step)->header, header))
            return SHM_MISMATCH;
    return SHM_OK;
}

static shm_status hear(shm_group *group, shm_call *call, const shm_stages *stages, const shm_patience *patience) {
    shm_status status = shm_wait_all(group, group->step, patience);
    if (status != SHM_OK || group->step != call->course->first)
        return status;
    status = compare(group, &call->header);
    return status == SHM_OK && stages->agreed != NULL ? stages->agreed(group, call) : status;
}

static shm_status pieces(shm_group *group, shm_call *call, const shm_stages *stages, const shm_patience *patience) {
    size_t lag = stages->reduce == NULL ? 1 : 2;
    const shm_course *course = call->course; /* `agreed` may find out how many pieces there are */
    for (size_t turn = 0; turn < course->pieces + lag; turn++) {
        shm_status status = turn == 0 ? SHM_OK : hear(group, call, stages, patience);
        if (status != SHM_OK)
            return status;
        if (lag == 2 && turn >= 1 && turn <= course->pieces)
            stages->reduce(group, call, turn - 1);
        if (turn < course->pieces && stages->put != NULL)
            stages->put(group, call, turn);
        if (turn + 1 < course->pieces + lag)
            say(group, &call->header);
        if (turn >= lag && stages->take != NULL)
            stages->take(group, call, turn - lag);
    }
    return SHM_OK;
}

/* The same for one piece that is not reduced for others: what a small message goes through. */
static shm_status one_piece(shm_group *group, shm_call *call, const shm_stages *stages, const shm_patience *patience) {
    if (stages->put != NULL)
        stages->put(group, call, 0);
    say(group, &call->header);
    shm_status status = shm_wait_all(group, group->step, patience);
    if (status == SHM_OK)
        status = compare(group, &call->header);
    if (status == SHM_OK && stages->take != NULL)
        stages->take(group, call, 0);
    return status;
}

/* Take the turn, count the collective, run it, give the turn back. */
shm_status shm_run(shm_group *group, shm_call *call, shm_course *course, const shm_stages *stages,
                   const shm_patience *patience) {
    shm_status status = enter(group, patience);
    if (status != SHM_OK)
        return status;
    call->header.serial = ++group->serial;
    course->first = group->step + 1;
    course->changes_hands = stages->reduce == NULL;
    call->course = course;
    int simple = course->pieces == 1 && stages->reduce == NULL && stages->agreed == NULL;
    status = leave(group, (simple ? one_piece : pieces)(group, call, stages, patience));
    call->course = NULL;
    return status;
}
