/* all_reduce from a tensor, without Python code between c10d's call and the collective.
 *
 * torch offers the place, dtype and strides of a tensor to C in one call, through the exchange API that the DLPack
 * specification describes (dlpack.h, version 1.2 and later). The structures below are those of that specification.
 */
#define _GNU_SOURCE
#include "door.h"

typedef struct {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} tensor_view;

typedef struct {
    uint32_t major, minor;
    void *previous;
    void (*not_used[3])(void);
    int (*view_of)(void *tensor, tensor_view *view);
} exchange_api;

enum { CPU = 1, INT = 0, UINT = 1, FLOAT = 2, BFLOAT = 4, COMPLEX = 5, BOOLEAN = 6 };

#define NOT_PLAIN (-1) /* answered to Python, which then goes the long way */

static struct {
    const exchange_api *api;
    PyObject *tensor, *parameter, *is_neg, *is_conj, *reduce_op, *async_op, *timeout, *no_time;
} known;

/* Once in a process, and kept: they are asked for in every call. */
static int know_names(PyObject *tensor, PyObject *parameter, PyObject *no_time) {
    known.is_neg = PyObject_GetAttrString(tensor, "is_neg");
    known.is_conj = PyObject_GetAttrString(tensor, "is_conj");
    known.reduce_op = PyUnicode_InternFromString("reduceOp");
    known.async_op = PyUnicode_InternFromString("asyncOp");
    known.timeout = PyUnicode_InternFromString("timeout");
    if (PyErr_Occurred())
        return -1;
    Py_INCREF(tensor);
    Py_INCREF(parameter);
    Py_INCREF(no_time);
    known.tensor = tensor;
    known.parameter = parameter;
    known.no_time = no_time;
    return 0;
}

/* know_tensors(capsule, Tensor, Parameter, timedelta(0)): True when this torch's tensors can be looked into */
PyObject *py_know_tensors(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *tensor, *parameter, *no_time;
    if (!PyArg_ParseTuple(args, "OOOO", &capsule, &tensor, &parameter, &no_time))
        return NULL;
    const exchange_api *api = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    if (api == NULL)
        return NULL;
    if (api->major != 1 || api->view_of == NULL)
        Py_RETURN_FALSE;
    if (known.no_time == NULL && know_names(tensor, parameter, no_time) < 0)
        return NULL;
    known.api = api;
    Py_RETURN_TRUE;
}

static uint32_t kind_of(const tensor_view *view) {
    static const struct {
        uint8_t code, bits, kind;
    } kinds[] = {{FLOAT, 32, SHM_F32}, {BFLOAT, 16, SHM_BF16}, {FLOAT, 64, SHM_F64},    {FLOAT, 16, SHM_F16},
                 {INT, 64, SHM_I64},   {INT, 32, SHM_I32},     {INT, 16, SHM_I16},      {INT, 8, SHM_I8},
                 {UINT, 8, SHM_U8},    {BOOLEAN, 8, SHM_BOOL}, {COMPLEX, 64, SHM_C64},  {COMPLEX, 128, SHM_C128},
                 {UINT, 16, SHM_U16},  {UINT, 32, SHM_U32},    {UINT, 64, SHM_U64}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].code == view->code && kinds[i].bits == view->bits && view->lanes == 1)
            return kinds[i].kind;
    return SHM_KINDS;
}

/* How many elements there are, one after the other in memory; -1 when they are not. */
static int64_t run_of(const tensor_view *view) {
    int64_t numel = 1, packed = 1;
    for (int32_t dim = 0; dim < view->ndim; dim++)
        numel *= view->shape[dim];
    for (int32_t dim = view->ndim - 1; dim >= 0 && numel != 0; dim--) {
        if (view->shape[dim] != 1 && view->strides != NULL && view->strides[dim] != packed)
            return -1;
        packed *= view->shape[dim];
    }
    return numel;
}

/* 1 or 0; a tensor for which that cannot be said is taken the long way as well */
static int says_yes(PyObject *method, PyObject *tensor) {
    PyObject *answer = PyObject_CallFunctionObjArgs(method, tensor, NULL);
    int yes = answer != Py_False;
    Py_XDECREF(answer);
    return yes;
}

/* Whether the call is to be finished when it returns, in the group's own time. */
static int plain_options(PyObject *options) {
    PyObject *async_op = PyObject_GetAttr(options, known.async_op);
    PyObject *timeout = async_op == Py_False ? PyObject_GetAttr(options, known.timeout) : NULL;
    int plain = timeout != NULL && PyObject_RichCompareBool(timeout, known.no_time, Py_GT) == 0;
    Py_XDECREF(async_op);
    Py_XDECREF(timeout);
    return plain;
}

/* A ReduceOp's hash is its kind; the Python side has made sure of that. */
static long reduce_op_of(PyObject *options) {
    PyObject *op = plain_options(options) ? PyObject_GetAttr(options, known.reduce_op) : NULL;
    if (op == NULL)
        return NOT_PLAIN;
    Py_hash_t code = PyObject_Hash(op);
    Py_DECREF(op);
    return code >= SHM_SUM && code < SHM_PREMUL_SUM ? (long)code : NOT_PLAIN;
}

static int describe(PyObject *tensors, PyObject *options, shm_call *call) {
    PyObject *tensor = tensors;
    if (PyList_Check(tensors) && PyList_Size(tensors) == 1)
        tensor = PyList_GetItem(tensors, 0); /* borrowed */
    PyObject *type = (PyObject *)Py_TYPE(tensor);
    tensor_view view;
    if (known.api == NULL || (type != known.tensor && type != known.parameter) ||
        known.api->view_of(tensor, &view) != 0)
        return NOT_PLAIN;
    uint32_t kind = view.device_type == CPU ? kind_of(&view) : SHM_KINDS;
    int64_t numel = run_of(&view);
    long op = reduce_op_of(options);
    int floating = view.code == FLOAT || view.code == BFLOAT || view.code == COMPLEX;
    if (op < 0 || numel < 0 || (view.data == NULL && numel != 0) || !shm_reduces(kind, (uint32_t)op) || (floating && says_yes(known.is_neg, tensor)) ||
        (view.code == COMPLEX && says_yes(known.is_conj, tensor)))
        return NOT_PLAIN;
    call->header.numel = (uint64_t)numel;
    call->header.dtype = kind;
    call->header.reduce_op = (uint32_t)op;
    call->out = (unsigned char *)view.data + view.byte_offset;
    call->width = shm_width(kind);
    return 0;
}

/* all_reduce_tensor(group, tensor or [tensor], options, timeout_s) -> status, or -1: nothing was done, this is no
 * synchronous call with a dense CPU tensor of a dtype and with a reduce op that the core has */
PyObject *py_all_reduce_tensor(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    shm_patience patience;
    shm_group *group;
    shm_call call = {0};
    if (nargs != 4) {
        PyErr_Format(PyExc_TypeError, "4 arguments expected, got %zd", nargs);
        return NULL;
    }
    if ((group = group_of(args[0])) == NULL || read_patience(args[3], &patience) < 0)
        return NULL;
    if (describe(args[1], args[2], &call) != 0) {
        PyErr_Clear();
        return PyLong_FromLong(NOT_PLAIN);
    }
    return perform_at_once(group, shm_all_reduce, &call, &patience);
}
