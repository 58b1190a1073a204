/* The door from Python, against the stable ABI: opaque groups in capsules, integers in, a status out. */
#define _GNU_SOURCE
#include <Python.h>

#include "native.h"

#include <stdlib.h>

#define CAPSULE "comm_shm._native.group"

/* Threads of the group may have to end first, and one of them may want the GIL. */
static void free_capsule(PyObject *capsule) {
    shm_group *group = PyCapsule_GetPointer(capsule, CAPSULE);
    if (group == NULL)
        return;
    Py_BEGIN_ALLOW_THREADS
    shm_free_group(group);
    Py_END_ALLOW_THREADS
}

shm_group *group_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, CAPSULE); }

static void let_others_run(void *context) {
    released *gil = context;
    if (gil->thread == NULL)
        gil->thread = PyEval_SaveThread();
}

static int interrupted(void *context) {
    released *gil = context;
    PyEval_RestoreThread(gil->thread);
    int raised = PyErr_CheckSignals();
    gil->thread = PyEval_SaveThread();
    return raised != 0;
}

int read_counts(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t expected, uint64_t *counts) {
    if (nargs != expected) {
        PyErr_Format(PyExc_TypeError, "%zd arguments expected, got %zd", expected, nargs);
        return -1;
    }
    for (Py_ssize_t i = 1; i < expected - 1; i++) {
        counts[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (counts[i] == (uint64_t)-1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

int read_patience(PyObject *seconds, shm_patience *patience) {
    double limit = PyFloat_AsDouble(seconds);
    if (limit == -1.0 && PyErr_Occurred())
        return -1;
    if (!(limit < 1e9)) /* thirty years; also what a NaN becomes */
        limit = 1e9;
    patience->deadline_ns = shm_deadline_in((int64_t)(limit * 1e9));
    patience->interrupted = interrupted;
    patience->linger = let_others_run;
    return 0;
}

PyObject *answer(shm_status status) {
    return PyErr_Occurred() ? NULL : PyLong_FromLong((long)status); /* a signal handler may have raised */
}

static PyObject *perform_with(released gil, shm_group *group, shm_collective *collective, shm_call *call,
                              shm_patience *patience) {
    patience->context = &gil;
    shm_status status = SHM_OK;
    if (!shm_foreign(group) && !shm_queue_idle(group->queue)) { /* what was started comes first */
        let_others_run(&gil);
        int64_t given_ns = patience->deadline_ns - shm_now_ns();
        status = shm_catch_up(group->queue, NULL, patience, 1);
        patience->deadline_ns = shm_now_ns() + given_ns;
        if (status != SHM_OK)
            shm_break(group, status);
    }
    if (status == SHM_OK)
        status = collective(group, call, patience);
    if (gil.thread != NULL)
        PyEval_RestoreThread(gil.thread);
    return answer(status);
}

PyObject *perform(shm_group *group, shm_collective *collective, shm_call *call, shm_patience *patience) {
    released gil = {PyEval_SaveThread()};
    return perform_with(gil, group, collective, call, patience);
}

/* The GIL costs more than a small message: it is given up when there is much to do, or when a wait lasts. */
PyObject *perform_at_once(shm_group *group, shm_collective *collective, shm_call *call, shm_patience *patience) {
    released gil = {NULL};
    if (call->splits != NULL || call->header.numel * call->width > AT_ONCE_BYTES / group->world)
        let_others_run(&gil);
    return perform_with(gil, group, collective, call, patience);
}

int check_reduction(uint64_t dtype, uint64_t reduce_op) {
    if (dtype <= UINT32_MAX && reduce_op <= UINT32_MAX && shm_reduces((uint32_t)dtype, (uint32_t)reduce_op))
        return 0;
    PyErr_SetString(PyExc_ValueError, "not a reduce op of that dtype");
    return -1;
}

/* The last door: an address of nothing would end the process. */
int check_memory(uint64_t numel, const void *in, const void *out) {
    if (numel == 0 || (in != NULL && out != NULL))
        return 0;
    PyErr_SetString(PyExc_ValueError, "there is no memory behind a tensor");
    return -1;
}

/* all_reduce(group, address, numel, dtype, reduce_op, timeout_s) -> status */
static PyObject *py_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    uint64_t counts[5];
    shm_patience patience;
    shm_group *group;
    if (read_counts(args, nargs, 6, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[5], &patience) < 0 || check_reduction(counts[3], counts[4]) < 0)
        return NULL;
    shm_call call = {.header = {.numel = counts[2], .dtype = (uint32_t)counts[3], .reduce_op = (uint32_t)counts[4]},
                     .out = (unsigned char *)(uintptr_t)counts[1],
                     .width = shm_width((uint32_t)counts[3])};
    if (check_memory(call.header.numel, call.out, call.out) < 0)
        return NULL;
    return perform_at_once(group, shm_all_reduce, &call, &patience);
}

/* agree(group, op, dtype, reduce_op, numel, detail, refusal, timeout_s) -> status */
static PyObject *py_agree(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    uint64_t counts[7];
    shm_patience patience;
    shm_group *group;
    if (read_counts(args, nargs, 8, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[7], &patience) < 0)
        return NULL;
    shm_call call = {.header = {.op = (uint32_t)counts[1],
                                .dtype = (uint32_t)counts[2],
                                .reduce_op = (uint32_t)counts[3],
                                .numel = counts[4],
                                .detail = counts[5],
                                .refusal = (uint32_t)counts[6]}};
    return perform_at_once(group, shm_agree, &call, &patience);
}

/* (group, op, dtype, numel, detail, in, out, width or reduce_op, timeout_s): what all that follow are given */
shm_group *read_move(PyObject *const *args, Py_ssize_t nargs, const movement *kind, shm_call *given,
                     shm_patience *patience) {
    uint64_t counts[8];
    shm_group *group;
    int reduces = kind->reduces;
    if (read_counts(args, nargs, 9, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[8], patience) < 0 || (reduces && check_reduction(counts[2], counts[7]) < 0))
        return NULL;
    shm_call call = {.header = {.op = (uint32_t)counts[1],
                                .dtype = (uint32_t)counts[2],
                                .numel = counts[3],
                                .detail = counts[4],
                                .reduce_op = reduces ? (uint32_t)counts[7] : 0},
                     .in = (const unsigned char *)(uintptr_t)counts[5],
                     .out = (unsigned char *)(uintptr_t)counts[6],
                     .width = reduces ? shm_width((uint32_t)counts[2]) : (size_t)counts[7]};
    if (call.width == 0 || call.width > 64) {
        PyErr_SetString(PyExc_ValueError, "an element has from 1 to 64 bytes");
        return NULL;
    }
    if (kind->collective == shm_all_to_all) { /* `detail` is where the splits are, and behind them the real one */
        call.splits = (const uint64_t *)(uintptr_t)counts[4];
        call.header.detail = call.splits[2 * group->world];
        uint64_t given_away = 0, taken = 0;
        for (uint32_t rank = 0; rank < group->world; rank++) {
            given_away |= call.splits[rank];
            taken |= call.splits[group->world + rank];
        }
        if (check_memory(given_away, call.in, call.in) < 0 || check_memory(taken, call.out, call.out) < 0)
            return NULL;
    }
    if (call.splits == NULL && kind->collective != shm_agree && check_memory(call.header.numel, call.in, call.out) < 0)
        return NULL;
    *given = call;
    return group;
}

static PyObject *move(PyObject *const *args, Py_ssize_t nargs, const movement *kind) {
    shm_call call;
    shm_patience patience;
    shm_group *group = read_move(args, nargs, kind, &call, &patience);
    return group == NULL ? NULL : perform_at_once(group, kind->collective, &call, &patience);
}

/* all_reduce_one_of: all_reduce with a code and a count of its own. */
const movement movements[] = {
    {"all_reduce_one_of", shm_all_reduce, 1}, {"broadcast", shm_broadcast, 0},
    {"all_gather", shm_all_gather, 0},        {"all_to_all", shm_all_to_all, 0},
    {"reduce_scatter", shm_reduce_scatter, 1}, {"announce", shm_agree, 0},
    {NULL, NULL, 0},
};

#define MOVE(name, place)                                                                   \
    static PyObject *py_##name(PyObject *module, PyObject *const *args, Py_ssize_t nargs) { \
        (void)module;                                                                       \
        return move(args, nargs, &movements[place]);                                        \
    }

MOVE(all_reduce_one_of, 0)
MOVE(broadcast, 1)
MOVE(all_gather, 2)
MOVE(all_to_all, 3)
MOVE(reduce_scatter, 4)
MOVE(announce, 5)

/* pair(group) -> (from, to, sent, expected), after a status that says that splits do not meet */
static PyObject *py_pair(PyObject *module, PyObject *capsule) {
    (void)module;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    return Py_BuildValue("(KKKK)", (unsigned long long)group->pair[0], (unsigned long long)group->pair[1],
                         (unsigned long long)group->pair[2], (unsigned long long)group->pair[3]);
}

static int read_pidfds(PyObject *list, uint32_t world, int *pidfds) {
    for (uint32_t rank = 0; rank < world; rank++) {
        PyObject *item = PyList_GetItem(list, rank); /* borrowed */
        long fd = item == NULL ? -1 : PyLong_AsLong(item);
        if (fd == -1 && PyErr_Occurred())
            return -1;
        pidfds[rank] = (int)fd;
    }
    return 0;
}

/* open_group(fd, rank, world, slot_bytes, pidfds) -> capsule; takes the pidfds over when it succeeds or raises OSError */
static PyObject *py_open_group(PyObject *module, PyObject *args) {
    (void)module;
    int fd;
    unsigned int rank, world;
    unsigned long long slot_bytes;
    PyObject *list;
    if (!PyArg_ParseTuple(args, "iIIKO", &fd, &rank, &world, &slot_bytes, &list))
        return NULL;
    if (world == 0 || world > SHM_MAX_WORLD || rank >= world || !PyList_Check(list) || PyList_Size(list) != world) {
        PyErr_SetString(PyExc_ValueError, "need 0 <= rank < world, at most 1024 ranks, and a pidfd for each");
        return NULL;
    }
    int *pidfds = malloc(world * sizeof *pidfds);
    if (pidfds == NULL)
        return PyErr_NoMemory();
    if (read_pidfds(list, world, pidfds) < 0) {
        free(pidfds);
        return NULL;
    }
    shm_group *group = shm_open_group(fd, rank, world, (size_t)slot_bytes, pidfds);
    free(pidfds);
    if (group == NULL)
        return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *capsule = PyCapsule_New(group, CAPSULE, free_capsule);
    if (capsule == NULL)
        shm_free_group(group);
    return capsule;
}

/* A thread that waits for the segment must not have the GIL, which whoever has the segment may want. */
int hold(shm_group *group) {
    int held;
    Py_BEGIN_ALLOW_THREADS
    held = shm_hold(group);
    Py_END_ALLOW_THREADS
    return held;
}

/* close_group(group): a second time does nothing */
static PyObject *py_close_group(PyObject *module, PyObject *capsule) {
    (void)module;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    shm_close_group(group);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *describe_rank(const shm_group *group, uint32_t rank) {
    int behind = shm_behind(group, rank);
    shm_header said = shm_said(group, rank, behind);
    return Py_BuildValue("(iiiKIIIKKI)", behind, shm_dead(group, rank), (int)atomic_load(&group->controls[rank].left),
                         (unsigned long long)said.serial, said.op, said.dtype, said.reduce_op,
                         (unsigned long long)said.numel, (unsigned long long)said.detail, said.refusal);
}

/* states(group) -> per rank: (steps behind, dead, left, serial, op, dtype, reduce_op, numel, detail, refusal) */
static PyObject *py_states(PyObject *module, PyObject *capsule) {
    (void)module;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    PyObject *all = PyList_New(0);
    int held = hold(group);
    for (uint32_t rank = 0; all != NULL && held && rank < group->world; rank++) {
        PyObject *one = describe_rank(group, rank);
        if (one == NULL || PyList_Append(all, one) < 0)
            Py_CLEAR(all);
        Py_XDECREF(one);
    }
    if (held)
        shm_let_go(group);
    return all;
}

/* broken(group) -> (status, rank) of the first failure, (0, 0) when there is none */
static PyObject *py_broken(PyObject *module, PyObject *capsule) {
    (void)module;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    uint32_t word = 0;
    if (hold(group)) {
        word = shm_broken(group);
        shm_let_go(group);
    }
    return Py_BuildValue("(II)", word >> 16, word & 0xffff);
}

/* segment_bytes(world, slot_bytes) */
static PyObject *py_segment_bytes(PyObject *module, PyObject *args) {
    (void)module;
    unsigned int world;
    unsigned long long slot_bytes;
    if (!PyArg_ParseTuple(args, "IK", &world, &slot_bytes))
        return NULL;
    return PyLong_FromSize_t(shm_bytes(world, (size_t)slot_bytes));
}

/* reserved_bytes(world, slot_bytes): how many of segment_bytes are used from the start */
static PyObject *py_reserved_bytes(PyObject *module, PyObject *args) {
    (void)module;
    unsigned int world;
    unsigned long long slot_bytes;
    if (!PyArg_ParseTuple(args, "IK", &world, &slot_bytes))
        return NULL;
    return PyLong_FromSize_t(shm_reserved_bytes(world, (size_t)slot_bytes));
}

static PyMethodDef methods[] = {
    {"know_tensors", py_know_tensors, METH_VARARGS, NULL},
    {"all_reduce_tensor", (PyCFunction)(void (*)(void))py_all_reduce_tensor, METH_FASTCALL, NULL},
    {"all_reduce", (PyCFunction)(void (*)(void))py_all_reduce, METH_FASTCALL, NULL},
    {"all_reduce_one_of", (PyCFunction)(void (*)(void))py_all_reduce_one_of, METH_FASTCALL, NULL},
    {"broadcast", (PyCFunction)(void (*)(void))py_broadcast, METH_FASTCALL, NULL},
    {"all_gather", (PyCFunction)(void (*)(void))py_all_gather, METH_FASTCALL, NULL},
    {"reduce_scatter", (PyCFunction)(void (*)(void))py_reduce_scatter, METH_FASTCALL, NULL},
    {"all_to_all", (PyCFunction)(void (*)(void))py_all_to_all, METH_FASTCALL, NULL},
    {"announce", (PyCFunction)(void (*)(void))py_announce, METH_FASTCALL, NULL},
    {"pair", py_pair, METH_O, NULL},
    {"agree", (PyCFunction)(void (*)(void))py_agree, METH_FASTCALL, NULL},
    {"open_group", py_open_group, METH_VARARGS, NULL},
    {"close_group", py_close_group, METH_O, NULL},
    {"states", py_states, METH_O, NULL},
    {"broken", py_broken, METH_O, NULL},
    {"segment_bytes", py_segment_bytes, METH_VARARGS, NULL},
    {"reserved_bytes", py_reserved_bytes, METH_VARARGS, NULL},
    LATER_METHODS
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_symmetric}, {Py_mod_exec, add_hosts}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "comm_shm._native",
    .m_doc = "Shared-memory collectives between the ranks of one machine; see shm.h for the protocol.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
