/* Starting messages, waiting for them, and ending with some on the way. */
#define _GNU_SOURCE
#include "mail.h"

#include "futex.h"

#include <sched.h>

#define SPINS 50
#define ROUNDS 60                  /* of spinning a little and yielding once, before sleeping */
#define CROWDED_NS INT64_C(100000) /* a yield that takes this long let strangers run: a sleeper is back sooner */
#define SLICE_NS INT64_C(50000000) /* a dead peer, a signal and the deadline are looked for this often */

typedef int done(const shm_mail *mail, const shm_errand *errand);

/* Who works on the mail until something is done, and how eagerly. */
typedef struct {
    done *until;
    shm_errand *errand;
    const shm_patience *patience;
    int rounds;
    int64_t looked_ns;
} shift;

static shm_mail *mail_of(shm_hand *hand) { return (shm_mail *)(void *)hand; }

static int finished(const shm_mail *mail, const shm_errand *errand) {
    (void)mail;
    return shm_is_finished(&errand->request);
}

static int nothing_pending(const shm_mail *mail, const shm_errand *errand) {
    (void)errand;
    return (mail->pending == 0 && mail->busy == 0) || mail->closing;
}

static int all_written(const shm_mail *mail, const shm_errand *errand) {
    (void)errand;
    for (uint32_t peer = 0; peer < mail->group->world; peer++)
        if (mail->out[peer].writing != NULL)
            return 0;
    return 1;
}

int shm_post(shm_mail *mail, shm_errand *errand) {
    int failed = 0;
    shm_hand_lock(&mail->hand);
    if (mail->closing) {
        atomic_fetch_add(&errand->request.references, 1);
        shm_finish(&mail->hand, &errand->request, SHM_CLOSED);
    } else if (!mail->hand.started) {
        failed = shm_hand_call(&mail->hand, 0); /* before a byte is on its way, which could not be called back */
    }
    if (failed == 0 && !mail->closing) {
        shm_mail_accept(mail, errand);
        shm_mail_move(mail);
        if (!shm_is_finished(&errand->request) || mail->busy > 0)
            shm_hand_call(&mail->hand, 0);
    }
    shm_hand_unlock(&mail->hand);
    return failed;
}

int shm_probe(shm_mail *mail, shm_errand *errand) {
    if (!shm_is_finished(&errand->request)) {
        shm_hand_lock(&mail->hand);
        if (!mail->closing)
            shm_mail_move(mail);
        shm_hand_unlock(&mail->hand);
    }
    return shm_is_finished(&errand->request);
}

int shm_take_back(shm_mail *mail, shm_errand *errand) {
    shm_hand_lock(&mail->hand);
    shm_errand *one = mail->asked;
    while (one != NULL && one != errand)
        one = (shm_errand *)(void *)one->request.next;
    if (one != NULL)
        shm_mail_give_up(mail, errand, SHM_ELSEWHERE);
    shm_hand_unlock(&mail->hand);
    return one != NULL;
}

void shm_mail_elsewhere(shm_mail *mail, uint32_t ranks, uint32_t left) {
    shm_hand_lock(&mail->hand);
    mail->elsewhere = ranks;
    mail->elsewhere_left = left;
    shm_hand_unlock(&mail->hand);
}

/* -- working on the mail -------------------------------------------------------------------------------------------- */

static shm_status gone(shm_group *group, uint32_t peer) {
    if (shm_broken(group) != 0)
        return SHM_BROKEN;
    if (peer == group->rank)
        return SHM_OK;
    if (shm_dead(group, peer))
        return SHM_DIED;
    return atomic_load(&group->controls[peer].left) != 0 ? SHM_LEFT : SHM_OK;
}

/* First see who is gone, then take what they left, then fail what can no longer be. */
static void bury(shm_mail *mail) {
    uint32_t world = mail->group->world, left = mail->elsewhere_left, others = world - 1 + mail->elsewhere;
    for (uint32_t peer = 0; peer < world; peer++) {
        shm_status status = gone(mail->group, peer);
        shm_mail_move(mail);
        shm_mail_fail_lost(mail, peer, status);
        left += status == SHM_LEFT;
    }
    while (left == others && left > 0 && mail->asked != NULL && mail->asked->peer == SHM_ANY_SOURCE)
        shm_mail_give_up(mail, mail->asked, SHM_LEFT);
}

static shm_status look_around(shm_mail *mail, shift *turn) {
    turn->looked_ns = shm_now_ns();
    shm_hand_unlock(&mail->hand);
    int interrupted = turn->patience->interrupted(turn->patience->context);
    shm_hand_lock(&mail->hand);
    bury(mail);
    if (turn->until(mail, turn->errand))
        return SHM_OK;
    /* This rank is stuck with a send, or leaves with one. Its peer may too, with one to this rank: make room for it. */
    mail->greedy = mail->flushing > 0 || (turn->errand != NULL && !turn->errand->receives);
    if (interrupted)
        return SHM_INTERRUPTED;
    return shm_now_ns() >= turn->patience->deadline_ns ? SHM_TIMED_OUT : SHM_OK;
}

/* A peer that works on the core of this thread cannot go on before this thread sleeps, and a yield may not do. */
static int shares_this_core(const shm_mail *mail, const shm_errand *errand) {
    if (errand == NULL || errand->peer < 0)
        return 0;
    return atomic_load_explicit(&mail->bells[errand->peer].cpu, memory_order_relaxed) == sched_getcpu() + 1;
}

