/* What each collective puts into a slot, and what it takes out of everyone's; pipeline.c says when. */
#include "shm.h"

#include <string.h>

#define ONE_SHOT_BYTES 12288 /* that all others read of a rank, up to which one exchange is quicker than two */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Nothing is copied when there is nothing, and a null address is allowed then. */
static void copy(void *to, const void *from, size_t bytes) {
    if (bytes != 0)
        memcpy(to, from, bytes);
}

static size_t others(const shm_group *group) { return group->world > 1 ? group->world - 1 : 1; }

/* Cut `numel` elements into as few pieces as there have to be, when one may have `most`, all of about one size. */
static shm_course cut(const shm_call *call, size_t numel, size_t most) {
    size_t line = SHM_LINE / least(call->width, SHM_LINE), count = numel == 0 ? 1 : (numel + most - 1) / most;
    size_t even = ((numel + count - 1) / count + line - 1) / line * line;
    shm_course course = {.piece = even < most ? even : most};
    course.pieces = course.piece == 0 ? 1 : (numel + course.piece - 1) / course.piece;
    if (course.pieces == 0)
        course.pieces = 1;
    return course;
}

/* How many elements of a slot are for each of the others; parts begin on lines of their own. */
static size_t share(const shm_group *group, const shm_call *call, size_t bytes) {
    return bytes / others(group) / SHM_LINE * SHM_LINE / call->width;
}

/* The elements of piece `t` in a run of `numel`. */
static size_t count_of(const shm_call *call, size_t t, size_t numel) {
    size_t start = t * call->course->piece;
    return start < numel ? least(call->course->piece, numel - start) : 0;
}

/* Slots change hands: of those of a step, a rank writes the one that another rank wrote the last time. For a core that
 * writes lines which others have read since it last wrote them waits until all have let go of them, and that was seen to
 * take several times as long as to write lines which another one has written since (AMD's Zen 4). Where ranks reduce for
 * others, they write where they have read, and lines change hands without this. */
static unsigned char *slot_of(const shm_group *group, const shm_call *call, uint32_t rank, size_t t) {
    const shm_course *course = call->course;
    if (course->on_card)
        return shm_card_of(group, rank, course->first)->data;
    uint32_t step = course->first + (uint32_t)t, turn = course->changes_hands ? step / SHM_SLOTS : 0;
    return shm_slot(group, (rank + turn % group->world) % group->world, step);
}

/* As `cut`, for what goes through all of a slot, and is all read one step later: see pipeline.c. */
static shm_course cut_whole(const shm_group *group, const shm_call *call) {
    size_t numel = (size_t)call->header.numel;
    if (numel * call->width <= SHM_CARD_BYTES)
        return (shm_course){.piece = numel, .pieces = 1, .on_card = 1};
    return cut(call, numel, group->slot_bytes / call->width);
}

/* Where in a slot of `from` is what it has for `to`. A slot has no place for its own rank. */
static unsigned char *part_of(const shm_group *group, const shm_call *call, uint32_t from, uint32_t to, size_t t) {
    const shm_course *course = call->course;
    return slot_of(group, call, from, t) + course->front + (to < from ? to : to - 1) * course->piece * call->width;
}

/* What nobody has put anywhere is read where the caller has it. */
static void reduce_into(shm_group *group, const shm_call *call, void *out, void *also, size_t numel) {
    if (numel != 0)
        shm_reduce(out, also, group->sources, group->world, numel, call->header.dtype, call->header.reduce_op);
}

/* ---- all_reduce of little: everyone reads everyone's input ---- */

static void put_all(shm_group *group, const shm_call *call, size_t t) {
    size_t numel = (size_t)call->header.numel;
    copy(slot_of(group, call, group->rank, t), call->in + t * call->course->piece * call->width,
         count_of(call, t, numel) * call->width);
}

static void take_sum(shm_group *group, const shm_call *call, size_t t) {
    unsigned char *out = call->out + t * call->course->piece * call->width;
    for (uint32_t rank = 0; rank < group->world; rank++)
        group->sources[rank] = rank == group->rank ? out : slot_of(group, call, rank, t);
    reduce_into(group, call, out, NULL, count_of(call, t, (size_t)call->header.numel));
}

