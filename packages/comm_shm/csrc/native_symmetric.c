/* The door from Python to memory that all ranks have mapped, and to the collectives on it. */
#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>
#include <sys/mman.h>
#include <unistd.h>

/* A mapped file as an object with a buffer: tensors made from it keep it, and it is unmapped with the last of them. */
typedef struct {
    PyObject_HEAD
    void *at;
    Py_ssize_t bytes;
    PyObject *weak;
} mapping;

static void unmap(PyObject *self) {
    mapping *mapped = (mapping *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (mapped->weak != NULL)
        PyObject_ClearWeakRefs(self);
    if (mapped->at != NULL)
        munmap(mapped->at, (size_t)mapped->bytes);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static int expose(PyObject *self, Py_buffer *view, int flags) {
    mapping *mapped = (mapping *)self;
    return PyBuffer_FillInfo(view, self, mapped->at, mapped->bytes, 0, flags);
}

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(mapping, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot mapping_slots[] = {
    {Py_tp_dealloc, unmap},
    {Py_tp_members, members},
    {Py_bf_getbuffer, expose},
    {Py_tp_doc, "Memory of a file; see map_memory."},
    {0, NULL},
};

static PyType_Spec mapping_spec = {
    .name = "comm_shm._native.Mapping",
    .basicsize = sizeof(mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = mapping_slots,
};

/* map_memory(module's Mapping, fd, bytes) -> Mapping. A forked child has it too: it is memory of the tensors it has. */
static PyObject *py_map_memory(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *type;
    int fd;
    Py_ssize_t bytes;
    if (!PyArg_ParseTuple(args, "Oin", &type, &fd, &bytes))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    mapping *mapped = (mapping *)allocate((PyTypeObject *)type, 0);
    if (mapped == NULL)
        return NULL;
    void *at = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(mapped);
        return NULL;
    }
    mapped->at = at;
    mapped->bytes = bytes;
    return (PyObject *)mapped;
}

/* (group, op, dtype, numel, detail, rank 0's buffer, stride, out, width or reduce_op, timeout_s) */
static PyObject *on_buffers(PyObject *const *args, Py_ssize_t nargs, shm_collective *collective, int reduces) {
    uint64_t counts[9];
    shm_patience patience;
    shm_group *group;
    if (read_counts(args, nargs, 10, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[9], &patience) < 0 || (reduces && check_reduction(counts[2], counts[8]) < 0))
        return NULL;
    shm_buffers buffers = {(unsigned char *)(uintptr_t)counts[5], (size_t)counts[6]};
    shm_call call = {.header = {.op = (uint32_t)counts[1],
                                .dtype = (uint32_t)counts[2],
                                .numel = counts[3],
                                .detail = counts[4],
                                .reduce_op = reduces ? (uint32_t)counts[8] : 0},
                     .buffers = &buffers,
                     .out = (unsigned char *)(uintptr_t)counts[7],
                     .width = reduces ? shm_width((uint32_t)counts[2]) : (size_t)counts[8]};
    if (check_memory(call.header.numel, call.out, call.out) < 0)
        return NULL;
    return perform_at_once(group, collective, &call, &patience);
}

#define ON_BUFFERS(name, reduces)                                                            \
    static PyObject *py_##name(PyObject *module, PyObject *const *args, Py_ssize_t nargs) { \
        (void)module;                                                                       \
        return on_buffers(args, nargs, shm_##name, reduces);                                \
    }

ON_BUFFERS(one_shot_all_reduce, 1)
ON_BUFFERS(two_shot_all_reduce, 1)
ON_BUFFERS(symmetric_all_gather, 0)
ON_BUFFERS(symmetric_reduce_scatter, 1)

/* signal(group, address of the channel, timeout_s) -> status; it never waits */
static PyObject *py_signal(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    uint64_t counts[2];
    shm_group *group;
    if (read_counts(args, nargs, 3, counts) < 0 || (group = group_of(args[0])) == NULL)
        return NULL;
    return PyLong_FromLong((long)shm_signal(group, (shm_channel *)(uintptr_t)counts[1]));
}

typedef struct {
    shm_call call; /* first: what is passed on is its address */
    uint32_t from;
    shm_channel *channel;
} taking;

static shm_status take_signal(shm_group *group, shm_call *call, const shm_patience *patience) {
    taking *wanted = (taking *)(void *)call;
    return shm_take_signal(group, wanted->from, wanted->channel, patience);
}

/* take_signal(group, address of the channel, rank that sends, timeout_s) -> status */
static PyObject *py_take_signal(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    uint64_t counts[3];
    shm_patience patience;
    shm_group *group;
    if (read_counts(args, nargs, 4, counts) < 0 || (group = group_of(args[0])) == NULL ||
        read_patience(args[3], &patience) < 0)
        return NULL;
    taking wanted = {.from = (uint32_t)counts[2], .channel = (shm_channel *)(uintptr_t)counts[1]};
    return perform(group, take_signal, &wanted.call, &patience);
}

static PyMethodDef functions[] = {
    {"map_memory", py_map_memory, METH_VARARGS, NULL},
    {"one_shot_all_reduce", (PyCFunction)(void (*)(void))py_one_shot_all_reduce, METH_FASTCALL, NULL},
    {"two_shot_all_reduce", (PyCFunction)(void (*)(void))py_two_shot_all_reduce, METH_FASTCALL, NULL},
    {"symmetric_all_gather", (PyCFunction)(void (*)(void))py_symmetric_all_gather, METH_FASTCALL, NULL},
    {"symmetric_reduce_scatter", (PyCFunction)(void (*)(void))py_symmetric_reduce_scatter, METH_FASTCALL, NULL},
    {"signal", (PyCFunction)(void (*)(void))py_signal, METH_FASTCALL, NULL},
    {"take_signal", (PyCFunction)(void (*)(void))py_take_signal, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int add_symmetric(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &mapping_spec, NULL);
    if (type == NULL || PyModule_AddFunctions(module, functions) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
