/* The protocol of a collective: take turns, say what it is, compare, and only then touch data. */
#define _GNU_SOURCE
#include "shm.h"

#include <string.h>
#include <unistd.h>

static shm_status enter(shm_group *group) {
    if (group->owner != getpid())
        return SHM_FORKED;
    pthread_mutex_lock(&group->turn);
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

static shm_status exchange(shm_group *group, const shm_header *header, const shm_patience *patience) {
    uint32_t step = group->step;
    group->controls[group->rank].header[step & 1] = *header;
    shm_publish(group, step);
    return shm_wait_all(group, step, patience);
}

/* Every rank compares all headers, so every rank comes to the same answer. */
static shm_status compare(const shm_group *group, const shm_header *header) {
    for (uint32_t rank = 0; rank < group->world; rank++)
        if (memcmp(&group->controls[rank].header[group->step & 1], header, sizeof *header) != 0)
            return SHM_MISMATCH;
    return SHM_OK;
}

/* Take the turn, count the collective, run it, give the turn back. */
static shm_status run(shm_group *group, shm_call *call, const shm_patience *patience, shm_collective *body) {
    shm_status status = enter(group);
    if (status != SHM_OK)
        return status;
    call->header.serial = ++group->serial;
    return leave(group, body(group, call, patience));
}

/* One step: what is in this rank's slot becomes everyone's. The first step of a collective compares headers. */
static shm_status meet(shm_group *group, const shm_call *call, int first, const shm_patience *patience) {
    shm_status status = exchange(group, &call->header, patience);
    return status == SHM_OK && first ? compare(group, &call->header) : status;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Nothing is copied when there is nothing, and a null address is allowed then. */
static void copy(void *to, const void *from, size_t bytes) {
    if (bytes != 0)
        memcpy(to, from, bytes);
}

/* Of what stands at `at` in every rank's slot; `own` may stand for this rank's. */
static void reduce_slots(shm_group *group, const shm_call *call, unsigned char *out, size_t at, size_t numel,
                         const unsigned char *own) {
    if (numel == 0)
        return;
    for (uint32_t rank = 0; rank < group->world; rank++)
        group->sources[rank] = shm_slot(group, rank, group->step) + at;
    if (group->world <= 2) /* one slot less to read */
        group->sources[group->rank] = own;
    shm_reduce(out, group->sources, group->world, numel, call->header.dtype, call->header.reduce_op);
}

static shm_status agree(shm_group *group, shm_call *call, const shm_patience *patience) {
    group->step++;
    return meet(group, call, 1, patience);
}

static shm_status all_reduce(shm_group *group, shm_call *call, const shm_patience *patience) {
    size_t numel = (size_t)call->header.numel, most = group->slot_bytes / call->width, done = 0;
    shm_status status = SHM_OK;
    if (group->world == 1)
        return status;
    do {
        size_t part = least(numel - done, most);
        unsigned char *data = call->out + done * call->width;
        group->step++;
        copy(shm_slot(group, group->rank, group->step), data, part * call->width);
        status = meet(group, call, done == 0, patience);
        if (status == SHM_OK)
            reduce_slots(group, call, data, 0, part, data);
        done += part;
    } while (status == SHM_OK && done < numel);
    return status;
}

static shm_status broadcast(shm_group *group, shm_call *call, const shm_patience *patience) {
    size_t bytes = (size_t)call->header.numel * call->width, done = 0;
    uint32_t root = (uint32_t)call->header.detail;
    shm_status status;
    do {
        size_t part = least(bytes - done, group->slot_bytes);
        group->step++;
        if (group->rank == root)
            copy(shm_slot(group, root, group->step), call->out + done, part);
        status = meet(group, call, done == 0, patience);
        if (status == SHM_OK && group->rank != root)
            copy(call->out + done, shm_slot(group, root, group->step), part);
        done += part;
    } while (status == SHM_OK && done < bytes);
    return status;
}

static shm_status all_gather(shm_group *group, shm_call *call, const shm_patience *patience) {
    size_t bytes = (size_t)call->header.numel * call->width, done = 0;
    unsigned char *own = call->out + group->rank * bytes;
    shm_status status;
    do {
        size_t part = least(bytes - done, group->slot_bytes);
        group->step++;
        copy(shm_slot(group, group->rank, group->step), call->in + done, part);
        status = meet(group, call, done == 0, patience);
        for (uint32_t rank = 0; status == SHM_OK && rank < group->world; rank++)
            if (rank != group->rank)
                copy(call->out + rank * bytes + done, shm_slot(group, rank, group->step), part);
        if (status == SHM_OK && own != call->in)
            copy(own + done, call->in + done, part);
        done += part;
    } while (status == SHM_OK && done < bytes);
    return status;
}

/* A slot holds a piece for every rank. */
static shm_status reduce_scatter(shm_group *group, shm_call *call, const shm_patience *patience) {
    size_t numel = (size_t)call->header.numel, width = call->width, done = 0;
    size_t most = group->slot_bytes / group->world / width;
    shm_status status;
    do {
        size_t part = least(numel - done, most);
        const unsigned char *in = call->in + done * width;
        group->step++;
        for (uint32_t rank = 0; rank < group->world; rank++)
            if (rank != group->rank || group->world > 2)
                copy(shm_slot(group, group->rank, group->step) + rank * part * width, in + rank * numel * width,
                     part * width);
        status = meet(group, call, done == 0, patience);
        if (status == SHM_OK)
            reduce_slots(group, call, call->out + done * width, group->rank * part * width, part,
                         in + group->rank * numel * width);
        done += part;
    } while (status == SHM_OK && done < numel);
    return status;
}

/* all_to_all: a slot of the first step begins with the rank's splits; then, in every step, comes a piece for each rank. */

static const uint64_t *splits_of(const shm_group *group, uint32_t rank) {
    return (const uint64_t *)(const void *)shm_slot(group, rank, group->step);
}

/* Every rank looks at all pairs, so every rank comes to the same answer. */
static shm_status splits_meet(shm_group *group, size_t *longest) {
    for (uint32_t from = 0; from < group->world; from++)
        for (uint32_t to = 0; to < group->world; to++) {
            uint64_t sent = splits_of(group, from)[to], expected = splits_of(group, to)[group->world + from];
            if (sent != expected) {
                uint64_t pair[4] = {from, to, sent, expected};
                memcpy(group->pair, pair, sizeof pair);
                return SHM_SPLITS;
            }
            if (sent > *longest)
                *longest = (size_t)sent;
        }
    return SHM_OK;
}

static size_t piece_of(uint64_t split, size_t done, size_t most) {
    return done < split ? least((size_t)split - done, most) : 0;
}

static shm_status all_to_all(shm_group *group, shm_call *call, const shm_patience *patience) {
    size_t world = group->world, front = 2 * world * sizeof(uint64_t), width = call->width, done = 0, longest = 0;
    size_t most = (group->slot_bytes - front) / world / width;
    const uint64_t *give = call->splits, *take = call->splits + world;
    shm_status status;
    do {
        unsigned char *to = call->out, *slot = shm_slot(group, group->rank, ++group->step);
        const unsigned char *from = call->in;
        if (done == 0)
            memcpy(slot, call->splits, front);
        for (size_t rank = 0; rank < world; from += give[rank++] * width)
            copy(slot + front + rank * most * width, from + done * width, piece_of(give[rank], done, most) * width);
        status = meet(group, call, done == 0, patience);
        if (status == SHM_OK && done == 0)
            status = splits_meet(group, &longest);
        for (size_t rank = 0; status == SHM_OK && rank < world; to += take[rank++] * width)
            copy(to + done * width,
                 shm_slot(group, (uint32_t)rank, group->step) + front + group->rank * most * width,
                 piece_of(take[rank], done, most) * width);
        done += most;
    } while (status == SHM_OK && done < longest);
    return status;
}

shm_status shm_agree(shm_group *group, shm_call *call, const shm_patience *patience) {
    return run(group, call, patience, agree);
}

shm_status shm_all_reduce(shm_group *group, shm_call *call, const shm_patience *patience) {
    return run(group, call, patience, all_reduce);
}

shm_status shm_broadcast(shm_group *group, shm_call *call, const shm_patience *patience) {
    return run(group, call, patience, broadcast);
}

shm_status shm_all_gather(shm_group *group, shm_call *call, const shm_patience *patience) {
    return run(group, call, patience, all_gather);
}

shm_status shm_reduce_scatter(shm_group *group, shm_call *call, const shm_patience *patience) {
    return run(group, call, patience, reduce_scatter);
}

shm_status shm_all_to_all(shm_group *group, shm_call *call, const shm_patience *patience) {
    return run(group, call, patience, all_to_all);
}