/* ---- all_reduce of much: a piece has a part for each rank, which reduces it for all ---- */

static size_t start_of(const shm_group *group, const shm_call *call, uint32_t owner, size_t t) {
    return least((t * group->world + owner) * call->course->piece, (size_t)call->header.numel);
}

static size_t length_of(const shm_group *group, const shm_call *call, uint32_t owner, size_t t) {
    return least(call->course->piece, (size_t)call->header.numel - start_of(group, call, owner, t));
}

/* The result stands where the owner found the input of the rank after it: that line is in the owner's cache already. */
static unsigned char *result_of(const shm_group *group, const shm_call *call, uint32_t owner, size_t t) {
    return part_of(group, call, (owner + 1) % group->world, owner, t);
}

static void put_parts(shm_group *group, const shm_call *call, size_t t) {
    for (uint32_t owner = 0; owner < group->world; owner++)
        if (owner != group->rank)
            copy(part_of(group, call, group->rank, owner, t), call->out + start_of(group, call, owner, t) * call->width,
                 length_of(group, call, owner, t) * call->width);
}

static void reduce_part(shm_group *group, const shm_call *call, size_t t) {
    unsigned char *own = call->out + start_of(group, call, group->rank, t) * call->width;
    for (uint32_t rank = 0; rank < group->world; rank++)
        group->sources[rank] = rank == group->rank ? own : part_of(group, call, rank, group->rank, t);
    reduce_into(group, call, own, result_of(group, call, group->rank, t), length_of(group, call, group->rank, t));
}

static void take_results(shm_group *group, const shm_call *call, size_t t) {
    for (uint32_t owner = 0; owner < group->world; owner++)
        if (owner != group->rank)
            copy(call->out + start_of(group, call, owner, t) * call->width, result_of(group, call, owner, t),
                 length_of(group, call, owner, t) * call->width);
}

/* ---- broadcast ---- */

static void put_root(shm_group *group, const shm_call *call, size_t t) {
    if (group->rank == call->header.detail)
        put_all(group, call, t);
}

static void take_root(shm_group *group, const shm_call *call, size_t t) {
    uint32_t root = (uint32_t)call->header.detail;
    if (group->rank != root)
        copy(call->out + t * call->course->piece * call->width, slot_of(group, call, root, t),
             count_of(call, t, (size_t)call->header.numel) * call->width);
}

/* ---- all_gather ---- */

static void take_everyones(shm_group *group, const shm_call *call, size_t t) {
    size_t bytes = (size_t)call->header.numel * call->width, at = t * call->course->piece * call->width;
    size_t count = count_of(call, t, (size_t)call->header.numel) * call->width;
    for (uint32_t rank = 0; rank < group->world; rank++) {
        unsigned char *to = call->out + rank * bytes + at;
        const unsigned char *from = rank == group->rank ? call->in + at : slot_of(group, call, rank, t);
        if (to != from)
            copy(to, from, count);
    }
}

/* ---- reduce_scatter ---- */

static void put_for_each(shm_group *group, const shm_call *call, size_t t) {
    size_t numel = (size_t)call->header.numel, count = count_of(call, t, numel) * call->width;
    for (uint32_t rank = 0; rank < group->world; rank++)
        if (rank != group->rank)
            copy(part_of(group, call, group->rank, rank, t),
                 call->in + (rank * numel + t * call->course->piece) * call->width, count);
}

static void take_own_sum(shm_group *group, const shm_call *call, size_t t) {
    size_t numel = (size_t)call->header.numel, at = t * call->course->piece;
    for (uint32_t rank = 0; rank < group->world; rank++)
        group->sources[rank] = rank == group->rank ? call->in + (rank * numel + at) * call->width
                                                   : part_of(group, call, rank, group->rank, t);
    reduce_into(group, call, call->out + at * call->width, NULL, count_of(call, t, numel));
}

/* ---- all_to_all: the front of a slot has the rank's splits ---- */

static void put_splits(shm_group *group, const shm_call *call, size_t t) {
    const unsigned char *from = call->in;
    if (t == 0)
        memcpy(slot_of(group, call, group->rank, 0), call->splits, 2 * group->world * sizeof *call->splits);
    for (uint32_t rank = 0; rank < group->world; from += call->splits[rank++] * call->width)
        if (rank != group->rank)
            copy(part_of(group, call, group->rank, rank, t), from + t * call->course->piece * call->width,
                 count_of(call, t, (size_t)call->splits[rank]) * call->width);
}

