/* The door from Python, against the stable ABI: opaque groups in capsules, integers in, a status out. */
#define _GNU_SOURCE
#include <Python.h>

#include "shm.h"

#include <stdlib.h>
#include <unistd.h>

#define CAPSULE "comm_shm._native.group"

static void free_capsule(PyObject *capsule) {
    shm_group *group = PyCapsule_GetPointer(capsule, CAPSULE);
    if (group != NULL)
        shm_free_group(group);
}

static shm_group *group_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, CAPSULE); }

/* Signal handlers run here, between two slices of waiting, with the GIL taken for just that long. */
typedef struct {
    PyThreadState *thread;
} released;

static int interrupted(void *context) {
    released *gil = context;
    PyEval_RestoreThread(gil->thread);
    int raised = PyErr_CheckSignals();
    gil->thread = PyEval_SaveThread();
    return raised != 0;
}

static int read_counts(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t expected, uint64_t *counts) {
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

static int read_patience(PyObject *seconds, shm_patience *patience) {
    double limit = PyFloat_AsDouble(seconds);
    if (limit == -1.0 && PyErr_Occurred())
        return -1;
    if (!(limit < 1e9)) /* thirty years; also what a NaN becomes */
        limit = 1e9;
    patience->deadline_ns = shm_now_ns() + (int64_t)(limit * 1e9);
    patience->interrupted = interrupted;
    return 0;
}

static PyObject *answer(shm_status status) {
    return status == SHM_INTERRUPTED ? NULL : PyLong_FromLong((long)status);
}

/* all_reduce(group, address, numel, reduce_op, timeout_s) -> status */
static PyObject *py_all_reduce(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    uint64_t counts[4];
    shm_patience patience;
    shm_group *group;
    if (read_counts(args, nargs, 5, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[4], &patience) < 0)
        return NULL;
    if (counts[3] > SHM_MAX) {
        PyErr_SetString(PyExc_ValueError, "unknown reduce op");
        return NULL;
    }
    shm_header header = {.numel = counts[2], .reduce_op = (uint32_t)counts[3]};
    released gil = {PyEval_SaveThread()};
    patience.context = &gil;
    shm_status status = shm_all_reduce_f32(group, (float *)(uintptr_t)counts[1], header, &patience);
    PyEval_RestoreThread(gil.thread);
    return answer(status);
}

/* agree(group, op, dtype, reduce_op, numel, refusal, timeout_s) -> status */
static PyObject *py_agree(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    uint64_t counts[6];
    shm_patience patience;
    shm_group *group;
    if (read_counts(args, nargs, 7, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[6], &patience) < 0)
        return NULL;
    shm_header header = {.op = (uint32_t)counts[1],
                         .dtype = (uint32_t)counts[2],
                         .reduce_op = (uint32_t)counts[3],
                         .numel = counts[4],
                         .refusal = (uint32_t)counts[5]};
    released gil = {PyEval_SaveThread()};
    patience.context = &gil;
    shm_status status = shm_agree(group, header, &patience);
    PyEval_RestoreThread(gil.thread);
    return answer(status);
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
    const shm_control *control = &group->controls[rank];
    int behind = shm_behind(group, rank);
    shm_header said = control->header[(behind > 0 ? group->step - (uint32_t)behind : group->step) & 1];
    return Py_BuildValue("(iiiKIIIKI)", behind, shm_dead(group, rank), (int)atomic_load(&group->controls[rank].left),
                         (unsigned long long)said.serial, said.op, said.dtype, said.reduce_op,
                         (unsigned long long)said.numel, said.refusal);
}

/* states(group) -> per rank: (steps behind, dead, left, serial, op, dtype, reduce_op, numel, refusal) */
static PyObject *py_states(PyObject *module, PyObject *capsule) {
    (void)module;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    PyObject *all = PyList_New(0);
    uint32_t world = group->closed || group->owner != getpid() ? 0 : group->world;
    for (uint32_t rank = 0; all != NULL && rank < world; rank++) {
        PyObject *one = describe_rank(group, rank);
        if (one == NULL || PyList_Append(all, one) < 0)
            Py_CLEAR(all);
        Py_XDECREF(one);
    }
    return all;
}

/* broken(group) -> (status, rank) of the first failure, (0, 0) when there is none */
static PyObject *py_broken(PyObject *module, PyObject *capsule) {
    (void)module;
    shm_group *group = group_of(capsule);
    if (group == NULL)
        return NULL;
    uint32_t word = group->closed || group->owner != getpid() ? 0 : shm_broken(group);
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

static PyMethodDef methods[] = {
    {"all_reduce", (PyCFunction)(void (*)(void))py_all_reduce, METH_FASTCALL, NULL},
    {"agree", (PyCFunction)(void (*)(void))py_agree, METH_FASTCALL, NULL},
    {"open_group", py_open_group, METH_VARARGS, NULL},
    {"close_group", py_close_group, METH_O, NULL},
    {"states", py_states, METH_O, NULL},
    {"broken", py_broken, METH_O, NULL},
    {"segment_bytes", py_segment_bytes, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "comm_shm._native",
    .m_doc = "Shared-memory collectives between the ranks of one machine; see shm.h for the protocol.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
