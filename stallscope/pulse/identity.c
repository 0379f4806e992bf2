/* Which handler a callback is: from the id of its code object (of its coroutine's, for a task's step) to the cell index of
 * its histogram. The agent is asked once for each, and every time where there is no such key. */
#include "pulse.h"
#include "python.h"
#include "runner.h"

#define PLACES_BITS 11
#define PLACES (1u << PLACES_BITS)
#define KNOWN_AT_MOST (PLACES / 2)  /* their keys are kept alive */
#define STEP UINT64_MAX             /* in place of a base: callbacks of this type are steps of a task, their __self__ */

static struct {
    void *key;  /* owned, or its id could be given again; NULL: free */
    uint64_t base;
} known[PLACES];
static unsigned known_count;

static void *name_self, *name_func, *name_partial, *name_code, *name_cr_code, *name_gi_code;

static unsigned place_of(const void *key)
{
    unsigned place = (unsigned)(((uintptr_t)key >> 4) * 0x9E3779B97F4A7C15ull >> (64 - PLACES_BITS));
    while (known[place].key != NULL && known[place].key != key)
        place = (place + 1) % PLACES;
    return place;
}

static uint64_t base_of(const void *key)
{
    unsigned place = place_of(key);
    return known[place].key != NULL ? known[place].base : 0;
}

static void remember(void *key, uint64_t base)
{
    unsigned place = place_of(key);
    if (known[place].key != NULL || known_count >= KNOWN_AT_MOST)
        return;
    py._IncRef(key);
    known[place].key = key;
    known[place].base = base;
    known_count++;
}

void identities_forget(void)
{
    known_count = 0;
    for (unsigned place = 0; place < PLACES; place++) {
        void *key = known[place].key;
        known[place].key = NULL;
        py._DecRef(key);
    }
}

/* --- keys: types are compared exactly, so that no code of the program's runs -------------------------------------------- */

static void *type_of(void *object)
{
    void *type = py.Object_Type(object);
    py._DecRef(type);  /* the object has its own reference */
    return type;
}

static void *key_of_coroutine(void *coroutine)
{
    void *type = type_of(coroutine);
    if (type == asyncio.coroutine || type == asyncio.generator)
        return py.Object_GetAttr(coroutine, type == asyncio.coroutine ? name_cr_code : name_gi_code);
    py._IncRef(type);
    return type;
}

static void *key_of_task(void *task)
{
    void *key = NULL, *coroutine = py.Object_CallFunctionObjArgs(asyncio.get_coro, task, NULL);
    if (coroutine != NULL) {
        key = key_of_coroutine(coroutine);
        py._DecRef(coroutine);
    }
    return key;
}

static void *key_of_step(void *callback)
{
    void *key = NULL, *task = py.Object_GetAttr(callback, name_self);
    if (task != NULL) {
        if (py.Type_IsSubtype(type_of(task), asyncio.task))
            key = key_of_task(task);
        py._DecRef(task);
    }
    return key;
}

/* Of the function inside a method or a partial. */
static void *key_within(void *callback, void *name)
{
    void *key = NULL, *inner = py.Object_GetAttr(callback, name);
    if (inner != NULL) {
        if (type_of(inner) == asyncio.function)
            key = py.Object_GetAttr(inner, name_code);
        py._DecRef(inner);
    }
    return key;
}

/* What tells this callback from others, as a new reference; NULL: only the agent can say. */
static void *key_of(void *callback)
{
    void *key = NULL, *type = type_of(callback);
    if (type == asyncio.builtin || base_of(type) == STEP)
        key = key_of_step(callback);
    else if (type == asyncio.function)
        key = py.Object_GetAttr(callback, name_code);
    else if (type == asyncio.method)
        key = key_within(callback, name_func);
    else if (type == asyncio.partial)
        key = key_within(callback, name_partial);
    if (key == NULL && py.Err_Occurred() != NULL)
        py.Err_Clear();
    return key;
}

/* --- asking --------------------------------------------------------------------------------------------------------------- */

static bool base_by_agent(void *callback, uint64_t *base)
{
    void *answer = asked(asyncio.identify, callback);
    if (answer == NULL)
        return false;
    *base = answer == py.None ? STEP : py.Long_AsUnsignedLongLong(answer);
    py._DecRef(answer);
    if (py.Err_Occurred() != NULL) {  /* no number */
        py.Err_Clear();
        *base = 0;
    }
    return true;
}

static bool looked_up(void *callback, uint64_t *base)
{
    void *key = key_of(callback);
    *base = key != NULL ? base_of(key) : 0;
    bool well = *base != 0 || base_by_agent(callback, base);
    if (well && armed && key != NULL && *base != 0 && *base != STEP)
        remember(key, *base);
    py._DecRef(key);
    return well;
}

/* A type that proves to be a step's is known from then on. */
bool identified(void *callback, uint64_t *base)
{
    if (!looked_up(callback, base))
        return false;
    if (*base == STEP && armed) {
        remember(type_of(callback), STEP);
        if (!looked_up(callback, base))
            return false;
    }
    if (*base == STEP)
        *base = 0;
    return true;
}

bool identities_begin(void)
{
    return named(&name_self, "__self__") && named(&name_func, "__func__") && named(&name_partial, "func") &&
           named(&name_code, "__code__") && named(&name_cr_code, "cr_code") && named(&name_gi_code, "gi_code");
}