static const uint64_t *splits_of(const shm_group *group, const shm_call *call, uint32_t rank) {
    return (const uint64_t *)(const void *)slot_of(group, call, rank, 0);
}

/* Every rank looks at all pairs, so every rank comes to the same answer, and to the same number of pieces. */
static shm_status splits_meet(shm_group *group, shm_call *call) {
    size_t longest = 0;
    for (uint32_t from = 0; from < group->world; from++)
        for (uint32_t to = 0; to < group->world; to++) {
            uint64_t sent = splits_of(group, call, from)[to], expected = splits_of(group, call, to)[group->world + from];
            if (sent != expected) {
                uint64_t pair[4] = {from, to, sent, expected};
                memcpy(group->pair, pair, sizeof pair);
                return SHM_SPLITS;
            }
            if (from != to && sent > longest)
                longest = (size_t)sent;
        }
    if (longest != 0)
        call->course->pieces = (longest + call->course->piece - 1) / call->course->piece;
    return SHM_OK;
}

static void take_from_each(shm_group *group, const shm_call *call, size_t t) {
    const uint64_t *give = call->splits, *take = call->splits + group->world;
    const unsigned char *in = call->in;
    unsigned char *out = call->out;
    for (uint32_t rank = 0; rank < group->world; rank++) {
        if (rank != group->rank)
            copy(out + t * call->course->piece * call->width, part_of(group, call, rank, group->rank, t),
                 count_of(call, t, (size_t)take[rank]) * call->width);
        else if (t == 0)
            copy(out, in, (size_t)take[rank] * call->width);
        in += give[rank] * call->width;
        out += take[rank] * call->width;
    }
}

/* ---- the calls ---- */

shm_status shm_agree(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages stages = {0};
    return shm_run(group, call, &(shm_course){.pieces = 1}, &stages, patience);
}

static shm_status all_reduce_of_much(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages two_shot = {.put = put_parts, .reduce = reduce_part, .take = take_results};
    size_t numel = (size_t)call->header.numel, world = group->world;
    shm_course course = cut(call, (numel + world - 1) / world, share(group, call, group->slot_bytes));
    course.pieces = (numel + world * course.piece - 1) / (world * course.piece); /* a piece has a part for each rank */
    return shm_run(group, call, &course, &two_shot, patience);
}

shm_status shm_all_reduce(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages alone = {0};
    static const shm_stages one_shot = {.put = put_all, .take = take_sum};
    call->in = call->out;
    if (group->world == 1)
        return shm_run(group, call, &(shm_course){.pieces = 1}, &alone, patience);
    if ((size_t)call->header.numel * call->width <= least(group->slot_bytes, ONE_SHOT_BYTES)) {
        shm_course course = cut_whole(group, call);
        return shm_run(group, call, &course, &one_shot, patience);
    }
    return all_reduce_of_much(group, call, patience);
}

shm_status shm_broadcast(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages stages = {.put = put_root, .take = take_root};
    call->in = call->out;
    shm_course course = cut_whole(group, call);
    return shm_run(group, call, &course, &stages, patience);
}

shm_status shm_all_gather(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages stages = {.put = put_all, .take = take_everyones};
    shm_course course = cut_whole(group, call);
    return shm_run(group, call, &course, &stages, patience);
}

shm_status shm_reduce_scatter(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages stages = {.put = put_for_each, .take = take_own_sum};
    shm_course course = cut(call, (size_t)call->header.numel, share(group, call, group->slot_bytes));
    return shm_run(group, call, &course, &stages, patience);
}

shm_status shm_all_to_all(shm_group *group, shm_call *call, const shm_patience *patience) {
    static const shm_stages stages = {.put = put_splits, .take = take_from_each, .agreed = splits_meet};
    size_t front = (2 * group->world * sizeof *call->splits + SHM_LINE - 1) / SHM_LINE * SHM_LINE;
    shm_course course = {.piece = share(group, call, group->slot_bytes - front), .pieces = 1, .front = front};
    return shm_run(group, call, &course, &stages, patience);
}
