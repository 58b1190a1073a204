/* Messages from one rank to another.
 *
 * Every ordered pair of ranks has a lane: a ring of bytes that the sender fills and the receiver empties, so a byte is
 * copied twice, once by each, at the same time when there are two cores. The ring stays in cache: memory sees the
 * sender's and the receiver's tensor once each. One copy less would need the kernel to read another process
 * (process_vm_readv), which containers and ptrace limits forbid, and which costs a system call a message.
 * The pages of a ring are taken when its sender first uses it.
 *
 * A message is an envelope of 64 bytes, then its bytes, padded to 64. Messages leave a lane in the order in which they
 * entered it. One that nobody asked for stays in the ring until this rank asks the same sender for another tag: then it
 * is put aside. A send has finished when the receiver has taken the whole message, and the envelope, which the receiver
 * writes its verdict into before it gives the room back, then says whether it fitted.
 */
#ifndef COMM_SHM_MAIL_H
#define COMM_SHM_MAIL_H

#include "hand.h"

#define SHM_ANY_SOURCE (-1)

typedef struct {
    uint64_t bytes, numel;
    int32_t tag;
    uint32_t dtype;
    uint32_t misfit; /* the receiver's verdict: it had asked for the following */
    uint32_t wanted_dtype;
    uint64_t wanted_numel;
    uint64_t serial;
    uint64_t padding[2];
} shm_envelope;

typedef struct {
    _Alignas(SHM_LINE) _Atomic uint64_t head; /* bytes that the sender has written; it alone writes this line */
    _Atomic uint32_t cut;                     /* the sender has given up in the middle of a message */
    _Alignas(SHM_LINE) _Atomic uint64_t tail; /* bytes that the receiver has taken; it alone writes this line */
    _Atomic uint32_t regretted;               /* `regret` is a message that was put aside and then did not fit */
    shm_envelope regret;
} shm_lane;

/* A rank sleeps on its bell, and whoever moves something in one of its lanes rings it. */
typedef struct {
    _Alignas(SHM_LINE) _Atomic uint32_t rings;
    _Atomic uint32_t sleepers;
    _Atomic int32_t cpu; /* where the rank last worked on its mail, plus 1; a hint */
} shm_bell;

typedef struct shm_errand {
    shm_request request;
    struct shm_mail *mail;
    int receives, peer, begun, judged;
    unsigned char *data;
    shm_envelope envelope; /* a send: the message. A receive: what is asked for, and when it has finished, what came */
    uint64_t moved, start, end;
    int source; /* of a receive, who sent it; who is gone, after a failure */
} shm_errand;

/* A message that came before it was asked for. */
typedef struct shm_aside {
    struct shm_aside *next;
    int source, whole;
    shm_errand *claimed;
    shm_envelope envelope;
    unsigned char data[];
} shm_aside;

typedef struct {
    shm_errand *first, *writing, *last; /* written but not yet taken, then the one being written and those behind it */
    uint64_t head, tail, serial;
    int ready; /* the ring has its pages */
} shm_outgoing;

typedef struct {
    uint64_t tail, left; /* bytes of the message at hand that are still to come */
    int busy;
    unsigned char *target; /* where they go, NULL: nowhere */
    shm_errand *errand;
    shm_aside *aside;
} shm_incoming;

typedef struct shm_mail {
    shm_hand hand;
    shm_group *group;
    shm_bell *bells;
    shm_lane *lanes;
    unsigned char *rings;
    size_t ring_bytes;
    shm_outgoing *out;
    shm_incoming *in;
    shm_errand *asked, *asked_last; /* receives that nothing has come for */
    shm_aside *asides, **asides_end;
    uint32_t pending, busy; /* errands, and lanes with a message of which the rest is to come, asked for or not */
    int driven, greedy, flushing, closing;
    uint32_t elsewhere, elsewhere_left; /* ranks of other hosts, which may answer receives from anyone; those that left */
} shm_mail;

/* mail.c: what moves, without waiting; all with the hand's lock held */
size_t shm_mail_bytes(uint32_t world);
int shm_mail_init(shm_mail *mail, shm_group *group, void *at);
void shm_mail_free(shm_mail *mail);
shm_errand *shm_errand_new(shm_mail *mail, int receives, int peer);
void shm_mail_accept(shm_mail *mail, shm_errand *errand);
int shm_mail_move(shm_mail *mail); /* whether anything did */
void shm_mail_settle(shm_mail *mail, shm_errand *errand, shm_status status);
void shm_mail_give_up(shm_mail *mail, shm_errand *errand, shm_status status);
shm_errand *shm_mail_any_pending(shm_mail *mail);
void shm_mail_fail_lost(shm_mail *mail, uint32_t peer, shm_status gone); /* what can no longer be, after a move */
int shm_mail_readable(const shm_mail *mail, int peer);
shm_lane *shm_lane_between(const shm_mail *mail, uint32_t from, uint32_t to);
void shm_ring_bell(shm_mail *mail, uint32_t rank);

/* post.c: starting, waiting, ending */
int shm_post(shm_mail *mail, shm_errand *errand); /* takes a reference; 0, or what pthread_create answered */
shm_status shm_await(shm_mail *mail, shm_errand *errand, const shm_patience *patience);
int shm_mail_arrived(shm_mail *mail, shm_envelope *envelopes, int *sources, int most); /* that nobody asked for */
int shm_probe(shm_mail *mail, shm_errand *errand); /* whether it has finished, after a try */
int shm_take_back(shm_mail *mail, shm_errand *errand); /* a receive, if nothing has come for it; whether that was so */
void shm_mail_elsewhere(shm_mail *mail, uint32_t ranks, uint32_t left);
int64_t shm_mail_due_in(shm_hand *hand, int64_t now);
void shm_mail_work(shm_hand *hand);
shm_status shm_mail_flush(shm_mail *mail, const shm_patience *patience); /* until what was sent is in the rings */
void shm_mail_close(shm_mail *mail);

#endif