static int spin(shm_mail *mail, const shift *turn) {
    for (int round = 0; round < turn->rounds; round++) {
        for (int count = 0; count < SPINS; count++) {
            if (shm_mail_move(mail))
                round = count = 0;
            if (turn->until(mail, turn->errand))
                return 1;
            shm_hand_unlock(&mail->hand);
            shm_relax();
            shm_relax();
            shm_hand_lock(&mail->hand);
        }
        if (shares_this_core(mail, turn->errand))
            break;
        shm_hand_unlock(&mail->hand);
        int64_t before = shm_now_ns();
        sched_yield();
        int crowded = shm_now_ns() - before > CROWDED_NS;
        shm_hand_lock(&mail->hand);
        if (crowded)
            break;
    }
    return turn->until(mail, turn->errand);
}

/* Whoever moves something in a lane of this rank either is seen to have done it here, or sees the sleeper. */
static void sleep_on_the_bell(shm_mail *mail, const shift *turn) {
    shm_bell *bell = &mail->bells[mail->group->rank];
    int64_t left_ns = turn->patience->deadline_ns - shm_now_ns();
    atomic_fetch_add(&bell->sleepers, 1);
    uint32_t seen = atomic_load(&bell->rings);
    if (!shm_mail_move(mail) && !turn->until(mail, turn->errand) && left_ns > 0) {
        shm_hand_unlock(&mail->hand);
        shm_futex_wait(&bell->rings, seen, left_ns < SLICE_NS ? left_ns : SLICE_NS);
        shm_hand_lock(&mail->hand);
    }
    atomic_fetch_sub(&bell->sleepers, 1);
}

static shm_status drive(shm_mail *mail, shift *turn) {
    shm_status status = SHM_OK;
    mail->driven = 1;
    atomic_store_explicit(&mail->bells[mail->group->rank].cpu, sched_getcpu() + 1, memory_order_relaxed);
    turn->looked_ns = shm_now_ns();
    while (status == SHM_OK && !turn->until(mail, turn->errand) && !spin(mail, turn)) {
        sleep_on_the_bell(mail, turn);
        int64_t now = shm_now_ns();
        if (now - turn->looked_ns >= SLICE_NS || now >= turn->patience->deadline_ns)
            status = look_around(mail, turn);
    }
    mail->driven = mail->greedy = 0;
    if (mail->pending > 0 || mail->busy > 0) /* the hand may have fallen asleep over it */
        shm_hand_call(&mail->hand, 0);
    if (mail->hand.waiters > 0)
        pthread_cond_broadcast(&mail->hand.news);
    return status;
}

/* Another thread is at it: wait until it has done this too, or has stopped. */
static shm_status watch(shm_mail *mail, const shift *turn) {
    int64_t left_ns = turn->patience->deadline_ns - shm_now_ns();
    if (left_ns <= 0)
        return SHM_TIMED_OUT;
    shm_hand_nap(&mail->hand, left_ns < SLICE_NS ? left_ns : SLICE_NS);
    shm_hand_unlock(&mail->hand);
    int interrupted = turn->patience->interrupted(turn->patience->context);
    shm_hand_lock(&mail->hand);
    return interrupted ? SHM_INTERRUPTED : SHM_OK;
}

static shm_status serve(shm_mail *mail, shift *turn) {
    shm_status status = SHM_OK;
    while (status == SHM_OK && !turn->until(mail, turn->errand))
        status = mail->driven ? watch(mail, turn) : drive(mail, turn);
    return status;
}

shm_status shm_await(shm_mail *mail, shm_errand *errand, const shm_patience *patience) {
    shift turn = {.until = finished, .errand = errand, .patience = patience, .rounds = ROUNDS};
    if (shm_is_finished(&errand->request))
        return errand->request.status;
    shm_hand_lock(&mail->hand);
    shm_status status = serve(mail, &turn);
    if (status == SHM_TIMED_OUT && !shm_is_finished(&errand->request))
        shm_mail_give_up(mail, errand, status);
    shm_hand_unlock(&mail->hand);
    return status == SHM_INTERRUPTED ? status : errand->request.status;
}

/* -- the hand ------------------------------------------------------------------------------------------------------- */

int64_t shm_mail_due_in(shm_hand *hand, int64_t now) {
    const shm_mail *mail = mail_of(hand);
    return (mail->pending == 0 && mail->busy == 0) || mail->driven ? INT64_MAX : hand->active_ns + SHM_LEFT_ALONE_NS - now;
}

static int never(void *context) {
    (void)context;
    return 0;
}

void shm_mail_work(shm_hand *hand) {
    shm_patience patience = {.deadline_ns = INT64_MAX, .interrupted = never};
    shift turn = {.until = nothing_pending, .patience = &patience, .rounds = 1};
    drive(mail_of(hand), &turn);
}

shm_status shm_mail_flush(shm_mail *mail, const shm_patience *patience) {
    shift turn = {.until = all_written, .patience = patience, .rounds = ROUNDS};
    shm_hand_lock(&mail->hand);
    mail->flushing++;
    shm_status status = serve(mail, &turn);
    mail->flushing--;
    shm_hand_unlock(&mail->hand);
    return status;
}

void shm_mail_close(shm_mail *mail) {
    shm_hand_lock(&mail->hand);
    if (mail->closing) {
        shm_hand_unlock(&mail->hand);
        return;
    }
    mail->closing = 1;
    shm_ring_bell(mail, mail->group->rank);
    shm_hand_unlock(&mail->hand);
    shm_hand_stop(&mail->hand);
    shm_hand_lock(&mail->hand);
    for (shm_errand *errand = shm_mail_any_pending(mail); errand != NULL; errand = shm_mail_any_pending(mail))
        shm_mail_give_up(mail, errand, SHM_CLOSED);
    while (mail->driven)
        shm_hand_nap(&mail->hand, SLICE_NS);
    for (uint32_t peer = 0; peer < mail->group->world; peer++)
        shm_ring_bell(mail, peer);
    shm_hand_unlock(&mail->hand);
}
